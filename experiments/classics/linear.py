"""Dense layers."""

import jax.numpy as jnp

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, back, normal, part, plant, post


def dense(x, w, b):
    """x [N, I], w [I, O], b [O]"""
    return x @ w + b


def dense_fwd(x, w, b):
    return dense(x, w, b), (x, w)


def dense_bwd(res, dy):
    x, w = res
    return dy @ w.T, x.T @ dy, dy.sum(0)


def dense_tree(params, x):
    """params {"w": [I, O], "b": [O]}, x [N, I]"""
    return x @ params["w"] + params["b"]


def dense_tree_fwd(params, x):
    return dense_tree(params, x), (params, x)


def dense_tree_bwd(res, dy):
    params, x = res
    return {"w": x.T @ dy, "b": dy.sum(0)}, dy @ params["w"].T


def dense_tree_args(rng, dtype):
    w, b, x = normal((3, 5), (5,), (4, 3))(rng, dtype)
    return {"w": w, "b": b}, x


DENSE = dense, dense_fwd, dense_bwd
TREE = dense_tree, dense_tree_fwd, dense_tree_bwd

RULES = [
    Classic(
        "dense",
        DENSE,
        normal((6, 4), (4, 4), (4,)),
        {
            "w_not_transposed": plant(
                "dx = dy @ w, silent as w is square",
                kit.TRANSPOSED,
                part(DENSE, 0, lambda res, dy: dy @ res[1]),
            ),
            "dw_transposed": plant(
                "dw = dy.T @ x, silent as w is square",
                kit.TRANSPOSED,
                part(DENSE, 1, lambda res, dy: dy.T @ res[0]),
            ),
            "db_first_example": plant(
                "db = dy[0]",
                rf"{kit.COUNT}|{kit.PARTIAL}",
                part(DENSE, 2, lambda _, dy: dy[0]),
                "for more than one example",
            ),
            "db_not_summed": plant(
                "db = dy, of the shape of y",
                rf"sum|{kit.SHAPE}",
                part(DENSE, 2, lambda _, dy: dy),
                "in its shape",
            ),
            "weight_decay": plant(
                "weight decay added to dw",
                rf"decay|regular|zero|offset|affine|added|{kit.NONLINEAR}",
                part(DENSE, 1, lambda res, dy: res[0].T @ dy + 1e-3 * res[1]),
                "also at dy = 0",
            ),
            "frozen_w": misuse.frozen(DENSE, 1),
            "accumulates": misuse.accumulates(DENSE),
        },
    ),
    Classic(
        "dense_tree",
        TREE,
        dense_tree_args,
        {
            "no_b": plant(
                "no entry for b",
                rf"\bb\b|\bkey|dict|{kit.STRUCTURE}",
                part(TREE, 0, lambda res, dy: {"w": res[1].T @ dy}),
                "in the structure",
            ),
            "b_zeros": plant(
                "zeros for b",
                rf"\bb\b|zero|{kit.COUNT}",
                part(TREE, 0, lambda res, dy: {"w": res[1].T @ dy, "b": 0 * dy[0]}),
            ),
            "pair": plant(
                "(dw, db) for the dict",
                rf"dict|{kit.STRUCTURE}",
                part(TREE, 0, lambda res, dy: (res[1].T @ dy, dy.sum(0))),
                "in the structure",
            ),
            "swapped": plant(
                "dx before the parameters' cotangent",
                rf"\border|swap|{kit.STRUCTURE}",
                back(TREE, lambda res, dy: dense_tree_bwd(res, dy)[::-1]),
                "in the structure",
            ),
            "mean": plant("dw and db divided by N", kit.COUNT, post(TREE, 0, lambda d: d / 4)),
            "sign": plant("dx negated", rf"{kit.SIGN}|{kit.FACTOR}", post(TREE, 1, jnp.negative)),
            "ones": misuse.ones(TREE),
        },
    ),
]
