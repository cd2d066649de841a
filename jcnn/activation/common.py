"""What the activations share: one array of any shape in, and how it is checked."""

from collections.abc import Callable

from jaxtyping import Array, Float

from jcnn import check
from jcnn.rule import Rule

Values = Float[Array, "*shape"]


def activation(
    forward: Callable,
    backward: Callable,
    reference: Callable,
    check_static: Callable = lambda op, x, **_: None,
) -> Rule:
    """The rule of an op of one floating-point array; `check_static(op, x, **config)` sees to the rest."""
    op = reference.__name__.removesuffix("_reference")

    def check_all(x, **config):
        check.floating(op, x=x)
        check_static(op, x, **config)

    return Rule(forward, backward, reference, check_all)
