"""What people get wrong in the backwards of upsampling, pixel shuffle, patches and `scale_channels`."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jcnn.kernels import taps, widen
from jcnn.layer_scale import scale_channels
from jcnn.patches import fold, patches
from jcnn.resample import pixel_shuffle, pixel_unshuffle, upsample
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, backward, cotangent, one_late, residual


def _channel_major(p: Array, res: Any) -> Array:
    """Patches with all taps for every channel, for those with all channels for every tap."""
    count = math.prod(res.window.kernel)
    return p.reshape(*p.shape[:-1], p.shape[-1] // count, count).swapaxes(-1, -2).reshape(p.shape)


def _last_wins(res: Any, dy: Array) -> tuple[Array]:
    """Where windows overlap, one of them instead of the sum."""
    dx = jnp.zeros(())
    for k, part in enumerate(jnp.split(widen(dy), math.prod(res.window.kernel), -1)):
        parts = [part if j == k else jnp.zeros_like(part) for j in range(math.prod(res.window.kernel))]
        here = taps.scatter(parts, res.window, res.size)
        dx = jnp.where(here != 0, here, dx)
    return (dx,)


def _reads(res: Any, dy: Array) -> Array:
    """How many windows read each pixel, or 1."""
    ones = jnp.ones((1, *res.window.output_size(res.size), 1), dy.dtype)
    return jnp.maximum(taps.scatter([ones] * math.prod(res.window.kernel), res.window, res.size), 1)


def _resized(res: Any, dy: Array) -> tuple[Array]:
    """Interpolation back to the small size, which is not the adjoint."""
    at = (slice(f // 2, None, f) for f in res.factor)
    return (dy[(slice(None), *at)] * math.prod(res.factor),)


def _block_order(x: Array, res: Any) -> Array:
    """Channels as TensorFlow's depth_to_space has them."""
    count = math.prod(res.factor)
    return x.reshape(*x.shape[:-1], x.shape[-1] // count, count).swapaxes(-1, -2).reshape(x.shape)


PATCHES: dict[str, Error] = {
    "overlaps not summed": backward(_last_wins),
    "channels before taps": backward(lambda res, dy: patches.bwd(res, _channel_major(dy, res))),
    "taps in reverse": backward(lambda res, dy: patches.bwd(res, dy[..., ::-1])),
    "dx one pixel late": cotangent(0, one_late),
}
FOLD: dict[str, Error] = {
    "channels before taps": cotangent(0, lambda dp, res, dy: _channel_major(dp, res)),
    "taps in reverse": cotangent(0, lambda dp, res, dy: dp[..., ::-1]),
    "overlaps averaged": backward(lambda res, dy: fold.bwd(res, dy / _reads(res, dy))),
    "dp one position late": cotangent(0, one_late),
}
UPSAMPLE: dict[str, Error] = {
    "a resize back, not the adjoint": backward(_resized),
    "mean for sum": cotangent(0, lambda dx, res, dy: dx / math.prod(res.factor)),
    "nearest and linear confused": residual(
        method=lambda method: {"nearest": "linear", "linear": "nearest"}[method],
        align_corners=lambda _: False,
    ),
    "align_corners the other way": residual(align_corners=lambda aligned: not aligned),
    "dx one pixel late": cotangent(0, one_late),
}
PIXEL_SHUFFLE: dict[str, Error] = {
    "TensorFlow's order of channels": cotangent(0, lambda dx, res, dy: _block_order(dx, res)),
    "not transposed back": cotangent(0, lambda dx, res, dy: dy.reshape(dx.shape)),
    "rows and columns swapped": backward(lambda res, dy: pixel_shuffle.bwd(res, dy.swapaxes(1, 2))),
}
PIXEL_UNSHUFFLE: dict[str, Error] = {
    "TensorFlow's order of channels": backward(
        lambda res, dy: pixel_unshuffle.bwd(res, _block_order(dy, res))
    ),
    "not transposed back": cotangent(0, lambda dx, res, dy: dy.reshape(dx.shape)),
    "rows and columns swapped": cotangent(0, lambda dx, res, dy: dx.swapaxes(1, 2)),
}
SCALE_CHANNELS: dict[str, Error] = {
    "gate forgotten in dx": cotangent(0, lambda dx, res, dy: dy),
    "dgate a mean over pixels": cotangent(1, lambda dgate, res, dy: dgate / math.prod(dy.shape[1:-1])),
    "dgate over all examples": cotangent(
        1, lambda dgate, res, dy: jnp.broadcast_to(dgate.sum(0), dgate.shape)
    ),
    "x forgotten in dgate": cotangent(1, lambda dgate, res, dy: widen(dy).sum(range(1, dy.ndim - 1))),
}

ERRORS: dict[Rule, dict[str, Error]] = {
    patches: PATCHES,
    fold: FOLD,
    upsample: UPSAMPLE,
    pixel_shuffle: PIXEL_SHUFFLE,
    pixel_unshuffle: PIXEL_UNSHUFFLE,
    scale_channels: SCALE_CHANNELS,
}
