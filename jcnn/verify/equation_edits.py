"""What can go wrong in one equation of a jaxpr: for every primitive, computations that could stand for it.

Each edit is an error that people make when they derive or write a backward: a term or a factor left out,
a sign, sums over another axis or a mean for a sum, a missing transpose or flip, an offset of one, another
choice at a kink, a constant slightly or grossly off.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn


class Edit(NamedTuple):
    """What is done, and what is then computed from the values of the equation's operands."""

    what: str
    compute: Callable[..., Any]


Edits = Iterator[Edit]
Constants = dict[int, Any]  # the operands that are constants, and their values


def bind(eqn: JaxprEqn, *values: Any, **changes: Any) -> list:
    """The outputs of an equation, with other parameters if any are given."""
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    functions, params = params if isinstance(params, tuple) else ((), params)
    out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def edits(eqn: JaxprEqn, constants: Constants) -> Edits:
    """All edits of an equation; some may not keep the shapes of its outputs."""
    if eqn.primitive.name in EDITS:
        yield from EDITS[eqn.primitive.name](eqn, constants)
    yield from _constants(eqn, constants)


def _again(eqn: JaxprEqn, **changes: Any) -> Callable[..., Any]:
    """The equation with other parameters."""

    def compute(*values):
        out = bind(eqn, *values, **changes)
        return out if eqn.primitive.multiple_results else out[0]

    return compute


def _changed(eqn: JaxprEqn, i: int, change: Callable[[Any], Any]) -> Callable[..., Any]:
    """The equation with another operand i."""
    return lambda *values: _again(eqn)(*values[:i], change(values[i]), *values[i + 1 :])


def _shape(eqn: Any, operand: int = 0) -> tuple[int, ...]:
    return eqn.invars[operand].aval.shape


def _constants(eqn: JaxprEqn, constants: Constants) -> Edits:
    for i, value in constants.items():
        if jnp.issubdtype(value.dtype, jnp.integer) and np.ndim(value) == 0:
            yield Edit(f"add 1 to constant operand {i + 1}", _changed(eqn, i, lambda c: c + 1))
        if not jnp.issubdtype(value.dtype, jnp.floating) or not np.isfinite(value).all() or not np.any(value):
            continue
        yield Edit(f"2 times constant operand {i + 1}", _changed(eqn, i, lambda c: c * 2))
        yield Edit(f"1+1e-6 times constant operand {i + 1}", _changed(eqn, i, lambda c: c * (1 + 1e-6)))


def _term(eqn: JaxprEqn, constants: Constants) -> Edits:
    for i in range(2):
        if np.any(constants.get(i, 1)):
            yield Edit(f"drop operand {i + 1}", lambda *ab, i=i: ab[1 - i])
    if np.any(constants.get(1, 1)):
        yield Edit("change the sign of operand 2", lambda a, b: a - b)


