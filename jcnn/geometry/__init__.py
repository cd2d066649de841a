"""Shape arithmetic: Python integers in, Python integers out, no arrays."""

from jcnn.geometry.convolution import (
    ConvGeometry as ConvGeometry,
    check_copies as check_copies,
    conv_geometry as conv_geometry,
)
from jcnn.geometry.fields import (
    ReceptiveField as ReceptiveField,
    pixel as pixel,
    receptive_field as receptive_field,
)
from jcnn.geometry.windows import (
    PADDING_MODES as PADDING_MODES,
    PADDING_NAMES as PADDING_NAMES,
    IntLike as IntLike,
    Ints as Ints,
    PaddingLike as PaddingLike,
    Pair as Pair,
    Pairs as Pairs,
    Window as Window,
    explicit_padding as explicit_padding,
    resolved_padding as resolved_padding,
    sizes as sizes,
    window as window,
)
