"""Weights from and to PyTorch: every kind of layer, copies, dtypes, gradients."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import interop, net
from tests.checks import assert_close

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # arrays are tiny
torch.manual_seed(0)
nn = torch.nn


def randomized(module):
    """`module` in float64, with no zeros and ones in it, which would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for key, value in module.double().state_dict().items():
        if value.is_floating_point():
            noise = 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value += noise.abs() if key.endswith("running_var") else noise
    return module


def images(seed, count, image_shape):
    return np.random.default_rng(seed).standard_normal((count, *image_shape))


def of_torch(module, x, train):
    """The module's output for images channels last, channels last; the module stays as it is."""
    with torch.no_grad():
        y = copy.deepcopy(module).train(train)(torch.from_numpy(interop.images_to_torch(x)))
    return y.movedim(1, -1).numpy()


class OfPixels(nn.Module):
    """A module for channels last, on images channels first."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


class LayerScale(nn.Module):
    def __init__(self, channels, axes, name):
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.ones(channels, *(1,) * axes)))

    def forward(self, x):
        return x * getattr(self, self.name).view(-1, 1, 1)


class BetweenFlattenAndDense(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm1d(60)
        tail = nn.PReLU(60), nn.LayerNorm(60), nn.PReLU(), nn.ReLU(), nn.Linear(60, 4), nn.BatchNorm1d(4)
        self.tail = nn.Sequential(*tail)

    def forward(self, x):
        return self.tail(self.norm(self.conv(x).flatten(1)) + x.flatten(1))


class Standardized(nn.Conv2d):
    def forward(self, x):
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        return nn.functional.conv2d(x, (self.weight - mean) / torch.sqrt(var + 1e-5), self.bias, padding=1)


KINDS = {  # net, module, shape of an image
    "conv 1d": (net.conv(4, 3, stride=2, padding=1), nn.Conv1d(3, 4, 3, 2, 1), (8, 3)),
    "conv 2d": (
        net.conv(6, (2, 3), padding=(0, 1), dilation=2, groups=2),
        nn.Conv2d(4, 6, (2, 3), padding=(0, 1), dilation=2, groups=2),
        (7, 8, 4),
    ),
    "conv 3d": (
        net.conv(4, (1, 2, 3), padding=0, bias=False),
        nn.Conv3d(2, 4, (1, 2, 3), bias=False),
        (3, 4, 5, 2),
    ),
    "standardized": (net.standardized(net.conv(2, 3)), Standardized(3, 2, 3), (5, 4, 3)),
    "transposed 1d": (net.conv_transpose(4, 3, padding=0), nn.ConvTranspose1d(3, 4, 3), (5, 3)),
    "transposed 2d": (
        net.conv_transpose(6, (2, 3), groups=2, stride=2, padding=(0, 1), output_padding=1),
        nn.ConvTranspose2d(4, 6, (2, 3), 2, (0, 1), output_padding=1, groups=2),
        (4, 5, 4),
    ),
    "dense": (net.dense(4), OfPixels(nn.Linear(3, 4)), (5, 6, 3)),
    "flatten": (
        jcnn.chain(jcnn.flatten, net.dense(4, bias=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(60, 4, bias=False)),
        (4, 5, 3),
    ),
    "flatten 1d": (
        jcnn.chain(net.flatten(), net.dense(4), net.dense(5)),
        nn.Sequential(nn.Flatten(), nn.Linear(15, 4), nn.Linear(4, 5)),
        (5, 3),
    ),
    "between flatten and dense": (
        jcnn.chain(
            jcnn.residual(jcnn.chain(net.conv(3, 1), net.flatten(), net.batch_norm()), net.flatten()),
            *[net.prelu(), net.layer_norm(), net.prelu(shared=True), jcnn.relu, net.dense(4)],
            *[net.batch_norm()],
        ),
        BetweenFlattenAndDense(),
        (4, 5, 3),
    ),
    "batch norm": (net.batch_norm(), nn.BatchNorm2d(3), (5, 6, 3)),
    "layer norm": (net.layer_norm(), OfPixels(nn.LayerNorm(3)), (5, 6, 3)),
    "rms norm": (net.rms_norm(), OfPixels(nn.RMSNorm(3, eps=1e-5)), (5, 6, 3)),
    "group norm": (net.group_norm(2), nn.GroupNorm(2, 4), (5, 6, 4)),
    "instance norm": (net.instance_norm(), nn.InstanceNorm2d(3, affine=True), (5, 6, 3)),
    "prelu": (net.prelu(), nn.PReLU(3), (5, 6, 3)),
    "shared prelu": (net.prelu(shared=True), nn.PReLU(), (5, 6, 3)),
    "layer scale": (net.layer_scale(), LayerScale(3, 2, "layer_scale"), (5, 6, 3)),
    "layer scale of vectors": (net.layer_scale(), LayerScale(3, 0, "gamma"), (5, 6, 3)),
}


@pytest.mark.parametrize("name", KINDS)
def test_outputs_are_those_of_torch_and_the_way_back_is_exact(name):
    model, module, shape = KINDS[name]
    module = randomized(copy.deepcopy(module))
    state_dict, x = module.state_dict(), images(1, 3, shape)
    params, state = interop.from_torch(model, state_dict, shape)
    for train in (False, True):
        y, _ = model.apply(params, state, jnp.asarray(x), train=train)
        assert_close(y, of_torch(module, x, train), 1e-12, f"train={train}")

    back = interop.to_torch(model, params, state, shape, like=state_dict)
    assert list(back) == list(state_dict)
    for key, value in state_dict.items():
        assert back[key].dtype == value.dtype
        assert torch.equal(back[key], value), key
    module.load_state_dict(back)


class SqueezeExcitation(nn.Module):
    """As torchvision's, of convolutions 1x1."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


