"""What people get wrong in the backwards of dropout."""

import jax.numpy as jnp

from jcnn.kernels import widen
from jcnn.regularize import drop_path, dropout
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, cotangent, residual

DROPOUT: dict[str, Error] = {
    "scale forgotten": cotangent(0, lambda dx, res, dy: dx * (1 - res.rate)),
    "scaled twice": cotangent(0, lambda dx, res, dy: dx / (1 - res.rate)),
    "mask forgotten": cotangent(0, lambda dx, res, dy: widen(dy) / (1 - res.rate)),
    "mask inverted": cotangent(0, lambda dx, res, dy: widen(dy) / (1 - res.rate) - dx),
    "another mask": residual(kept=lambda kept: jnp.roll(kept, 1)),
}
DROP_PATH: dict[str, Error] = DROPOUT | {
    "values dropped, not examples": cotangent(
        0, lambda dx, res, dy: dx * (jnp.arange(dy.size) % 2).reshape(dy.shape)
    ),
}

ERRORS: dict[Rule, dict[str, Error]] = {
    dropout: DROPOUT,
    drop_path: DROP_PATH,
}
