"""Window arithmetic against enumeration of positions, taps and dependencies."""

import pytest
from hypothesis import given, settings, strategies as st
from jax import lax

from jcnn.geometry import (
    ReceptiveField,
    Window,
    explicit_padding,
    pixel,
    receptive_field,
    window,
)

small = st.integers(1, 5)
pads = st.tuples(st.integers(0, 4), st.integers(0, 4))
FAST = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@st.composite
def axes(draw):
    """(size, kernel, stride, dilation, (low, high)) of one axis whose window fits."""
    k, s, d, pad = draw(small), draw(small), draw(st.integers(1, 3)), draw(pads)
    least = max(1, (k - 1) * d + 1 - sum(pad))
    return draw(st.integers(least, least + 9)), k, s, d, pad


def one_axis(size, k, s, d, pad, **changes):
    return window("test", k, size=(size,), stride=s, dilation=d, padding=(pad,), **changes)


def positions(size, k, s, d, pad):
    """Where windows start, by trying them all: the padded axis holds every one of their taps."""
    padded = range(-pad[0], size + pad[1])
    return [p for p in padded[::s] if all(p + t * d in padded for t in range(k))]


@FAST
@given(axes())
def test_output_size_is_the_number_of_positions(axis):
    size, _, s, d, pad = axis
    w = one_axis(*axis)
    assert w.output_size((size,)) == (len(positions(*axis)),)
    assert w == Window((axis[1],), (s,), (d,), (pad,))


@FAST
@given(axes())
def test_extent_is_first_tap_to_last(axis):
    _, k, _, d, _ = axis
    assert one_axis(*axis).extent == (1 + max(t * d for t in range(k)),)


@FAST
@given(axes())
def test_taps_inside_are_those_that_read_an_input(axis):
    size, k, _, d, _ = axis
    expected = [[t for t in range(k) if p + t * d in range(size)] for p in positions(*axis)]
    assert one_axis(*axis).taps_inside(0, size) == expected


def test_taps_inside_of_the_second_axis_use_its_own_numbers():
    w = window("test", (2, 3), size=(9, 4), stride=(5, 1), padding=((0, 0), (1, 0)))
    assert w.taps_inside(1, 4) == [[1, 2], [0, 1, 2], [0, 1, 2]]
    assert w.taps_inside(0, 9) == [[0, 1], [0, 1]]


