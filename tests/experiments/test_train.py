import dataclasses
import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from experiments import train as script
from experiments.config import RECIPES, Config, command, parse, resolve
from experiments.data import NAMES, Dataset, UserError
from experiments.training.loop import Run, prepare
from experiments.training.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from experiments.training.steps import channel_statistics, evaluate, lookahead, make_steps

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
        *("epochs", "test_loss", "test_accuracy", "compile_seconds", "seconds"),
    }
    assert set(written["versions"]) == {
        *("python", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "jcnn"),
    }
    assert set(written["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert written["config"]["lr"] == {"fashion_mnist": 5e-3, "cifar10": 11.5}[dataset]
    assert written["config"]["out"] == str(tmp_path / "out")
    (epoch,) = written["epochs"]
    assert set(epoch) == EPOCH
    assert round(20 * epoch["test_accuracy"], 4) in range(21)  # of all 20 test images, none counted twice
    for picture in ("learning_curve.png", "filters.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            assert min(image.size) > 100
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("checkpoints", "config.json", "filters.png", "learning_curve.png"),
        *("metrics.jsonl", "predictions.npy", "summary.json", "tensorboard"),
    ]
    predicted = np.load(tmp_path / "out/predictions.npy")
    assert written["test_accuracy"] == summary["test_accuracy"] == (predicted == np.arange(20) % 10).mean()
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
    """On (p - 1)^2 each brings both parameters closer to 1; the bias feels the decay with airbench only."""

    def descend(weight_decay):
        options = {"lr": 0.01, "weight_decay": weight_decay, "batch_size": 1024}
        config = Config(optimizer=optimizer, schedule=schedule, **options)
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
    assert (decayed_b == b) == (optimizer != "airbench")


def test_airbench_is_pytorchs_sgd_with_the_papers_conversions():
    """The paper's: learning rate and decay per 1024 images of the loss's sum, biases of norms 64 times."""
    batch_size, momentum, lr, decay, steps = 512, 0.85, 11.5, 0.0153, 12
    rng = np.random.default_rng(0)
    start = {"w": rng.normal(size=(3, 4)), "beta": rng.normal(size=4)}
    grads = [{name: rng.normal(size=p.shape) for name, p in start.items()} for _ in range(steps)]

    kilo = 1024 * (1 + 1 / (1 - momentum))
    tensors = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start.items()}
    rates = {"w": lr / kilo, "beta": 64 * lr / kilo}
    groups = [
        {"params": [tensors[name]], "lr": rate, "weight_decay": decay * batch_size / kilo / rate}
        for name, rate in rates.items()
    ]
    sgd = torch.optim.SGD(groups, momentum=momentum, nesterov=True)
    peak = int(0.23 * steps)
    shape = np.interp(np.arange(steps), [0, peak, steps], [0.2, 1, 0.07])
    scheduled = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: shape[min(step, steps - 1)])

    config = Config(
        optimizer="airbench", schedule="triangle", lr=lr, weight_decay=decay, batch_size=batch_size
    )
    optimizer = make_optimizer(config, steps)
    params, opt_state = start, optimizer.init(start)
    for of_step in grads:
        updates, opt_state = optimizer.update(of_step, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, grad in of_step.items():
            tensors[name].grad = torch.tensor(batch_size * grad)  # of the loss's sum
        sgd.step()
        scheduled.step()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(params[name], tensor.detach(), rtol=1e-6)


def test_lookahead_goes_on_from_the_average_every_fifth_step_and_at_the_end():
    average, steps, seen = jnp.float64(0), 13, []
    for n in range(1, steps + 1):
        now, average = lookahead(jnp.float64(n), average, jnp.int32(n), steps)
        seen.append((float(now), float(average)))
    expected, slow = [], 0.0
    for n in range(1, steps + 1):
        due = n in (5, 10, 13)
        decay = 0.95**5 * (n / steps) ** 3
        slow = decay * slow + (1 - decay) * n if due else slow
        expected.append((slow if due else n, slow))
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert seen[-1] == (pytest.approx(expected[-1][1]),) * 2


@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_schedules_peak_at_the_learning_rate(steps):
    for name, make in SCHEDULES.items():
        rates = [float(make(0.5, steps)(step)) for step in range(steps)]
        assert all(0 <= rate <= 0.5 for rate in rates)
        if steps == 100:
            assert max(rates) == 0.5
            assert rates[-1] < {"constant": 1, "triangle": 0.05}.get(name, 1e-3)
            assert (rates[0] == 0) == (name == "warmup_cosine")


def test_channel_statistics():
    images = tiny("cifar10", shape=(32, 32, 3)).train_images // np.array([1, 2, 3], np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)


def test_what_is_evaluated_is_the_average(run):
    (plain,), (averaged,) = run(ema=0.0)["epochs"], run(ema=0.9)["epochs"]
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
        ("--model vgg", "--model: got 'vgg', expected one of airbench, lenet5"),
        ("--optimizer lion", "--optimizer: got 'lion', expected one of sgd, adam, adamw"),
        (
            "--schedule step",
            "--schedule: got 'step', expected one of constant, cosine, warmup_cosine, onecycle",
        ),
        (
            "--augment flop",
            "--augment: got 'flop', expected none or of flip, shift, translate, cutout, mixup those wanted",
        ),
        (
            "--augment flip_flip",
            "--augment: got 'flip_flip', expected none or of flip, shift, translate, cutout, mixup",
        ),
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


def test_a_run_with_lookahead_ends_with_the_average_and_is_evaluated_with_it(tmp_path):
    options = {"epochs": 3, "batch_size": 8, "schedule": "constant", "lookahead": True, "ema": 0.0}
    config, data = resolve(Config(dataset="mnist", model="lenet5", **options)), tiny("mnist")
    run = Run(prepare(config, data, script.make_net(config, data)), 0, tmp_path, Console())
    run.fit()  # six steps, the fifth and the last of which go on from the average
    jax.tree.map(np.testing.assert_array_equal, run.train_state.params, run.train_state.average[0])

    params, state = run.train_state.average
    params[3]["w"] = params[3]["w"].at[0].set(jnp.inf)
    run.train_state = run.train_state._replace(average=(params, state))
    message = (
        "test loss: got nan in epoch 3 of 3, expected finite numbers; first seen in the parameters of layer 3"
    )
    with pytest.raises(UserError, match=message):
        run.evaluate(3, "none")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ""),
        ({"epochs": 20, "seeds": 3, "save_every": 5.0}, " --seeds 3"),
        ({"dataset": "cifar10"}, " --dataset cifar10"),
        ({"dataset": "cifar10", "model": "airbench", "epochs": 10}, " --dataset cifar10"),
        ({"dataset": "cifar10", "model": "resnet"}, " --dataset cifar10 --model resnet"),
        ({"dataset": "mnist", "model": "airbench", "lr": 9.0}, " --dataset mnist --model airbench --lr 9.0"),
        ({"dataset": "fashion_mnist", "tta": "none"}, " --dataset fashion_mnist --tta none"),
    ],
)
def test_the_command_of_a_run_is_the_shortest_that_gives_it(options, expected):
    config = resolve(Config(**options))
    said = command(config)
    assert said == "python -m experiments.train" + expected
    again = resolve(parse(said.split()[3:]))
    assert dataclasses.replace(again, save_every=config.save_every) == config


