"""Layers over rules, and their composition.

A net is four pure functions.  With params and state as pytrees of arrays and images x [N, *S, C]:

    params, state   = net.init(key, image_shape)                            image_shape = (*S, C)
    y, state        = net.apply(params, state, x, train=True, key=key)      differentiable by jax.grad
    (y, state), res = net.fwd(params, state, x, train=True, key=key)        the same, keeping residuals
    dparams, dx     = net.bwd(res, dy)                                      explicit backpropagation

Backpropagation through a chain f_n o ... o f_1 is the chain rule read from the right.  With x_i = f_i(x_i-1)
and dx_n = dy given, each layer turns the cotangent of its output into those of its parameters and its input:

    (dparams_i, dx_i-1) = f_i.bwd(res_i, dx_i)        for i = n ... 1

and where an array is used twice (a residual connection) its cotangents add.  That is all `bwd` does, with
the backward of every rule: there is no autodiff in it.

State holds what training changes outside of the gradient: the running statistics of batch norm.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array

from jcnn import check
from jcnn.geometry import Window
from jcnn.net.summary import Summary, summarize
from jcnn.rule import Rule

Shape = tuple[int, ...]
Params = Any
State = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """A layer, or a composition of layers; see the module's docstring."""

    name: str
    init_layer: Callable[[Array, Shape], tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]
    fwd: Callable[..., tuple[tuple[Array, State], Any]]
    bwd: Callable[[Any, Array], tuple[Params, Array]]
    window: Callable[[Shape], Window | None] = lambda shape: None  # what slides over the image, if anything
    slides_over_output: bool = False  # whether it does so over the output: the image is made larger
    macs: Callable[[Shape, Shape], int] = lambda image_shape, output_shape: 0  # multiply-adds of one image
    sees_all: bool = False  # whether every output depends on the whole image
    out_shape: Callable[[Shape], Shape] | None = None  # of one image's output; None: found by tracing
    children: tuple["Net", ...] = ()
    rule: Rule | None = None  # what a layer is made of, if it is one rule
    rebuild: Callable[..., "Net"] | None = None  # the same from other children, or from another rule

    def init(self, key: Array, image_shape: Shape) -> tuple[Params, State]:
        """Parameters and state for images of `image_shape` (*S, C), without the batch axis.

        Raises:
            ValueError: image_shape is not a shape, or some layer does not fit the images it gets.
        """
        return self.init_layer(key, _checked("init", image_shape))

    def summary(self, image_shape: Shape, *, batch_size: int = 1) -> Summary:
        """Per layer: output shape, parameters, multiply-adds, receptive field, bytes kept; runs nothing."""
        return summarize(self, _checked("summary", image_shape), batch_size)

    def rules(self) -> frozenset[Rule]:
        """The rules that layers of the net are made of; `with_rules` can replace them."""
        own = () if self.rule is None else (self.rule,)
        return frozenset(own).union(*(child.rules() for child in self.children))

    def with_rules(self, other: Mapping[Rule, Rule]) -> "Net":
        """The same net with other rules in place of its own; it takes the same parameters and state.

        Args:
            other: what to put in place of each of some rules of the net, usually their `replace(bwd=...)`.

        Raises:
            ValueError: a rule to be replaced is not in the net.

        Example:
            >>> import jax, jcnn
            >>> straight_through = jcnn.relu.replace(bwd=lambda res, dy: (dy,))
            >>> model = jcnn.chain(jcnn.relu).with_rules({jcnn.relu: straight_through})
            >>> float(jax.grad(lambda x: model.apply(({},), ({},), x, train=False)[0])(-1.0))
            1.0
        """
        if missing := other.keys() - self.rules():
            got, expected = (", ".join(sorted(rule.name for rule in s)) for s in (missing, self.rules()))
            check.fail("net.with_rules", "other", got, f"rules that the net is made of: {expected}")
        return self._with_rules(other)

    def _with_rules(self, other: Mapping[Rule, Rule]) -> "Net":
        if self.rebuild is None:
            return self
        if self.rule is not None:
            return self.rebuild(other.get(self.rule, self.rule))
        return self.rebuild(*(child._with_rules(other) for child in self.children))


def _checked(function: str, image_shape: Any) -> Shape:
    good = isinstance(image_shape, tuple | list) and all(isinstance(n, int) and n > 0 for n in image_shape)
    if not good or len(image_shape) < 2:
        check.fail(f"net.{function}", "image_shape", repr(image_shape), "(*S, C), for example (28, 28, 1)")
    return tuple(image_shape)


def images(image_shape: Shape, batch_size: int = 1) -> jax.ShapeDtypeStruct:
    """A batch of images, as a shape only, in the dtype that parameters are initialised in."""
    return jax.ShapeDtypeStruct((batch_size, *image_shape), jax.dtypes.canonicalize_dtype(float))


def output_shape(net: Net, image_shape: Shape) -> Shape:
    """Shape of one image's output, without the batch axis; nothing is computed."""
    if net.out_shape is not None:
        return net.out_shape(image_shape)
    params, state = jax.eval_shape(lambda: net.init_layer(jax.random.key(0), image_shape))
    y, _ = jax.eval_shape(functools.partial(net.apply, train=False), params, state, images(image_shape))
    return y.shape[1:]


