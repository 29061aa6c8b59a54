"""Runs that are stopped, moved, or given other settings, and go on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import test_training
import torch

from manualbp.training import checkpoint, metrics, stored
from manualbp.training.cli import CLI
from manualbp.training.errors import UserError

# The fixtures: train.py in this process, in an empty folder.
run, mnist, uncompiled = test_training.run, test_training.mnist, test_training.uncompiled

ENGINES = ["autograd", "tape", "step"]
#: dropout, a schedule, an optimizer with state; two epochs of 12 steps
SMALL = ["--model.layers", "[784,8,10]", "--model.dropout", "0.5", "--model.input_dropout", "0.2"]
SMALL += ["--model.optimizer", "adamw", "--model.lr", "0.01", "--model.schedule", "cosine"]
SMALL += ["--data.batch_size", "8", "--trainer.limit_train_batches", "12", "--test", "false"]
SMALL += ["--trainer.limit_val_batches", "1", "--trainer.max_epochs", "2"]
SMALL += ["--trainer.accelerator", "cpu", "--threads", "1"]


class Send(pl.Callback):
    """Sends a signal to this process when a step begins."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step >= self.step and self.number:
            number, self.number = self.number, 0
            os.kill(os.getpid(), number)


class Killed(BaseException):
    """As a SIGKILL: nothing is saved or said."""


