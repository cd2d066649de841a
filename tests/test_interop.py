"""Conversions without either library: arrays by the names of PyTorch, images, errors."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import interop, net
from jcnn.net import layer
from tests.checks import assert_close

SMALL = jcnn.chain(
    *[net.conv(5, 3, padding=1), net.batch_norm(), jcnn.relu, net.max_pool(2)],
    *[net.conv(4, 3, stride=2, padding=1), jcnn.relu, net.flatten(), net.dense(3)],
)
NAMES = {"0": "conv1", "4": "conv2"}  # bn and fc are the only ones of their kind
SHAPE = (8, 10, 2)
STATE_DICT = {  # of a module that is defined in another order than it runs in
    "fc.weight": np.ones((3, 24)),
    "fc.bias": np.ones(3),
    "conv2.weight": np.ones((4, 5, 3, 3)),
    "conv2.bias": np.ones(4),
    "conv1.weight": np.ones((5, 2, 3, 3)),
    "conv1.bias": np.ones(5),
    **{f"bn.{key}": np.ones(5) for key in ("weight", "bias", "running_mean", "running_var")},
    "bn.num_batches_tracked": 3,
}


def changed(**changes):
    return {key: value for key, value in (STATE_DICT | changes).items() if value is not None}


def convert(state_dict=STATE_DICT, model=SMALL, names=NAMES, shape=SHAPE):
    return interop.from_torch(model, state_dict, shape, names=names)


def test_state_dicts_may_hold_numpy_arrays():
    arrays = {"0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "1.num_batches_tracked": 7}
    arrays |= {f"1.{key}": np.full(2, i) for i, key in enumerate(["weight", "bias"])}
    arrays |= {f"1.{key}": np.full(2, i) for i, key in enumerate(["running_mean", "running_var"])}
    model = jcnn.chain(net.conv(2, 2, bias=False), net.batch_norm())
    params, state = interop.from_torch(model, arrays, (4, 4, 3))
    # weight[o, c, i, j] is w[i, j, c, o]
    assert float(params[0]["w"][1, 0, 2, 1]) == arrays["0.weight"][1, 2, 1, 0] == 22
    params, state = jax.tree.map(lambda a: a.astype(jnp.float64), (params, state))
    back = interop.to_torch(model, params, state, (4, 4, 3), like=arrays)
    assert list(back) == list(arrays)
    for key, value in arrays.items():
        assert isinstance(back[key], np.ndarray)
        np.testing.assert_array_equal(back[key], value)
        assert back[key].dtype == np.asarray(value).dtype


@pytest.mark.parametrize("size", [(5,), (5, 6), (5, 6, 7)])
def test_images(size):
    x = np.random.default_rng(6).standard_normal((2, 3, *size))
    ours = interop.images_from_torch(x)
    assert isinstance(ours, jax.Array)
    assert ours.shape == (2, *size, 3)
    assert_close(ours[1, ..., 2], x[1, 2], 0, "pixels")
    back = interop.images_to_torch(ours)
    assert back.flags.c_contiguous
    assert back.flags.writeable
    np.testing.assert_array_equal(back, x)
    for convert in (interop.images_from_torch, interop.images_to_torch):
        with pytest.raises(
            ValueError, match=rf"interop\.{convert.__name__}: x: got shape \(2, 3\), expected"
        ):
            convert(np.ones((2, 3)))


def test_momentum_is_the_weight_of_the_old_value_here():
    assert interop.momentum(0.1) == 0.9
    with pytest.raises(ValueError, match=r"interop\.momentum: value: got 10, expected a number in \[0, 1\]"):
        interop.momentum(10)


ERRORS = {
    "missing": (
        lambda: convert(changed(**{"conv1.bias": None})),
        r"from_torch: state_dict: got module 'conv1' with 'weight' for layer '0' \(conv 3\), "
        r"expected 'bias', 'weight': give `names`",
    ),
    "left over": (
        lambda: convert(changed(**{"bn.scale": np.ones(5)})),
        r"got module 'bn' with 'bias', .*, 'scale', 'weight' for layer '1' \(batch_norm\), expected 'bias'",
    ),
    "a module too many": (
        lambda: convert(changed(**{"head.weight": np.ones((2, 3))})),
        r"got 2 modules of kind 'dense' by order: 'fc', 'head', expected 1, for layer '7' \(dense\)",
    ),
    "a module too few": (
        lambda: convert(changed(**dict.fromkeys(["fc.weight", "fc.bias"]))),
        r"got 0 modules of kind 'dense' by order: none, expected 1, for layer '7' \(dense\)",
    ),
    "order of definition": (
        lambda: convert(names=None),
        r"got shape \(4,\) of 'bias' of module 'conv2', expected \(5,\), "
        r"which is 'b' \(5,\) of layer '0' \(conv 3\)",
    ),
    "shape": (
        lambda: convert(shape=(8, 8, 2)),
        r"got shape \(3, 24\) of 'weight' of module 'fc', expected \(3, 16\), which is 'w' \(16, 3\) of",
    ),
    "statistics": (
        lambda: convert(changed(**{"bn.running_var": np.ones((2, 5))})),
        r"got shape \(2, 5\) of 'running_var' of module 'bn', expected \(5,\), which is 'var' \(5,\) of",
    ),
    "kind": (
        lambda: convert(names={"0": "bn"}),
        r"names: got module 'bn' of kind 'batch norm' for layer '0' \(conv 3\), expected a module of",
    ),
    "path": (
        lambda: convert(names={"3": "conv1"}),
        r"names: got layer '3', expected one of '0', '1', '4', '7'",
    ),
    "name": (
        lambda: convert(names={"0": "conv3"}),
        r"names: got module 'conv3' for layer '0' \(conv 3\), expected one of 'fc', 'conv2', 'conv1', 'bn'",
    ),
    "twice": (
        lambda: convert(names={"0": "conv1", "4": "conv1"}),
        r"names: got 'conv1' more than once, expected a module of its own for every layer",
    ),
    "unknown array": (
        lambda: convert(
            {"x.weight": np.ones(2)}, layer(jcnn.prelu, lambda *_: {"theta": jnp.ones(())}, name="x"), None
        ),
        r"net: got array 'theta' of layer '' \(x\), expected arrays that torch has, too: 'w', 'b'",
    ),
    "groups of a flattened image": (
        lambda: convert({}, jcnn.chain(net.flatten(), net.group_norm(2)), None),
        r"net: got layer '1' \(group_norm 2\), expected only layers that treat all values alike",
    ),
    "branches": (
        lambda: convert({}, jcnn.residual(net.flatten(), jcnn.chain(net.flatten(), net.dense(160))), None),
        r"net: got residual '', expected branches that keep, or all end, the order",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_both_sides(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=r"jcnn\.interop\." + "(from_torch: )?.*" + message):
        call()


def test_to_torch_refuses_trees_of_another_net():
    params, state = convert()

    def back(params, state=state):
        return interop.to_torch(SMALL, params, state, SHAPE, like=STATE_DICT, names=NAMES)

    with pytest.raises(
        ValueError, match=r"to_torch: params, state: got nothing for 'b' of layer '7' \(dense\)"
    ):
        back((*params[:-1], {"w": params[-1]["w"]}))
    with pytest.raises(
        ValueError, match=r"got shape \(24, 2\) for 'w' of layer '7' .*, expected shape \(24, 3\)"
    ):
        back((*params[:-1], {"w": jnp.ones((24, 2)), "b": jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"got arrays that net does not have: \[\('2', 'w'\)\]"):
        back((*params[:2], {"w": jnp.ones(2)}, *params[3:]))
    with pytest.raises(
        ValueError, match=r"to_torch: like: got 2 modules of kind 'convolution' by order: 'conv2'"
    ):
        interop.to_torch(net.dense(2), {"w": jnp.ones((2, 2))}, {}, (1, 2), like=STATE_DICT)


def test_interop_is_loaded_when_it_is_used_and_needs_neither_library():
    code = (
        "import sys, numpy as np, jcnn\n"
        "assert 'jcnn.interop' not in sys.modules\n"
        "sys.modules['torch'] = sys.modules['flax'] = None\n"
        "jcnn.interop.torch_names(jcnn.net.dense(2), {'weight': np.ones((2, 3))}, (4, 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
