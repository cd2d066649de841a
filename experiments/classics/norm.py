"""Normalisations. `xhat` is the normalised input, `inv` one over its deviation or root mean square."""

import jax.numpy as jnp
from jax import lax

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, normal, part, plant, post, saved

EPS = 1e-3


def normalise(x, axes):
    centred = x - x.mean(axes, keepdims=True)
    inv = lax.rsqrt((centred * centred).mean(axes, keepdims=True) + EPS)
    return centred * inv, inv


def normalise_dx(xhat, inv, dxhat, axes, mean_path=1, variance_path=1):
    mean = dxhat.mean(axes, keepdims=True)
    variance = xhat * (dxhat * xhat).mean(axes, keepdims=True)
    return inv * (dxhat - mean_path * mean - variance_path * variance)


def batch_norm(x, gamma, beta):
    """x [N, H, W, C], gamma and beta [C]"""
    return batch_norm_fwd(x, gamma, beta)[0]


def batch_norm_fwd(x, gamma, beta):
    xhat, inv = normalise(x, (0, 1, 2))
    return gamma * xhat + beta, (xhat, inv, gamma)


def batch_norm_bwd(res, dy):
    xhat, inv, gamma = res
    dx = normalise_dx(xhat, inv, dy * gamma, (0, 1, 2))
    return dx, (dy * xhat).sum((0, 1, 2)), dy.sum((0, 1, 2))


def layer_norm(x, gamma, beta):
    """x [N, C], gamma and beta [C]"""
    return layer_norm_fwd(x, gamma, beta)[0]


def layer_norm_fwd(x, gamma, beta):
    xhat, inv = normalise(x, -1)
    return gamma * xhat + beta, (xhat, inv, gamma)


def layer_norm_bwd(res, dy):
    xhat, inv, gamma = res
    return normalise_dx(xhat, inv, dy * gamma, -1), (dy * xhat).sum(0), dy.sum(0)


def rms_norm(x, gamma):
    """x [N, C], gamma [C]"""
    return rms_norm_fwd(x, gamma)[0]


def rms_norm_fwd(x, gamma):
    inv = lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS)
    return gamma * (x * inv), (x, inv, gamma)


def rms_norm_bwd(res, dy):
    x, inv, gamma = res
    xhat = x * inv
    return normalise_dx(xhat, inv, dy * gamma, -1, mean_path=0), (dy * xhat).sum(0)


def group_norm(x, gamma, beta):
    """x [N, H, W, C] in groups of two channels, gamma and beta [C]"""
    return group_norm_fwd(x, gamma, beta)[0]


def grouped(x):
    return x.reshape(*x.shape[:-1], -1, 2)


def group_norm_fwd(x, gamma, beta):
    xhat, inv = normalise(grouped(x), (1, 2, 4))
    return gamma * xhat.reshape(x.shape) + beta, (xhat, inv, gamma)


def group_norm_bwd(res, dy):
    xhat, _, _ = res
    return group_norm_dx(res, dy), (dy * xhat.reshape(dy.shape)).sum((0, 1, 2)), dy.sum((0, 1, 2))


def group_norm_dx(res, dy, axes=(1, 2, 4), **paths):
    xhat, inv, gamma = res
    return normalise_dx(xhat, inv, grouped(dy * gamma), axes, **paths).reshape(dy.shape)


BATCH = batch_norm, batch_norm_fwd, batch_norm_bwd
LAYER = layer_norm, layer_norm_fwd, layer_norm_bwd
RMS = rms_norm, rms_norm_fwd, rms_norm_bwd
GROUP = group_norm, group_norm_fwd, group_norm_bwd

PATHS = rf"mean|varian|path|centr|project|\bstat|orthogonal|invarian|{kit.FACTOR}"


def batch_dx(**paths):
    return part(BATCH, 0, lambda res, dy: normalise_dx(res[0], res[1], dy * res[2], (0, 1, 2), **paths))


def layer_dx(axes=-1, **paths):
    return part(LAYER, 0, lambda res, dy: normalise_dx(res[0], res[1], dy * res[2], axes, **paths))


def rms_dx(**paths):
    return part(RMS, 0, lambda res, dy: normalise_dx(res[0] * res[1], res[1], dy * res[2], -1, **paths))


def group_dx(**options):
    return part(GROUP, 0, lambda res, dy: group_norm_dx(res, dy, **options))


def layer_gamma_late(res, dy):
    xhat, inv, gamma = res
    return gamma * normalise_dx(xhat, inv, dy, -1)


def rms_x_for_xhat(res, dy):
    x, inv, gamma = res
    return normalise_dx(x, inv, dy * gamma, -1, mean_path=0)


def eps_beside_root(inv):
    """1 / (std + eps) for 1 / sqrt(var + eps)"""
    return 1 / (jnp.sqrt(1 / inv**2 - EPS) + EPS)