def test_the_recipe_depends_on_the_model():
    airbench, resnet = (resolve(Config("cifar10", model)) for model in (None, "resnet"))
    assert (airbench.model, airbench.optimizer, airbench.lookahead) == ("airbench", "airbench", True)
    assert (resnet.optimizer, resnet.lr, resnet.lookahead) == ("adamw", 5e-3, False)
    assert airbench.augment == resnet.augment == "flip_translate"


def test_with_tta_an_image_and_its_mirror_image_are_evaluated_alike():
    net, data = script.MODELS["lenet5"](10), tiny("mnist")
    average = jax.tree.map(jnp.float32, net.init(jax.random.key(0), (28, 28, 1)))
    mirrored = data.test_images[:, :, ::-1]
    steps = make_steps(resolve(Config("mnist")), net, None, np.float32(128), np.float32(64), 10, 1)

    def difference(tta):
        one, other = (
            evaluate(steps, average, jnp.asarray(images), data.test_labels, tta)
            for images in (data.test_images, mirrored)
        )
        assert one.logits.shape == (20, 10)
        loss = -jax.nn.log_softmax(one.logits)[np.arange(20), data.test_labels].mean()
        np.testing.assert_allclose(one.loss, loss, rtol=1e-5)
        return abs(one.logits - other.logits).max()

    assert difference("flip") < 1e-5 < 1e-3 < difference("none")


def test_test_time_augmentation_is_for_the_end(run, tmp_path):
    plain, augmented = run(tta="none"), run(tta="flip_translate")
    assert losses(plain) == losses(augmented)
    assert plain["test_loss"] == plain["epochs"][-1]["test_loss"]
    assert augmented["test_loss"] != plain["test_loss"]
