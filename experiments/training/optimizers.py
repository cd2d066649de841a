"""Optimizers and what the learning rate does over the steps, all from optax."""

from typing import TYPE_CHECKING

import jax
import optax

if TYPE_CHECKING:
    from experiments.config import Config

SCHEDULES = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, steps),
    "warmup_cosine": lambda lr, steps: optax.warmup_cosine_decay_schedule(0.0, lr, steps // 20, steps),
    "onecycle": lambda lr, steps: optax.warmup_cosine_decay_schedule(lr / 25, lr, steps // 5, steps),
}
OPTIMIZERS = {
    "sgd": lambda lr, decay: optax.chain(decay, optax.sgd(lr, momentum=0.9, nesterov=True)),
    "adam": lambda lr, decay: optax.chain(decay, optax.adam(lr)),
    "adamw": lambda lr, decay: optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(lr)),
}


def make_schedule(config: "Config", steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of so many steps."""
    return SCHEDULES[config.schedule](config.lr, steps)


def make_optimizer(config: "Config", steps: int) -> optax.GradientTransformation:
    """The optimizer for a run of so many steps; biases and the parameters of norms do not decay."""
    decay = optax.add_decayed_weights(
        config.weight_decay, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    return OPTIMIZERS[config.optimizer](make_schedule(config, steps), decay)
