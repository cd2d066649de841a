"""The rule under `jax.shard_map` on two devices: the first argument sharded, the others replicated.

The gradient is taken outside the map and inside it.  With `check_vma=True` JAX sums the cotangent of a
replicated argument over the devices in both places.  With `check_vma=False` it does so outside; inside, each
device has the gradient of its own loss.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from jcnn.verify import oracles
from jcnn.verify.oracles import float_leaves, merged
from jcnn.verify.report import Status
from jcnn.verify.subject import Subject
from jcnn.verify.transforms import COUNT, Batch, agree, attempt
from jcnn.verify.trial import Trial, said

AXIS = "device"


def _mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((COUNT,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:COUNT])


def _own(values: tuple, mapped: tuple[bool, ...]) -> tuple:
    """This device's values: the block of a sharded leaf has a leading axis of one."""
    return tuple(v[0] if m else v for v, m in zip(values, mapped, strict=True))


@functools.partial(oracles.program, static=4)
def _sharded(subject: Subject, mapped, inside: bool, check_vma: bool, arrays, values, dys) -> tuple:
    sharded, replicated = PartitionSpec(AXIS), PartitionSpec()
    specs = tuple(sharded if m else replicated for m in mapped)
    shard_map = functools.partial(jax.shard_map, mesh=_mesh(), check_vma=check_vma)

    def outputs(values):
        return float_leaves(subject.op(merged(arrays, _own(values, mapped))))

    def own_gradient(values, dys):
        def loss(values):
            return sum((jnp.vdot(d[0], y) for d, y in zip(dys, outputs(values), strict=True)), 0.0)

        cts = jax.grad(loss)(values)
        summed = [m or check_vma for m in mapped]
        return tuple(ct if s else ct[None] for ct, s in zip(cts, summed, strict=True))

    if inside:
        out_specs = specs if check_vma else (sharded,) * len(specs)
        return shard_map(own_gradient, in_specs=(specs, sharded), out_specs=out_specs)(values, dys)

    def loss(values):
        stack = shard_map(lambda v: [y[None] for y in outputs(v)], in_specs=(specs,), out_specs=sharded)
        return sum((jnp.vdot(d, y) for d, y in zip(dys, stack(values), strict=True)), 0.0)

    return jax.grad(loss)(values)


def shard_map(trial: Trial) -> None:
    """All four ways; a plain custom_vjp cannot meet check_vma with replicated arguments, which is noted."""
    if not trial.traceable or trial.raw:
        return None
    if len(jax.devices()) < COUNT:
        hint = "set XLA_FLAGS=--xla_force_host_platform_device_count=2 before JAX starts"
        return trial.add("shard_map", Status.SKIPPED, f"needs two devices: {hint}")
    batch = Batch(trial, (True, *[False] * (len(trial.names) - 1)))
    outcome = [_way(trial, batch, inside, vma) for vma in (True, False) for inside in (False, True)]
    if all(outcome):
        trial.add("shard_map", Status.PASS)
    return None


def _way(trial: Trial, batch: Batch, inside: bool, check_vma: bool) -> bool:
    way = f"grad {'inside' if inside else 'outside'}, check_vma={check_vma}"
    expected = batch.each if inside and not check_vma else batch.total

    def check():
        arguments = (batch.arrays, batch.values, batch.dys)
        got = _sharded(trial.subject, batch.mapped, inside, check_vma, *arguments)
        return agree(trial, "shard_map", got, expected, way)

    try:
        return check()
    except Exception as e:
        if check_vma and not trial.subject.is_rule:
            trial.note(f"shard_map(check_vma=True) with replicated arguments raises: {said(e, 60)}")
            return True
    attempt(trial, "shard_map", check, lambda: _forward_alone(trial, batch))
    return False


def _forward_alone(trial: Trial, batch: Batch) -> None:
    spec = PartitionSpec(AXIS)
    pairs = zip(batch.values, batch.mapped, strict=True)
    stacked = tuple(v if m else jnp.stack([v] * COUNT) for v, m in pairs)

    def own(values):
        y = trial.subject.f(merged(batch.arrays, tuple(v[0] for v in values)))
        return [a[None] for a in float_leaves(y)]

    jax.jit(jax.shard_map(own, mesh=_mesh(), in_specs=(spec,), out_specs=spec))(stacked)
