"""Weights and images to and from PyTorch and Flax, neither of which is needed for it.

    params, state = from_torch(net, module.state_dict(), image_shape)
    module.load_state_dict(to_torch(net, params, state, image_shape, like=module.state_dict()))
    params, state = from_flax(net, variables, image_shape)
    variables     = to_flax(net, params, state, image_shape, like=variables)
    x             = images_from_torch(x)                                        [N, C, *S] -> [N, *S, C]

`jcnn.interop.torch` and `jcnn.interop.flax` say what becomes of what, and what weights alone do not tell.
"""

from jcnn.interop.flax import flax_names as flax_names, from_flax as from_flax, to_flax as to_flax
from jcnn.interop.torch import (
    from_torch as from_torch,
    images_from_torch as images_from_torch,
    images_to_torch as images_to_torch,
    momentum as momentum,
    to_torch as to_torch,
    torch_names as torch_names,
)
