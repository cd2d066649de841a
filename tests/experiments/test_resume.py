"""What is saved survives whatever happens to a run, and a run that goes on is the run that never stopped."""

import contextlib
import json
import os
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jcnn
from experiments import train as script
from experiments.config import Config, resolve, resumed, saved
from experiments.data import Dataset, UserError
from experiments.record import write_json
from experiments.training.checkpoints import Checkpoints, Progress
from experiments.training.interrupt import Interrupted
from experiments.training.live import LiveTable
from experiments.training.loop import Run, prepare
from experiments.training.steps import TrainState
from jcnn import net

STEPS = 3  # of an epoch


@pytest.fixture(scope="module")
def program():
    """A net with all that could make a resumed run another one: dropout, running statistics, augmentation."""
    rng = np.random.default_rng(0)
    images, labels = (
        rng.integers(0, 256, (2, 8 * STEPS + 1, 8, 8, 1), np.uint8),
        np.arange(8 * STEPS + 1) % 10,
    )
    labels = labels.astype(np.int32)
    data = Dataset("digits", images[0], labels, images[1], labels, tuple("0123456789"))
    model = net.chain(net.conv(4, 3), net.batch_norm(), jcnn.relu, net.global_avg_pool(), net.dropout(0.5))
    config = Config(epochs=2, batch_size=8, augment="flip_shift_cutout", save_every=0, seed=3)
    return prepare(resolve(config), data, net.chain(model, net.dense(10)))


def start(program, folder):
    folder.mkdir(exist_ok=True)
    return Run(program, 3, folder, Console(width=1000))


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    run = start(program, tmp_path_factory.mktemp("whole"))
    run.fit()
    return run


def learned(run):
    metrics = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate")
    leaves = [(a.dtype, np.asarray(a).tobytes()) for a in jax.tree.leaves(run.train_state)]
    return leaves, [[record[name] for name in metrics] for record in run.records]


def after_step(monkeypatch, count, act):
    """Lets `act` happen when so many steps are done."""
    step, done = LiveTable.step, []

    def counting(*args):
        step(*args)
        done.append(args)
        if len(done) == count:
            act()

    monkeypatch.setattr(LiveTable, "step", counting)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [1, STEPS, STEPS + 2])
def test_ctrl_c_saves_and_the_rest_is_the_same(program, whole, tmp_path, monkeypatch, count, number):
    with monkeypatch.context() as patch:
        after_step(patch, count, lambda: os.kill(os.getpid(), number))
        run = start(program, tmp_path)
        epoch, step = divmod(count - 1, STEPS)
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(Interrupted, match=f"^after step {step + 1} of {STEPS} of epoch {epoch + 1}$"):
            run.fit()
    assert signal.getsignal(signal.SIGINT) is before
    rest = start(program, tmp_path)
    assert int(rest.train_state.step) == count
    rest.fit()
    assert learned(rest) == learned(whole)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == rest.records
    assert len(lines) == 2


@pytest.mark.parametrize("count", [1, STEPS + 1, 2 * STEPS])
def test_a_killed_run_goes_on(program, whole, tmp_path, monkeypatch, count):
    """What kill -9 leaves is what a copy of the folder at that moment has, half-written files and all."""

    def copy():
        with contextlib.suppress(shutil.Error):  # files that were moved meanwhile
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    with monkeypatch.context() as patch:
        after_step(patch, count, copy)
        start(program, tmp_path / "run").fit()
    rest = start(program, tmp_path / "killed")
    assert int(rest.train_state.step) <= count
    rest.fit()
    assert learned(rest) == learned(whole)


def test_a_full_disk_does_not_end_the_run(program, whole, tmp_path, monkeypatch, capsys):
    run = start(program, tmp_path)

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run.checkpoints.manager, "save", refuse)
    monkeypatch.setattr(run.log, "_event", refuse)
    run.fit()
    assert learned(run) == learned(whole)
    said = capsys.readouterr().out
    assert said.count("warning: got no checkpoint ([Errno 28] No space left on device), none is saved") > 1
    assert said.count("metrics cannot be written ([Errno 28] No space left on device)") == 1
    monkeypatch.setattr("experiments.record.tempfile.TemporaryDirectory", refuse)
    with pytest.raises(UserError, match=r"got no file \(No space left on device\).*--resume$"):
        write_json(tmp_path / "summary.json", {})


# Damage