class Kill(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step >= self.step:
            raise Killed


@pytest.fixture
def with_callback(run, monkeypatch):
    """Run `train.py` with one more callback."""
    instantiate = CLI.instantiate_trainer

    def call(callback, *args: str):
        def added(self, **kwargs):
            trainer = instantiate(self, **kwargs)
            trainer.callbacks.insert(0, callback)
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(CLI, "instantiate_trainer", added)
            return run(*args, tiny=False)

    return call


def final(folder: str) -> dict:
    return stored.read(Path("runs") / folder / "checkpoints" / "last.ckpt")


def assert_equal(one, other, path="") -> None:
    """To the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            assert_equal(one[name], other[name], f"{path}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}/{place}")
    else:
        assert one == other, path


def assert_same_run(one: str, other: str) -> None:
    """Weights, optimizer, schedule, generators, counts, best and metrics, to the last bit."""
    first, second = final(one), final(other)
    for each in (first, second):
        del each["loops"]  # counts for each of Lightning's loops, also of those that did not run
        each["settings"].pop("name")
        for name in ("config", "ckpt_path", "resume", "save_every_n_steps"):
            each["settings"].pop(name, None)
    assert_equal(first, second)
    rows = [metrics.read(Path("runs") / name / "metrics.csv") for name in (one, other)]
    assert rows[0] == rows[1] and rows[0]
    best = [Path("runs") / name / "checkpoints" / "best.ckpt" for name in (one, other)]
    assert_equal(*(stored.read(file)["state_dict"] for file in best))


# ------------------------------------------------------------------------------- to the last bit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 5, 11, 12, 17], ids=lambda step: f"step {step}")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stopped_run_goes_on_to_the_last_bit(run, with_callback, engine, step, number):
    # Every 4 steps: otherwise an epoch is one call of the tape and of the program.
    args = [*SMALL, "--model.engine", engine, "--save_every_n_steps", "4"]
    assert run(*args, "--name", "whole", tiny=False)[::2] == (0, "")
    status, out, err = with_callback(Send(number, step), *args, "--name", "broken")
    assert status == 128 + number
    assert err == "\ninterrupted\n"
    command = re.search(r"resume +python train.py (.*)", out)[1].split()
    if engine == "autograd":
        at = final("broken/version_0")["global_step"]
        assert at == step + 1
    assert run(*command, tiny=False)[::2] == (0, "")
    assert_same_run("whole/version_0", "broken/version_1")


@pytest.mark.parametrize("step", [1, 4, 7, 12, 13, 20])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_starts_again_by_the_same_command(run, with_callback, engine, step):
    args = [*SMALL, "--model.engine", engine, "--save_every_n_steps", "3", "--resume"]
    assert run(*args, "--name", "whole", tiny=False)[::2] == (0, "")
    args += ["--name", "broken"]
    with pytest.raises(Killed):
        with_callback(Kill(step), *args)
    status, out, err = run(*args, tiny=False)
    assert (status, err) == (0, "")
    saved = sorted(Path("runs/broken").glob("*/checkpoints/last.ckpt"))
    # The tape and the program stop between calls only, of three steps here.
    assert len(saved) == (1 if engine == "autograd" and step < 3 else 2)
    assert_same_run("whole/version_0", str(saved[-1].parent.parent.relative_to("runs")))
    status, out, err = run(*args, tiny=False)
    assert (status, err) == (0, "") and "nothing is left to be trained" in out
    assert sorted(Path("runs/broken").glob("*/checkpoints/last.ckpt")) == saved


@pytest.mark.parametrize("step", [2, 3, 5, 6, 9])
def test_a_validation_in_the_middle_of_an_epoch_is_neither_lost_nor_repeated(
    run, with_callback, step
):
    args = [*SMALL, "--trainer.val_check_interval", "3", "--save_every_n_steps", "1"]
    assert run(*args, "--name", "whole", tiny=False)[::2] == (0, "")
    with pytest.raises(Killed):
        with_callback(Kill(step), *args, "--name", "broken")
    assert final("broken/version_0")["global_step"] == step
    args += ["--ckpt_path", "last", "--name", "broken"]
    assert run(*args, tiny=False)[::2] == (0, "")
    assert_same_run("whole/version_0", "broken/version_1")


def test_a_run_killed_before_its_test_is_tested_by_the_same_command(run, with_callback):
    class KillInTest(pl.Callback):
        def on_test_start(self, *_):
            raise Killed

    args = [*SMALL, "--test", "true", "--trainer.limit_test_batches", "1", "--resume"]
    assert run(*args, "--name", "whole", tiny=False)[::2] == (0, "")
    args += ["--name", "broken"]
    with pytest.raises(Killed):
        with_callback(KillInTest(), *args)
    status, out, err = run(*args, tiny=False)
    assert (status, err) == (0, "") and "test accuracy" in out
    assert_same_run("whole/version_0", "broken/version_1")
    assert "nothing is left to be trained" in run(*args, tiny=False)[1]


def test_generators_come_back(tmp_path):
    import random

    import numpy

    from manualbp.training import generators

    stored.write(generators.states(), tmp_path / "states.ckpt")
    first = (torch.rand(3).tolist(), random.random(), numpy.random.rand())
    torch.rand(7), random.random(), numpy.random.rand(5)
    assert generators.restore(stored.read(tmp_path / "states.ckpt"))
    assert (torch.rand(3).tolist(), random.random(), numpy.random.rand()) == first


# ------------------------------------------------------------------------------- where it is kept


def test_last_is_the_latest_of_the_configuration_and_passes_over_what_is_damaged(run):
    status, _, err = run(*SMALL, "--ckpt_path", "last", tiny=False)
    assert status == 1 and "there is no checkpoint in runs/3b1b/ yet" in err
    for _ in range(2):
        assert run(*SMALL, tiny=False)[::2] == (0, "")
    damaged = Path("runs/3b1b/version_1/checkpoints/last.ckpt")
    content = damaged.read_bytes()
    damaged.unlink()  # the same bytes are best.ckpt's as well
    damaged.write_bytes(content[:-1000] + b"\0" + content[-999:])
    status, out, err = run(*SMALL, "--ckpt_path", "last", "--trainer.max_epochs", "3", tiny=False)
    assert status == 0
    assert "warning: passed over: runs/3b1b/version_1/checkpoints/last.ckpt: not a check" in err
    assert "resumed         runs/3b1b/version_0/checkpoints/last.ckpt  (2 epochs, 24 steps)" in out
    assert "changed         trainer.max_epochs 2 → 3" in out


def test_a_moved_run_keeps_its_own_best(run):
    args = [*SMALL, "--model.lr", "0.0", "--test", "true", "--trainer.limit_test_batches", "1"]
    assert run(*args, tiny=False)[0] == 0
    Path("runs/3b1b/version_0").rename("kept")
    best = stored.read("kept/checkpoints/best.ckpt")
    assert run(*args, "--model.init", "xavier_normal", tiny=False)[0] == 0  # the newcomer
    args += ["--ckpt_path", "kept/checkpoints/last.ckpt", "--trainer.max_epochs", "3"]
    status, out, err = run(*args, tiny=False)
    assert (status, err) == (0, "")
    found = stored.read("runs/3b1b/version_1/checkpoints/best.ckpt")
    assert_equal(best, found)
    assert f"best epoch {best['epoch'] + 1}, " in out


def test_a_best_checkpoint_that_is_missing_is_one_line(run):
    run(*SMALL, tiny=False)
    folder = Path("runs/3b1b/version_0/checkpoints")
    (folder / "best.ckpt").unlink()
    args = [*SMALL, "--ckpt_path", str(folder / "last.ckpt"), "--trainer.max_epochs", "3"]
    state = final("3b1b/version_0")["callbacks"]
    ((_, best),) = ((name, value) for name, value in state.items() if "val_accuracy" in name)
    if best["best_step"] == 24:  # then the last is the best, and is taken for it
        assert run(*args, tiny=False)[::2] == (0, "")
        return
    status, out, err = run(*args, tiny=False)
    assert status == 0 and "best epoch 3" in out
    assert len(err.splitlines()) == 1 and "is missing: the best of the epochs from here" in err


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", ".", "a/../../x"])
def test_a_run_stays_in_its_folder(run, name, tmp_path):
    status, _, err = run(*SMALL, "--name", name, tiny=False)
    assert status == 1 and err.startswith("error: --name") and len(err.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


def test_two_runs_that_start_at_once_have_a_folder_each(tmp_path):
    loggers = [metrics.Metrics(str(tmp_path), "one", print) for _ in range(3)]
    # Each has looked before any of them has made its folder.
    for logger in loggers:
        logger._fs = None
    taken = []
    next_version = metrics.CSVLogger._get_next_version
    try:
        metrics.CSVLogger._get_next_version = lambda self: 0
        taken = [logger.version for logger in loggers]
    finally:
        metrics.CSVLogger._get_next_version = next_version
    assert taken == [0, 1, 2]


def test_a_thousand_versions_are_no_burden(tmp_path):
    for number in range(1000):
        (tmp_path / "one" / f"version_{number}").mkdir(parents=True)
    assert metrics.Metrics(str(tmp_path), "one", print).version == 1000


# ------------------------------------------------------------------------------- other settings


@pytest.fixture
def resumed(run):
    """The lines and the error of a run that goes on from two epochs with other settings."""

    def call(*args: str, first: tuple[str, ...] = ()):
        assert run(*SMALL, *first, tiny=False)[::2] == (0, "")
        path = "runs/3b1b/version_0/checkpoints/last.ckpt"
        more = ["--trainer.max_epochs", "3", "--ckpt_path", path]
        return run(*SMALL, *first, *more, *args, tiny=False)

    return call


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.activation", "relu"], "the weights were trained with it"),
        (["--model.init", "nielsen"], "the weights are there already"),
        (["--data.split_seed", "3"], "examples held out would be trained on"),
        (["--model.optimizer", "sgd"], "sgd cannot go on with what adamw has kept"),
    ],
)
def test_what_a_resumed_run_cannot_have_is_refused(resumed, args, said):
    status, _, err = resumed(*args)
    assert status == 1 and err.startswith(f"error: {args[0]} {args[1]}: it is ") and said in err
    assert len(err.splitlines()) == 2 and not Path("runs/3b1b/version_1").exists()


@pytest.mark.parametrize(
    ("args", "group"),
    [
        (["--model.lr", "0.5"], {"lr": 0.5}),
        (["--model.weight_decay", "0.25"], {"weight_decay": 0.25}),
        (["--model.optimizer", "adam"], {"decoupled_weight_decay": False}),
        (["--model.schedule", "constant"], {"lr": 0.01}),
        (["--seed_everything", "7"], {}),
        (["--data.batch_size", "16"], {}),
    ],
)
def test_what_a_resumed_run_can_have_is_said_and_done(resumed, args, group):
    status, out, err = resumed(*args)
    assert (status, err) == (0, "")
    assert re.search(rf"changed +{args[0][2:]} \S+ → {args[1]}\n", out)
    (state,) = final("3b1b/version_1")["optimizer_states"]
    found = state["param_groups"][0]
    if "lr" in group and "schedule" not in args[0]:
        assert found["initial_lr"] == group["lr"]
    else:
        assert {name: found[name] for name in group} == group


def test_momentum_given_to_a_resumed_run_is_that_of_its_steps(run):
    sgd = ["--model.optimizer", "sgd", "--model.lr", "0.1"]
    run(*SMALL, *sgd, "--model.momentum", "0.5", tiny=False)
    path = "runs/3b1b/version_0/checkpoints/last.ckpt"
    args = ["--trainer.max_epochs", "3", "--ckpt_path", path, "--model.momentum", "0.9"]
    assert run(*SMALL, *sgd, *args, tiny=False)[::2] == (0, "")
    (state,) = final("3b1b/version_1")["optimizer_states"]
    assert state["param_groups"][0]["momentum"] == 0.9


def test_in_the_middle_of_an_epoch_its_batches_are_fixed(run, with_callback):
    with_callback(Send(signal.SIGINT, 5), *SMALL, "--model.engine", "autograd")
    for args in (["--data.batch_size", "16"], ["--seed_everything", "3"]):
        status, _, err = run(*SMALL, "--ckpt_path", "last", *args, tiny=False)
        assert status == 1 and "from the middle of an epoch" in err


@pytest.mark.parametrize(("text", "found"), [("10m", 600), ("90s", 90), ("1.5h", 5400), ("0", 0)])
def test_times(text, found):
    assert checkpoint.seconds(text) == found


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "1d", "nan"])
def test_what_is_no_time(text):
    with pytest.raises(UserError, match="--save_every"):
        checkpoint.seconds(text)


def test_by_time(run, monkeypatch):
    saved = []
    write = stored.write
    monkeypatch.setattr(stored, "write", lambda c, f: saved.append(c["global_step"]) or write(c, f))
    monkeypatch.setattr(checkpoint.time, "monotonic", iter(range(10_000)).__next__)
    args = [*SMALL, "--save_every", "4s", "--model.engine", "autograd"]
    assert run(*args, tiny=False)[::2] == (0, "")
    assert len(saved) > 4 and saved[-1] == 24


# ------------------------------------------------------------------------------- the disk


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_line_an_epoch_and_the_run_goes_on(run, monkeypatch):
    replace, done = os.replace, []

    def fills_up(source, target):
        done.append(target)
        return replace(source, target) if len(done) < 4 else full()

    monkeypatch.setattr(stored.os, "replace", fills_up)
    status, out, err = run(*SMALL, "--trainer.max_epochs", "4", tiny=False)
    assert status == 1  # the last weights are not saved
    assert 2 <= len(err.splitlines()) <= 6
    assert all("could not be saved: No space left on device (" in x for x in err.splitlines())
    kept = re.findall(r"that of step (\d+) is kept, and training goes on", err)
    assert kept and set(kept) == {"12"}
    assert "best epoch" in out and "4 epochs in" in out
    assert not [*Path("runs").rglob("*.tmp")]


def test_a_folder_that_vanishes_is_made_again(run, with_callback):
    import shutil

    class Vanish(pl.Callback):
        def on_train_epoch_start(self, trainer, _):
            if trainer.current_epoch == 1:
                shutil.rmtree("runs")

    status, _, err = with_callback(Vanish(), *SMALL)
    assert status == 0 and len(err.splitlines()) <= 1  # where the best was that of epoch 1
    assert final("3b1b/version_0")["global_step"] == 24


def test_a_folder_that_is_a_file_is_one_line(run):
    Path("runs").write_text("")
    status, _, err = run(*SMALL, tiny=False)
    assert status == 1 and err.startswith("error: runs") and "Traceback" not in err


def test_metrics_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "ROWS", 100)
    writer = metrics.Writer(str(tmp_path), print)
    for step in range(1000):
        writer.log_metrics({"loss": step / 7, **({"late": 1.0} if step > 500 else {})}, step)
        writer.save()
    rows = metrics.read(tmp_path / "metrics.csv")
    assert 50 <= len(rows) <= 100
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(steps) and steps[-25:] == list(range(975, 1000)) and steps[0] < 10


def test_rows_that_cannot_be_written_wait(tmp_path, monkeypatch):
    warned = []
    writer = metrics.Writer(str(tmp_path), warned.append)
    writer.log_metrics({"loss": 1.0}, 0)
    with monkeypatch.context() as patch:
        patch.setattr(stored.os, "replace", full)
        writer.save()
    writer.log_metrics({"loss": 2.0}, 1)
    writer.save()
    assert len(warned) == 1 and "the metrics wait for the next epoch" in warned[0]
    assert [row["loss"] for row in metrics.read(tmp_path / "metrics.csv")] == ["1.0", "2.0"]


# ------------------------------------------------------------------------------- the whole program

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_COLOR": "1"}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    program = shlex.join([sys.executable, str(ROOT / "train.py"), *SMALL])
    return subprocess.run(
        ["bash", "-c", command.replace("TRAIN", f"{program} --model.engine tape")],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("command", "err"),
    [
        ("set -o pipefail; TRAIN | head -1", "standard output: Broken pipe; the run goes on"),
        ("TRAIN > /dev/full", "standard output: No space left on device; the run goes on"),
        ("TRAIN >&-", ""),
        ("TRAIN 2>&-", ""),
    ],
)
def test_without_an_output_the_run_goes_on(tmp_path, command, err):
    found = shell(command, tmp_path)
    said = found.stderr.decode()
    assert found.returncode == 0, said
    assert err in said and len(said.splitlines()) == bool(err)
    last = stored.read(tmp_path / "runs/3b1b/version_0/checkpoints/last.ckpt")
    assert last["global_step"] == 24


def test_in_a_locale_of_ascii(tmp_path):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    config = ROOT / "configs" / "mlp.yaml"  # with × in it
    found = shell(f"TRAIN --config {config} --model.layers [784,8,10]", tmp_path, **locale)
    assert (found.returncode, found.stderr.decode()) == (0, "")
    assert found.stdout.isascii()


def test_a_second_signal_ends_the_process_at_once_with_no_half_file(tmp_path):
    program = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from manualbp.training import stored\n"
        "from manualbp.training.cli import main\n"
        "def slow(file, data):\n"
        "    file.write_bytes(data[:99])\n"
        "    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "stored._write_bytes = slow\n"
        f"sys.exit(main(sys.argv[1:], Path({str(test_training.DEFAULT)!r})))"
    )
    command = [sys.executable, "-c", program, *SMALL]
    found = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=50)
    assert (found.returncode, found.stderr) == (130, b"")
    assert not [*tmp_path.rglob("*.ckpt"), *tmp_path.rglob(".*.tmp")]


def test_ten_kills(tmp_path):
    """As benchmarks/faults.py does fifty times."""
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills", "10"]
    command += ["--configs", "nielsen", "mlp"]
    found = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=500, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"\| all +\| 10 +\| \d+ +\| \d+ +\| 10 +\|", found.stdout)
