"""Which pixels an output depends on.

All start from the cotangent 1 of one output, taken back to the image by explicit backpropagation, or by that
of the same net with other backward rules (`jcnn.inspect.rules`).  With f the output and g = df/dx:

    saliency              g(x)
    integrated gradients  (x - x0) (mean of g over the line from x0 to x)
    Grad-CAM              max(sum_c a_c A_c, 0),  a_c = mean over positions of df/dA_c

where A are the feature maps of one layer.  Integrated gradients sum to the integral of g along the line,
which is f(x) - f(x0).

Reference.  Simonyan et al. 2013, arXiv:1312.6034 (saliency); Sundararajan et al. 2017, arXiv:1703.01365
(integrated gradients); Selvaraju et al. 2017, arXiv:1610.02391 (Grad-CAM).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

import jcnn
from jcnn import check
from jcnn.inspect import rules
from jcnn.inspect.layers import LayerLike, fail, find, pull_back, watch
from jcnn.net import Net

RECTIFIERS = (
    *(jcnn.relu, jcnn.relu6, jcnn.leaky_relu, jcnn.softplus, jcnn.elu, jcnn.selu, jcnn.gelu, jcnn.silu),
    *(jcnn.mish, jcnn.hard_swish),
)
Target = int | np.ndarray | Array  # a class, or one for each image


def output(op: str, target: Target) -> Callable[[Array], Array]:
    """The cotangent that is 1 for output `target` of every image, as a function of the outputs [N, K]."""
    index = target if isinstance(target, jax.Array) else np.asarray(target)
    if not np.issubdtype(index.dtype, np.integer):
        fail(op, "target", f"dtype {index.dtype}", "an int or an array of ints [N]", TypeError)

    def cotangent(y: Array) -> Array:
        if y.ndim != 2:
            fail(op, "net", f"one with output {y.shape}", "[N, K]: numbers that can be explained")
        n, k = y.shape
        if index.shape not in ((), (n,)):
            fail(op, "target", f"shape {index.shape}", f"an int, or ints of shape ({n},) for the images")
        if check.is_concrete(index) and np.any((np.asarray(index) < 0) | (np.asarray(index) >= k)):
            fail(op, "target", str(target), f"outputs from 0 to {k - 1}")
        return jnp.broadcast_to(jax.nn.one_hot(index, k, dtype=y.dtype), (n, k))

    return cotangent


def saliency(
    net: Net, params: Any, state: Any, x: Float[Array, "n *s c"], target: Target
) -> Float[Array, "n *s c"]:
    """The gradient of an output with respect to the image.

    Its absolute value, `abs(g).max(-1)`, is the map of Simonyan et al. 2013, arXiv:1312.6034.

    Args:
        net, params, state: the net; used in inference.
        x: images [N, *S, C].
        target: index of the output, usually of a class: for all images or [N].

    Returns:
        An array like x.

    Raises:
        ValueError: the net has not got K outputs, or target is not one of them.
    """
    return pull_back(net, params, state, x, output("saliency", target))


def guided_backprop(
    net: Net, params: Any, state: Any, x: Float[Array, "n *s c"], target: Target
) -> Float[Array, "n *s c"]:
    """The gradient without the negative gradients at rectifiers (Springenberg et al. 2015, arXiv:1412.6806).

    Arguments, result and errors as for `saliency`; the net has to have a rectifier.
    """
    other = _at_rectifiers("guided_backprop", net, rules.guided)
    return pull_back(other, params, state, x, output("guided_backprop", target))


def deconvnet(
    net: Net, params: Any, state: Any, x: Float[Array, "n *s c"], target: Target
) -> Float[Array, "n *s c"]:
    """The gradient, rectified where the net rectifies (Zeiler & Fergus 2014, arXiv:1311.2901).

    Arguments, result and errors as for `saliency`; the net has to have a rectifier.
    """
    other = _at_rectifiers("deconvnet", net, rules.deconvolution)
    return pull_back(other, params, state, x, output("deconvnet", target))


def _at_rectifiers(op: str, net: Net, explain) -> Net:
    present = net.rules().intersection(RECTIFIERS)
    if not present:
        got = ", ".join(sorted(rule.name for rule in net.rules()))
        fail(op, "net", f"rules {got}", "one of " + ", ".join(rule.name for rule in RECTIFIERS))
    return net.with_rules({rule: explain(rule) for rule in present})


def integrated_gradients(
    net: Net,
    params: Any,
    state: Any,
    x: Float[Array, "n *s c"],
    target: Target,
    *,
    steps: int = 64,
    baseline: Array | float | int = 0.0,
) -> Float[Array, "n *s c"]:
    """What every pixel adds to an output on the way from a baseline to the image (arXiv:1703.01365).

    Args:
        net, params, state, x, target: as for `saliency`.
        steps: points on the line, in the middles of so many equal parts.
        baseline: the image without information, broadcast to x.

    Returns:
        An array like x.  Its sum over an image is the output there minus that of the baseline, up to the
        error of the steps.

    Raises:
        ValueError: steps < 1, a baseline that does not fit, and as for `saliency`.
    """
    check.count("inspect.integrated_gradients", "steps", steps)
    base = jnp.asarray(baseline, x.dtype)
    if base.ndim > x.ndim or any(
        b not in (1, n) for b, n in zip(base.shape[::-1], x.shape[::-1], strict=False)
    ):
        fail("integrated_gradients", "baseline", f"shape {base.shape}", f"one that broadcasts to {x.shape}")
    way, cotangent = x - base, output("integrated_gradients", target)

    def add(i, total):
        share = ((i + 0.5) / steps).astype(x.dtype)
        return total + pull_back(net, params, state, base + share * way, cotangent)

    return way * lax.fori_loop(0, steps, add, jnp.zeros_like(x)) / steps


def grad_cam(
    net: Net, params: Any, state: Any, x: Float[Array, "n *s c"], target: Target, *, layer: LayerLike
) -> Float[Array, "n *s"]:
    """Where the feature maps of a layer speak for an output (Selvaraju et al. 2017, arXiv:1610.02391).

    Args:
        net, params, state, x, target: as for `saliency`.
        layer: a row of the summary, or a path; usually the last that has spatial axes.

    Returns:
        [N, *S]: the class activation map, not negative, resized to the image linearly.

    Raises:
        ValueError: the layer does not exist or has no spatial axes, and as for `saliency`.
    """
    watched, seen = watch(net, find("grad_cam", net, layer))
    pull_back(watched, params, state, x, output("grad_cam", target))
    maps, slopes = seen["output"], seen["cotangent"]
    if maps.ndim != x.ndim:
        fail("grad_cam", "layer", f"one with output {maps.shape}", "one with the image's spatial axes")
    weights = slopes.mean(range(1, maps.ndim - 1), keepdims=True)
    cam = jnp.maximum((weights * maps).sum(-1), 0)
    return jax.image.resize(cam, x.shape[:-1], "linear")
