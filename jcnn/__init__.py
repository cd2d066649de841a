"""CNN primitives whose gradients are derived by hand, proved against autodiff, and replaceable."""

from jcnn.rule import Rule as Rule, autodiff as autodiff
from jcnn.conv import conv as conv, conv_input_grad as conv_input_grad, conv_weight_grad as conv_weight_grad
from jcnn.conv_transpose import conv_transpose as conv_transpose
from jcnn.padding import pad as pad
from jcnn.linear import dense as dense, flatten as flatten
from jcnn.activation import (
    relu as relu,
    relu6 as relu6,
    leaky_relu as leaky_relu,
    sigmoid as sigmoid,
    tanh as tanh,
    silu as silu,
    gelu as gelu,
    softmax as softmax,
    log_softmax as log_softmax,
)
from jcnn.pool import (
    max_pool as max_pool,
    avg_pool as avg_pool,
    global_max_pool as global_max_pool,
    global_avg_pool as global_avg_pool,
)
from jcnn.regularize import dropout as dropout
from jcnn.norm import (
    BatchStats as BatchStats,
    batch_norm as batch_norm,
    batch_norm_inference as batch_norm_inference,
    update_running_stats as update_running_stats,
)
from jcnn.layer_norm import (
    layer_norm as layer_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
)
from jcnn.layer_scale import layer_scale as layer_scale
from jcnn.loss import softmax_cross_entropy as softmax_cross_entropy
from jcnn.net import chain as chain, residual as residual
from jcnn.compiler import compiler_options as compiler_options
from jcnn import models as models, net as net


def __getattr__(name: str):
    """`jcnn.verify` is loaded when it is first used: it costs more than all of the ops together."""
    if name == "verify":
        import jcnn.verify

        return jcnn.verify
    raise AttributeError(f"module 'jcnn' has no attribute {name!r}")