RULES = [
    Classic(
        "batch_norm",
        BATCH,
        normal((3, 3, 2, 4), (4,), (4,)),
        {
            "no_mean_path": plant("mean's path forgotten in dx", PATHS, batch_dx(mean_path=0)),
            "no_variance_path": plant("variance's path forgotten in dx", PATHS, batch_dx(variance_path=0)),
            "variance_path_twice": plant(
                "variance's path counted twice in dx", PATHS, batch_dx(variance_path=2)
            ),
            "unbiased": plant(
                "means of the paths over n - 1",
                rf"n ?- ?1|bessel|unbiased|{kit.COUNT}|{PATHS}",
                batch_dx(mean_path=18 / 17, variance_path=18 / 17),
            ),
            "gamma_forgotten": plant(
                "gamma forgotten in dx",
                rf"gamma|{kit.FACTOR}",
                saved(BATCH, 2, jnp.ones_like),
                "for gamma other than 1",
            ),
            "dgamma_dbeta_swapped": plant(
                "dgamma and dbeta swapped",
                kit.TRANSPOSED,
                (
                    *BATCH[:2],
                    lambda res, dy: (lambda dx, dgamma, dbeta: (dx, dbeta, dgamma))(*batch_norm_bwd(res, dy)),
                ),
            ),
            "normalised_dy": misuse.normalised(BATCH),
        },
    ),
    Classic(
        "layer_norm",
        LAYER,
        normal((6, 6), (6,), (6,)),
        {
            "no_inv": plant(
                "inv missing in dx",
                rf"inv|std|deviation|{kit.FACTOR}",
                part(LAYER, 0, lambda res, dy: layer_dx()[2](res, dy)[0] / res[1]),
            ),
            "eps_beside_root": plant(
                "1 / (std + eps) in dx",
                rf"eps|std|{kit.FACTOR}|{kit.DTYPE}",
                saved(LAYER, 1, eps_beside_root),
                "as a difference of 1e-3",
            ),
            "wrong_axis": plant(
                "means over the batch in dx", rf"{kit.TRANSPOSED}|{PATHS}|batch", layer_dx(axes=0)
            ),
            "gamma_late": plant(
                "gamma applied to dx, not to dy",
                rf"gamma|{PATHS}",
                part(LAYER, 0, layer_gamma_late),
                "for gamma that is not constant",
            ),
            "dgamma_axis": plant(
                "dgamma summed over the features, silent as x is square",
                rf"{kit.TRANSPOSED}|{kit.COUNT}",
                part(LAYER, 1, lambda res, dy: (dy * res[0]).sum(1)),
            ),
            "frozen_inv": misuse.frozen(LAYER, 1),
            "bfloat16": misuse.narrowed(LAYER, jnp.bfloat16),
        },
    ),
    Classic(
        "rms_norm",
        RMS,
        normal((4, 6), (6,)),
        {
            "mean_path": plant("mean subtracted as in layer norm", PATHS, rms_dx()),
            "no_path": plant(
                "root mean square taken as constant", rf"rms|{PATHS}", rms_dx(mean_path=0, variance_path=0)
            ),
            "path_twice": plant(
                "path of the mean square counted twice", rf"rms|{PATHS}", rms_dx(mean_path=0, variance_path=2)
            ),
            "x_for_xhat": plant("x for xhat in dx", rf"xhat|normali|{PATHS}", part(RMS, 0, rms_x_for_xhat)),
            "dgamma_x": plant(
                "x for xhat in dgamma",
                rf"xhat|normali|{PATHS}",
                part(RMS, 1, lambda res, dy: (dy * res[0]).sum(0)),
            ),
            "no_eps": plant(
                "eps forgotten in bwd",
                rf"eps|{kit.FACTOR}|{kit.DTYPE}|{kit.UNSTABLE}",
                saved(RMS, 1, lambda inv: lax.rsqrt(inv**-2 - EPS)),
                "as a difference of 1e-3",
            ),
            "bloated": misuse.bloated(RMS),
        },
    ),
    Classic(
        "group_norm",
        GROUP,
        normal((2, 3, 3, 4), (4,), (4,)),
        {
            "all_channels": plant(
                "means over all channels in dx", rf"group|channel|{PATHS}", group_dx(axes=(1, 2, 3, 4))
            ),
            "single_channels": plant(
                "means over single channels in dx", rf"group|channel|{PATHS}", group_dx(axes=(1, 2))
            ),
            "pixels_only": plant(
                "sums of the paths divided by HW, not 2HW",
                rf"{kit.COUNT}|{PATHS}",
                group_dx(mean_path=2, variance_path=2),
            ),
            "dgamma_grouped": plant(
                "dgamma summed over the group, then repeated",
                rf"group|channel|repeat|broadcast|{kit.COUNT}",
                post(GROUP, 1, lambda d: jnp.repeat(grouped(d).sum(1), 2)),
            ),
            "missing": misuse.missing(GROUP, 2),
            "offset": misuse.offset(GROUP),
        },
    ),
]
