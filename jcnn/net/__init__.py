"""Networks: layers over rules, their composition, and backpropagation through them without autodiff."""

from jcnn.net.core import (
    Net as Net,
    chain as chain,
    identity as identity,
    layer as layer,
    output_shape as output_shape,
    residual as residual,
)
from jcnn.net.activations import prelu as prelu
from jcnn.net.layers import (
    conv as conv,
    dense as dense,
    flatten as flatten,
    layer_scale as layer_scale,
    scale as scale,
)
from jcnn.net.pools import (
    adaptive_avg_pool as adaptive_avg_pool,
    adaptive_max_pool as adaptive_max_pool,
    avg_pool as avg_pool,
    global_avg_pool as global_avg_pool,
    global_max_pool as global_max_pool,
    lp_pool as lp_pool,
    max_pool as max_pool,
)
from jcnn.net.norms import (
    batch_norm as batch_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    local_response_norm as local_response_norm,
    rms_norm as rms_norm,
    standardized as standardized,
)
from jcnn.net.enlarging import (
    conv_transpose as conv_transpose,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
    upsample as upsample,
)
from jcnn.net.regularizers import drop_path as drop_path, dropout as dropout
from jcnn.net.blocks import frozen as frozen, gated as gated, squeeze_excitation as squeeze_excitation
