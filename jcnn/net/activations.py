"""Activations with parameters of their own; those without are layers as they stand, see `chain`."""

import jax.numpy as jnp

from jcnn.activation import prelu as prelu_rule
from jcnn.net.core import Net, layer


def prelu(slope: float = 0.25, *, shared: bool = False) -> Net:
    """A rectifier with a learned slope below 0, one for each channel or a `shared` one; `slope` at first.

    He et al. 2015, arXiv:1502.01852, section 2.1.
    """

    def init(key, shape):
        return {"slope": jnp.full(() if shared else shape[-1], slope)}

    return layer(prelu_rule, init, out_shape=lambda shape: shape)
