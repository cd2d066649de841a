"""Activations: piecewise linear ones, smooth ones, the gated linear unit, and the softmax over an axis."""

from jcnn.activation.gated import glu as glu
from jcnn.activation.piecewise import (
    hard_sigmoid as hard_sigmoid,
    leaky_relu as leaky_relu,
    relu as relu,
    relu6 as relu6,
)
from jcnn.activation.prelu import prelu as prelu
from jcnn.activation.smooth import (
    elu as elu,
    gelu as gelu,
    hard_swish as hard_swish,
    mish as mish,
    selu as selu,
    sigmoid as sigmoid,
    silu as silu,
    softplus as softplus,
    tanh as tanh,
)
from jcnn.activation.softmax import log_softmax as log_softmax, softmax as softmax
