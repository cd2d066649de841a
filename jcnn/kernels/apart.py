"""Computations that XLA keeps to themselves.

On CPU, XLA computes elementwise expressions, even sums of many products, anew in everything that reads them:
for a norm, in each of its sums and in all that follows.  It inlines function calls before it does so, unless
they are marked: what a marked call takes and returns is computed once, and written to memory.
"""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def apart(f: Callable, *static: str) -> Callable:
    """f, by positional arguments, as a computation of its own; `static` names those that are not arrays."""
    call = jax.jit(f, static_argnames=static)

    def marked(*args):
        with set_xla_metadata(inlineable="false"):
            return call(*args)

    return marked


written = apart(lambda x: x)
