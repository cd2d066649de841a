"""Networks: layers over rules, their composition, and backpropagation through them without autodiff."""

from jcnn.net.core import (
    Net as Net,
    chain as chain,
    identity as identity,
    layer as layer,
    output_shape as output_shape,
    residual as residual,
)
from jcnn.net.layers import (
    avg_pool as avg_pool,
    batch_norm as batch_norm,
    conv as conv,
    dense as dense,
    dropout as dropout,
    flatten as flatten,
    global_avg_pool as global_avg_pool,
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    layer_scale as layer_scale,
    max_pool as max_pool,
)