def state(step, width=3):
    params = {"w": jnp.full((40, width), step / 7, jnp.float32), "b": jnp.arange(width, dtype=jnp.float32)}
    return TrainState(params, {}, ({"m": jnp.ones(width)},), (params, {}), jnp.int32(step))


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of steps 5 and 6, and what was said about them."""
    said = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", said.append)
    for step in (4, 5, 6):
        checkpoints.save(state(step), Progress(({"epoch": 1},), ((0.5, 1.0, 1.0),), 2.5))
    checkpoints.close()
    assert not said
    return tmp_path / "checkpoints", said


def reopen(two):
    folder, said = two
    return Checkpoints(folder, said.append)


def same(got, expected):
    return jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and (a == b).all(), got, expected))


def test_a_checkpoint_comes_back_as_it_was(two):
    got, progress = reopen(two).restore(state(0))
    assert same(got, state(6))
    assert progress == Progress(({"epoch": 1},), ((0.5, 1.0, 1.0),), 2.5)
    assert sorted(path.name for path in two[0].iterdir()) == ["5", "6"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        flip,
        lambda path: path.unlink(),
    ],
    ids=["truncated", "emptied", "flipped", "missing"],
)
def test_after_damage_the_checkpoint_before_is_taken(two, damage):
    folder, said = two
    for path in (folder / "6").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            damage(path)
    checkpoints = reopen(two)
    got, _ = checkpoints.restore(state(0))
    assert same(got, state(5))
    (line,) = said
    aside = folder.with_name("damaged-checkpoint-6")
    assert re.fullmatch(
        f"warning: the checkpoint of step 6 is damaged .*; now in {re.escape(str(aside))}", line
    )
    checkpoints.save(state(6), Progress())
    checkpoints.close()
    assert same(reopen(two).restore(state(0))[0], state(6))


def test_no_byte_of_a_checkpoint_can_change_unseen(two):
    """Whatever single byte is flipped: the right arrays come back, of step 6 or of the one before."""
    folder, _ = two
    files = sorted(path for path in (folder / "6").rglob("*") if path.is_file())
    original = folder.with_name("original")
    shutil.copytree(folder, original)
    for path in files:
        if not path.stat().st_size:
            continue
        flip(path)
        got, _ = reopen(two).restore(state(0))
        assert same(got, state(int(got.step))), path
        shutil.rmtree(folder)
        shutil.copytree(original, folder)


def test_if_all_are_damaged_the_error_says_what_to_do(two):
    folder, said = two
    for path in folder.rglob("d/*"):
        path.unlink()
    with pytest.raises(UserError, match=r"^--resume: got .* with damaged checkpoints only, .*another --out$"):
        reopen(two).restore(state(0))
    assert len(said) == 2
    assert {path.name for path in folder.parent.iterdir()} >= {"damaged-checkpoint-5", "damaged-checkpoint-6"}


def test_a_checkpoint_of_another_model_is_refused_and_kept(two):
    message = r"got a checkpoint of another model in .*/6 \(.*: float32\[3\]\), expected float32\[4\]"
    with pytest.raises(UserError, match=message):
        reopen(two).restore(state(0, width=4)._replace(params={"w": jnp.ones((40, 4)), "b": jnp.arange(3.0)}))
    assert same(reopen(two).restore(state(0))[0], state(6))


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints", print).restore(state(0)) is None


# The command line


def test_a_run_is_resumed_with_its_own_options_only(tmp_path):
    config = resolve(Config("mnist", lr=0.5, data_dir=tmp_path))
    write_json(tmp_path / "config.json", saved(config))
    again = resumed(Config(resume=tmp_path, lr=0.5, save_every=7.0))
    assert saved(again) == saved(config) | {"save_every": 7.0}
    assert again.out == tmp_path
    for options, name in (({"lr": 0.25}, "lr"), ({"seed": 1}, "seed"), ({"model": "lenet5"}, "model")):
        with pytest.raises(
            UserError, match=f"^--{name}: got .*, expected .*, with which {tmp_path} was started"
        ):
            resumed(Config(resume=tmp_path, **options))
    with pytest.raises(UserError, match=r"^--out: got "):
        resumed(Config(resume=tmp_path, out=tmp_path / "other"))


def test_seeds_share_a_program_and_their_results_are_summed_up(tmp_path, monkeypatch, capsys, program):
    monkeypatch.setattr(script, "load", lambda name, folder: program.data)
    monkeypatch.setattr(script, "make_net", lambda config, data: program.net)
    monkeypatch.setattr(script, "prepare", lambda config, data, net: program._replace(config=config))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    options = {"epochs": 2, "batch_size": 8, "augment": "flip_shift_cutout", "seed": 3, "seeds": 2}
    summary = script.train(Config(**options, out=out))
    single = [json.loads((out / f"seed{seed}/summary.json").read_text()) for seed in (3, 4)]
    assert [s["seed"] for s in single] == summary["seeds"] == [3, 4]
    accuracies = [s["test_accuracy"] for s in single]
    assert summary["test_accuracies"] == accuracies
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert single[0]["epochs"][-1]["train_loss"] != single[1]["epochs"][-1]["train_loss"]
    assert json.loads((out / "summary.json").read_text())["test_accuracy"] == summary["test_accuracy"]
    with pytest.raises(UserError, match=rf"^--out: got {out} with a run in it.*--resume {out}"):
        script.train(Config(**options, out=out))
    (out / "summary.json").unlink()
    assert script.train(Config(resume=out))["test_accuracies"] == accuracies
    assert capsys.readouterr().out.count("nothing left to do") == 2


def test_ctrl_c_says_how_to_go_on(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "load", lambda name, folder: program.data)
    monkeypatch.setattr(script, "make_net", lambda config, data: program.net)
    monkeypatch.setattr(script, "prepare", lambda config, data, net: program._replace(config=config))
    after_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as caught:
        script.main(["--epochs", "2", "--batch-size", "8", "--out", str(tmp_path / "out")])
    assert caught.value.code == 130
    command = f"python -m experiments.train --resume {tmp_path / 'out'}"
    expected = f"interrupted after step 2 of {STEPS} of epoch 1; go on with: {command}\n"
    assert capsys.readouterr().err == expected
