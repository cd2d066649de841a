"""Whole training steps: forward, loss, backward and SGD with momentum, of the same net in every framework.

All contestants start from the same weights and see the same batch.  Before anything is timed, the loss and
gradients of their first steps are compared with jcnn's; after a first step, the momentum is the gradient.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jcnn
from experiments.benchmark.nets import Twin, Weights, weights_of
from experiments.benchmark.nets.zoo import CASES, CLASSES, Case
from experiments.benchmark.ops import first_line
from experiments.benchmark.settings import OURS, PEERS, TUNED, Disagreement, Row, Settings, Task
from experiments.benchmark.timing import measure

LEARNING_RATE, MOMENTUM = 1e-3, 0.9
OPTIMIZER = optax.sgd(LEARNING_RATE, MOMENTUM)
LOSS_TOLERANCE = 1e-4
TOLERANCE = 2e-2  # of gradients: rounding puts some pixels on the other side of a kink
MODULES = {"autodiff": "lax", "flax": "flax", "equinox": "equinox"}  # in experiments.benchmark.nets


@dataclass(frozen=True)
class Problem:
    """A case with its data: jcnn's initial parameters and one batch."""

    case: Case
    images: jax.Array  # [N, H, W, C]
    labels: jax.Array  # [N]
    params: Any
    state: Any

    @classmethod
    def of(cls, case: Case, seed: int = 0) -> "Problem":
        keys = jax.random.split(jax.random.key(seed), 3)
        images = jax.random.normal(keys[0], (case.batch, *case.image))
        labels = jax.random.randint(keys[1], (case.batch,), 0, CLASSES)
        params, state = jax.jit(case.net().init, static_argnums=1)(keys[2], case.image)
        return cls(case, images, labels, params, state)

    def twin(self, contestant: str) -> Twin:
        """The net of a contestant in JAX."""
        if contestant in (OURS, TUNED):
            return _jcnn(self)
        module = importlib.import_module(f"experiments.benchmark.nets.{MODULES[contestant]}")
        return module.build(self.case.layers, weights_of(self.params), self.images)


def _jcnn(problem: Problem) -> Twin:
    net = problem.case.net()

    def loss(params, state, images, labels):
        logits, state = net.apply(params, state, images, train=True)
        return jcnn.softmax_cross_entropy(logits, labels).mean(), state

    return Twin(loss, problem.params, problem.state, problem.images, weights_of)


@dataclass
class Program:
    """The training step of a contestant in JAX, with what it starts from."""

    twin: Twin
    labels: jax.Array
    options: dict[str, str] = field(default_factory=dict)

    def lower(self) -> jax.stages.Lowered:
        jitted = jax.jit(
            functools.partial(_step, self.twin.loss), donate_argnums=0, compiler_options=self.options
        )
        return jitted.lower(self._carry(), self.twin.images, self.labels)

    def _carry(self) -> tuple:
        return self.twin.params, self.twin.state, OPTIMIZER.init(self.twin.params)

    def start(self, compiled: jax.stages.Compiled | None = None) -> "Contestant":
        """A run of the program, from its first step on."""
        compiled = compiled or self.lower().compile()
        carry = jax.tree.map(jnp.copy, self._carry())  # steps donate it

        def first() -> tuple[Any, Weights]:
            nonlocal carry
            carry, loss = compiled(carry, self.twin.images, self.labels)
            return loss, self.twin.gradients(jax.device_get(optax.tree.get(carry[2], "trace")))

        def step() -> None:
            nonlocal carry
            carry, loss = compiled(carry, self.twin.images, self.labels)
            jax.block_until_ready((carry, loss))

        return Contestant(first, step)


def _step(loss_of: Callable, carry: tuple, images: jax.Array, labels: jax.Array) -> tuple[tuple, jax.Array]:
    params, state, optimizer_state = carry
    (loss, state), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, state, images, labels)
    updates, optimizer_state = OPTIMIZER.update(gradients, optimizer_state)
    return (optax.apply_updates(params, updates), state, optimizer_state), loss


