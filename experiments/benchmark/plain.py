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


def lp_pool(x, *, window, stride, padding, p):
    return _window_sum(jnp.abs(x) ** p, lax.add, 0.0, window, stride, padding) ** (1 / p)


def _adaptive(x, reduce, output_size):
    """Window by window: the windows differ in size."""
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        bounds = [(i * n // output_size, -(-(i + 1) * n // output_size)) for i in range(output_size)]
        parts = [reduce(lax.slice_in_dim(x, low, high, axis=axis), axis) for low, high in bounds]
        x = jnp.stack(parts, axis)
    return x


def adaptive_avg_pool(x, *, output_size):
    return _adaptive(x, jnp.mean, output_size)


def adaptive_max_pool(x, *, output_size):
    return _adaptive(x, jnp.max, output_size)


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


def instance_norm(x, gamma, beta, *, eps):
    return (_normalise(x, range(1, x.ndim - 1), eps) * gamma + beta).astype(x.dtype)


def rms_norm(x, gamma, *, eps):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + eps) * gamma).astype(x.dtype)


def local_response_norm(x, *, size):
    pads = [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)]
    ones = (1,) * (x.ndim - 1)
    total = lax.reduce_window(x**2, 0.0, lax.add, (*ones, size), (*ones, 1), pads)
    return x * (1 + 1e-4 / size * total) ** -0.75


def weight_standardize(w, *, eps):
    return _normalise(w, range(w.ndim - 1), eps).astype(w.dtype)


def layer_scale(x, gamma):
    return (x * gamma).astype(x.dtype)


relu, relu6, leaky_relu, elu, selu = jax.nn.relu, jax.nn.relu6, jax.nn.leaky_relu, jax.nn.elu, jax.nn.selu
sigmoid, tanh, softplus, hard_sigmoid = jax.nn.sigmoid, jnp.tanh, jax.nn.softplus, jax.nn.hard_sigmoid
silu, mish, hard_swish, glu = jax.nn.silu, jax.nn.mish, jax.nn.hard_swish, jax.nn.glu
softmax, log_softmax = jax.nn.softmax, jax.nn.log_softmax


def prelu(x, slope):
    return jnp.where(x > 0, x, slope * x)


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


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


def drop_path(x, key, *, rate):
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0)


def upsample(x, *, factor, method):
    n, *size, c = x.shape
    return jax.image.resize(x, (n, *(factor * s for s in size), c), method)


def pixel_shuffle(x, *, factor):
    n, h, w, c = x.shape
    parts = x.reshape(n, h, w, c // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, h * factor, w * factor, c // factor**2)


def patches(x, *, window, padding):
    x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    h, w = (n - window + 1 for n in x.shape[1:-1])
    return jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(window) for j in range(window)], -1)


def binary_cross_entropy(logits, targets):
    return -targets * jax.nn.log_sigmoid(logits) - (1 - targets) * jax.nn.log_sigmoid(-logits)


def focal_loss(logits, targets):
    p = jax.nn.sigmoid(logits)
    wrong = p * (1 - targets) + (1 - p) * targets
    weight = 0.25 * targets + 0.75 * (1 - targets)
    return weight * wrong**2 * binary_cross_entropy(logits, targets)


def mse(predictions, targets):
    return (predictions - targets) ** 2


def huber(predictions, targets):
    d = jnp.abs(predictions - targets)
    return jnp.where(d <= 1, d**2 / 2, d - 0.5)


def kl_divergence(log_predictions, targets):
    return jnp.sum(targets * (jnp.log(targets) - log_predictions), -1)
