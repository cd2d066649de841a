"""Seeing what a net has learned: arrays from every function here, figures from `jcnn.inspect.show`.

Guided backpropagation, deconvnet and relevance propagation are the net with other backward rules, from
`jcnn.inspect.rules`, put in their places by `net.with_rules`.
"""

from jcnn.inspect import rules as rules
from jcnn.inspect.attribution import (
    deconvnet as deconvnet,
    grad_cam as grad_cam,
    guided_backprop as guided_backprop,
    integrated_gradients as integrated_gradients,
    saliency as saliency,
)
from jcnn.inspect.features import (
    Patches as Patches,
    feature_maps as feature_maps,
    filters as filters,
    top_patches as top_patches,
)
from jcnn.inspect.fold import fold_batch_norm as fold_batch_norm
from jcnn.inspect.layers import Layer as Layer, layers as layers, receptive_field as receptive_field
from jcnn.inspect.relevance import lrp as lrp
from jcnn.inspect.visualize import visualize_features as visualize_features


def __getattr__(name: str):
    """`jcnn.inspect.show` is loaded when it is first used: it needs matplotlib."""
    if name == "show":
        import jcnn.inspect.show

        return jcnn.inspect.show
    raise AttributeError(f"module 'jcnn.inspect' has no attribute {name!r}")
