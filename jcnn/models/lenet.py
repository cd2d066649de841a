"""LeNet-5: two convolutions with pooling, three fully connected layers."""

from jax.nn.initializers import glorot_uniform

from jcnn import activation, check, net
from jcnn.rule import Rule

POOLS = {"avg": net.avg_pool, "max": net.max_pool}


def lenet5(num_classes: int = 10, *, activation: Rule = activation.sigmoid, pool: str = "avg") -> net.Net:
    """LeCun et al. 1998, Proc. IEEE 86(11), section II.B, for images of about 28x28.

    The classic form, as textbooks give it: sigmoid after every hidden layer, average pooling, weights from
    the uniform distribution of Glorot & Bengio 2010.

    Args:
        num_classes: number of logits.
        activation: the rule after every hidden layer.
        pool: "avg" or "max".
    """
    check.choice("models.lenet5", "pool", pool, tuple(POOLS))
    halve, init = POOLS[pool], glorot_uniform()
    return net.chain(
        net.conv(6, 5, padding=2, init=init),
        activation,
        halve(2),
        net.conv(16, 5, padding="VALID", init=init),
        activation,
        halve(2),
        net.flatten(),
        net.dense(120, init=init),
        activation,
        net.dense(84, init=init),
        activation,
        net.dense(num_classes, init=init),
    )
