"""Computations that XLA keeps to themselves.

On CPU, XLA computes elementwise expressions, even sums of many products, anew in everything that reads them:
for a norm, in each of its sums and in all that follows.  It inlines function calls before it does so, unless
they are marked: what a marked call takes and returns is computed once, and written to memory.
"""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jcnn.kernels import on_cpu


def apart(f: Callable, *static: str) -> Callable:
    """f, on CPU as a computation of its own; `static` names the arguments that are not arrays."""
    call = jax.jit(f, static_argnames=static)

    def marked(*args):
        if not on_cpu():
            return f(*args)
        with set_xla_metadata(inlineable="false"):
            return call(*args)

    return marked


written = apart(lambda x: x)  # x, which XLA is to write to memory
