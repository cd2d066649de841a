"""The ops as modules of Equinox, which are for one example, channels first: arrays are [N, C, *S] and [O, C,
*K].

Activations are missing: in Equinox they are those of JAX.
"""

import equinox as eqx
import jax
import jax.numpy as jnp


def _module(kind, weights, *args, **kwargs):
    """A module of Equinox with the given arrays as weights; no random ones are drawn for it."""
    empty = eqx.filter_eval_shape(kind, *args, **kwargs, key=jax.random.key(0))
    return eqx.tree_at(lambda m: [getattr(m, name) for name in weights], empty, list(weights.values()))


def conv(x, w, *, stride, padding, padding_mode, dilation, groups):
    mode = {"zeros": "ZEROS", "edge": "REPLICATE", "reflect": "REFLECT", "wrap": "CIRCULAR"}[padding_mode]
    module = _module(
        eqx.nn.Conv,
        {"weight": w},
        x.ndim - 2,
        x.shape[1],
        w.shape[0],
        w.shape[2:],
        stride,
        padding,
        dilation,
        groups,
        use_bias=False,
        padding_mode=mode,
        dtype=x.dtype,
    )
    return jax.vmap(module)(x)


def conv_transpose(x, w, *, stride, padding):
    """Here w is [C_in, C_out, *K], while Equinox has the weights of the convolution that it runs."""
    axes = x.ndim - 2
    weights = {"weight": jnp.flip(jnp.swapaxes(w, 0, 1), range(2, w.ndim))}
    sizes = axes, w.shape[0], w.shape[1], w.shape[2:], stride, padding
    return jax.vmap(_module(eqx.nn.ConvTranspose, weights, *sizes, use_bias=False, dtype=x.dtype))(x)


def _pool(kind, x, *window):
    return jax.vmap(getattr(eqx.nn, f"{kind}{x.ndim - 2}d")(*window))(x)


def max_pool(x, *, window, stride, padding):
    return _pool("MaxPool", x, window, stride, padding)


def avg_pool(x, *, window, stride, padding):
    if padding:
        raise NotImplementedError("AvgPool2d counts the padding")
    return _pool("AvgPool", x, window, stride, padding)


def batch_norm(x, gamma, beta, *, eps):
    make = eqx.nn.make_with_state(eqx.nn.BatchNorm)
    module, state = make(x.shape[1], "batch", eps, dtype=x.dtype, mode="batch")
    module = eqx.tree_at(lambda m: (m.weight, m.bias), module, (gamma, beta))
    return jax.vmap(module, (0, None), (0, None), axis_name="batch")(x, state)[0].astype(x.dtype)


def group_norm(x, gamma, beta, *, groups, eps):
    module = eqx.nn.GroupNorm(groups, x.shape[1], eps)
    module = eqx.tree_at(lambda m: (m.weight, m.bias), module, (gamma, beta))
    return jax.vmap(module)(x).astype(x.dtype)


def dense(x, w, b):
    module = _module(eqx.nn.Linear, {"weight": w, "bias": b}, x.shape[1], w.shape[0], dtype=x.dtype)
    return jax.vmap(module)(x)


def dropout(x, key, *, rate):
    return eqx.nn.Dropout(rate)(x, key=key)
