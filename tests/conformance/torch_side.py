"""PyTorch beside jcnn: configurations drawn from a grid, layouts, and the comparison of all cotangents."""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from tests.checks import assert_close

try:
    import torch
except ImportError:  # each test is then skipped by its name
    torch: Any = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
TOLERANCE = 1e-9  # in float64, of the largest entry of an array or of 1, the size of dy


def functional(name: str) -> Callable:
    """`torch.nn.functional.<name>`, looked up when it is called: without torch the tests are only listed."""
    return lambda *args, **kwargs: getattr(torch.nn.functional, name)(*args, **kwargs)


def tensors(arrays: tuple) -> list:
    """Copies as tensors, those of floats with gradients."""
    copies = [torch.tensor(np.array(a)) for a in arrays]
    return [t.requires_grad_() if t.is_floating_point() else t for t in copies]


def t(values, **config):
    """A tensor of floats."""
    return torch.tensor(np.array(values, float), **config)


def of_torch(op: str, *args, **config) -> list:
    """The result of a function of tensors of floats."""
    return functional(op)(*map(t, args), **config).detach().tolist()


def gradient(op: str, x, **config) -> list:
    """PyTorch's, for dy of ones."""
    x = t(x, requires_grad=True)
    functional(op)(x, **config).sum().backward()
    return x.grad.tolist()


def channels_first(t):
    """[N, *S, C] to [N, C, *S]."""
    return t.movedim(-1, 1)


def channels_last(t):
    """[N, C, *S] to [N, *S, C]."""
    return t.movedim(1, -1)


def kernel_last(w):
    """[*K, I, O] to [O, I, *K]."""
    return w.permute(-1, -2, *range(w.ndim - 2))


def on_images(op: Callable) -> Callable:
    """A function of channels-first images (and other arguments) as one of channels-last ones.

    It is given its dy in channels-first order in memory, too: for others the instance norm of one image of
    PyTorch 2.13 has wrong gradients.
    """

    def of_channels_last(x, *others, **config):
        y = op(channels_first(x), *others, **config)
        y.register_hook(lambda dy: dy.contiguous())
        return channels_last(y)

    return of_channels_last


def same_as_torch(rule: jcnn.Rule, theirs: Callable, arrays: tuple, *, vjp: bool = False, **static) -> None:
    """Outputs and all cotangents of `rule` are those of `theirs`, to `TOLERANCE` in float64.

    Args:
        rule: a rule of jcnn.
        theirs: the same function of tensors, in jcnn's layout.
        arrays: the arguments; those of ints have no cotangent.
        vjp: whether the rule is differentiated by `jax.vjp`, not by its own `fwd` and `bwd`.
        static: the rule's configuration.
    """
    args = tensors(arrays)
    outputs = theirs(*args)
    outputs = tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
    floats = [a for a in args if a.requires_grad]
    dys = [draw(10 + i, *y.shape) for i, y in enumerate(outputs) if y.requires_grad]
    through = [y for y in outputs if y.requires_grad]
    cotangents = torch.autograd.grad(through, floats, tensors(tuple(dys)), allow_unused=True)
    cotangents = [torch.zeros_like(a) if d is None else d for a, d in zip(floats, cotangents, strict=True)]
    expected = [a.detach().numpy() for a in (*outputs, *cotangents)]
    got = jax.jit(lambda *a: differentiate(rule, a, dys, vjp, static))(*arrays)
    compare(rule.name, jax.tree.leaves(got), expected, len(outputs))


def compare(op: str, got: list, expected: list, outputs: int) -> None:
    """Equal to `TOLERANCE`; NaN and infinity in the same places."""
    assert len(got) == len(expected), f"{op}: {len(got)} arrays, not {len(expected)}"
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        finite = np.abs(b[np.isfinite(b)])
        tolerance = TOLERANCE * max(1, 1 / max(finite.max(initial=0), 1e-300))
        what = f"output {i}" if i < outputs else f"cotangent {i - outputs}"
        assert_close(a, b, tolerance, f"{op}, {what}")


def differentiate(rule: jcnn.Rule, arrays: tuple, dys: list, vjp: bool, static: dict) -> list:
    """The outputs of `rule`, then its cotangents; outputs of ints have none and take no dy."""
    if vjp:
        is_float = [jnp.issubdtype(a.dtype, jnp.floating) for a in arrays]

        def of_floats(*floats):
            rest = iter(floats)
            return rule(*(next(rest) if f else a for a, f in zip(arrays, is_float, strict=True)), **static)

        y, pullback = jax.vjp(of_floats, *(a for a, f in zip(arrays, is_float, strict=True) if f))
        return [y, pullback(cotangent_of(y, dys))]
    y, res = rule.fwd(*arrays, **static)
    return [y, rule.bwd(res, cotangent_of(y, dys))]


def cotangent_of(y: Any, dys: list) -> Any:
    """The cotangents `dys` of the leaves of `y` that are floats, in y's structure."""
    leaves, structure = jax.tree.flatten(y)
    rest = iter(dys)
    zeros = [np.zeros(a.shape, jax.dtypes.float0) for a in leaves]
    floats = [jnp.issubdtype(a.dtype, jnp.floating) for a in leaves]
    return structure.unflatten(next(rest) if f else z for f, z in zip(floats, zeros, strict=True))


def draw(seed: int, *shape: int) -> np.ndarray:
    """Standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape)


def tied(seed: int, *shape: int) -> np.ndarray:
    """Small integers: windows in which the maximum is there more than once."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(float)


def grid(
    number: int, odd: list[dict] | tuple = (), *, valid: Callable = lambda c: True, **choices: Any
) -> list:
    """Configurations as parameters of a test, each with itself as id: the odd ones, then `number` drawn ones.

    Args:
        number: how many to draw from the product of `choices`, always the same ones, none of them twice.
        odd: configurations that must be there, as changes of the first value of every choice.
        valid: what makes sense.
        choices: the values of every key.
    """
    first = {key: values[0] for key, values in choices.items()}
    found = [first | changes for changes in odd]
    assert all(map(valid, found)), "an odd configuration makes no sense"
    rng = random.Random(0)
    for _ in range(200 * number):
        case = {key: rng.choice(values) for key, values in choices.items()}
        if len(found) < number + len(odd) and case not in found and valid(case):
            found.append(case)
    assert len(found) == number + len(odd), f"only {len(found)} configurations to be found"
    return [pytest.param(case, id=name(case)) for case in found]


def name(case: dict) -> str:
    """A configuration as the id of a test."""
    return ",".join(f"{key}={value}" for key, value in case.items()).replace(" ", "") or "plain"


def per_axis(value: int | tuple, rank: int) -> tuple:
    return value if isinstance(value, tuple) else (value,) * rank


def fits(size: tuple, window, dilation=1, padding=0) -> bool:
    """Whether a window fits into the padded axes."""
    rank = len(size)
    axes = zip(size, *(per_axis(v, rank) for v in (window, dilation, padding)), strict=True)
    return all(n + 2 * p >= (k - 1) * d + 1 for n, k, d, p in axes)
