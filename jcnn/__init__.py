"""CNN primitives whose gradients are derived by hand, proved against autodiff, and replaceable."""

import importlib

from jcnn.rule import Rule as Rule, autodiff as autodiff
from jcnn.conv import conv as conv, conv_input_grad as conv_input_grad, conv_weight_grad as conv_weight_grad
from jcnn.conv_transpose import conv_transpose as conv_transpose
from jcnn.padding import pad as pad
from jcnn.patches import patches as patches, fold as fold
from jcnn.linear import dense as dense, flatten as flatten
from jcnn.activation import (
    relu as relu,
    relu6 as relu6,
    leaky_relu as leaky_relu,
    prelu as prelu,
    sigmoid as sigmoid,
    tanh as tanh,
    softplus as softplus,
    elu as elu,
    selu as selu,
    gelu as gelu,
    silu as silu,
    mish as mish,
    hard_sigmoid as hard_sigmoid,
    hard_swish as hard_swish,
    glu as glu,
    softmax as softmax,
    log_softmax as log_softmax,
)
from jcnn.pool import (
    max_pool as max_pool,
    avg_pool as avg_pool,
    lp_pool as lp_pool,
    global_max_pool as global_max_pool,
    global_avg_pool as global_avg_pool,
    adaptive_max_pool as adaptive_max_pool,
    adaptive_avg_pool as adaptive_avg_pool,
    max_unpool as max_unpool,
)
from jcnn.resample import (
    upsample as upsample,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
)
from jcnn.regularize import dropout as dropout, drop_path as drop_path
from jcnn.norm import (
    BatchStats as BatchStats,
    batch_norm as batch_norm,
    batch_norm_inference as batch_norm_inference,
    update_running_stats as update_running_stats,
    layer_norm as layer_norm,
    rms_norm as rms_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
    local_response_norm as local_response_norm,
    weight_standardize as weight_standardize,
)
from jcnn.layer_scale import layer_scale as layer_scale, scale_channels as scale_channels
from jcnn.loss import (
    softmax_cross_entropy as softmax_cross_entropy,
    binary_cross_entropy as binary_cross_entropy,
    focal_loss as focal_loss,
    kl_divergence as kl_divergence,
    mse as mse,
    huber as huber,
)
from jcnn.net import chain as chain, residual as residual
from jcnn.compiler import compiler_options as compiler_options
from jcnn.memory import keep_memory as keep_memory
from jcnn import models as models, net as net


def __getattr__(name: str):
    """Loaded when first used: `jcnn.verify` costs more than all of the ops together, the others few need."""
    if name in ("verify", "inspect", "interop"):
        return importlib.import_module(f"jcnn.{name}")
    raise AttributeError(f"module 'jcnn' has no attribute {name!r}")