def test_dense_layers_may_be_convolutions_of_one_pixel_if_they_are_named():
    module, x = randomized(SqueezeExcitation(6, 2)), images(6, 3, (4, 5, 6))
    model, names = net.squeeze_excitation(6, ratio=3), {"0.1": "fc1", "0.3": "fc2"}
    params, state = interop.from_torch(model, module.state_dict(), (4, 5, 6), names=names)
    y, _ = model.apply(params, state, jnp.asarray(x), train=False)
    assert_close(y, of_torch(module, x, False), 1e-12, "output")
    back = interop.to_torch(model, params, state, (4, 5, 6), like=module.state_dict(), names=names)
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())
    with pytest.raises(ValueError, match=r"got 2 modules of kind 'convolution' .* 'fc1', 'fc2', expected 0"):
        interop.from_torch(model, module.state_dict(), (4, 5, 6))
    larger = module.state_dict() | {"fc1.weight": torch.ones(2, 6, 1, 3)}
    with pytest.raises(ValueError, match=r"got shape \(2, 6, 1, 3\) of 'weight' of .*, expected \(2, 6\)"):
        interop.from_torch(model, larger, (4, 5, 6), names=names)


def test_running_variance_of_torch_is_unbiased():
    model, module = net.batch_norm(momentum=interop.momentum(0.2)), nn.BatchNorm2d(3, momentum=0.2)
    x = images(3, 2, (4, 5, 3))
    params, state = interop.from_torch(model, module.double().state_dict(), (4, 5, 3))
    _, after = model.apply(params, state, jnp.asarray(x), train=True)
    module.train()(torch.from_numpy(interop.images_to_torch(x)))
    n = 2 * 4 * 5
    assert_close(after["mean"], module.running_mean.numpy(), 1e-12, "mean")
    assert_close((after["var"] - 0.8) * n / (n - 1), module.running_var.numpy() - 0.8, 1e-12, "variance")


def test_values_are_copied_both_ways():
    model, module = net.batch_norm(), nn.BatchNorm2d(64).double()
    params, state = interop.from_torch(model, module.state_dict(), (2, 2, 64))
    back = interop.to_torch(model, params, state, (2, 2, 64), like=module.state_dict())
    with torch.no_grad():
        for value in [*module.state_dict().values(), *back.values()]:
            value.add_(1)
    start = model.init(jax.random.key(0), (2, 2, 64))
    assert_close((params, state), start, 0, "after the module has changed")
    assert float(module.running_var[0]) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes_are_kept(dtype):
    model = jcnn.chain(net.conv(3, 2, bias=False), net.batch_norm())
    module = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3)).to(dtype)
    params, state = interop.from_torch(model, module.state_dict(), (4, 4, 2))
    assert {str(a.dtype) for a in jax.tree.leaves((params, state))} == {str(dtype).removeprefix("torch.")}
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, state))
    for trees in ((params, state), wide):  # the dtypes of like are kept
        back = interop.to_torch(model, *trees, (4, 4, 2), like=module.state_dict())
        assert all(back[key].dtype == a.dtype for key, a in module.state_dict().items())
        assert all(torch.equal(back[key], a) for key, a in module.state_dict().items())


def test_gradients_can_be_converted_as_weights_are():
    model = jcnn.chain(net.conv(4, 3, padding=1), net.batch_norm(), jcnn.tanh, net.flatten(), net.dense(3))
    inner = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(80, 3)
    module, x = randomized(nn.Sequential(*inner)), images(5, 2, (4, 5, 2))
    params, state = interop.from_torch(model, module.state_dict(), (4, 5, 2))
    module.train()(torch.from_numpy(interop.images_to_torch(x))).square().sum().backward()

    @jax.jit
    @jax.grad
    def gradient(params):
        return (model.apply(params, state, jnp.asarray(x), train=True)[0] ** 2).sum()

    back = interop.to_torch(model, gradient(params), state, (4, 5, 2), like=module.state_dict())
    for key, parameter in module.named_parameters():
        assert torch.allclose(back[key], parameter.grad, rtol=1e-9, atol=1e-10), key
