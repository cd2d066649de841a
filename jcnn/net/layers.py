"""The layers: rules of jcnn with their parameters, ready for `chain`."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array

from jcnn import check, linear, pool
from jcnn.conv import conv as conv_rule
from jcnn.geometry import IntLike, PaddingLike, Window, window
from jcnn.layer_norm import (
    group_norm as group_norm_rule,
    instance_norm as instance_norm_rule,
    layer_norm as layer_norm_rule,
)
from jcnn.layer_scale import layer_scale as layer_scale_rule
from jcnn.net.core import Net, Shape, layer
from jcnn.norm import (
    BatchNormResiduals,
    BatchStats,
    batch_norm as batch_norm_rule,
    batch_norm_inference,
    update_running_stats,
)
from jcnn.regularize import dropout as dropout_rule
from jcnn.rule import Rule

Initializer = Callable[[Array, Shape], Array]
HE_NORMAL = initializers.he_normal()


def _window_name(kind: str, size: IntLike, **others) -> str:
    sizes = size if isinstance(size, int) else "x".join(map(str, size))
    return ", ".join([f"{kind} {sizes}", *(f"{k} {v}" for k, v in others.items() if v not in (1, None))])


def conv(
    features: int,
    kernel: IntLike,
    *,
    stride: IntLike = 1,
    padding: PaddingLike = "SAME",
    padding_mode: str = "zeros",
    dilation: IntLike = 1,
    groups: int = 1,
    bias: bool = True,
    init: Initializer = HE_NORMAL,
    rule: Rule = conv_rule,
) -> Net:
    """Convolution to `features` channels; weights from `init` (He et al. 2015), bias 0."""

    def per_axis(shape: Shape) -> Shape:
        return (kernel,) * (len(shape) - 1) if isinstance(kernel, int) else tuple(kernel)

    def init_params(key, shape):
        if shape[-1] % groups:
            check.fail("net.conv", "groups", groups, f"a divisor of the image's {shape[-1]} channels")
        w = init(key, (*per_axis(shape), shape[-1] // groups, features))
        return {"w": w} | ({"b": jnp.zeros(features)} if bias else {})

    def slides(shape: Shape) -> Window:
        return window(
            "net.conv", per_axis(shape), size=shape[:-1], stride=stride, dilation=dilation, padding=padding
        )

    def macs(shape: Shape, out: Shape) -> int:
        return math.prod(out) * math.prod(per_axis(shape)) * shape[-1] // groups

    config = {
        "stride": stride,
        "padding": padding,
        "padding_mode": padding_mode,
        "dilation": dilation,
        "groups": groups,
    }

    def out_shape(shape: Shape) -> Shape:
        return (*slides(shape).output_size(shape[:-1]), features)

    about = {"window": slides, "macs": macs, "out_shape": out_shape}
    name = _window_name("conv", kernel, stride=stride, dilation=dilation, groups=groups)
    return layer(rule, init_params, name=name, config=config, **about)


def dense(features: int, *, bias: bool = True, init: Initializer = HE_NORMAL) -> Net:
    """Fully connected layer to `features` outputs; weights from `init`, bias 0."""

    def init_params(key, shape):
        w = init(key, (shape[-1], features))
        return {"w": w} | ({"b": jnp.zeros(features)} if bias else {})

    def macs(shape: Shape, out: Shape) -> int:
        return math.prod(shape) * features

    return layer(linear.dense, init_params, macs=macs, out_shape=lambda shape: (*shape[:-1], features))


def max_pool(
    size: IntLike, *, stride: IntLike | None = None, padding: PaddingLike = "VALID", **config
) -> Net:
    """Maximum over windows; further keywords as for `jcnn.max_pool`."""
    return _pool(pool.max_pool, size, stride, padding, config)


def avg_pool(
    size: IntLike, *, stride: IntLike | None = None, padding: PaddingLike = "VALID", **config
) -> Net:
    """Mean over windows; further keywords as for `jcnn.avg_pool`."""
    return _pool(pool.avg_pool, size, stride, padding, config)


def _pool(rule: Rule, size, stride, padding, config) -> Net:
    def slides(shape: Shape) -> Window:
        steps = size if stride is None else stride
        dilation = config.get("dilation", 1)
        return window(rule.name, size, size=shape[:-1], stride=steps, padding=padding, dilation=dilation)

    config = {"window": size, "stride": stride, "padding": padding, **config}
    return layer(rule, name=_window_name(rule.name, size, stride=stride), config=config, window=slides)


def global_avg_pool() -> Net:
    """Mean over the image."""
    return layer(pool.global_avg_pool, sees_all=True)


def flatten() -> Net:
    """All pixels and channels of an image as one vector."""
    return layer(linear.flatten, sees_all=True)


def dropout(rate: float) -> Net:
    """Dropout in training, which then needs a `key`; the identity in inference."""

    def apply(params, state, x, *, train, key=None):
        return (dropout_rule(x, _needed(key), rate=rate) if train else x), state

    def fwd(params, state, x, *, train, key=None):
        y, res = dropout_rule.fwd(x, _needed(key), rate=rate) if train else (x, None)
        return (y, state), res

    def bwd(res, dy):
        return {}, dy if res is None else dropout_rule.bwd(res, dy)[0]

    def _needed(key):
        if key is None:
            check.fail("net.dropout", "key", None, "a PRNG key: apply(..., train=True, key=key)", TypeError)
        return key

    return Net(f"dropout {rate:g}", lambda key, shape: ({}, {}), apply, fwd, bwd)


def layer_norm(*, eps: float = 1e-5) -> Net:
    """Layer norm of the channels of every pixel; gamma 1, beta 0 at first."""
    return layer(layer_norm_rule, _scale_and_shift, config={"eps": eps}, out_shape=_same)


def group_norm(groups: int, *, eps: float = 1e-5) -> Net:
    """Group norm over the image and each of `groups` groups of channels; gamma 1, beta 0 at first."""

    def init(key, shape):
        if shape[-1] % groups:
            check.fail("net.group_norm", "groups", groups, f"a divisor of the image's {shape[-1]} channels")
        return _scale_and_shift(key, shape)

    config = {"groups": groups, "eps": eps}
    about = {"sees_all": True, "out_shape": _same}
    return layer(group_norm_rule, init, name=f"group_norm {groups}", config=config, **about)


def instance_norm(*, eps: float = 1e-5) -> Net:
    """Instance norm of every channel over the image; gamma 1, beta 0 at first."""
    about = {"sees_all": True, "out_shape": _same}
    return layer(instance_norm_rule, _scale_and_shift, config={"eps": eps}, **about)


def layer_scale(gamma: float = 1e-6) -> Net:
    """A learned factor for every channel, `gamma` at first (Touvron et al. 2021, arXiv:2103.17239)."""
    return layer(layer_scale_rule, lambda key, shape: {"gamma": jnp.full(shape[-1], gamma)}, out_shape=_same)


def _same(shape: Shape) -> Shape:
    return shape


def _scale_and_shift(key: Array, shape: Shape, gamma: float = 1.0) -> dict[str, Array]:
    return {"gamma": jnp.full(shape[-1], gamma), "beta": jnp.zeros(shape[-1])}


def batch_norm(
    *, eps: float = 1e-5, momentum: float = 0.9, axis_name: str | None = None, gamma: float = 1.0
) -> Net:
    """Batch norm: the batch's statistics in training, running ones in inference.

    `momentum` is the weight of the OLD running value; `axis_name` as for `jcnn.batch_norm`; `gamma` is the
    scale at first, and 0 makes a residual block start as its shortcut.
    """

    def init(key, shape):
        c = shape[-1]
        return _scale_and_shift(key, shape, gamma), {"mean": jnp.zeros(c), "var": jnp.ones(c)}

    def after(state, stats):
        return update_running_stats(BatchStats(**state), stats, momentum=momentum)._asdict()

    def apply(params, state, x, *, train, key=None):
        if not train:
            return batch_norm_inference(x, **params, **state, eps=eps), state
        y, stats = batch_norm_rule(x, **params, eps=eps, axis_name=axis_name)
        return y, after(state, stats)

    def fwd(params, state, x, *, train, key=None):
        if not train:
            y, res = batch_norm_inference.fwd(x, **params, **state, eps=eps)
            return (y, state), res
        (y, stats), res = batch_norm_rule.fwd(x, **params, eps=eps, axis_name=axis_name)
        return (y, after(state, stats)), res

    def bwd(res, dy):
        if isinstance(res, BatchNormResiduals):
            nothing = BatchStats(jnp.zeros_like(res.mean), jnp.zeros_like(res.mean))
            dx, dgamma, dbeta, _ = batch_norm_rule.bwd(res, (dy, nothing))
        else:
            dx, dgamma, dbeta, *_ = batch_norm_inference.bwd(res, dy)
        return {"gamma": dgamma, "beta": dbeta}, dx

    return Net("batch_norm", init, apply, fwd, bwd, out_shape=_same)
