"""Computations that XLA keeps to themselves.

On CPU, XLA computes elementwise expressions, even sums of many products, anew in everything that reads them:
for a norm, in each of its sums and in all that follows.  It inlines function calls before it does so, unless
they are marked: what a marked call takes and returns is computed once, and written to memory.
"""

import functools
from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jcnn.kernels import on_cpu


def apart(*static: str) -> Callable[[Callable], Callable]:
    """Makes a function of a module, on CPU, a computation of its own; `static` names what is not an array."""

    def decorate(f: Callable) -> Callable:
        call = jax.jit(f, static_argnames=static)

        @functools.wraps(f)
        def marked(*args):
            if not on_cpu():
                return f(*args)
            with set_xla_metadata(inlineable="false"):
                return call(*args)

        return marked

    return decorate


@apart()
def written(x: jax.Array) -> jax.Array:
    """x, which XLA is to write to memory."""
    return x


@apart()
def transposed(x: jax.Array) -> jax.Array:
    """x [..., M, N] as [..., N, M] in memory: XLA's fast matrix products on CPU want their first factor so,
    and leave a transposition that they can see to slower ones."""
    return x.mT
