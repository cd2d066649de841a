"""What people get wrong in the backwards of dense layers and `flatten`."""

import jax.numpy as jnp
from jax import lax

from jcnn.linear import dense, flatten
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, backward, channels_swapped, cotangent, residual, rows

DENSE: dict[str, Error] = {
    "weights not transposed": residual(w=channels_swapped),
    "dw transposed": cotangent(1, lambda dw, res, dy: channels_swapped(dw)),
    "dw a mean over examples": cotangent(1, lambda dw, res, dy: dw / rows(dy)),
    "db a mean over examples": cotangent(2, lambda db, res, dy: db / rows(dy)),
}
FLATTEN: dict[str, Error] = {
    "column-major": backward(
        lambda res, dy: (lax.transpose(dy.reshape(res.shape[0], *res.shape[:0:-1]),
                                       (0, *range(len(res.shape) - 1, 0, -1))),)
    ),
    "one value late": backward(lambda res, dy: (jnp.roll(dy, 1, -1).reshape(res.shape),)),
}  # fmt: skip

ERRORS: dict[Rule, dict[str, Error]] = {
    dense: DENSE,
    flatten: FLATTEN,
}
