"""Optimizers and what the learning rate does over the steps, all from optax."""

from typing import TYPE_CHECKING, Any

import jax
import optax

if TYPE_CHECKING:
    from experiments.config import Config


def triangle(lr: float, steps: int) -> optax.Schedule:
    peak = int(0.23 * steps)
    rise = optax.linear_schedule(0.2 * lr, lr, peak)
    return optax.join_schedules([rise, optax.linear_schedule(lr, 0.07 * lr, steps - peak)], [peak])


def decay(config: "Config") -> optax.GradientTransformation:
    """Weight decay, but not of biases and of the parameters of norms."""
    return optax.add_decayed_weights(
        config.weight_decay, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )


def airbench(config: "Config", lr: optax.Schedule) -> optax.GradientTransformation:
    """Jordan 2024, arXiv:2404.00498: `lr` and weight decay are of the gradients' sum over 1024 images.

    Nesterov momentum m makes steps 1 + 1 / (1 - m) times as large as the gradient, which is divided out.
    """
    momentum = 0.85
    per_batch = config.batch_size / 1024 / (1 + 1 / (1 - momentum))
    return optax.chain(
        optax.masked(optax.scale(64.0), shifts_of_norms),
        optax.scale(per_batch),
        optax.add_decayed_weights(config.weight_decay * per_batch / config.lr),
        optax.sgd(lr, momentum=momentum, nesterov=True),
    )


def shifts_of_norms(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, p: path[-1].key == "beta", params)


SCHEDULES = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, steps),
    "warmup_cosine": lambda lr, steps: optax.warmup_cosine_decay_schedule(0.0, lr, steps // 20, steps),
    "onecycle": lambda lr, steps: optax.warmup_cosine_decay_schedule(lr / 25, lr, steps // 5, steps),
    "triangle": triangle,
}
OPTIMIZERS = {
    "sgd": lambda config, lr: optax.chain(decay(config), optax.sgd(lr, momentum=0.9, nesterov=True)),
    "adam": lambda config, lr: optax.chain(decay(config), optax.adam(lr)),
    "adamw": lambda config, lr: optax.chain(
        optax.scale_by_adam(), decay(config), optax.scale_by_learning_rate(lr)
    ),
    "airbench": airbench,
}


def make_schedule(config: "Config", steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of so many steps."""
    return SCHEDULES[config.schedule](config.lr, steps)


def make_optimizer(config: "Config", steps: int) -> optax.GradientTransformation:
    """The optimizer for a run of so many steps."""
    return OPTIMIZERS[config.optimizer](config, make_schedule(config, steps))
