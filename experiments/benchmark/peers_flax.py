"""The ops as modules of Flax (linen), applied as functions. Names, arguments and layout are those of jcnn."""

import flax.linen as nn


def conv(x, w, *, stride, padding, padding_mode, dilation, groups):
    if padding_mode == "edge":
        raise NotImplementedError("Conv has no such padding")
    pads = [(p, p) for p in padding]
    module = nn.Conv(
        w.shape[-1],
        w.shape[:-2],
        stride,
        pads if padding_mode == "zeros" else {"wrap": "CIRCULAR", "reflect": "REFLECT"}[padding_mode],
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=False,
        dtype=x.dtype,
    )
    return module.apply({"params": {"kernel": w}}, x)


def conv_transpose(x, w, *, stride, padding):
    pads = [(k - 1 - padding,) * 2 for k in w.shape[:-2]]
    module = nn.ConvTranspose(
        w.shape[-2],
        w.shape[:-2],
        (stride,) * len(pads),
        pads,
        use_bias=False,
        transpose_kernel=True,
        dtype=x.dtype,
    )
    return module.apply({"params": {"kernel": w}}, x)


def _windows(x, window, stride, padding):
    axes = x.ndim - 2
    return (window,) * axes, (stride,) * axes, ((padding, padding),) * axes


def max_pool(x, *, window, stride, padding):
    return nn.max_pool(x, *_windows(x, window, stride, padding))


def avg_pool(x, *, window, stride, padding):
    y = nn.avg_pool(x, *_windows(x, window, stride, padding), count_include_pad=False)
    return y.astype(x.dtype)  # its counts are in the default precision


def batch_norm(x, gamma, beta, *, eps):
    statistics = {"mean": gamma, "var": gamma}  # running averages, not read while training
    module = nn.BatchNorm(use_running_average=False, epsilon=eps, dtype=x.dtype)
    variables = {"params": {"scale": gamma, "bias": beta}, "batch_stats": statistics}
    return module.apply(variables, x, mutable=["batch_stats"])[0]


def layer_norm(x, gamma, beta, *, eps):
    return nn.LayerNorm(epsilon=eps, dtype=x.dtype).apply({"params": {"scale": gamma, "bias": beta}}, x)


def group_norm(x, gamma, beta, *, groups, eps):
    return nn.GroupNorm(groups, epsilon=eps, dtype=x.dtype).apply(
        {"params": {"scale": gamma, "bias": beta}}, x
    )


def dense(x, w, b):
    return nn.Dense(w.shape[-1], dtype=x.dtype).apply({"params": {"kernel": w, "bias": b}}, x)


def dropout(x, key, *, rate):
    return nn.Dropout(rate, deterministic=False).apply({}, x, rngs={"dropout": key})


relu, leaky_relu, sigmoid, tanh, silu = nn.relu, nn.leaky_relu, nn.sigmoid, nn.tanh, nn.silu
softmax, log_softmax = nn.softmax, nn.log_softmax


def gelu(x):
    return nn.gelu(x, approximate=False)
