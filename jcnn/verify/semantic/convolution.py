"""What people get wrong in the backwards of convolutions and pads."""

from typing import Any

from jcnn.conv import conv, conv_input_grad, conv_weight_grad
from jcnn.conv_transpose import conv_transpose
from jcnn.padding import pad, pad_adjoint
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import (
    Error,
    backward,
    channels_swapped,
    cotangent,
    flipped,
    one_late,
    residual,
    rows,
)


def _crop(geometry: Any) -> Any:
    return geometry._replace(padding_mode="zeros")


CONV: dict[str, Error] = {
    "kernel not flipped in dx": residual(w=flipped),
    "kernel's channels not swapped in dx": residual(w=channels_swapped),
    "copies in the padding forgotten": residual(geometry=_crop),
    "dx one pixel late": cotangent(0, one_late),
    "dw flipped": cotangent(1, lambda dw, res, dy: flipped(dw)),
    "dw a mean over examples": cotangent(1, lambda dw, res, dy: dw / len(dy)),
    "db a mean over pixels": cotangent(2, lambda db, res, dy: db / rows(dy)),
}
CONV_INPUT_GRAD: dict[str, Error] = {
    "kernel flipped in ddy": residual(w=flipped),
    "kernel's channels swapped in ddy": residual(w=channels_swapped),
    "copies in the padding forgotten": residual(geometry=_crop),
    "ddy one pixel late": cotangent(0, one_late),
    "dw flipped": cotangent(1, lambda dw, res, ddx: flipped(dw)),
}
CONV_WEIGHT_GRAD: dict[str, Error] = {
    "kernel flipped": backward(lambda res, ddw: conv_weight_grad.bwd(res, flipped(ddw))),
    "kernel's channels swapped": backward(lambda res, ddw: conv_weight_grad.bwd(res, channels_swapped(ddw))),
    "copies in the padding forgotten": residual(geometry=_crop),
    "dx one pixel late": cotangent(0, one_late),
    "ddy a mean over examples": cotangent(1, lambda ddy, res, ddw: ddy / len(ddy)),
}
CONV_TRANSPOSE: dict[str, Error] = {
    "kernel flipped in dx": residual(w=flipped),
    "kernel's channels swapped in dx": residual(w=channels_swapped),
    "dx one pixel late": cotangent(0, one_late),
    "dw flipped": cotangent(1, lambda dw, res, dy: flipped(dw)),
    "dw transposed": cotangent(1, lambda dw, res, dy: channels_swapped(dw)),
    "dw a mean over examples": cotangent(1, lambda dw, res, dy: dw / len(dy)),
    "db over pixels of x": cotangent(2, lambda db, res, dy: db * rows(res.x) / rows(dy)),
}
PAD: dict[str, Error] = {
    "copies forgotten": residual(mode=lambda mode: "zeros"),
    "copies doubled": cotangent(
        0, lambda dx, res, dy: 2 * dx - pad_adjoint(dy, res.padding, "zeros", res.size)
    ),
    "low and high swapped": residual(padding=lambda pairs: tuple((hi, lo) for lo, hi in pairs)),
    "reflect and symmetric confused": residual(
        mode=lambda m: {"reflect": "symmetric", "symmetric": "reflect"}.get(m, m)
    ),
}

ERRORS: dict[Rule, dict[str, Error]] = {
    conv: CONV,
    conv_input_grad: CONV_INPUT_GRAD,
    conv_weight_grad: CONV_WEIGHT_GRAD,
    conv_transpose: CONV_TRANSPOSE,
    pad: PAD,
}
