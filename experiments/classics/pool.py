"""Pooling."""

from itertools import product

import jax.numpy as jnp

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, back, normal, plant, post


def blocks(x):
    """x [N, H, W, C] as 2x2 windows [N, H/2, 2, W/2, 2, C]"""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def over(y):
    """[N, H, W, C] to be broadcast over the windows"""
    return y[:, :, None, :, None]


def max_pool(x):
    """x [N, H, W, C], H and W even; equal maxima share the gradient"""
    return blocks(x).max((2, 4))


def max_pool_fwd(x):
    y = max_pool(x)
    return y, (x, y)


def max_pool_bwd(res, dy):
    x, y = res
    hit = (blocks(x) == over(y)).astype(dy.dtype)
    return (spread(hit / hit.sum((2, 4), keepdims=True), dy),)


def spread(weights, dy):
    """dy, weighted within its window"""
    n, h, w, c = dy.shape
    return (weights * over(dy)).reshape(n, 2 * h, 2 * w, c)


def avg_pool(x):
    """x [N, H, W, C], 3x3 windows of stride 2, the padding not counted"""
    return window_sums(x) / counts(x)


def window_sums(x):
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + x.shape[1] : 2, j : j + x.shape[2] : 2] for i, j in product(range(3), repeat=2)
    )


def counts(x):
    return window_sums(jnp.ones_like(x[:1, :, :, :1]))


def avg_pool_fwd(x):
    return avg_pool(x), (counts(x), x)


def avg_pool_bwd(res, dy):
    count, x = res
    return (window_sums_dx(x, dy / count),)


def window_sums_dx(x, dy, method="add", corner=1):
    n, h, w, c = x.shape
    dx = jnp.zeros((n, h + 2, w + 2, c), dy.dtype)
    for i, j in product(range(3), repeat=2):
        dx = getattr(dx.at[:, i : i + h : 2, j : j + w : 2], method)(dy)
    return dx[:, corner : corner + h, corner : corner + w]


def global_avg_pool(x):
    """x [N, H, W, C] to [N, C]"""
    return x.mean((1, 2))


def global_avg_pool_fwd(x):
    return global_avg_pool(x), (x,)


def global_avg_pool_bwd(res, dy):
    (x,) = res
    return (jnp.broadcast_to(dy[:, None, None] / (x.shape[1] * x.shape[2]), x.shape),)


MAX = max_pool, max_pool_fwd, max_pool_bwd
AVG = avg_pool, avg_pool_fwd, avg_pool_bwd
GLOBAL = global_avg_pool, global_avg_pool_fwd, global_avg_pool_bwd

ARGMAX = rf"maxim|argmax|winner|\brout|mask|select|{kit.PARTIAL}"


def max_dx(weights):
    """The weights in the windows, of windows and maxima"""
    return back(MAX, lambda res, dy: (spread(weights(blocks(res[0]), over(res[1])).astype(dy.dtype), dy),))


def avg_dx(edit=lambda dy: dy, **options):
    return back(AVG, lambda res, dy: (window_sums_dx(res[1], edit(dy / res[0]), **options),))


RULES = [
    Classic(
        "max_pool",
        MAX,
        normal((2, 4, 6, 3)),
        {
            "ties_twice": plant(
                "each of several equal maxima gets all of dy",
                rf"count|{kit.KINK}|{ARGMAX}",
                max_dx(lambda x, y: x == y),
                "at ties only",
            ),
            "average": plant(
                "dy spread evenly", rf"average|mean|{ARGMAX}", max_dx(lambda x, y: jnp.full_like(x, 0.25))
            ),
            "first_pixel": plant(
                "dy to the window's first pixel",
                ARGMAX,
                max_dx(lambda x, y: jnp.zeros_like(x).at[:, :, 0, :, 0].set(1)),
            ),
            "global": plant(
                "the batch's maximum for the windows'", rf"global|{ARGMAX}", max_dx(lambda x, y: x == x.max())
            ),
            "window_transposed": plant(
                "rows and columns swapped within the window",
                rf"{ARGMAX}|{kit.TRANSPOSED}",
                max_dx(lambda x, y: (x == y).swapaxes(2, 4)),
            ),
            "branches": misuse.branches(MAX),
            "noisy": misuse.noisy(MAX),
        },
    ),
    Classic(
        "avg_pool",
        AVG,
        normal((2, 5, 6, 2)),
        {
            "ninth": plant(
                "divided by 9 also at the border",
                rf"{kit.COUNT}|{kit.SHIFTED}",
                back(AVG, lambda res, dy: (window_sums_dx(res[1], dy / 9),)),
                "at the border",
            ),
            "sum": plant(
                "not divided at all", kit.COUNT, back(AVG, lambda res, dy: (window_sums_dx(res[1], dy),))
            ),
            "off_by_one": plant("dx off by one row and column", kit.SHIFTED, avg_dx(corner=0)),
            "overlaps_lost": plant(
                "set for add where windows overlap",
                rf"overlap|scatter|accum|{kit.PARTIAL}|{kit.COUNT}",
                avg_dx(method="set"),
            ),
            "last_row": plant(
                "windows that reach into the padding left out below",
                rf"window|{kit.SHIFTED}",
                avg_dx(lambda dy: dy.at[:, -1].set(0)),
                "at the lower border",
            ),
            "one_entry": misuse.one_entry(AVG),
        },
    ),
    Classic(
        "global_avg_pool",
        GLOBAL,
        normal((2, 4, 3, 5)),
        {
            "sum": plant("1/(HW) forgotten", kit.COUNT, post(GLOBAL, 0, lambda d: d * 12)),
            "batch_too": plant("1/(NHW) for 1/(HW)", kit.COUNT, post(GLOBAL, 0, lambda d: d / 2)),
            "corner": plant(
                "dy to the first pixel only",
                rf"corner|broadcast|zero|{kit.PARTIAL}",
                post(GLOBAL, 0, lambda d: jnp.zeros_like(d).at[:, 0, 0].set(12 * d[:, 0, 0])),
            ),
            "not_spread": plant(
                "dx of the shape [N, 1, 1, C]",
                rf"spread|{kit.SHAPE}",
                post(GLOBAL, 0, lambda d: d[:, :1, :1]),
                "in its shape",
            ),
            "channels_first": plant(
                "dx in the layout [N, C, H, W]",
                rf"layout|{kit.SHAPE}|{kit.TRANSPOSED}",
                post(GLOBAL, 0, lambda d: d.transpose(0, 3, 1, 2)),
                "in its shape",
            ),
            "float32": misuse.mistyped(GLOBAL, jnp.float32),
            "drifted": misuse.drifted(GLOBAL),
        },
    ),
]
