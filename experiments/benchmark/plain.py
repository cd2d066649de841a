"""The ops as a good user of JAX writes them without jcnn, for JAX to differentiate.

Names, arguments and layout are those of jcnn. These are not jcnn's `.reference`s, which may be slow to be
plain.
"""

import jax
import jax.numpy as jnp
from jax import lax

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


def conv(x, w, *, stride, padding, padding_mode, dilation, groups):
    axes = x.ndim - 2
    pads = [(p, p) for p in padding]
    if padding_mode != "zeros":
        x, pads = jnp.pad(x, [(0, 0), *pads, (0, 0)], padding_mode), "VALID"
    s = SPATIAL[axes]
    return lax.conv_general_dilated(
        x,
        w,
        (stride,) * axes,
        pads,
        rhs_dilation=(dilation,) * axes,
        dimension_numbers=(f"N{s}C", f"{s}IO", f"N{s}C"),
        feature_group_count=groups,
    )


def conv_transpose(x, w, *, stride, padding):
    pads = [(k - 1 - padding,) * 2 for k in w.shape[:-2]]
    return lax.conv_transpose(x, w, (stride,) * len(pads), pads, transpose_kernel=True)


def _window_sum(x, combine, start, window, stride, padding):
    axes = x.ndim - 2
    pads = [(0, 0), *[(padding, padding)] * axes, (0, 0)]
    return lax.reduce_window(x, start, combine, (1, *[window] * axes, 1), (1, *[stride] * axes, 1), pads)


def max_pool(x, *, window, stride, padding):
    return _window_sum(x, lax.max, -jnp.inf, window, stride, padding)


def avg_pool(x, *, window, stride, padding):
    total = _window_sum(x, lax.add, 0.0, window, stride, padding)
    if not padding:
        return total / window ** (x.ndim - 2)
    return total / _window_sum(
        jnp.ones((1, *x.shape[1:-1], 1), x.dtype), lax.add, 0.0, window, stride, padding
    )


def global_avg_pool(x):
    return jnp.mean(x, range(1, x.ndim - 1))


def global_max_pool(x):
    return jnp.max(x, range(1, x.ndim - 1))


def _normalise(x, axes, eps):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = jnp.mean(wide, axes, keepdims=True), jnp.var(wide, axes, keepdims=True)
    return (wide - mean) * lax.rsqrt(var + eps)


def batch_norm(x, gamma, beta, *, eps):
    return (_normalise(x, range(x.ndim - 1), eps) * gamma + beta).astype(x.dtype)


def layer_norm(x, gamma, beta, *, eps):
    return (_normalise(x, -1, eps) * gamma + beta).astype(x.dtype)


def group_norm(x, gamma, beta, *, groups, eps):
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (*range(1, x.ndim - 1), x.ndim)
    return (_normalise(grouped, axes, eps).reshape(x.shape) * gamma + beta).astype(x.dtype)


def relu(x):
    return jax.nn.relu(x)


def leaky_relu(x):
    return jax.nn.leaky_relu(x)


def sigmoid(x):
    return jax.nn.sigmoid(x)


def tanh(x):
    return jnp.tanh(x)


def silu(x):
    return jax.nn.silu(x)


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def softmax(x):
    return jax.nn.softmax(x)


def log_softmax(x):
    return jax.nn.log_softmax(x)


def softmax_cross_entropy(logits, labels):
    """As in optax: the log-sum-exp less the label's logit."""
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    label = jnp.take_along_axis(wide, labels[:, None], 1)[:, 0]
    return (jax.nn.logsumexp(wide, 1) - label).astype(logits.dtype)


def dense(x, w, b):
    return x @ w + b


def dropout(x, key, *, rate):
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
