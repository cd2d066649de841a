"""What a net costs, from shapes alone: nothing is computed, no array is made."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.extend.core import Var

from jcnn.geometry import Ints, Window

if TYPE_CHECKING:
    from jcnn.net.core import Net


class Row(NamedTuple):
    """One layer."""

    name: str
    output_shape: Ints  # of one image, without the batch axis
    parameters: int
    macs_forward: int  # multiply-adds of one image in convolutions and matrix products
    macs_backward: int  # the same for the cotangents of input and weights
    receptive_field: Ints | None  # pixels of the input that one output sees, per axis; None: all of them
    residual_bytes: int  # arrays kept for the backward, for the whole batch, parameters not counted


@dataclasses.dataclass(frozen=True)
class Summary:
    """A table of the layers; `str()` prints it."""

    rows: tuple[Row, ...]
    image_shape: Ints
    batch_size: int

    def total(self, column: str) -> int:
        """Sum of a column of numbers."""
        return sum(getattr(row, column) for row in self.rows)

    def __str__(self) -> str:
        header = ("layer", "output", "parameters", "MACs fwd", "MACs bwd", "sees", "kept bytes")
        counted = ("parameters", "macs_forward", "macs_backward", "residual_bytes")
        totals = [f"{self.total(c):,}" for c in counted]
        table = [
            header,
            *(
                (
                    row.name,
                    "x".join(map(str, row.output_shape)),
                    f"{row.parameters:,}",
                    f"{row.macs_forward:,}",
                    f"{row.macs_backward:,}",
                    "all" if row.receptive_field is None else "x".join(map(str, row.receptive_field)),
                    f"{row.residual_bytes:,}",
                )
                for row in self.rows
            ),
            ("total", "", *totals[:3], "", totals[3]),
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
            for cells in table
        ]
        rule = "-" * max(map(len, lines))
        title = f"images {'x'.join(map(str, self.image_shape))}, batch of {self.batch_size}; MACs per image"
        return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summarize(net: "Net", image_shape: Ints, batch_size: int) -> Summary:
    """The rows of `net`, for images [batch_size, *image_shape]."""
    kept = _kept_bytes(net, image_shape, batch_size)
    rows, _, _ = _rows(net, image_shape, Seen(len(image_shape) - 1), "")
    rows = tuple(row._replace(residual_bytes=n) for row, n in zip(rows, kept, strict=True))
    return Summary(rows, image_shape, batch_size)


class Seen(NamedTuple):
    """What lies between the net's input and an image: windows that slide over it, or over the output."""

    rank: int
    steps: tuple[tuple[Window, bool], ...] = ()  # each with whether it slides over the output of its layer


def _size(seen: Seen) -> Ints:
    """The most pixels of the net's input that one output of these layers sees, per axis.

    Output p of a window sees the inputs p s - lo ... p s - lo + e - 1; where it slides over the output, input
    i spreads over those, and output p sees the inputs (p + lo - e + 1) / s ... (p + lo) / s.
    """

    def width(axis: int, position: int) -> int:
        first = last = position
        for w, over_output in reversed(seen.steps):
            s, e, lo = w.stride[axis], w.extent[axis], w.padding[axis][0]
            if over_output:
                first, last = -((e - 1 - lo - first) // s), (last + lo) // s
            else:
                first, last = first * s - lo, last * s - lo + e - 1
        return last - first + 1

    def period(axis: int) -> int:
        return math.prod(w.stride[axis] for w, over_output in seen.steps if over_output)

    return tuple(max(width(axis, p) for p in range(period(axis))) for axis in range(seen.rank))


def _rows(net: "Net", shape: Ints, field: Seen | None, indent: str):
    """The rows of `net` on images of `shape`, whose pixels see `field` of the net's input."""
    if net.name == "gated":
        gate, _, _ = _rows(net.children[0], shape, field, indent + "* ")
        product, _, _ = _rows(net.children[1], shape, None, indent)
        return gate + product, shape, None
    if net.name == "residual":
        body, out, field_after = _rows(net.children[0], shape, field, indent + "| ")
        shortcut, _, _ = _rows(net.children[1], shape, field, indent + "+ ")
        return body + shortcut, out, field_after
    if net.children:
        rows = []
        for child in net.children:
            below, shape, field = _rows(child, shape, field, indent)
            rows += below
        return rows, shape, field

    from jcnn.net.core import output_shape

    out = output_shape(net, shape)
    params, _ = jax.eval_shape(lambda: net.init_layer(jax.random.key(0), shape))
    if net.sees_all or field is None:
        field = None
    elif (slides := net.window(shape)) is not None:
        field = field._replace(steps=(*field.steps, (slides, net.slides_over_output)))
    macs = net.macs(shape, out)
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    size = None if field is None else _size(field)
    return [Row(indent + net.name, out, count, macs, 2 * macs, size, 0)], out, field


def _kept_bytes(net: "Net", image_shape: Ints, batch_size: int) -> Iterator[int]:
    """Bytes that each layer keeps in training; an array that several layers keep counts for the first."""
    from jcnn.net.core import images

    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(lambda: net.init_layer(jax.random.key(0), image_shape))

    def forward(params, state, x, key):
        return net.fwd(params, state, x, train=True, key=key)[1]

    x = images(image_shape, batch_size)
    jaxpr, tree = jax.make_jaxpr(forward, return_shape=True)(params, state, x, key)
    seen = set(jaxpr.jaxpr.invars[: len(jax.tree.leaves((params, state)))])
    variables = jax.tree.unflatten(jax.tree.structure(tree), jaxpr.jaxpr.outvars)
    for residuals in _per_layer(net, variables):
        kept = 0
        for v in jax.tree.leaves(residuals):
            if isinstance(v, Var) and v not in seen:
                seen.add(v)
                kept += math.prod(v.aval.shape) * v.aval.dtype.itemsize  # pyright: ignore
        yield kept


def _per_layer(net: "Net", residuals: Any) -> Iterator[Any]:
    if not net.children:
        yield residuals
        return
    for child, res in zip(net.children, residuals, strict=True):
        yield from _per_layer(child, res)
