import dataclasses
import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import train as script
from experiments.config import RECIPES, Config, parse, resolve
from experiments.data import NAMES, Dataset, UserError
from experiments.training.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from experiments.training.steps import channel_statistics, make_steps

EPOCH = {
    *("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("learning_rate", "images_per_second", "memory_bytes", "seconds"),
}


def tiny(name, n=20, shape=(28, 28, 1), seed=0):
    """A data set of `n` random images of each split."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, n, *shape), np.uint8)
    labels = np.arange(n, dtype=np.int32) % 10
    return Dataset(name, images[0], labels, images[1], labels, tuple("0123456789"))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Trains for one epoch of two steps on a tiny data set, in a new folder; gives the summary."""
    folders = itertools.chain([tmp_path / "out"], (tmp_path / str(i) for i in itertools.count()))

    def run(dataset="mnist", shape=(28, 28, 1), **options):
        monkeypatch.setattr(script, "load", lambda name, folder: tiny(name, shape=shape))
        defaults = {"epochs": 1, "batch_size": 8, "model": "lenet5", "out": next(folders)}
        return script.train(Config(dataset=dataset, **defaults | options))

    return run


@pytest.mark.parametrize(
    ("dataset", "shape"),
    [("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))],
)
def test_two_steps_on_data_sets_of_both_shapes(run, tmp_path, capsys, dataset, shape):
    summary = run(dataset, shape, model=None)
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(written) == {
        *("script", "command", "hardware"),
        *("config", "versions", "device", "date", "seed", "parameters"),
        *("epochs", "test_accuracy", "compile_seconds", "seconds"),
    }
    assert set(written["versions"]) == {
        *("python", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "jcnn"),
    }
    assert set(written["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert written["config"]["lr"] == RECIPES[dataset]["lr"]
    assert written["config"]["out"] == str(tmp_path / "out")
    (epoch,) = written["epochs"]
    assert set(epoch) == EPOCH
    assert written["test_accuracy"] == epoch["test_accuracy"] == summary["test_accuracy"]
    assert round(20 * epoch["test_accuracy"], 4) in range(21)  # of all 20 test images, none counted twice
    for picture in ("learning_curve.png", "filters.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            assert min(image.size) > 100
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("checkpoints", "config.json", "filters.png", "learning_curve.png"),
        *("metrics.jsonl", "summary.json", "tensorboard"),
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"test accuracy {summary['test_accuracy']:.2%}, results are in {tmp_path / 'out'}"
    assert said[-2].startswith("epoch   1/1  train loss ")


def losses(summary):
    return [(epoch["train_loss"], epoch["test_loss"]) for epoch in summary["epochs"]]


def test_the_seed_decides_the_result(run):
    options = {"epochs": 2, "augment": "flip_shift"}
    first = run(**options)
    assert losses(run(**options)) == losses(first)
    assert losses(run(**options, seed=1)) != losses(first)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizers_and_schedules(optimizer, schedule):
    """On (p - 1)^2 each brings both parameters closer to 1, and only the weight feels the decay."""

    def descend(weight_decay):
        config = Config(optimizer=optimizer, schedule=schedule, lr=0.01, weight_decay=weight_decay)
        update = make_optimizer(config, steps=50).update
        params = {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
        opt_state = make_optimizer(config, steps=50).init(params)
        for _ in range(50):
            grads = jax.tree.map(lambda p: 2 * (p - 1), params)
            updates, opt_state = update(grads, opt_state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return params["w"].item(), params["b"].item()

    w, b = descend(0.0)
    assert 0.1 < w == b < 1.9
    decayed_w, decayed_b = descend(0.5)
    assert decayed_w != w
    assert decayed_b == b


@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_schedules_peak_at_the_learning_rate(steps):
    for name, make in SCHEDULES.items():
        rates = [float(make(0.5, steps)(step)) for step in range(steps)]
        assert all(0 <= rate <= 0.5 for rate in rates)
        if steps == 100:
            assert max(rates) == 0.5
            assert rates[-1] < 1e-3 or name == "constant"
            assert (rates[0] == 0) == (name == "warmup_cosine")


def test_channel_statistics():
    images = tiny("cifar10", shape=(32, 32, 3)).train_images // np.array([1, 2, 3], np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)


def test_what_is_evaluated_is_the_average(run):
    (plain,), (averaged,) = run()["epochs"], run(ema=0.9)["epochs"]
    assert plain["train_loss"] == averaged["train_loss"]
    assert plain["test_loss"] != averaged["test_loss"]


def test_labels_are_smoothed_in_training_only(run):
    (plain,), (smooth,) = run(lr=1e-9)["epochs"], run(lr=1e-9, label_smoothing=0.5)["epochs"]
    assert plain["train_loss"] != smooth["train_loss"]
    assert plain["test_loss"] == pytest.approx(smooth["test_loss"], rel=1e-5)


def test_bfloat16_is_near_float32(run):
    (wide,), (narrow,) = run()["epochs"], run(dtype="bfloat16")["epochs"]
    assert narrow["test_loss"] != wide["test_loss"]
    assert narrow["test_loss"] == pytest.approx(wide["test_loss"], rel=0.05)


def test_recipes_are_for_the_data_sets_there_are():
    assert set(RECIPES) == set(NAMES)
    for name in NAMES:
        resolved = vars(resolve(Config(name)))
        assert {key for key, value in resolved.items() if value is None} == {"data_dir", "out", "resume"}


def test_a_loss_that_is_not_finite_ends_the_run(run, tmp_path):
    message = (
        r"^loss: got (nan|inf) in epoch \d of 3, expected finite numbers; "
        r"first seen in the .* of layer \d+, [a-z_]+[ \d]*: \d+ NaN and \d+ infinite of \d+ numbers; "
        r"a lower --lr than 1e\+30 may help$"
    )
    with pytest.raises(UserError, match=message):
        run("digits", (8, 8, 1), model=None, lr=1e30, optimizer="sgd", epochs=3)
    assert not (tmp_path / "out/summary.json").exists()


# The command line


def test_options_are_read():
    config = parse(["--dataset", "mnist", "--batch-size", "7", "--lr", "0.5", "--data-dir", "some/where"])
    assert (config.dataset, config.batch_size, config.lr, str(config.data_dir)) == (
        "mnist",
        7,
        0.5,
        "some/where",
    )
    assert parse([]) == Config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset svhn", "--dataset: got 'svhn', expected one of digits, mnist, fashion_mnist, cifar10"),
        ("--model vgg", "--model: got 'vgg', expected one of lenet5, vgg_small"),
        ("--optimizer lion", "--optimizer: got 'lion', expected one of sgd, adam, adamw"),
        (
            "--schedule step",
            "--schedule: got 'step', expected one of constant, cosine, warmup_cosine, onecycle",
        ),
        (
            "--augment flop",
            "--augment: got 'flop', expected none or of flip, shift, cutout, mixup those wanted",
        ),
        ("--augment flip_flip", "--augment: got 'flip_flip', expected none or of flip, shift, cutout, mixup"),
        ("--backward numeric", "--backward: got 'numeric', expected one of autodiff, explicit"),
        ("--remat True --backward explicit", "--remat: got True, expected False with --backward explicit"),
        ("--seeds 0", "--seeds: got 0, expected a positive number"),
        ("--save-every -1", "--save-every: got -1.0, expected a number that is not negative"),
        ("--resume no", "--resume: got no without a readable config.json ("),
        ("--dtype float16", "--dtype: got 'float16', expected one of float32, bfloat16"),
        ("--epochs 0", "--epochs: got 0, expected a positive number"),
        ("--batch-size -1", "--batch-size: got -1, expected a positive number"),
        ("--batch-size 1443", "--batch-size: got 1443, expected at most 1442, the training set's size"),
        ("--lr 0", "--lr: got 0.0, expected a positive number"),
        ("--lr nan", "--lr: got nan, expected a positive number"),
        ("--ema 1", "--ema: got 1.0, expected a number in [0, 1)"),
        ("--label-smoothing -0.1", "--label-smoothing: got -0.1, expected a number in [0, 1)"),
        ("--weight-decay -1", "--weight-decay: got -1.0, expected a number that is not negative"),
        ("--seed -1", "--seed: got -1, expected a number that is not negative"),
        ("--epochs many", "Error parsing --epochs: "),
        ("--epoch 3", "Unrecognized options: --epoch"),
        (
            "--dataset mnist --data-dir no",
            "--data-dir: got no without the files of mnist, expected train-images",
        ),
        ("--out file/out", "--out: got file/out (Not a directory), expected a folder that can be written to"),
        ("--model lenet5", "--model: got lenet5 for images of shape (8, 8, 1): "),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        script.main(arguments.split())
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_is_not_an_error(capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["--help"])
    assert caught.value.code == 0
    assert "--label-smoothing" in capsys.readouterr().out


def test_digits_are_learned(tmp_path):
    """The promise of `python -m experiments.train`, kept by the command itself."""
    command = [sys.executable, "-m", "experiments.train", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].endswith(f"results are in {tmp_path}")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_accuracy"] >= 0.98


def test_with_tta_an_image_and_its_mirror_image_are_evaluated_alike():
    net, data = script.MODELS["lenet5"](10), tiny("mnist")
    average = jax.tree.map(jnp.float32, net.init(jax.random.key(0), (28, 28, 1)))
    mirrored = data.test_images[:, :, ::-1]

    def difference(tta):
        config = resolve(Config(dataset="mnist", model="lenet5", tta=tta))
        evaluate = make_steps(config, net, None, np.float32(128), np.float32(64), 10).evaluate
        sums = [
            evaluate(average, images, data.test_labels, np.arange(20))
            for images in (data.test_images, mirrored)
        ]
        return abs(float(sums[0][0] - sums[1][0]))

    assert difference(True) < 1e-4 < difference(False)
