"""Activations with a derivative found from x or from y."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, Rule, anew, back, normal, plant

SLOPE = 0.1


def pointwise(f, slope) -> Rule:
    """y = f(x) with the derivative slope(x), which is found again from x"""
    return f, lambda x: (f(x), (x,)), lambda res, dy: (slope(*res) * dy,)


def of_output(f, slope) -> Rule:
    """y = f(x) with the derivative slope(y)"""
    return f, lambda x: (y := f(x), (y,)), lambda res, dy: (slope(*res) * dy,)


def relu(x):
    return jnp.where(x > 0, x, 0)


def step(x):
    return (x > 0).astype(x.dtype)


def leaky_relu(x):
    return jnp.where(x > 0, x, SLOPE * x)


def leaky_slope(x, leak=SLOPE):
    return jnp.where(x > 0, jnp.ones_like(x), leak)


def tanh_slope(y):
    return 1 - y * y


def sigmoid_slope(y):
    return y * (1 - y)


RELU = pointwise(relu, step)
LEAKY = pointwise(leaky_relu, leaky_slope)
TANH = of_output(jnp.tanh, tanh_slope)
SIGMOID = of_output(jax.nn.sigmoid, sigmoid_slope)
SLOPES = rf"slope|wrong derivative|formula|elementwise|{kit.FACTOR}"


def slope(rule, wrong):
    """Another slope, of x"""
    return anew(rule, lambda res, dy: (wrong(*res) * dy,))


def slope_y(rule, wrong):
    """Another slope, of y"""
    return back(rule, lambda res, dy: (wrong(*res) * dy,))


def relu_guided(res, dy):
    (x,) = res
    return (jnp.where((x > 0) & (dy > 0), dy, 0),)


def tanh_by_exp(x):
    e = jnp.exp(2 * x)
    return tanh_slope((e - 1) / (e + 1))


def sigmoid_by_exp(x):
    e = jnp.exp(-x)
    return e / (1 + e) ** 2


def sigmoid_callback(res, dy):
    """The product in NumPy, which knows neither batches nor derivatives."""

    def product(y, dy):
        y, dy = np.asarray(y), np.asarray(dy)
        return sigmoid_slope(y) * dy

    return (jax.pure_callback(product, dy, *res, dy),)


RULES = [
    Classic(
        "relu",
        RELU,
        normal((4, 5)),
        {
            "kink": plant(
                "slope 1 at x == 0, where f has 0",
                kit.KINK,
                slope(RELU, lambda x: (x >= 0) * jnp.ones_like(x)),
                "at x == 0 only",
            ),
            "guided": plant(
                "guided backprop, dy < 0 dropped",
                rf"guided|{kit.NONLINEAR}",
                back(RELU, relu_guided),
                "where dy < 0",
            ),
            "deconvolution": plant(
                "mask of dy, not of x", rf"mask|{kit.NONLINEAR}", back(RELU, lambda res, dy: (relu(dy),))
            ),
            "quotient": plant(
                "slope y / x",
                rf"divi|0/0|{kit.UNSTABLE}|{kit.KINK}",
                slope(RELU, lambda x: relu(x) / x),
                "as nan at x == 0 only",
            ),
            "relu6": plant(
                "no gradient for x > 6",
                rf"\b6\b|relu6|\blarge\b|clip|satur|zero|{SLOPES}",
                slope(RELU, lambda x: step(x) * (x <= 6)),
                "for x > 6 only",
            ),
            "bare": misuse.bare(RELU),
            "flushed": misuse.flushed(RELU),
        },
    ),
    Classic(
        "leaky_relu",
        LEAKY,
        normal((4, 5)),
        {
            "wrong_leak": plant(
                "leak 0.01, where f has 0.1",
                rf"leak|negative|{SLOPES}",
                slope(LEAKY, lambda x: leaky_slope(x, 0.01)),
                "for x < 0",
            ),
            "no_leak": plant(
                "slope of relu", rf"leak|negative|zero|{SLOPES}", slope(LEAKY, step), "for x < 0"
            ),
            "kink": plant(
                "slope 1 at x == 0, where f has 0.1",
                kit.KINK,
                slope(LEAKY, lambda x: jnp.where(x >= 0, jnp.ones_like(x), SLOPE)),
                "at x == 0 only",
            ),
            "leak_negated": plant(
                "slope of abs with a leak, -0.1",
                rf"leak|negative|{kit.SIGN}|{SLOPES}",
                slope(LEAKY, lambda x: leaky_slope(x, -SLOPE)),
                "for x < 0",
            ),
            "leak_of_dy": plant(
                "leaky relu applied to dy",
                rf"mask|{kit.NONLINEAR}",
                back(LEAKY, lambda _, dy: (leaky_relu(dy),)),
            ),
            "integer": misuse.mistyped(LEAKY, jnp.int32),
            "widened": misuse.widened(LEAKY),
        },
    ),
    Classic(
        "tanh",
        TANH,
        normal((4, 5)),
        {
            "x_for_y": plant("1 - x**2", SLOPES, slope(TANH, tanh_slope)),
            "not_squared": plant("1 - y", rf"squar|{SLOPES}", slope_y(TANH, lambda y: 1 - y)),
            "overflow": plant(
                "tanh made again of exp(2x)",
                kit.UNSTABLE,
                slope(TANH, tanh_by_exp),
                "as nan for x > 355, in float32 > 44",
            ),
            "frozen_y": misuse.frozen(TANH, 0),
            "frozen_dy": misuse.frozen_dy(TANH),
            "squared": misuse.squared(TANH),
            "primal_off": misuse.primal_off(TANH),
        },
    ),
    Classic(
        "sigmoid",
        SIGMOID,
        normal((3, 7)),
        {
            "x_for_y": plant("x (1 - x)", SLOPES, slope(SIGMOID, sigmoid_slope)),
            "quarter": plant(
                "slope 1/4 everywhere, as at 0",
                rf"slope|{SLOPES}",
                slope(SIGMOID, lambda x: jnp.full_like(x, 0.25)),
                "away from x = 0",
            ),
            "overflow": plant(
                "exp(-x) / (1 + exp(-x))**2",
                kit.UNSTABLE,
                slope(SIGMOID, sigmoid_by_exp),
                "as nan for x < -355, in float32 < -44",
            ),
            "callback": plant(
                "pure_callback",
                rf"callback|{kit.SECOND}|{kit.TRACED}",
                back(SIGMOID, sigmoid_callback),
                "under vmap, and in second order",
            ),
            "alternates": misuse.alternates(SIGMOID),
            "transposed": misuse.transposed(SIGMOID),
            "primal_float32": plant(
                "fwd's primal is always float32",
                rf"primal|forward|fwd|{kit.DTYPE}",
                (
                    jax.nn.sigmoid,
                    lambda x: (jax.nn.sigmoid(x).astype(jnp.float32), SIGMOID[1](x)[1]),
                    SIGMOID[2],
                ),
                "in fwd(*args)[0], for x of another dtype",
            ),
        },
    ),
]