@dataclass(frozen=True)
class Contestant:
    first: Callable[[], tuple[Any, Weights]]  # one step; the loss and the gradients it used
    step: Callable[[], None]  # one step, done when it returns


def program(problem: Problem, contestant: str) -> Program:
    """The step of a contestant in JAX: jcnn with or without options, autodiff, flax or equinox."""
    options = jcnn.compiler_options() if contestant == TUNED else {}
    return Program(problem.twin(contestant), problem.labels, options)


def contestant(problem: Problem, name: str) -> Contestant:
    """Any contestant, ready for its first step."""
    if not name.startswith("torch"):
        return program(problem, name).start()
    from experiments.benchmark.nets import torch

    model = torch.Model(
        problem.case.layers,
        weights_of(problem.params),
        problem.images,
        problem.labels,
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        compiled=name == "torch-compile",
    )
    return Contestant(model.first, model.step)


def agree(
    expected: tuple[Any, Weights],
    got: tuple[Any, Weights],
    what: str,
    *,
    loss_tolerance: float = LOSS_TOLERANCE,
    tolerance: float = TOLERANCE,
) -> None:
    """Holds loss and gradients to those expected.

    A gradient's error is measured as a vector's, relative to the gradient's length, or to a hundredth of the
    length of all gradients together where that is more: some are 0 but for rounding.

    Raises:
        Disagreement: naming `what` and the first array that is off.
    """
    (loss, gradients), (other_loss, others) = expected, got
    error = _length(loss - other_loss) / _length(loss)
    if not error <= loss_tolerance:
        raise Disagreement(f"{what}: the loss is {other_loss}, jcnn's is {loss}")
    least = 1e-2 * _length(np.concatenate([np.ravel(a) for layer in gradients for a in layer.values()]))
    for i, (mine, theirs) in enumerate(zip(gradients, others, strict=True)):
        for name, gradient in mine.items():
            error = _length(gradient - theirs[name]) / max(_length(gradient), least)
            if not error <= tolerance:
                raise Disagreement(
                    f"{what}: the gradient of {name} in layer {i} is off jcnn's by {error:.1e}"
                )


def _length(a: Any) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64)))


def contestants(settings: Settings) -> tuple[str, ...]:
    """Ours, and the peers that were asked for."""
    tuned = jcnn.compiler_options() and any(peer.startswith("torch") for peer in settings.against)
    return (OURS, *([TUNED] if tuned else []), *settings.against)


def run(case: Case, settings: Settings) -> Iterator[Row | str]:
    """Starts all contestants, compares their first steps, and times the following ones.

    Raises:
        Disagreement: somebody computes something else than jcnn.
    """
    problem, steps, expected = Problem.of(case), {}, None
    for name in contestants(settings):
        try:
            made = contestant(problem, name)
            first = made.first()
        except Exception as error:  # whatever goes wrong in a peer (a compiler, say)
            if name not in PEERS:
                raise
            yield f"{case.title}: {name} failed, skipped: {first_line(error)}"
            continue
        expected = expected or first
        agree(expected, first, f"{case.title}: {name}")
        steps[name] = made.step
    yield Row(case.title, "step", measure(steps, settings.budget), bars={"autodiff": case.bar})
    jax.clear_caches()


def chosen(settings: Settings) -> list[Case]:
    """The cases to be run: small ones if it is to be quick; all in float32."""
    if settings.dtypes is not None and "float32" not in settings.dtypes:
        return []
    return [case for case in CASES if case.small or not settings.quick]


def task_name(case: Case) -> str:
    return f"{case.title} float32"


def tasks(settings: Settings) -> list[Task]:
    """One task per net."""
    return [Task(task_name(case), functools.partial(run, case, settings)) for case in chosen(settings)]