def _difference(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("drop operand 1", lambda a, b: -b)
    yield Edit("drop operand 2", lambda a, b: a)
    yield Edit("swap the operands", lambda a, b: b - a)
    yield Edit("change the sign of operand 2", lambda a, b: a + b)


def _factor(eqn: JaxprEqn, constants: Constants) -> Edits:
    for i in range(2):
        if np.any(np.asarray(constants.get(i, 0)) != 1):
            yield Edit(f"drop operand {i + 1}", lambda *ab, i=i: ab[1 - i])


def _quotient(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("drop the denominator", lambda a, b: a)
    yield Edit("swap the operands", lambda a, b: b / a)
    yield Edit("multiply instead", lambda a, b: a * b)


def _left_out(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("omission", lambda a: a)


def _instead(what: str, compute: Callable[..., Any]) -> Callable[..., Edits]:
    return lambda eqn, constants: iter([Edit(f"{what} instead", compute)])


def _power(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("raise the exponent by 1", _again(eqn, y=eqn.params["y"] + 1))
    yield Edit("omission", lambda a: a)


def _choice(eqn: JaxprEqn, constants: Constants) -> Edits:
    if len(eqn.invars) == 3:
        yield Edit("swap the cases", lambda which, a, b: lax.select_n(which, b, a))
        yield Edit("always case 1", lambda which, a, b: a)
        yield Edit("always case 2", lambda which, a, b: b)


def _reduction(eqn: JaxprEqn, constants: Constants) -> Edits:
    shape, axes = _shape(eqn), eqn.params["axes"]
    kept = [a for a in range(len(shape)) if a not in axes]
    for a, b in itertools.product(axes, kept):
        if shape[a] == shape[b] > 1:
            other = tuple(sorted({*axes, b} - {a}))
            yield Edit(f"reduce axis {b} for axis {a}", _again(eqn, axes=other))


def _sum(eqn: JaxprEqn, constants: Constants) -> Edits:
    count = int(np.prod([_shape(eqn)[a] for a in eqn.params["axes"]]))
    if count > 1:
        yield Edit("mean instead", lambda a: _again(eqn)(a) / count)
    yield from _reduction(eqn, constants)


def _running(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("turn the direction", _again(eqn, reverse=not eqn.params["reverse"]))


def _swaps(sizes: tuple[int, ...]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Pairs of axes of equal size > 1, and the permutation that swaps them."""
    for a, b in itertools.combinations(range(len(sizes)), 2):
        if sizes[a] == sizes[b] > 1:
            swap = {a: b, b: a}
            yield a, b, tuple(swap.get(i, i) for i in range(len(sizes)))


def _transpose(eqn: JaxprEqn, constants: Constants) -> Edits:
    shape = _shape(eqn)
    for a, b, swap in _swaps(tuple(shape[i] for i in eqn.params["permutation"])):
        yield Edit(f"swap axes {a} and {b}", lambda x, s=swap: lax.transpose(_again(eqn)(x), s))


def _broadcast(eqn: JaxprEqn, constants: Constants) -> Edits:
    shape, dimensions = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    for i, a in enumerate(dimensions):
        for b in range(len(shape)):
            if b not in dimensions and shape[a] == shape[b] > 1:
                other = (*dimensions[:i], b, *dimensions[i + 1 :])
                if list(other) == sorted(other):
                    yield Edit(f"along axis {b} for axis {a}", _again(eqn, broadcast_dimensions=other))


def _reshape(eqn: JaxprEqn, constants: Constants) -> Edits:
    shape, new = _shape(eqn), eqn.params["new_sizes"]
    if sum(n > 1 for n in shape) > 1:
        yield Edit("column-major order", lambda x: lax.reshape(x, new, tuple(range(len(shape)))[::-1]))


def _reversal(eqn: JaxprEqn, constants: Constants) -> Edits:
    for axis in eqn.params["dimensions"]:
        if _shape(eqn)[axis] > 1:
            yield Edit(f"do not flip axis {axis}", lambda x, a=axis: lax.rev(_again(eqn)(x), (a,)))


def _slice(eqn: JaxprEqn, constants: Constants) -> Edits:
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    for axis, size in enumerate(_shape(eqn)):
        for step in (1, -1):
            if start[axis] + step >= 0 and limit[axis] + step <= size:
                begin, end = (
                    tuple(v + step * (a == axis) for a, v in enumerate(ends)) for ends in (start, limit)
                )
                shifted = _again(eqn, start_indices=begin, limit_indices=end)
                yield Edit(f"start {step:+d} on axis {axis}", shifted)


def _dynamic_slice(eqn: JaxprEqn, constants: Constants) -> Edits:
    sizes = eqn.params["slice_sizes"]
    for axis, size in enumerate(_shape(eqn)):
        if sizes[axis] < size:
            yield Edit(f"start +1 on axis {axis}", _changed(eqn, axis + 1, lambda start: start + 1))


def _pad(eqn: JaxprEqn, constants: Constants) -> Edits:
    config = eqn.params["padding_config"]
    for axis, (lo, hi, interior) in enumerate(config):
        if lo or hi or interior:
            shifted = (*config[:axis], (lo + 1, hi - 1, interior), *config[axis + 1 :])
            yield Edit(f"shift by 1 on axis {axis}", _again(eqn, padding_config=shifted))


def _windows(eqn: JaxprEqn, constants: Constants) -> Edits:
    padding = tuple(map(tuple, eqn.params["padding"]))
    for axis, (lo, hi) in enumerate(padding):
        if lo or hi:
            shifted = (*padding[:axis], (lo + 1, hi - 1), *padding[axis + 1 :])
            yield Edit(f"shift by 1 on window axis {axis}", _again(eqn, padding=shifted))


def _concatenate(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("reverse the order", lambda *parts: _again(eqn)(*parts[::-1]))


def _convolution(eqn: JaxprEqn, constants: Constants) -> Edits:
    numbers, padding = eqn.params["dimension_numbers"], eqn.params["padding"]
    kernel = _shape(eqn, 1)
    into, out, *spatial = numbers.rhs_spec
    for axis, (lo, hi) in enumerate(padding):
        shifted = (*padding[:axis], (lo + 1, hi - 1), *padding[axis + 1 :])
        yield Edit(f"shift by 1 on spatial axis {axis}", _again(eqn, padding=shifted))
    if any(kernel[a] > 1 for a in spatial):
        yield Edit("flip the kernel", _changed(eqn, 1, lambda w: lax.rev(w, spatial)))
    if kernel[into] == kernel[out] > 1:
        yield Edit("swap the kernel's channels", _changed(eqn, 1, lambda w: jnp.swapaxes(w, into, out)))


def _product(eqn: JaxprEqn, constants: Constants) -> Edits:
    contracting, batch = eqn.params["dimension_numbers"]
    count = int(np.prod([_shape(eqn)[a] for a in contracting[0]]))
    if count > 1:
        yield Edit("mean instead", lambda a, b: _again(eqn)(a, b) / count)
    for i in range(2):
        shape = _shape(eqn, i)
        free = set(range(len(shape))) - {*contracting[i], *batch[i]}
        for a, b, swap in _swaps(shape):
            if len({a, b} & free) == 1 and not {a, b} & set(batch[i]):
                swapped = _changed(eqn, i, lambda x, s=swap: lax.transpose(x, s))
                yield Edit(f"swap axes {a} and {b} of operand {i + 1}", swapped)


def _numbers(eqn: JaxprEqn, constants: Constants) -> Edits:
    yield Edit("start at 1", lambda: _again(eqn)() + 1)


def _gather(eqn: JaxprEqn, constants: Constants) -> Edits:
    if _shape(eqn, 1)[0] > 1:
        yield Edit("reverse the indices", _changed(eqn, 1, lambda at: lax.rev(at, (0,))))


def _scatter(eqn: JaxprEqn, constants: Constants) -> Edits:
    options = {name: v for name, v in eqn.params.items() if not name.startswith("update_")}
    yield Edit("overwrite instead", lambda x, at, new: lax.scatter(x, at, new, **options))
    yield Edit("omission", lambda x, at, new: x)


EDITS: dict[str, Callable[[JaxprEqn, Constants], Edits]] = {
    "add": _term,
    "add_any": _term,
    "sub": _difference,
    "mul": _factor,
    "div": _quotient,
    "max": _instead("min", lax.min),
    "min": _instead("max", lax.max),
    "gt": _instead(">=", lax.ge),
    "ge": _instead(">", lax.gt),
    "lt": _instead("<=", lax.le),
    "le": _instead("<", lax.lt),
    "eq": _instead("!=", lax.ne),
    "ne": _instead("==", lax.eq),
    "exp": _instead("expm1", lax.expm1),
    "rsqrt": _instead("sqrt", lax.sqrt),
    "sqrt": _instead("rsqrt", lax.rsqrt),
    "sin": _instead("cos", lax.cos),
    "cos": _instead("sin", lax.sin),
    "erfc": _instead("erf", lax.erf),
    "integer_pow": _power,
    "select_n": _choice,
    "reduce_sum": _sum,
    "reduce_max": _reduction,
    "cumsum": _running,
    "scan": _running,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "rev": _reversal,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "reduce_window_sum": _windows,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _gather,
    "scatter-add": _scatter,
    "iota": _numbers,
} | dict.fromkeys(
    ("neg", "abs", "sign", "tanh", "logistic", "log", "log1p", "erf", "square", "round", "floor"), _left_out
)
