"""Layer-wise relevance propagation: the backward pass of `jcnn.inspect.rules`, times the input."""

from typing import Any

from jaxtyping import Array, Float

import jcnn
from jcnn import check
from jcnn.inspect import rules
from jcnn.inspect.attribution import Target, output
from jcnn.inspect.fold import fold_batch_norm
from jcnn.inspect.layers import LayerLike, fail, find, layers, pull_back, watch
from jcnn.net import Net

# By what their backward is in LRP.
WEIGHTED = (jcnn.conv, jcnn.conv_transpose, jcnn.dense)  # the rule that was asked for
PASS_THROUGH = (
    *(jcnn.relu6, jcnn.sigmoid, jcnn.tanh, jcnn.softplus, jcnn.elu, jcnn.selu, jcnn.gelu, jcnn.silu),
    *(jcnn.mish, jcnn.hard_sigmoid, jcnn.hard_swish),
)
GATES = (jcnn.scale_channels,)
UNCHANGED = (
    *(jcnn.relu, jcnn.leaky_relu, jcnn.prelu, jcnn.flatten, jcnn.pad, jcnn.layer_scale),
    *(jcnn.max_pool, jcnn.avg_pool, jcnn.global_max_pool, jcnn.global_avg_pool),
    *(jcnn.adaptive_max_pool, jcnn.adaptive_avg_pool),
    *(jcnn.upsample, jcnn.pixel_shuffle, jcnn.pixel_unshuffle),
)
KNOWN = (*WEIGHTED, *PASS_THROUGH, *GATES, *UNCHANGED)
UNCHANGED_LAYERS = ("batch_norm", "dropout", "drop_path", "identity")  # by name: linear in inference


def lrp(
    net: Net,
    params: Any,
    state: Any,
    x: Float[Array, "n *s c"],
    target: Target,
    *,
    rule: str = "epsilon",
    eps: float | int = 1e-6,
    layer: LayerLike | None = None,
) -> Float[Array, "n *shape"]:
    """The relevance of every input for an output: the output, divided among the inputs.

    Batch norm is folded into the layer before it first, where there is one.  Without biases and for eps -> 0
    relevance is conserved: its sum over the image is the output, and so is that over any layer through which
    everything goes.  Biases of the epsilon rule keep their share; the z+ rule gives them none.

    Args:
        net, params, state: the net; used in inference.
        x: images.
        target: index of the output to be explained, for all images or [N].
        rule: for layers with weights, "epsilon" or "z+".  The latter has relevance of one sign, that of the
            output, but behind other sums of positive and negative values, such as a residual block's.
        eps: of the epsilon rule.
        layer: whose outputs to give the relevance of, in place of that of the image.

    Returns:
        [N, *S, C], or the shape of the layer's output.

    Raises:
        ValueError: target, rule or layer do not exist; the net has a rule for which no LRP rule is known.
    """
    check.choice("inspect.lrp", "rule", rule, ("epsilon", "z+"))
    check.number("inspect.lrp", "eps", eps, 0)
    path = None if layer is None else find("lrp", net, layer)

    _check_known(net)
    params, state = fold_batch_norm(net, params, state)
    other = {r: rules.z_plus(r) if rule == "z+" else rules.epsilon(r, eps=eps) for r in WEIGHTED}
    other |= {r: rules.pass_through(r) for r in PASS_THROUGH} | {r: rules.ungated(r) for r in GATES}
    explained = net.with_rules({r: other[r] for r in net.rules() if r in other})
    if path is None:
        return x * pull_back(explained, params, state, x, output("lrp", target))
    watched, seen = watch(explained, path)
    pull_back(watched, params, state, x, output("lrp", target))
    return seen["output"] * seen["cotangent"]


def _check_known(net: Net) -> None:
    for _, name, leaf in layers(net):
        if name.split()[0] not in UNCHANGED_LAYERS and leaf.rule not in KNOWN:
            expected = ", ".join([*(r.name for r in KNOWN), *UNCHANGED_LAYERS])
            fail("lrp", "net", f"a layer {name!r}", f"layers with an LRP rule: {expected}")
