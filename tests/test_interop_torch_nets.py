"""Nets of PyTorch as jcnn's: outputs in inference and in training, and the weights after training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import interop, models, net
from tests.checks import assert_close
from tests.test_interop_torch import OfPixels, images, nn, of_torch, randomized, torch


def train_torch(module, x, labels, rate):
    module.train()
    sgd = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
    for batch, classes in zip(x, labels, strict=True):
        sgd.zero_grad()
        logits = module(torch.from_numpy(interop.images_to_torch(batch)))
        nn.functional.cross_entropy(logits, torch.from_numpy(classes)).backward()
        sgd.step()


def train_jcnn(model, params, state, x, labels, rate):
    def loss(params, state, batch, classes):
        logits, state = model.apply(params, state, batch, train=True)
        return jcnn.softmax_cross_entropy(logits, classes).mean(), state

    def step(carry, batch):
        params, velocity, state = carry
        grads, state = jax.grad(loss, has_aux=True)(params, state, *batch)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        return (jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity, state), None

    start = (params, jax.tree.map(jnp.zeros_like, params), state)
    (params, _, state), _ = jax.jit(lambda: jax.lax.scan(step, start, (x, labels)))()
    return params, state


class SmallCNN(nn.Module):
    """Defined in another order than it runs in."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4 * 2 * 3, 3)
        self.conv2, self.conv1 = nn.Conv2d(5, 4, 3, stride=2, padding=1), nn.Conv2d(2, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(5, momentum=0.2)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn(self.conv1(x))), 2)
        return self.fc(torch.relu(self.conv2(x)).flatten(1))


SMALL = jcnn.chain(
    *[net.conv(5, 3, padding=1), net.batch_norm(momentum=interop.momentum(0.2)), jcnn.relu, net.max_pool(2)],
    *[net.conv(4, 3, stride=2, padding=1), jcnn.relu, net.flatten(), net.dense(3)],
)
SMALL_NAMES = {"0": "conv1", "4": "conv2"}  # bn and fc are the only ones of their kind
SMALL_SHAPE = (8, 10, 2)


class Block(nn.Module):
    """As torchvision's BasicBlock, names included."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or before != width:
            shortcut = nn.Conv2d(before, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """As torchvision's, for any width."""

    def __init__(self, classes, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = width
        for i in range(4):
            after = width * 2**i
            stage = nn.Sequential(Block(before, after, 2 if i else 1), Block(after, after, 1))
            setattr(self, f"layer{i + 1}", stage)
            before = after
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


NETS = {  # net, module, names, shape of an image, learning rate
    "small": (SMALL, SmallCNN, SMALL_NAMES, SMALL_SHAPE, 0.05),
    "resnet18": (
        models.resnet(3, stem="imagenet", width=4),
        lambda: ResNet18(3, 4),
        None,
        (48, 48, 3),  # 2x2 pixels at last: batch norm of 4 values alone would make the steps chaotic
        0.02,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_twenty_steps_of_training_give_the_weights_of_torch(name):
    model, make, names, shape, rate = NETS[name]
    torch.manual_seed(0)
    module, like = randomized(make()), make().double().state_dict()
    params, state = interop.from_torch(model, module.state_dict(), shape, names=names)
    x, labels = images(2, 20 * 4, shape).reshape(20, 4, *shape), np.arange(80).reshape(20, 4) % 3
    for train in (False, True):
        y, _ = jax.jit(model.apply, static_argnames="train")(params, state, x[0], train=train)
        assert_close(y, of_torch(module, x[0], train), 1e-10, f"train={train}")

    start = {key: value.clone() for key, value in module.state_dict().items()}
    train_torch(module, x, labels, rate)
    params, state = train_jcnn(model, params, state, x, labels, rate)
    ours, theirs = interop.to_torch(model, params, state, shape, like=like, names=names), module.state_dict()
    assert list(ours) == list(theirs)
    moved = [float((theirs[key] - start[key]).abs().max()) for key in ours if key.endswith("weight")]
    assert min(moved) > 1e-3
    for key in ours:
        if not key.endswith(("running_var", "num_batches_tracked")):
            assert float((ours[key] - theirs[key]).abs().max()) < 1e-8, key


def test_names_show_how_layers_and_modules_are_paired():
    model, make, _, shape, _ = NETS["resnet18"]
    state_dict = make().state_dict()
    names = interop.torch_names(model, state_dict, shape)
    assert (names["0"], names["1"], names[str(len(model.children) - 1)]) == ("conv1", "bn1", "fc")
    stage2 = {path: name for path, name in names.items() if name.startswith("layer2.0")}
    assert list(stage2.values()) == [
        *["layer2.0.conv1", "layer2.0.bn1", "layer2.0.conv2", "layer2.0.bn2"],
        *["layer2.0.downsample.0", "layer2.0.downsample.1"],
    ]
    assert [path.split(".", 1)[1] for path in stage2] == ["0.0", "0.1", "0.3", "0.4", "1.0", "1.1"]
    assert interop.torch_names(model, state_dict, shape, names=names) == names


class ConvNeXtBlock(nn.Module):
    """As torchvision's, whose state dict has the layer scale first."""

    def __init__(self, width):
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(width, 1, 1))
        inner = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU()
        pixels = OfPixels(nn.Sequential(*inner, nn.Linear(4 * width, width)))
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), pixels)

    def forward(self, x):
        return x + self.layer_scale * self.block(x)


def test_convnext_is_that_of_torch():
    norm = OfPixels(nn.LayerNorm(4, eps=1e-6))
    down = OfPixels(nn.LayerNorm(4, eps=1e-6)), nn.Conv2d(4, 6, 2, 2)
    stages = nn.Conv2d(3, 4, 2, 2), norm, ConvNeXtBlock(4), *down, ConvNeXtBlock(6)
    head = nn.Flatten(), nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 3)
    module = randomized(nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), *head))
    model, shape = models.convnext(3, widths=(4, 6), blocks=(1, 1), patch=2, kernel=3), (8, 12, 3)
    x = images(4, 2, shape)
    params, state = interop.from_torch(model, module.state_dict(), shape)
    y, _ = jax.jit(lambda x: model.apply(params, state, x, train=False))(x)
    assert_close(y, of_torch(module, x, False), 1e-10, "convnext")
    assert interop.torch_names(model, module.state_dict(), shape)["2.0.5"] == "2"
