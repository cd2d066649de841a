"""CNN primitives whose gradients are derived by hand, proved against autodiff, and replaceable."""

from jcnn.rule import Rule as Rule, autodiff as autodiff
from jcnn.conv import conv as conv, conv_input_grad as conv_input_grad, conv_weight_grad as conv_weight_grad
from jcnn.padding import pad as pad
