"""Convolutions without lax: columns of windows, and products with the shifted input."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, back, normal, part, plant, post


def windows(x):
    """CS231n's index arrays of the 3x3 windows of a padded [N, C, H + 2, W + 2]: [9C, 1], [9C, HW] twice."""
    _, c, h, w = x.shape
    channel, di, dj = np.indices((c, 3, 3)).reshape(3, -1, 1)
    i, j = np.indices((h - 2, w - 2)).reshape(2, 1, -1)
    return channel, di + i, dj + j


def im2col(x, w):
    """x [N, C, H, W], w [F, C, 3, 3], padding 1, as in CS231n"""
    return im2col_fwd(x, w)[0]


def im2col_fwd(x, w):
    n, c, h, width = x.shape
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    k, i, j = windows(padded)
    cols = padded[:, k, i, j].transpose(1, 2, 0).reshape(9 * c, -1)
    y = w.reshape(len(w), -1) @ cols
    return y.reshape(-1, h, width, n).transpose(3, 0, 1, 2), (w, cols)


def im2col_bwd(res, dy):
    w, cols = res
    dy_rows = dy.transpose(1, 2, 3, 0).reshape(len(w), -1)
    return col2im(w.reshape(len(w), -1).T @ dy_rows, w, dy), (dy_rows @ cols.T).reshape(w.shape)


def col2im(dcols, w, dy, method="add"):
    n, _, h, width = dy.shape
    padded = jnp.zeros((n, w.shape[1], h + 2, width + 2), dy.dtype)
    k, i, j = windows(padded)
    at = padded.at[:, k, i, j]
    return getattr(at, method)(dcols.reshape(len(k), -1, n).transpose(2, 0, 1))[:, :, 1:-1, 1:-1]


def im2col_numpy(res, dy):
    w, cols = map(np.asarray, res)
    dy = np.asarray(dy)
    n, f, h, width = dy.shape
    dy_rows = dy.transpose(1, 2, 3, 0).reshape(f, -1)
    dx = np.zeros((n, w.shape[1], h + 2, width + 2), dy.dtype)
    dcols = w.reshape(f, -1).T @ dy_rows
    np.add.at(dx, (slice(None), *windows(dx)), dcols.reshape(len(dcols), -1, n).transpose(2, 0, 1))
    return jnp.asarray(dx[:, :, 1:-1, 1:-1]), jnp.asarray((dy_rows @ cols.T).reshape(w.shape), w.dtype)


def im2col_rows(wrong_rows):
    """dy's rows made in another way."""

    def bwd(res, dy):
        w, cols = res
        rows = wrong_rows(dy).reshape(len(w), -1)
        return col2im(w.reshape(len(w), -1).T @ rows, w, dy), (rows @ cols.T).reshape(w.shape)

    return back(IM2COL, bwd)


def conv1d(x, w):
    """x [N, T, I], w [K, I, O], causal"""
    padded = jnp.pad(x, ((0, 0), (len(w) - 1, 0), (0, 0)))
    return sum(padded[:, k : k + x.shape[1]] @ w[k] for k in range(len(w)))


def conv1d_fwd(x, w):
    return conv1d(x, w), (x, w)


def conv1d_bwd(res, dy):
    x, w = res
    padded = jnp.pad(x, ((0, 0), (len(w) - 1, 0), (0, 0)))
    return conv1d_dx(w, dy), jnp.stack([tap(padded[:, k : k + x.shape[1]], dy) for k in range(len(w))])


def conv1d_dx(w, dy):
    last, length = len(w) - 1, dy.shape[1]
    later = jnp.pad(dy, ((0, 0), (0, last), (0, 0)))
    return sum(later[:, last - k : last - k + length] @ w[k].T for k in range(len(w)))


def tap(x, dy):
    return jnp.einsum("nti,nto->io", x, dy)


