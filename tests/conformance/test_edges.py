"""Empty batches, no channels, axes of size 1, NaN and infinity: as in the reference, or refused by name."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import EXAMPLES
from tests.conformance.torch_side import draw

RULES = {name: rule for name, rule in vars(jcnn).items() if isinstance(rule, jcnn.Rule)}
SHAPES = {"no examples": (0, 3, 4, 2), "no channels": (2, 3, 4, 0), "all axes 1": (1, 1, 1, 1)}
WINDOW = {"window": 2, "padding": 1}


def channels(*shape: int, count: int = 1) -> tuple:
    """Images and arrays of one positive number per channel."""
    return draw(1, *shape), *(draw(2 + i, shape[-1]) ** 2 + 0.1 for i in range(count))


def classes(*shape: int) -> tuple:
    return draw(1, *shape), np.zeros(shape[:-1], int)


def unpooled(*shape: int) -> tuple:
    return draw(1, *shape), np.zeros(shape, int)


def labels(*shape: int) -> tuple:
    return draw(1, *shape), np.zeros(shape, int)


def twice(*shape: int) -> tuple:
    return draw(1, *shape), draw(2, *shape)


# What an op needs beside one array of images: its other arrays, made of the shape, and its configuration.
ARRAYS = {
    "conv": lambda *s: (draw(1, *s), draw(2, 2, 2, s[-1], 3), draw(3, 3)),
    "conv_input_grad": lambda *s: (draw(1, *s), draw(2, 1, 1, 2, s[-1])),
    "conv_weight_grad": lambda *s: (draw(1, *s), draw(2, *s)),
    "conv_transpose": lambda *s: (draw(1, *s), draw(2, 2, 2, 3, s[-1]), draw(3, 3)),
    "dense": lambda *s: (draw(1, *s), draw(2, s[-1], 3), draw(3, 3)),
    "prelu": channels,
    "max_unpool": unpooled,
    "dropout": lambda *s: (draw(1, *s), jax.random.key(0)),
    "drop_path": lambda *s: (draw(1, *s), jax.random.key(0)),
    "batch_norm": functools.partial(channels, count=2),
    "batch_norm_inference": functools.partial(channels, count=4),
    "layer_norm": functools.partial(channels, count=2),
    "group_norm": functools.partial(channels, count=2),
    "instance_norm": functools.partial(channels, count=2),
    "rms_norm": channels,
    "layer_scale": channels,
    "scale_channels": lambda *s: (draw(1, *s), draw(2, s[0], s[-1])),
    "softmax_cross_entropy": classes,
    "binary_cross_entropy": labels,
    "focal_loss": labels,
    "kl_divergence": twice,
    "mse": twice,
    "huber": twice,
}
STATIC = {
    "conv": {"padding": 1},
    "conv_input_grad": {"input_size": "S"},
    "conv_weight_grad": {"kernel_size": 1},
    "pad": {"padding": 1},
    "patches": WINDOW,
    "fold": {"window": 1, "output_size": "S"},
    "max_pool": WINDOW,
    "avg_pool": WINDOW,
    "lp_pool": {**WINDOW, "p": 2},
    "max_unpool": {"window": 1},
    "adaptive_max_pool": {"output_size": 2},
    "adaptive_avg_pool": {"output_size": 2},
    "upsample": {"factor": 2, "method": "linear"},
    "pixel_shuffle": {"factor": 1},
    "pixel_unshuffle": {"factor": 1},
    "dropout": {"rate": 0.5},
    "drop_path": {"rate": 0.5},
    "local_response_norm": {"size": 3},
    "group_norm": {"groups": 1},
}


def is_float(a) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def both(rule: jcnn.Rule, arrays: tuple, static: dict):
    """Outputs and cotangents by hand, and those of the reference by autodiff, for dy of ones."""
    y, res = rule.fwd(*arrays, **static)
    dy = jax.tree.map(lambda a: jnp.ones_like(a) if is_float(a) else np.zeros(a.shape, jax.dtypes.float0), y)
    hand = rule.bwd(res, dy)

    def of_floats(*floats):
        rest = iter(floats)
        full = [a if a is None or not is_float(a) else next(rest) for a in arrays]
        return rule.reference(*full, **(rule_defaults(rule) | static))

    floats = [a for a in arrays if a is not None and is_float(a)]
    reference, pullback = jax.vjp(of_floats, *floats)
    return (y, reference), ([d for d in hand if d is not None], list(pullback(dy)))


def rule_defaults(rule: jcnn.Rule) -> dict:
    """The configuration that a call without any has."""
    parameters = rule.__signature__.parameters.values()
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is not p.empty}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", RULES)
def test_empty_and_single(op, shape):
    size = SHAPES[shape]
    arrays = ARRAYS.get(op, lambda *s: (draw(1, *s),))(*size)
    static = {key: size[1:-1] if value == "S" else value for key, value in STATIC.get(op, {}).items()}
    refusal = refused(RULES[op], arrays, static)
    if refusal:
        assert re.match(rf"jcnn\.{op}: \w+: got .*, expected ", refusal)
        return
    outputs, cotangents = jax.jit(lambda *a: both(RULES[op], a, static))(*arrays)
    for got, expected in (outputs, cotangents):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, 1e-9, 1e-9)
            assert np.isfinite(a).all()


def refused(rule: jcnn.Rule, arrays: tuple, static: dict) -> str:
    """What the rule says of arguments that it does not take."""
    try:
        jax.eval_shape(lambda *a: rule(*a, **static), *arrays)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def planted(arrays: tuple, which: int, bad: float) -> tuple:
    a = np.array(arrays[which])
    a.flat[a.size // 2] = bad
    return *arrays[:which], a, *arrays[which + 1 :]


# Ops with cotangents that are numbers where autodiff of the reference multiplies 0 by infinity.
NUMBERS_FOR_NAN = {
    "prelu": "the slope's cotangent adds x over x <= 0 only, and x's is 1 over x > 0 whatever the slope",
    "batch_norm": "an infinite gamma has infinite cotangents",
    "batch_norm_inference": "an infinite gamma has infinite cotangents",
    "layer_norm": "an infinite gamma has infinite cotangents",
    "group_norm": "an infinite gamma has infinite cotangents",
    "focal_loss": "a sure answer has the slope of its limit",
    "kl_divergence": "the slope in an infinite target is infinite",
    "huber": "the slope of an infinite error is delta",
}


@pytest.mark.parametrize("op", RULES)
def test_nan_and_infinity_go_where_they_go_in_the_reference(op):
    arrays, static = next(iter(EXAMPLES[op].values()))
    run = jax.jit(lambda *a: both(RULES[op], a, static))
    for which, a in enumerate(arrays):
        if a is None or not is_float(a):
            continue
        for bad in (np.nan, np.inf, -np.inf):
            outputs, cotangents = run(*planted(arrays, which, bad))
            where = f"{bad} in {RULES[op].array_names[which]}"
            assert all(map(np.all, same_places(*outputs))), f"{where}: output"
            for same, expected in zip(same_places(*cotangents), jax.tree.leaves(cotangents[1]), strict=True):
                allowed = np.isnan(expected) & (op in NUMBERS_FOR_NAN)
                assert np.all(same | allowed), f"{where}: cotangent"


def same_places(got, expected) -> list:
    """For every entry of every array whether both are finite, or both the same that is not."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return [(a == b) | (np.isnan(a) & np.isnan(b)) | (np.isfinite(a) & np.isfinite(b)) for a, b in pairs]
