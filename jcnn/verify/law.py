"""What jcnn's law asks of a `Rule` beyond what a custom_vjp can promise."""

import jax
import jax.numpy as jnp

from jcnn.rule import autodiff
from jcnn.verify import oracles
from jcnn.verify.oracles import cotangent, float_leaves, floats, merged
from jcnn.verify.subject import is_float
from jcnn.verify.transforms import agree, attempt
from jcnn.verify.trial import Trial

DTYPES = (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16)


@oracles.program
def _through_switch(subject, arrays, v):
    f = jax.jit(lambda *values: float_leaves(subject.op(merged(arrays, values))))
    jax.eval_shape(f, *floats(arrays))
    return jax.jvp(autodiff(f), floats(arrays), v)[1]


def of_rules(trial: Trial) -> None:
    """Both properties, for a `Rule` that works as far as that."""
    if trial.subject.is_rule and trial.traceable and not trial.raw:
        switch(trial)
        promotion(trial)


def switch(trial: Trial) -> None:
    """`jcnn.autodiff` reaches the reference, also through a function that was jitted and traced before."""
    point = trial.points[1]
    v = trial.directions(point, 3)

    def check():
        got, expected = _through_switch(trial.subject, point.arrays, v), trial.tangent(point.arrays, v)
        return agree(trial, "switch", got, expected, "jvp of jcnn.autodiff(f)")

    attempt(trial, "switch", check)


def promotion(trial: Trial) -> None:
    """Forward and backward trace where JAX promotes no dtypes implicitly."""
    arrays, passed = trial.points[0].arrays, []
    for dtype in DTYPES:
        low = tuple(jnp.asarray(a, dtype) if is_float(a) else a for a in arrays)

        def gradient(*values, low=low):
            y, vjp = jax.vjp(lambda *v: trial.subject.op(merged(low, v)), *values)
            return vjp(cotangent(y, float_leaves(y)))

        def check(low=low, gradient=gradient):
            with jax.numpy_dtype_promotion("strict"):
                passed.append(jax.eval_shape(gradient, *floats(low)))
            return len(passed) == len(DTYPES)

        attempt(trial, "promotion", check)
        if trial.failed("promotion"):
            return
