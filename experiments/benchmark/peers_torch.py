"""The ops in PyTorch: eager, channels last in memory, and compiled by `torch.compile`.

Images are [N, C, *S] views of [N, *S, C] memory, weights [O, C/groups, *K] in the same memory format, as
`model.to(memory_format=torch.channels_last)` makes them, so nothing is converted while it is timed. There
is no such format for one spatial axis: those images are contiguous. On a GPU everything is there, and
waited for.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmark.cases import Case
from experiments.benchmark.contestants import Contestant, to_first, to_last
from experiments.benchmark.timing import Call

GPU = torch.cuda.is_available()
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}

torch.set_num_threads(os.cpu_count() or 1)
if GPU:
    torch.set_float32_matmul_precision("high")  # TF32, as JAX by default
    torch.backends.cudnn.benchmark = True  # choose kernels by timing, as XLA does


def conv(x, w, *, stride, padding, padding_mode, dilation, groups):
    if padding_mode != "zeros":
        around = [p for p in reversed(padding) for _ in range(2)]
        x = F.pad(x, around, {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[padding_mode])
        padding = 0
    f = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return f(x, w, None, stride, padding, dilation, groups)


def conv_transpose(x, w, *, stride, padding):
    return F.conv_transpose2d(x, w, None, stride, padding)


def max_pool(x, *, window, stride, padding):
    return F.max_pool2d(x, window, stride, padding)


def avg_pool(x, *, window, stride, padding):
    return F.avg_pool2d(x, window, stride, padding, count_include_pad=False)


def lp_pool(x, *, window, stride, padding, p):
    assert not padding  # LPPool2d has none
    return F.lp_pool2d(x, p, window, stride)


def adaptive_avg_pool(x, *, output_size):
    return F.adaptive_avg_pool2d(x, output_size)


def adaptive_max_pool(x, *, output_size):
    return F.adaptive_max_pool2d(x, output_size)


def global_avg_pool(x):
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def global_max_pool(x):
    return F.adaptive_max_pool2d(x, 1).flatten(1)


def batch_norm(x, gamma, beta, *, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


def layer_norm(x, gamma, beta, *, eps):
    return F.layer_norm(x.permute(0, 2, 3, 1), gamma.shape, gamma, beta, eps).permute(0, 3, 1, 2)


def group_norm(x, gamma, beta, *, groups, eps):
    return F.group_norm(x, groups, gamma, beta, eps)


def instance_norm(x, gamma, beta, *, eps):
    return F.instance_norm(x, None, None, gamma, beta, eps=eps)


def rms_norm(x, gamma, *, eps):
    return F.rms_norm(x.permute(0, 2, 3, 1), gamma.shape, gamma, eps).permute(0, 3, 1, 2)


def local_response_norm(x, *, size):
    return F.local_response_norm(x, size)


def prelu(x, slope):
    return F.prelu(x, slope)


def glu(x):
    return F.glu(x, 1)


def upsample(x, *, factor, method):
    return F.interpolate(x, scale_factor=factor, mode=method)


def pixel_shuffle(x, *, factor):
    return F.pixel_shuffle(x, factor)


def binary_cross_entropy(logits, targets):
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def mse(predictions, targets):
    return F.mse_loss(predictions, targets, reduction="none")


def huber(predictions, targets):
    return F.huber_loss(predictions, targets, reduction="none")


def kl_divergence(log_predictions, targets):
    return F.kl_div(log_predictions, targets, reduction="none").sum(-1)


def softmax(x):
    return F.softmax(x, 1)


def log_softmax(x):
    return F.log_softmax(x, 1)


def softmax_cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def dense(x, w, b):
    return F.linear(x, w, b)


def dropout(x, key, *, rate):
    return F.dropout(x, rate)


relu, relu6, leaky_relu, elu, selu = F.relu, F.relu6, F.leaky_relu, F.elu, F.selu
sigmoid, tanh, softplus, hard_sigmoid = torch.sigmoid, torch.tanh, F.softplus, F.hardsigmoid
silu, gelu, mish, hard_swish = F.silu, F.gelu, F.mish, F.hardswish


def contestant(case: Case, arrays: dict[str, jax.Array], dy: jax.Array, compiled: bool) -> Contestant:
    """A case in PyTorch, eager or compiled."""
    f = functools.partial(globals()[case.op], **case.config)
    if compiled:
        torch._dynamo.reset()
        torch._functorch.config.donated_buffer = False  # a graph is used many times
        f = torch.compile(f, dynamic=False)
    inputs = {name: tensor(name, a) for name, a in arrays.items()}
    cotangent = tensor("y", dy)

    def prepare(stage: str) -> Call:
        if stage == "forward":
            return waiting(without_graph(lambda: [f(*inputs.values())]))
        if (
            case.op in ("conv", "conv_transpose")
            and case.config.get("padding_mode", "zeros") == "zeros"
            and not compiled
        ):
            return waiting(convolution_backward(case, cotangent, inputs["x"], inputs["w"], stage))
        wanted = case.wanted(stage)
        args = {name: a.detach().requires_grad_(name in wanted) for name, a in inputs.items()}
        y, leaves = f(*args.values()), [args[name] for name in wanted]
        return waiting(lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True))

    return Contestant(prepare, to_numpy)


def without_graph(f: Callable) -> Call:
    def run() -> Any:
        with torch.no_grad():
            return f()

    return run


def convolution_backward(case: Case, dy: Any, x: Any, w: Any, stage: str) -> Call:
    """The backward of a convolution, for one of its inputs, without the autograd engine around it."""
    axes = x.ndim - 2
    one = {"dilation": 1, "groups": 1} | case.config
    stride, dilation = [one["stride"]] * axes, [one["dilation"]] * axes
    padding = list(one["padding"]) if isinstance(one["padding"], tuple) else [one["padding"]] * axes
    mask = [stage == "input gradient", stage == "weight gradient", False]
    transposed = case.op == "conv_transpose"
    rest = (None, stride, padding, dilation, transposed, [0] * axes, one["groups"], mask)

    def run() -> list:
        return [d for d in torch.ops.aten.convolution_backward(dy, x, w, *rest) if d is not None]

    return run


def waiting(f: Call) -> Call:
    """`f`, waited for."""
    if not GPU:
        return f

    def run() -> Any:
        y = f()
        torch.cuda.synchronize()
        return y

    return run


def tensor(name: str, a: jax.Array) -> Any:
    """One of a case's arrays as a tensor, in PyTorch's order of axes and the memory format it likes best."""
    if name == "key":
        return torch.zeros(())
    if name == "labels":
        return torch.from_numpy(np.array(a)).long().to("cuda" if GPU else "cpu")
    values = torch.from_numpy(np.array(to_first(name, np.asarray(a.astype(jnp.float32)))))
    found = values.to("cuda" if GPU else "cpu", getattr(torch, str(a.dtype)))
    return found.contiguous(memory_format=FORMATS.get(found.ndim, torch.contiguous_format))


def to_numpy(name: str, a: Any) -> np.ndarray:
    return to_last(name, a.detach().cpu().double().numpy())