def conv1d_dx_while(res, dy):
    _, w = res
    later = jnp.pad(dy, ((0, 0), (0, len(w) - 1), (0, 0)))

    def step(state):
        k, dx = state
        return k - 1, dx + lax.dynamic_slice_in_dim(later, len(w) - 1 - k, dy.shape[1], 1) @ w[k].T

    return lax.while_loop(lambda state: state[0] >= 0, step, (len(w) - 1, jnp.zeros_like(res[0])))[1]


IM2COL = im2col, im2col_fwd, im2col_bwd
CONV1D = conv1d, conv1d_fwd, conv1d_bwd


def columns_dx(method="add", edit=lambda dcols: dcols):
    def dx(res, dy):
        w, _ = res
        rows = dy.transpose(1, 2, 3, 0).reshape(len(w), -1)
        return col2im(edit(w.reshape(len(w), -1).T @ rows), w, dy, method)

    return part(IM2COL, 0, dx)


def conv1d_wrong_dx(edit_w=lambda w: w, edit_dy=lambda dy: dy):
    return part(CONV1D, 0, lambda res, dy: conv1d_dx(edit_w(res[1]), edit_dy(dy)))


def conv1d_dw_rolled(res, dy):
    x, w = res
    return jnp.stack([tap(jnp.roll(x, len(w) - 1 - k, 1), dy) for k in range(len(w))])


RULES = [
    Classic(
        "conv2d_im2col",
        IM2COL,
        normal((2, 2, 4, 4), (2, 2, 3, 3)),
        {
            "overlaps_lost": plant(
                "col2im sets where it must add",
                rf"overlap|scatter|accum|duplicat|{kit.COUNT}|{kit.PARTIAL}",
                columns_dx("set"),
            ),
            "crop": plant(
                "dx off by one column, the padding cropped on one side",
                kit.SHIFTED,
                post(IM2COL, 0, lambda d: jnp.pad(d[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))),
            ),
            "batch_order": plant(
                "rows of dy with the batch outermost, columns with it innermost",
                rf"batch|example|{kit.TRANSPOSED}",
                im2col_rows(lambda dy: dy.swapaxes(0, 1)),
                "for more than one example",
            ),
            "filters_first": plant(
                "windows' axes and filters of dw swapped, silent as F = C",
                kit.TRANSPOSED,
                post(IM2COL, 1, lambda d: d.swapaxes(0, 1)),
            ),
            "numpy": plant(
                "np.add.at and np.asarray",
                rf"asarray|{kit.TRACED}",
                back(IM2COL, im2col_numpy),
                "under jit, vmap, grad of grad",
            ),
            "float32": misuse.narrowed(IM2COL, jnp.float32),
        },
    ),
    Classic(
        "conv1d",
        CONV1D,
        normal((3, 7, 2), (3, 2, 4)),
        {
            "not_flipped": plant("taps in x's order in dx", kit.FLIPPED, conv1d_wrong_dx(lambda w: w[::-1])),
            "anticausal": plant(
                "dx two steps late, dy padded on the wrong side",
                kit.SHIFTED,
                conv1d_wrong_dx(edit_dy=lambda dy: jnp.pad(dy, ((0, 0), (2, 0), (0, 0)))[:, :-2]),
            ),
            "tap_missing": plant(
                "dx without the first tap",
                rf"tap|loop|{kit.PARTIAL}|{kit.COUNT}",
                conv1d_wrong_dx(lambda w: w.at[0].set(0)),
            ),
            "dw_wraps": plant(
                "dw of x rolled, not padded",
                kit.SHIFTED,
                part(CONV1D, 1, conv1d_dw_rolled),
                "at the first steps",
            ),
            "while_loop": plant(
                "dx in a while_loop",
                rf"while|loop|reverse|{kit.SECOND}",
                part(CONV1D, 0, conv1d_dx_while),
                "as reverse mode fails in second order",
            ),
            "last_call": misuse.last_call(CONV1D),
            "branches": misuse.branches(CONV1D),
        },
    ),
]
