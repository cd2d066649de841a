"""The layers that normalise activations, and the one that standardises the weights of another."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array

from jcnn import check, norm
from jcnn.net.core import Net, Shape, layer
from jcnn.rule import Rule


def _same(shape: Shape) -> Shape:
    return shape


def _scale_and_shift(key: Array, shape: Shape, gamma: float | None = 1.0) -> dict[str, Array]:
    shift = {"beta": jnp.zeros(shape[-1])}
    return shift if gamma is None else {"gamma": jnp.full(shape[-1], gamma)} | shift


def batch_norm(
    *, eps: float = 1e-5, momentum: float = 0.9, axis_name: str | None = None, gamma: float | None = 1.0
) -> Net:
    """Batch norm: the batch's statistics in training, running ones in inference.

    `momentum` is the weight of the OLD running value; `axis_name` as for `jcnn.batch_norm`; `gamma` is the
    scale at first: 0 makes a residual block start as its shortcut, None does without a scale.
    """
    return _batch_norm(norm.batch_norm, eps, momentum, axis_name, gamma)


def _batch_norm(rule: Rule, eps: float, momentum: float, axis_name: str | None, gamma: float | None) -> Net:
    def both(params):
        return params if gamma is not None else params | {"gamma": jnp.ones_like(params["beta"])}

    def init(key, shape):
        c = shape[-1]
        return _scale_and_shift(key, shape, gamma), {"mean": jnp.zeros(c), "var": jnp.ones(c)}

    def after(state, stats):
        return norm.update_running_stats(norm.BatchStats(**state), stats, momentum=momentum)._asdict()

    def apply(params, state, x, *, train, key=None):
        if not train:
            return norm.batch_norm_inference(x, **both(params), **state, eps=eps), state
        y, stats = rule(x, **both(params), eps=eps, axis_name=axis_name)
        return y, after(state, stats)

    def fwd(params, state, x, *, train, key=None):
        if not train:
            y, res = norm.batch_norm_inference.fwd(x, **both(params), **state, eps=eps)
            return (y, state), res
        (y, stats), res = rule.fwd(x, **both(params), eps=eps, axis_name=axis_name)
        return (y, after(state, stats)), res

    def bwd(res, dy):
        if isinstance(res, norm.BatchNormResiduals):
            nothing = norm.BatchStats(jnp.zeros_like(res.mean), jnp.zeros_like(res.mean))
            dx, dgamma, dbeta, _ = rule.bwd(res, (dy, nothing))
        else:
            dx, dgamma, dbeta, *_ = norm.batch_norm_inference.bwd(res, dy)
        return {"beta": dbeta} if gamma is None else {"gamma": dgamma, "beta": dbeta}, dx

    def rebuild(other: Rule) -> Net:
        return _batch_norm(other, eps, momentum, axis_name, gamma)

    return Net("batch_norm", init, apply, fwd, bwd, out_shape=_same, rule=rule, rebuild=rebuild)


def layer_norm(*, eps: float = 1e-5) -> Net:
    """Layer norm of the channels of every pixel; gamma 1, beta 0 at first."""
    return layer(norm.layer_norm, _scale_and_shift, config={"eps": eps}, out_shape=_same)


def rms_norm(*, eps: float = 1e-5) -> Net:
    """The channels of every pixel over their root mean square; gamma 1 at first."""

    def init(key, shape):
        return {"gamma": jnp.ones(shape[-1])}

    return layer(norm.rms_norm, init, config={"eps": eps}, out_shape=_same)


def group_norm(groups: int, *, eps: float = 1e-5) -> Net:
    """Group norm over the image and each of `groups` groups of channels; gamma 1, beta 0 at first."""

    def init(key, shape):
        if shape[-1] % groups:
            check.fail("net.group_norm", "groups", groups, f"a divisor of the image's {shape[-1]} channels")
        return _scale_and_shift(key, shape)

    config = {"groups": groups, "eps": eps}
    about = {"sees_all": True, "out_shape": _same}
    return layer(norm.group_norm, init, name=f"group_norm {groups}", config=config, **about)


def instance_norm(*, eps: float = 1e-5) -> Net:
    """Instance norm of every channel over the image; gamma 1, beta 0 at first."""
    about = {"sees_all": True, "out_shape": _same}
    return layer(norm.instance_norm, _scale_and_shift, config={"eps": eps}, **about)


def local_response_norm(
    size: int, *, alpha: float | int = 1e-4, beta: float | int = 0.75, k: float | int = 1.0
) -> Net:
    """Local response norm over `size` channels; further keywords as for `jcnn.local_response_norm`."""
    config = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    return layer(norm.local_response_norm, name=f"local_response_norm {size}", config=config, out_shape=_same)


def standardized(net: Net, *, eps: float = 1e-5) -> Net:
    """`net`, a convolution or dense layer, with `jcnn.weight_standardize` of its weights in their place.

    Its parameters are those of `net`; backpropagation continues from the standardised weights to them.

    Example:
        >>> import jax, jcnn
        >>> from jcnn import net
        >>> block = jcnn.chain(net.standardized(net.conv(8, 3)), net.group_norm(4), jcnn.relu)
        >>> params, state = block.init(jax.random.key(0), (28, 28, 1))
        >>> params[0]["w"].shape
        (3, 3, 1, 8)
    """

    def init(key, shape):
        params, state = net.init_layer(key, shape)
        if not (isinstance(params, dict) and "w" in params):
            check.fail("net.standardized", "net", net.name, "a layer with weights w")
        return params, state

    def apply(params, state, x, *, train, key=None):
        w = norm.weight_standardize(params["w"], eps=eps)
        return net.apply({**params, "w": w}, state, x, train=train, key=key)

    def fwd(params, state, x, *, train, key=None):
        w, of_w = norm.weight_standardize.fwd(params["w"], eps=eps)
        y, res = net.fwd({**params, "w": w}, state, x, train=train, key=key)
        return y, (of_w, res)

    def bwd(residuals, dy):
        of_w, res = residuals
        dparams, dx = net.bwd(res, dy)
        (dw,) = norm.weight_standardize.bwd(of_w, dparams["w"])
        return {**dparams, "w": dw}, dx

    def rebuild(*parts: Rule | Net) -> Net:
        assert net.rebuild is not None
        return standardized(net.rebuild(*parts), eps=eps)

    return dataclasses.replace(
        net,
        name=f"standardized {net.name}",
        init_layer=init,
        apply=apply,
        fwd=fwd,
        bwd=bwd,
        rebuild=net.rebuild and rebuild,
    )
