"""Broken backwards of every rule of jcnn, named after what people get wrong in it."""

from jcnn.rule import Rule
from jcnn.verify.semantic import activation, convolution, linear, loss, norm, pooling, regularize, spatial
from jcnn.verify.semantic.errors import Error

ERRORS: dict[Rule, dict[str, Error]] = (
    activation.ERRORS
    | convolution.ERRORS
    | linear.ERRORS
    | loss.ERRORS
    | norm.ERRORS
    | pooling.ERRORS
    | regularize.ERRORS
    | spatial.ERRORS
)
