"""Arguments written as text: "f32[2,8,8,3], i32[4]<10, key, none, {w: f32[3,3], b: f32[3]}".

    arguments = argument, argument, ...
    argument  = array | array<n | key | none | {name: argument, ...}
    array     = dtype or dtype[size, size, ...]      f64 f32 f16 bf16 i8..i64 u8..u64 bool, or NumPy's names

`array` leaves the values to the checker, `i32[4]<10` asks for integers from 0 to 9, `key` for a PRNG key.
"""

import ast
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

LONG = {"f": "float", "i": "int", "u": "uint"}
DTYPES = {
    "bf16": "bfloat16",
    **{
        f"{kind}{bits}": f"{LONG[kind]}{bits}"
        for kind in "fiu"
        for bits in (8, 16, 32, 64)
        if kind + str(bits) != "f8"
    },
    "bool": "bool",
}
DTYPES |= {name: name for name in DTYPES.values()}
TOKEN = re.compile(r"\s*(\w+|\S|$)")


def parse_args(text: str) -> tuple:
    """The arguments that `text` describes, for `verify_vjp`.

    Returns:
        For each argument a `jax.ShapeDtypeStruct`, a sampler `rng -> array` of a NumPy Generator, None, or
        a dict of these.

    Raises:
        ValueError: `text` is none of the grammar; says at which position, and what was expected there.
    """
    reader = _Reader(text)
    if not reader.peek():
        return ()
    args = [_argument(reader)]
    while reader.take_if(","):
        args.append(_argument(reader))
    if reader.peek():
        reader.fail("',' or the end")
    return tuple(args)


def parse_static(items: Iterable[str]) -> dict[str, Any]:
    """`["stride=2", "padding=SAME"]` as a dict; values are Python literals where they can be, else text.

    Raises:
        ValueError: an item is not `name=value`.
    """
    static = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"got {item!r}, expected NAME=VALUE, such as stride=2")
        try:
            static[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            static[name] = value
    return static


class _Reader:
    """A text and how far it has been read."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def _match(self) -> re.Match:
        found = TOKEN.match(self.text, self.at)
        assert found is not None
        return found

    def peek(self) -> str:
        return self._match()[1]

    def take(self) -> str:
        found = self._match()
        self.at = found.end()
        return found[1]

    def take_if(self, token: str) -> bool:
        return self.peek() == token and bool(self.take())

    def expect(self, token: str) -> None:
        if not self.take_if(token):
            self.fail(repr(token))

    def fail(self, expected: str) -> NoReturn:
        found = self._match()
        got = repr(found[1]) if found[1] else "the end"
        raise ValueError(f"{self.text!r}, position {found.start(1) + 1}: got {got}, expected {expected}")


def _argument(reader: _Reader) -> Any:
    if reader.peek() == "{":
        return _dictionary(reader)
    if reader.take_if("none"):
        return None
    if reader.take_if("key"):
        return lambda rng: jax.random.key(int(rng.integers(2**31)))
    dtype = _dtype(reader)
    shape = _shape(reader) if reader.take_if("[") else ()
    if np.issubdtype(dtype, np.integer) and reader.take_if("<"):
        return _integers(reader, dtype, shape)
    return jax.ShapeDtypeStruct(shape, dtype)


def _dictionary(reader: _Reader) -> dict[str, Any]:
    reader.expect("{")
    items = {}
    while True:
        if not reader.peek().isidentifier():
            reader.fail("a name")
        name = reader.take()
        reader.expect(":")
        items[name] = _argument(reader)
        if reader.take_if("}"):
            return items
        if not reader.take_if(","):
            reader.fail("',' or '}'")


def _dtype(reader: _Reader) -> np.dtype:
    name = reader.peek()
    if name not in DTYPES:
        near = difflib.get_close_matches(name, DTYPES, n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        reader.fail("f64, f32, f16, bf16, i8..i64, u8..u64, bool, key, none or {name: ...}" + hint)
    return jnp.dtype(DTYPES[reader.take()])


def _shape(reader: _Reader) -> tuple[int, ...]:
    sizes = []
    while not reader.take_if("]"):
        if sizes and not reader.take_if(","):
            reader.fail("',' or ']'")
        sizes.append(_number(reader, "a size"))
    return tuple(sizes)


def _number(reader: _Reader, expected: str) -> int:
    if not reader.peek().isdecimal():
        reader.fail(expected)
    return int(reader.take())


def _integers(
    reader: _Reader, dtype: np.dtype, shape: tuple[int, ...]
) -> Callable[[np.random.Generator], Any]:
    largest = np.iinfo(dtype).max
    bound = int(reader.peek()) if reader.peek().isdecimal() else 0
    if not 1 <= bound <= largest:
        reader.fail(f"an integer from 1 to {largest}")
    reader.take()
    return lambda rng: rng.integers(bound, size=shape, dtype=dtype)