def reads(w: Window, size: int, dilated_by: int = 1) -> dict:
    """For every (output, tap) the input it reads; inputs of a dilated array that are zeros are left out."""
    (k,), (s,), (d,), ((lo, _),) = w
    length = (size - 1) * dilated_by + 1
    at = {(i, t): i * s + t * d - lo for i in range(w.output_size((length,))[0]) for t in range(k)}
    return {it: j // dilated_by for it, j in at.items() if j in range(length) and j % dilated_by == 0}


@FAST
@given(axes())
def test_input_transpose_is_the_adjoint_in_the_input(axis):
    size, k, s, _, _ = axis
    w = one_axis(*axis)
    forward = {(i, t, j) for (i, t), j in reads(w, size).items()}
    (m,) = w.output_size((size,))
    transpose = w.input_transpose((size,))
    assert transpose.output_size(((m - 1) * s + 1,)) == (size,)
    adjoint = {(i, k - 1 - t, j) for (j, t), i in reads(transpose, m, dilated_by=s).items()}
    assert adjoint == forward


@FAST
@given(axes())
def test_kernel_transpose_is_the_adjoint_in_the_kernel(axis):
    size, k, _, _, _ = axis
    w = one_axis(*axis)
    forward = {(i, t, j) for (i, t), j in reads(w, size).items()}
    transpose = w.kernel_transpose((size,))
    assert transpose.output_size((size,)) == (k,)
    assert {(i, t, j) for (t, i), j in reads(transpose, size).items()} == forward


@FAST
@given(axes())
def test_ceil_mode_adds_the_last_window_that_starts_before_the_high_padding(axis):
    size, k, s, d, (lo, hi) = axis
    w = one_axis(*axis, ceil_mode=True)
    starts = [p for p in range(-lo, size, s) if p < size + hi - (k - 1) * d - 1 + s]
    assert w.output_size((size,)) == (max(len(starts), len(positions(*axis))),)
    (reach,) = w.extent
    last = (w.output_size((size,))[0] - 1) * s - lo + reach
    assert w == Window((k,), (s,), (d,), ((lo, max(hi, last - size)),))


def test_ceil_mode_fits_a_window_that_is_longer_than_the_image():
    assert window("test", 3, size=(2,), stride=2, ceil_mode=True).padding == ((0, 1),)
    with pytest.raises(ValueError, match="window: got an extent of 5"):
        window("test", 5, size=(2,), stride=2, ceil_mode=True)


# --- padding by name -----------------------------------------------------------------------------

same_axes = st.tuples(st.integers(1, 20), small, small, st.integers(1, 3))


@FAST
@given(same_axes)
def test_same_gives_ceil_of_size_by_stride_and_agrees_with_xla(axis):
    size, k, s, d = axis
    w = window("test", k, size=(size,), stride=s, dilation=d, padding="SAME")
    assert w.output_size((size,)) == (-(-size // s),)
    assert list(w.padding) == lax.padtype_to_pads((size,), ((k - 1) * d + 1,), (s,), "SAME")


@FAST
@given(same_axes)
def test_same_lower_puts_the_odd_one_low_and_agrees_with_xla(axis):
    size, k, s, d = axis
    w = window("test", k, size=(size,), stride=s, dilation=d, padding="SAME_LOWER")
    assert w.output_size((size,)) == (-(-size // s),)
    assert list(w.padding) == lax.padtype_to_pads((size,), ((k - 1) * d + 1,), (s,), "SAME_LOWER")


def test_same_padding_of_an_even_kernel_is_high_and_same_lower_low():
    assert window("test", 2, size=(6,), padding="SAME").padding == ((0, 1),)
    assert window("test", 2, size=(6,), padding="SAME_LOWER").padding == ((1, 0),)


def test_causal_outputs_see_no_later_input():
    w = window("test", 3, size=(7,), dilation=2, padding="CAUSAL")
    assert w.padding == ((4, 0),)
    assert w.output_size((7,)) == (7,)
    assert all(j <= i for (i, _), j in reads(w, 7).items())
    assert all(reads(w, 7)[i, 2] == i for i in range(7))


def test_padding_forms_mean_the_same():
    forms = (2, (2, 2), [2, 2], ((2, 2), (2, 2)), [[2, 2], 2])
    assert {window("test", 2, size=(4, 5), padding=p).padding for p in forms} == {((2, 2), (2, 2))}
    assert window("test", 2, size=(4, 5)).padding == ((0, 0), (0, 0))
    assert explicit_padding("test", (1, (0, 3)), 2) == ((1, 1), (0, 3))


def test_numbers_are_spread_over_the_axes():
    w = window("test", 2, size=(4, 5, 6), stride=3, dilation=1, padding=1)
    assert w == Window((2,) * 3, (3,) * 3, (1,) * 3, ((1, 1),) * 3)


def test_windows_are_hashable_and_equal_by_value():
    first, second = (window("test", [2, 3], size=(4, 5), padding="SAME") for _ in range(2))
    assert len({first, second}) == 1
    assert first != window("test", [2, 3], size=(4, 5))


def test_empty_axis_has_no_outputs():
    assert window("test", 3, size=(0,)).output_size((0,)) == (0,)


BAD_WINDOWS = {
    "negative stride": (dict(stride=-1), r"stride: got -1, expected an int >= 1"),
    "zero stride": (dict(stride=(1, 0)), r"stride: got \(1, 0\), expected an int >= 1"),
    "too many strides": (dict(stride=(1, 1, 1)), r"stride: got \(1, 1, 1\), expected .* or 2 of them"),
    "bool stride": (dict(stride=True), r"stride: got True"),
    "zero dilation": (dict(dilation=0), r"dilation: got 0, expected an int >= 1"),
    "negative padding": (dict(padding=-1), r"padding: got -1, expected an int >= 0"),
    "negative pair": (dict(padding=((0, -1), (0, 0))), r"padding: got \(\(0, -1\), \(0, 0\)\)"),
    "one pair of two": (dict(padding=((1, 1),)), r"padding: got \(\(1, 1\),\), expected .* 2 \(low, high\)"),
    "triple": (dict(padding=((1, 1, 1), 0)), r"padding: got \(\(1, 1, 1\), 0\)"),
    "name": (dict(padding="same"), r"padding: got 'same', expected 'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL'"),
    "causal in 2-D": (
        dict(padding="CAUSAL"),
        r"padding: got 'CAUSAL', expected 1 spatial axis for it, not 2",
    ),
    "too long": (dict(dilation=4), r"window: got an extent of 5 on spatial axis 0, expected at most .* 4"),
}


@pytest.mark.parametrize("which", BAD_WINDOWS)
def test_bad_window_is_refused(which):
    config, message = BAD_WINDOWS[which]
    with pytest.raises(ValueError, match=rf"^jcnn\.test: {message}"):
        window("test", 2, size=(4, 9), **config)


# --- receptive field -----------------------------------------------------------------------------


def seen(windows, position: int) -> set[int]:
    """The inputs (negative: padding) that one output of the stack depends on, layer by layer."""
    inputs = {position}
    for (k,), (s,), (d,), ((lo, _),) in reversed(windows):
        inputs = {i * s + t * d - lo for i in inputs for t in range(k)}
    return inputs


windows = st.builds(
    lambda k, s, d, lo, hi: Window((k,), (s,), (d,), ((lo, hi),)),
    *(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)),
)


@FAST
@given(st.lists(windows, min_size=1, max_size=4), st.integers(0, 5))
def test_receptive_field_is_what_dependencies_reach(stack, position):
    field = receptive_field(stack)
    first, second = seen(stack, 0), seen(stack, 1)
    assert field.start == (min(first),)
    assert field.size == (max(first) - min(first) + 1,)
    assert field.jump == (min(second) - min(first),)
    (interval,) = field.interval((position,))
    reached = seen(stack, position)
    assert (interval.start, interval.stop) == (min(reached), max(reached) + 1)


def test_two_layers_of_three_see_five():
    layer = window("conv", 3, size=(9,))
    assert receptive_field([layer, layer]) == ReceptiveField((5,), (1,), (0,))


def test_receptive_field_by_hand_with_strides_and_padding():
    first = window("conv", (3, 5), size=(32, 32), stride=2, padding=1)
    second = window("pool", 2, size=(16, 16), stride=(2, 1))
    # Rows: 3 + (2 - 1) 2 = 5 pixels, 2 * 2 = 4 apart, from -1.  Columns: 5 + (2 - 1) 2 = 7, 2 apart, from -1.
    field = receptive_field([first, second])
    assert field == ReceptiveField((5, 7), (4, 2), (-1, -1))
    assert field.interval((1, 3)) == (slice(3, 8), slice(5, 12))


def test_pixel_sees_itself_and_an_empty_stack_is_refused():
    assert pixel(2).interval((3, 4)) == (slice(3, 4), slice(4, 5))
    with pytest.raises(ValueError, match="windows: got none, expected at least one"):
        receptive_field([])
