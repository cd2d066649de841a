"""Examples of activations."""

from jcnn.verify.examples.arrays import X2, distinct

ELEMENTWISE = {"different": ((distinct(60, 2, 3, 5) / 4,), {}), "equal": ((distinct(61, 3, 3, 3) / 4,), {})}

EXAMPLES: dict[str, dict] = {
    "relu": ELEMENTWISE,
    "relu6": ELEMENTWISE,
    "leaky_relu": ELEMENTWISE | {"slope": ((distinct(62, 4, 3),), {"negative_slope": 0.3})},
    "sigmoid": ELEMENTWISE,
    "tanh": ELEMENTWISE,
    "silu": ELEMENTWISE,
    "gelu": ELEMENTWISE | {"tanh": ((distinct(63, 4, 3) / 2,), {"approximate": True})},
    "softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
    "log_softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
}