def layer(
    rule: Rule,
    init_params: Callable[[Array, Shape], dict[str, Array]] = lambda key, shape: {},
    *,
    name: str = "",
    config: dict | None = None,
    **about,
) -> Net:
    """A rule with parameters: `init_params` names the rule's array arguments, `config` is its static ones."""
    config = config or {}
    name = name or rule.name

    def apply(params, state, x, *, train, key=None):
        return rule(x, **params, **config), state

    def fwd(params, state, x, *, train, key=None):
        y, res = rule.fwd(x, **params, **config)
        return (y, state), res

    def bwd(res, dy):
        dx, *cts = rule.bwd(res, dy)
        return {n: ct for n, ct in zip(rule.array_names[1:], cts, strict=True) if ct is not None}, dx

    def init(key, shape):
        return init_params(key, shape), {}

    def rebuild(other: Rule) -> Net:
        return layer(other, init_params, name=name, config=config, **about)

    return Net(name, init, apply, fwd, bwd, rule=rule, rebuild=rebuild, **about)


def _as_net(item: Net | Rule) -> Net:
    if isinstance(item, Net):
        return item
    if isinstance(item, Rule):
        return layer(item)
    return check.fail("chain", "layers", repr(item), "nets, or rules without parameters", TypeError)


def _keys(key: Array | None, count: int):
    return [None] * count if key is None else jax.random.split(key, count)


def chain(*layers: Net | Rule) -> Net:
    """Layers in sequence; a rule without parameters, such as `jcnn.relu`, is a layer as it stands.

    Params and state are tuples with one entry per layer.

    Example:
        >>> import jax, jcnn
        >>> from jcnn import net
        >>> small = jcnn.chain(net.conv(8, 3), jcnn.relu, net.global_avg_pool(), net.dense(10))
        >>> params, state = small.init(jax.random.key(0), (28, 28, 1))
        >>> small.apply(params, state, jax.numpy.ones((2, 28, 28, 1)), train=True)[0].shape
        (2, 10)
    """
    nets = tuple(map(_as_net, layers))

    def init(key, shape):
        params, state = [], []
        for net, k in zip(nets, jax.random.split(key, len(nets)), strict=True):
            p, s = net.init_layer(k, shape)
            params.append(p)
            state.append(s)
            shape = output_shape(net, shape)
        return tuple(params), tuple(state)

    def apply(params, state, x, *, train, key=None):
        after = []
        for net, p, s, k in zip(nets, params, state, _keys(key, len(nets)), strict=True):
            x, s = net.apply(p, s, x, train=train, key=k)
            after.append(s)
        return x, tuple(after)

    def fwd(params, state, x, *, train, key=None):
        after, residuals = [], []
        for net, p, s, k in zip(nets, params, state, _keys(key, len(nets)), strict=True):
            (x, s), res = net.fwd(p, s, x, train=train, key=k)
            after.append(s)
            residuals.append(res)
        return (x, tuple(after)), tuple(residuals)

    def bwd(residuals, dx):
        dparams = []
        for net, res in zip(reversed(nets), reversed(residuals), strict=True):
            dp, dx = net.bwd(res, dx)
            dparams.append(dp)
        return tuple(reversed(dparams)), dx

    def out_shape(shape):
        return functools.reduce(lambda s, net: output_shape(net, s), nets, shape)

    return Net("chain", init, apply, fwd, bwd, out_shape=out_shape, children=nets, rebuild=chain)


def identity() -> Net:
    """The net that returns its input."""
    return Net(
        "identity",
        lambda key, shape: ({}, {}),
        lambda params, state, x, *, train, key=None: (x, state),
        lambda params, state, x, *, train, key=None: ((x, state), None),
        lambda res, dy: ({}, dy),
    )


def residual(body: Net | Rule, shortcut: Net | Rule | None = None) -> Net:
    """body(x) + shortcut(x), the shortcut being the identity by default (He et al. 2015, arXiv:1512.03385).

    Params and state are pairs (body's, shortcut's).
    """
    branches = (_as_net(body), identity() if shortcut is None else _as_net(shortcut))

    def init(key, shape):
        outs = [output_shape(net, shape) for net in branches]
        if outs[0] != outs[1]:
            check.fail("residual", "shortcut", f"output {outs[1]}", f"{outs[0]} like the body's")
        pairs = [net.init_layer(k, shape) for net, k in zip(branches, jax.random.split(key, 2), strict=True)]
        return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)

    def apply(params, state, x, *, train, key=None):
        outs = [
            net.apply(p, s, x, train=train, key=k)
            for net, p, s, k in zip(branches, params, state, _keys(key, 2), strict=True)
        ]
        return outs[0][0] + outs[1][0], (outs[0][1], outs[1][1])

    def fwd(params, state, x, *, train, key=None):
        outs = [
            net.fwd(p, s, x, train=train, key=k)
            for net, p, s, k in zip(branches, params, state, _keys(key, 2), strict=True)
        ]
        ((y0, s0), res0), ((y1, s1), res1) = outs
        return (y0 + y1, (s0, s1)), (res0, res1)

    def bwd(res, dy):
        (dp0, dx0), (dp1, dx1) = (net.bwd(r, dy) for net, r in zip(branches, res, strict=True))
        return (dp0, dp1), dx0 + dx1

    def out_shape(shape):
        return output_shape(branches[0], shape)

    about = {"out_shape": out_shape, "children": branches, "rebuild": residual}
    return Net("residual", init, apply, fwd, bwd, **about)
