"""At least two sets of arguments for every rule of jcnn: all axes different, so that a transpose becomes a
shape error, and all equal, so that a silent one shows; then the corners of its configuration."""

from jcnn.verify.examples import activation, convolution, linear, loss, norm, pooling, regularize, spatial
from jcnn.verify.examples.arrays import distinct as distinct, normal as normal

EXAMPLES: dict[str, dict] = (
    activation.EXAMPLES
    | convolution.EXAMPLES
    | linear.EXAMPLES
    | loss.EXAMPLES
    | norm.EXAMPLES
    | pooling.EXAMPLES
    | regularize.EXAMPLES
    | spatial.EXAMPLES
)
