"""Functions as Python source that runs elsewhere: imported where they are installed, else written out.

Whatever a function refers to, modules, helpers, constants and variables it closes over, comes along.
"""

import ast
import base64
import contextlib
import importlib
import inspect
import re
import site
import sys
import sysconfig
import textwrap
import types
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

LARGEST = 200_000  # bytes of an array that is still written out
FLOAT64 = 'jax.config.update("jax_enable_x64", True)'
LONGEST = 12  # lines of a lambda
SHORT = 60  # entries of an array that is written as numbers


class Source:
    """Collects definitions; `name_of(function)` says under which name one is available afterwards."""

    def __init__(self):
        self.imports: list[str] = ["import jax", "import jax.numpy as jnp", "import numpy as np"]
        self.definitions: list[str] = []
        self._names: dict[int, str] = {}

    def text(self) -> str:
        parts = ["\n".join(dict.fromkeys(self.imports)), FLOAT64, *self.definitions]
        return "\n\n".join(parts)

    def name_of(self, value: Any, wanted: str) -> str:
        """Defines `value` if need be, as `wanted` unless it has a name of its own."""
        if id(value) not in self._names:
            self._names[id(value)] = wanted
            self._names[id(value)] = self._define(value, wanted)
        return self._names[id(value)]

    def _define(self, value: Any, wanted: str) -> str:
        if isinstance(value, types.ModuleType):
            name = value.__name__
            self.imports.append(f"import {name}" + ("" if name == wanted else f" as {wanted}"))
        elif found := _importable(value):
            self.imports.append(f"from {found[0]} import {found[1]} as {wanted}")
        elif callable(value) and inspect.isfunction(inspect.unwrap(value)):
            self._define_function(inspect.unwrap(value), wanted)
        else:
            self.definitions.append(f"{wanted} = {written(value)}")
        return wanted

    def _define_function(self, function: types.FunctionType, wanted: str) -> None:
        text = _definition(function, wanted)
        mentioned = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
        used = inspect.getclosurevars(function)
        for name, value in {**used.globals, **used.nonlocals}.items():
            if name in mentioned and value is not function:
                given = self.name_of(value, name)
                if given != name:
                    self.definitions.append(f"{name} = {given}")
        self.definitions.append(text)


def _definition(function: types.FunctionType, wanted: str) -> str:
    """The function's source under the name `wanted`, without decorators."""
    first = function.__code__.co_firstlineno
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        if function.__name__ == "<lambda>":
            lines = inspect.findsource(function)[0][first - 1 : first + LONGEST]
            for text in _lambdas("".join(lines)):
                if _compiles_to(text, function):
                    return f"{wanted} = ({text})"
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
                node.decorator_list, node.name = [], wanted
                return ast.unparse(node)
    where = f"{inspect.getfile(function)}, line {first}"
    return f"def {wanted}(*args):\n    raise NotImplementedError('put here: {function.__name__} of {where}')"


def _lambdas(text: str) -> Iterator[str]:
    """The lambda expressions in a piece of source, which need not be a statement."""
    for match in re.finditer(r"\blambda\b", text):
        for end in range(len(text), match.end(), -1):
            with contextlib.suppress(SyntaxError, ValueError):
                candidate = text[match.start() : end].strip()
                if isinstance(ast.parse(f"({candidate})", mode="eval").body, ast.Lambda):
                    yield candidate
                    break


def _compiles_to(text: str, function: types.FunctionType) -> bool:
    """Whether a lambda has the names and constants of `function`."""
    return _fingerprint(compile(f"({text})", "", "eval").co_consts[0]) == _fingerprint(function.__code__)


def _fingerprint(code: types.CodeType) -> tuple[set, set]:
    """Names and constants, those of inner functions included; where a name is bound does not matter."""
    names = {*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars}
    constants = {repr(c) for c in code.co_consts if not isinstance(c, types.CodeType | str)}
    for inner in (c for c in code.co_consts if isinstance(c, types.CodeType)):
        more = _fingerprint(inner)
        names, constants = names | more[0], constants | more[1]
    return names, constants


def _importable(value: Any) -> tuple[str, str] | None:
    """Module and name of something that an installed package, the standard library or jcnn defines."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not module or not name.isidentifier() or not _installed(module):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return (module, name) if found is value else None


def _installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "jcnn" or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return any(file.startswith(p) for p in (*site.getsitepackages(), sysconfig.get_path("purelib")))


class Code(str):
    """An expression that is written as it is."""


def written(value: Any) -> str:
    """A Python expression for a value: containers, numbers, strings and arrays."""
    if isinstance(value, Code):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        inner = ", ".join(map(written, value)) + ("," if len(value) == 1 else "")
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"jax.random.wrap_key_data({written(jax.random.key_data(value))})"
    if isinstance(value, jax.Array):
        return f"jnp.asarray({_array(np.asarray(value))})"
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value))
    if value is None or isinstance(value, bool | int | float | str | complex):
        return repr(value)
    return f"None  # a {type(value).__name__} that cannot be written here"


def _array(a: np.ndarray) -> str:
    if a.dtype.kind not in "biuf":
        return f"jnp.asarray({_array(a.astype(np.float64))}, jnp.{a.dtype})"
    if a.nbytes > LARGEST:
        return (
            f"np.random.default_rng(0).standard_normal({a.shape}).astype('{a.dtype}')  # too large to write"
        )
    if a.size <= SHORT and np.isfinite(a).all():
        return f"np.array({a.tolist()!r}, '{a.dtype}')" + (f".reshape({a.shape})" if a.size == 0 else "")
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(a).tobytes())).decode()
    return f"unpacked('{packed}', '{a.dtype}', {a.shape})"
