"""Training: data, classifier, console and command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from manualbp import Formula, nn
from manualbp.training import check, describe, engine, monitor, network
from manualbp.training.classifier import LitClassifier, rate
from manualbp.training.cli import CLI, main, split_configs
from manualbp.training.data import Batches, MNISTDataModule, Order
from manualbp.training.errors import UserError
from manualbp.training.mnist import FILES, REPOSITORY_DATA, DataError, check_files, load

ENGINES = ["autograd", "tape", "step"]
ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
DEFAULT = ROOT / "configs" / "3b1b.yaml"
TINY = ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
TINY += ["--trainer.limit_test_batches", "1", "--trainer.max_epochs", "2"]
TINY += ["--trainer.accelerator", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def mnist() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """MNIST read once, for all the runs in this file."""
    data = MNISTDataModule()
    data.setup()
    return data.parts


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """A step's program as it was traced: compiling it takes longer than all that is tested."""
    monkeypatch.setattr(engine, "COMPILER", False)


@pytest.fixture
def run(mnist, monkeypatch, tmp_path, capsys):
    """Run `train.py` in this process, in an empty folder; gives (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    reads = []

    def setup(self, stage=None):
        reads.append(stage)
        self.parts = mnist

    monkeypatch.setattr(MNISTDataModule, "setup", setup)

    def call(*args: str, tiny: bool = True):
        with warnings.catch_warnings():
            status = main([*args, *(TINY if tiny else [])], DEFAULT)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    call.reads = reads
    return call


# The command line.


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_and_its_saved_form_loads_back(run, config, tmp_path):
    status, out, err = run("--config", str(config))
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / config.stem / "version_0"
    for line in ("gradient check", "best epoch", "test accuracy", "next"):
        assert line in out
    assert re.search(r"largest relative error \S+  ok", out)
    assert "\nnext          python -m manualbp report  " in out
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (folder / "metrics.csv").read_text().splitlines()[0].startswith("delta/")
    assert run("--config", str(folder / "config.yaml"))[0] == 0
    assert (tmp_path / "runs" / config.stem / "version_1").is_dir()


def parse(*args: str):
    settings = {"run": False, "auto_configure_optimizers": False, "seed_everything_default": 0}
    settings["load_from_checkpoint_support"] = False
    return CLI(LitClassifier, MNISTDataModule, args=list(args), **settings).config


def test_the_default_configuration_does_not_leak_into_another(run, tmp_path, monkeypatch):
    bare = tmp_path / "bare.yaml"
    bare.write_text("trainer:\n  max_epochs: 1\n")
    seen = []
    monkeypatch.setattr(CLI, "run", lambda self: seen.append(self.config) or 0)
    run("--config", str(bare), tiny=False)
    run(tiny=False)
    assert seen[0].model.as_dict() == parse().model.as_dict()
    assert seen[0].name is None and seen[0].trainer.max_epochs == 1
    assert seen[1].name == "3b1b" and seen[1].model.momentum > 0


@pytest.mark.parametrize("files", [["-c", "x"], ["--config", "x"], ["--config=x"], []])
def test_a_value_wins_wherever_it_stands(files):
    assert split_configs(["--a", "1", *files, "--b=2"]) == (files, ["--a", "1", "--b=2"])


@pytest.mark.slow
def test_a_value_given_on_the_command_line_wins(run):
    status, out, _ = run("--model.cost", "cross_entropy", "--model.output_activation", "identity")
    assert status == 0 and "∂C/∂z = g (p Σₖ qₖ − q) / n" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.cost", "nonsense"], ["squared_error", "mse", "cross_entropy", "nonsense"]),
        (["--model.activation", "x"], ["sigmoid", "relu", "softplus"]),
        (["--model.optimizer", "x"], ["sgd", "adamw"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--unknown", "1"], ["unknown"]),
    ],
)
def test_a_bad_argument_is_refused_with_the_choices(run, capsys, args, said):
    with pytest.raises(SystemExit) as stopped:
        run(*args)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert all(word in err for word in said) and len(err.splitlines()) < 8


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.layers", "[784]"], "two positive widths"),
        (["--model.dropout", "1.5"], "dropout must lie in [0, 1)"),
        (["--model.warmup", "1"], "warmup must lie in [0, 1)"),
        (["--data.batch_size", "0"], "at least 1"),
        (["--data.val_size", "60000"], "val_size"),
        (["--data.batch_size", "56000"], "there are 55000 training examples"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such file"),
    ],
)
def test_a_user_error_is_one_message_and_a_status(run, args, said):
    status, _, err = run(*args)
    assert status == 1 and err.startswith("error: ") and said in err and "Traceback" not in err


def test_the_test_set_is_read_once_and_last(run):
    run()
    assert run.reads == ["fit", "test"]


def test_test_false_leaves_the_test_set_alone(run):
    status, out, _ = run("--test", "false")
    assert status == 0 and run.reads == ["fit"] and "test accuracy" not in out


def test_a_fast_dev_run_writes_nothing(run, tmp_path):
    status, out, err = run(
        "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", tiny=False
    )
    assert (status, err) == (0, "") and "test accuracy" in out
    assert not (tmp_path / "runs").exists()


# Checkpoints.


def test_a_checkpoint_is_plain_and_resumes(run, tmp_path):
    run()
    best, last = (
        tmp_path / f"runs/3b1b/version_0/checkpoints/{name}.ckpt" for name in ("best", "last")
    )
    stored = torch.load(last, weights_only=True)
    assert stored["hyper_parameters"]["layers"] == [784, 16, 16, 10]
    module = LitClassifier.load_from_checkpoint(best, map_location="cpu", weights_only=True)
    assert module.hparams["cost"] == "squared_error"
    status, out, err = run("--ckpt_path", str(last), *TINY, "--trainer.max_epochs", "3", tiny=False)
    assert (status, err) == (0, "")
    assert re.findall(r"^ +(\d+)  +[\d.]+  ", out, re.MULTILINE) == ["3"]


def test_a_checkpoint_of_another_network_is_refused(run, tmp_path):
    run()
    last = str(tmp_path / "runs/3b1b/version_0/checkpoints/last.ckpt")
    status, _, err = run("--ckpt_path", last, "--model.layers", "[784,8,10]")
    assert status == 1 and "net.1.weight is (16, 784) there and (8, 784) here" in err
    status, _, err = run("--ckpt_path", last, *TINY, "--trainer.max_epochs", "0", tiny=False)
    assert status == 1 and "trained for" in err
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    status, _, err = run("--ckpt_path", "junk.ckpt")
    assert status == 1 and "not a checkpoint" in err


class PressCtrlC(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step, self.pressed = step, False

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step >= self.step and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interrupted(run, monkeypatch):
    """The same as `run`, with a Ctrl-C at the step named; gives what resumes it."""
    instantiate = CLI.instantiate_trainer

    def call(step: int, *args: str, tiny: bool = True) -> list[str]:
        def pressing(self, **kwargs):
            trainer = instantiate(self, **kwargs)
            trainer.callbacks.append(PressCtrlC(step))
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(CLI, "instantiate_trainer", pressing)
            status, out, err = run(*args, tiny=tiny)
        assert status == 130 and "interrupted" in err and "Traceback" not in err
        return re.search(r"resume +python train.py (.*)", out)[1].split()

    return call


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 4], ids=["mid-epoch", "last step of an epoch", "later"])
def test_ctrl_c_saves_and_the_resumed_run_ends_where_an_unbroken_one_does(
    run, interrupted, tmp_path, step
):
    autograd = ["--model.engine", "autograd"]  # which Ctrl-C stops at any step
    assert run("--name", "whole", *autograd)[0] == 0
    command = interrupted(step, "--name", "broken", *autograd)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    status, _, err = run(*command, tiny=False)
    assert (status, err) == (0, "")
    whole, broken = (last(tmp_path, run) for run in ("whole/version_0", "broken/version_1"))
    assert whole["global_step"] == broken["global_step"] == 6
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, broken["state_dict"][name]), name


def last(folder: Path, run: str):
    return torch.load(folder / f"runs/{run}/checkpoints/last.ckpt", weights_only=True)


# The engines.

# Two epochs of 100 batches of 16: more than one call takes, and not a multiple of it.
SHORT = ["--data.batch_size", "16", "--trainer.limit_train_batches", "100"]
SHORT += ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]
SHORT += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--threads", "1"]
SHORT += ["--model.schedule", "cosine", "--model.warmup", "0.1"]


def assert_same_weights(one, other):
    for name, weights in one["state_dict"].items():
        torch.testing.assert_close(weights, other["state_dict"][name], rtol=1e-4, atol=2e-5)


def metrics(folder: Path, run: str):
    head, *rows = (folder / f"runs/{run}/version_0/metrics.csv").read_text().splitlines()
    return [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [["sgd", "0.1", "0.9"], ["nesterov", "0.1", "0.9"], ["sgd", "1", "0"], ["adamw", "0.003", "0"]],
    ids=lambda values: "-".join(values),
)
def test_every_engine_gives_the_same_weights_costs_and_counts(run, tmp_path, optimizer):
    kind, lr, momentum = optimizer
    args = [*SHORT, "--model.optimizer", kind, "--model.lr", lr, "--model.momentum", momentum]
    args += ["--model.weight_decay", "0.001", "--test", "false"]
    for name in ENGINES:
        assert run(*args, "--name", name, "--model.engine", name, tiny=False)[::2] == (0, "")
    expected = last(tmp_path, "autograd/version_0")
    rows = metrics(tmp_path, "autograd")
    for name in ENGINES[1:]:
        found = last(tmp_path, f"{name}/version_0")
        assert_same_weights(expected, found)
        assert found["global_step"] == expected["global_step"] == 200
        assert found["lr_schedulers"] == expected["lr_schedulers"]
        progress = [c["loops"]["fit_loop"]["epoch_loop.batch_progress"] for c in (found, expected)]
        assert progress[0] == progress[1]
        for ours, theirs in zip(metrics(tmp_path, name), rows, strict=True):
            assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
            assert float(ours["train_cost"]) == pytest.approx(float(theirs["train_cost"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", ENGINES)
def test_a_run_goes_on_with_another_engine(run, interrupted, tmp_path, first):
    # Stops after 71 steps with autograd, and after a call with the others: 164 steps.
    assert run(*SHORT, "--name", "whole", "--model.engine", first, tiny=False)[0] == 0
    command = interrupted(70, *SHORT, "--name", "broken", "--model.engine", first, tiny=False)
    assert last(tmp_path, "broken/version_0")["global_step"] == (71 if first == "autograd" else 164)
    whole = last(tmp_path, "whole/version_0")
    for version, other in enumerate(e for e in ENGINES if e != first):
        status, _, err = run(*command, "--model.engine", other, tiny=False)
        assert (status, err) == (0, "")
        resumed = last(tmp_path, f"broken/version_{version + 1}")
        assert resumed["global_step"] == whole["global_step"] == 200
        assert_same_weights(whole, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES[1:])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs_with_every_engine(run, config, name):
    status, out, err = run("--config", str(config), "--model.engine", name)
    assert (status, err) == (0, "") and "test accuracy" in out


@pytest.mark.parametrize("cost", ["mse", "bce_with_logits", "nll"])
def test_a_program_takes_every_form_of_targets(run, cost):
    args = ["--model.cost", cost, "--model.engine", "step"]
    args += ["--model.output_activation", "log_softmax" if cost == "nll" else "identity"]
    assert run(*args)[::2] == (0, "")


@pytest.mark.slow
def test_what_lightning_limits_is_counted_in_steps(run, tmp_path):
    engine = ["--model.engine", "step"]
    assert run(*SHORT, *engine, "--trainer.max_steps", "130", tiny=False)[::2] == (0, "")
    assert last(tmp_path, "3b1b/version_0")["global_step"] == 130
    args = [*SHORT, *engine, "--name", "often", "--trainer.val_check_interval", "30"]
    assert run(*args, tiny=False)[::2] == (0, "")
    steps = [int(row["step"]) for row in metrics(tmp_path, "often")]
    assert steps[:3] == [29, 59, 89]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.optimizer", "rmsprop"], "mend: --model.engine tape"),
        (["--trainer.accumulate_grad_batches", "2"], "leave out --trainer.accumulate_grad_batches"),
        (["--trainer.gradient_clip_val", "1"], "leave out --trainer.gradient_clip_val"),
        (["--trainer.strategy", "ddp", "--trainer.devices", "2"], "mend: --trainer.devices 1"),
    ],
)
def test_what_only_autograd_does_is_refused_by_the_others(run, args, said):
    status, _, err = run(*args, "--model.engine", "step")
    assert status == 1 and err.startswith("error: --model.engine step") and said in err
    assert len(err.splitlines()) == 2
    if said.startswith("leave"):
        assert run(*args, "--model.engine", "autograd")[::2] == (0, "")


def test_an_optimizer_without_a_program_is_refused():
    net, _ = network_of_two()
    with pytest.raises(UserError, match=r"--model\.engine tape, which takes any"):
        engine.ProgramStep(net, nn.SquaredError(), torch.optim.Adagrad(net.parameters()))


@pytest.mark.slow
def test_without_a_compiler_one_line_says_so(run, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler here\nand a long story")

    monkeypatch.setattr(engine, "COMPILER", True)
    monkeypatch.setattr("torch._inductor.compile", broken)
    status, out, err = run("--model.engine", "step")
    assert (status, err) == (0, "")
    (line,) = (line for line in out.splitlines() if line.startswith("engine "))
    assert "no working compiler (no C++ compiler here), so on the tape" in line
    assert run("--model.engine", "tape", "--name", "tape")[0] == 0
    assert_same_weights(last(tmp_path, "tape/version_0"), last(tmp_path, "3b1b/version_0"))


@pytest.mark.parametrize("name", ENGINES[1:])
def test_a_last_update_that_ruins_the_weights_is_found_by_going_back(name):
    net, (x, y) = network_of_two()
    cost, optimizer = nn.SquaredError(), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step, tape = (engine.step_of(n, net, cost, optimizer) for n in (name, "tape"))
    optimizer.param_groups[0]["lr"] = 1e38
    x, y = x.expand(2, -1, -1), y.expand(2, -1)
    optimizer.param_groups[0]["momentum"] = 0.0
    with torch.no_grad():
        net[2].bias.fill_(1e18)  # a cost of 1e36, and a gradient that lr takes beyond 3e38
    bad = engine.train_batches(step, tape, x[:1], y[:1], [])
    assert isinstance(bad, engine.FailedStep) and bad.place == 1
    found = monitor.first_non_finite(net, cost, bad.batch)
    assert "its gradient was finite, the update not" in found


@pytest.mark.parametrize("name", ENGINES[1:])
@pytest.mark.parametrize("at", [0, 2])
def test_going_back_leaves_all_as_it_was_when_the_bad_step_began(name, at):
    torch.manual_seed(3)
    xs, ys = torch.randn(6, 5, 4), torch.randint(2, (6, 5))
    xs[2 + at, 0, 0] = torch.nan
    cost = nn.SquaredError()

    def setting():
        torch.manual_seed(0)
        layers = [nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.4), nn.Linear(3, 2)]
        net = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
        torch.manual_seed(5)
        return net, optimizer, schedule

    def trained(steps):
        """By autograd, up to where the bad step begins."""
        net, optimizer, schedule = setting()
        for x, y in zip(xs[:steps], ys[:steps], strict=True):
            optimizer.zero_grad()
            cost(net(x), y).backward()
            optimizer.step()
            schedule.step()
        return net, optimizer, schedule

    net, optimizer, schedule = setting()
    step, tape = (engine.step_of(n, net, cost, optimizer) for n in (name, "tape"))
    engine.train_batches(step, tape, xs[:2], ys[:2], [schedule])
    bad = engine.train_batches(step, tape, xs[2:], ys[2:], [schedule])
    assert isinstance(bad, engine.FailedStep) and bad.place == at
    drawn = torch.get_rng_state()
    theirs, expected, scheduled = trained(2 + at)
    assert torch.equal(drawn, torch.get_rng_state())
    assert monitor.first_non_finite(net, cost, bad.batch) == "the images"
    found = monitor.first_non_finite(net, cost, (torch.full_like(xs[0], 1e38), ys[0]))
    assert "the output of layer" in found
    torch.testing.assert_close(net.state_dict(), theirs.state_dict())
    torch.testing.assert_close(optimizer.state_dict(), expected.state_dict())
    assert schedule.state_dict() == scheduled.state_dict()
    if at:
        for p, q in zip(net.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


# NaN.


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_ends_the_run_and_says_where(run, engine):
    relu = ["--model.activation", "relu", "--model.output_activation", "identity"]
    relu += ["--model.warmup", "0", "--model.schedule", "constant", "--model.engine", engine]
    status, _, err = run(*relu, "--model.lr", "1e30")
    assert status == 1 and len(err.splitlines()) == 2
    assert "diverged at epoch 1, step 2 of the epoch: first seen in z, the output of layer" in err


def network_of_two() -> tuple[torch.nn.Sequential, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2))
    return net, (torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1]))


def test_the_first_bad_tensor_is_named():
    cost = nn.SquaredError()
    net, (x, y) = network_of_two()
    assert monitor.first_non_finite(net, cost, (x / 0, y)) == "the images"
    with torch.no_grad():
        net[0].bias.fill_(3e38), net[0].weight.fill_(3e38)
    assert "z, the output of layer 0 (Linear)" in monitor.first_non_finite(net, cost, (x.abs(), y))
    net, batch = network_of_two()
    net[2].weight.grad = torch.full_like(net[2].weight, torch.nan)
    with torch.no_grad():
        net[2].weight.fill_(torch.nan)
    assert "∂C/∂weight of layer 2" in monitor.first_non_finite(net, cost, batch)
    net[2].weight.grad.zero_()
    assert "its gradient was finite" in monitor.first_non_finite(net, cost, batch)


def test_a_last_step_that_ruins_the_weights_is_noticed(run, monkeypatch):
    ruin = LitClassifier.on_validation_epoch_end

    def ruined(self):
        with torch.no_grad():
            self.net[1].bias.fill_(torch.nan)
        ruin(self)

    monkeypatch.setattr(LitClassifier, "on_validation_epoch_end", ruined)
    status, _, err = run()
    assert status == 1 and "diverged at epoch 1, step 4" in err and "1.bias" in err


# What is measured and described.


def test_deltas_are_the_gradients_of_the_weighted_sums():
    net, (x, y) = network_of_two()
    deltas, saturated = monitor.measure(net, nn.SquaredError(), x, y)
    a = net(x)
    delta = 2 * (a - torch.nn.functional.one_hot(y, 2))  # ∂C₀/∂z of each example
    assert deltas["2"] == pytest.approx(delta.norm(dim=1).mean().item(), rel=1e-5)
    hidden = net[1](net[0](x))
    delta = delta @ net[2].weight * hidden * (1 - hidden)
    assert deltas["0"] == pytest.approx(delta.norm(dim=1).mean().item(), rel=1e-5)
    assert saturated == 0.0 and net.training and net[0].weight.grad is None


def test_saturated_units_are_counted():
    net = torch.nn.Sequential(nn.Linear(1, 4), nn.Sigmoid())
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([0.0, 1.0, 9.0, -9.0]))
    _, saturated = monitor.measure(net, nn.SquaredError(), torch.ones(3, 1), torch.zeros(3).long())
    assert saturated == 0.5


def test_the_gradient_check_passes_right_rules_and_fails_a_wrong_one(run, monkeypatch):
    net, (x, y) = network_of_two()
    before = [p.clone() for p in net.parameters()]
    result = check.check_gradients(net, nn.SquaredError(), x, y)
    assert result.ok and result.max_error < 1e-8
    assert all(map(torch.equal, net.parameters(), before))

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

        @staticmethod
        def backward(ctx, g):
            return g * 1.001

    class Wrong(torch.nn.Module):
        def forward(self, z):
            return Off.apply(z)

    wrong = torch.nn.Sequential(*net[:2], Wrong(), net[2])
    result = check.check_gradients(wrong, nn.SquaredError(), x, y)
    assert not result.ok and result.worst.startswith("0.")
    monkeypatch.setitem(network.ACTIVATIONS, "sigmoid", Wrong)
    status, out, err = run()
    assert status == 1 and "FAILED" in out and "nothing was trained" in err


def test_the_gradient_check_takes_no_kink_for_a_wrong_rule():
    net = torch.nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(3e-6)  # a nudge of 1e-5 takes z below 0
    x, y = torch.zeros(1, 1), torch.tensor([1])
    assert check.check_gradients(net, nn.SquaredError(), x, y).ok


def test_the_table_reads_the_formula_that_ran():
    net, (x, y) = network_of_two()
    foreign = torch.nn.Sequential(*net, torch.nn.Tanh())
    rows = describe.describe(foreign, nn.SquaredError(), x, y)
    assert [row.kind for row in rows] == ["Linear", "Sigmoid", "Linear", "Tanh", "cost"]
    assert rows[0].shape == "4 → 3" and rows[0].parameters == 15
    assert rows[0].backward.startswith("∂C/∂a = δ W")
    assert rows[3].backward == "autograd's own (TanhBackward0)"
    assert rows[-1].backward.startswith("∂C/∂a = 2 (a − y)")


def test_the_table_knows_a_layer_by_what_it_runs():
    class Sigmoid(Formula):
        """a = z / 2

        ∂C/∂z = g / 2
        """

        @staticmethod
        def forward(input):
            return input / 2

        @staticmethod
        def grad_input(g):
            return g / 2

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return input / 2

        @staticmethod
        def backward(ctx, g):
            return g / 2

    ByHand.__name__ = "Tanh"
    Theirs = type("ReLU", (torch.nn.Module,), {"forward": lambda self, z: torch.sin(z)})
    Ours = type("Sigmoid", (torch.nn.Module,), {"forward": lambda self, z: Sigmoid.apply(z)})
    Hand = type("Tanh", (torch.nn.Module,), {"forward": lambda self, z: ByHand.apply(z)})
    net, (x, y) = network_of_two()
    rows = describe.describe(
        torch.nn.Sequential(*net, Ours(), Theirs(), Hand()), nn.SquaredError(), x, y
    )
    assert rows[1].backward == "∂C/∂z = g ⊙ a (1 − a)"
    assert (rows[3].value, rows[3].backward) == ("a = z / 2", "∂C/∂z = g / 2")
    assert rows[4].backward == "autograd's own (SinBackward0)"
    assert rows[5].backward == "Tanh, a backward pass written by hand"


@pytest.mark.parametrize("activation", network.ACTIVATIONS)
def test_every_activation_builds_and_learns(activation):
    net = network.build([4, 3, 2], activation, activation, 0.1, 0.1, "xavier_normal")
    net(torch.randn(5, 4)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("cost", network.COSTS)
@pytest.mark.parametrize("init", ["torch", "nielsen", "lecun_normal", "kaiming_uniform"])
def test_every_cost_takes_class_labels(cost, init):
    module = LitClassifier([4, 3], output_activation="identity", cost=cost, init=init)
    module.cost(module(torch.randn(5, 4)), torch.arange(5) % 3).backward()


def test_any_network_can_be_trained(mnist, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5, stride=4), nn.Flatten(), nn.Linear(72, 10))
    module = LitClassifier.from_network(net, cost="cross_entropy", optimizer="adam", lr=1e-3)
    data = MNISTDataModule()
    data.parts = mnist
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics.keys() >= {"delta/0", "delta/2", "saturated", "val_accuracy"}
    assert "net" not in module.hparams


@pytest.mark.parametrize(
    ("progress", "schedule", "warmup", "expected"),
    [
        (0.0, "constant", 0.0, 1.0),
        (0.25, "linear", 0.0, 0.75),
        (0.5, "cosine", 0.0, 0.5),
        (0.05, "linear", 0.1, 0.5),
        (0.55, "linear", 0.1, 0.5),
        (1.0, "cosine", 0.1, 0.0),
        (1.2, "linear", 0.0, 0.0),
    ],
)
def test_the_learning_rate(progress, schedule, warmup, expected):
    assert rate(progress, schedule, warmup) == pytest.approx(expected)


# The data.


def linked(folder: Path) -> Path:
    """A data folder whose files are links to the repository's."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in FILES:
        (raw / name).symlink_to(REPOSITORY_DATA / "MNIST" / "raw" / name)
    return raw


def test_the_split_is_fixed_and_the_pixels_lie_in_0_1(mnist):
    assert {part: len(y) for part, (_, y) in mnist.items()} == {
        "train": 55_000,
        "val": 5_000,
        "test": 10_000,
    }
    images, labels = mnist["train"]
    assert images.shape == (55_000, 1, 28, 28) and images.dtype == torch.float32
    assert (images[:100].min(), images[:100].max()) == (0, 1)
    assert labels.dtype == torch.int64
    # Fixed by its own seed, whatever the run's: these are the first ones, for good.
    assert mnist["val"][1][:10].tolist() == VALIDATION_LABELS


VALIDATION_LABELS = [9, 3, 5, 4, 7, 4, 9, 6, 8, 8]


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "corrupt"])
def test_a_damaged_file_is_named_with_the_mend(tmp_path, capsys, monkeypatch, name, damage):
    path = linked(tmp_path) / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "corrupt":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.chdir(tmp_path)
    status = main(["--data.root", str(tmp_path), *TINY], DEFAULT)
    err = capsys.readouterr().err
    size, md5 = FILES[name]
    assert status == 1 and "Traceback" not in err
    for part in (str(path), damage, f"{size:,} bytes, md5 {md5}", "mend:"):
        assert part in err


def test_the_mend_for_the_repository_is_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr("manualbp.training.mnist.REPOSITORY_DATA", tmp_path)
    with pytest.raises(DataError, match="git checkout -- data/MNIST/raw"):
        check_files(tmp_path)


def test_a_half_unpacked_file_is_not_trusted_and_none_is_left(tmp_path):
    raw = linked(tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0" * 1000)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"")
    before = sorted(raw.iterdir())
    images, labels = load(tmp_path, train=False)
    assert images.shape == (10_000, 1, 28, 28) and labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert sorted(raw.iterdir()) == before


def test_the_files_are_those_that_torchvision_knows():
    from torchvision.datasets import MNIST

    assert {name: md5 for name, (_, md5) in FILES.items()} == dict(MNIST.resources)


def labels_of(batches: Batches) -> list[int]:
    return [int(i) for _, y in batches for i in y]


def batches(total: int = 103, size: int = 10, **settings) -> Batches:
    return Batches(torch.zeros(total, 1), torch.arange(total), size, Order(total, **settings))


def test_each_epoch_has_its_own_order_and_a_seed_repeats_it():
    one, same, other = (batches(shuffle=True, seed=seed) for seed in (1, 1, 2))
    first = labels_of(one)
    assert len(first) == 100 == len(one) * 10 and len(set(first)) == 100
    assert first == labels_of(one) == labels_of(same) != labels_of(other)
    one.sampler.set_epoch(1)
    assert first != labels_of(one)
    assert labels_of(batches()) == list(range(103)) and len(batches()) == 11


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_each_process_has_its_own_part_and_as_many_batches(world_size):
    parts = [
        batches(shuffle=True, seed=3, rank=rank, world_size=world_size, size=4)
        for rank in range(world_size)
    ]
    seen = [labels_of(part) for part in parts]
    assert len({len(part) for part in parts}) == 1
    assert all(len(s) == 4 * len(p) for s, p in zip(seen, parts, strict=True))
    together = [i for s in seen for i in s]
    assert len(set(together)) == len(together)
    evaluated = [labels_of(batches(rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(i for e in evaluated for i in e) == list(range(103))


def test_a_loader_goes_on_after_the_last_batch_it_gave():
    whole, stopped, resumed = (batches(shuffle=True, seed=1) for _ in range(3))
    iterator = iter(stopped)
    first = [int(i) for _ in range(4) for i in next(iterator)[1]]
    resumed.load_state_dict(stopped.state_dict())
    assert first + labels_of(resumed) == labels_of(whole)
    assert labels_of(resumed) == labels_of(whole)


def test_several_batches_come_at_a_time_and_a_ragged_one_alone():
    sizes = iter([4, 4, 4, 4])
    loader = Batches(torch.zeros(103, 1), torch.arange(103), 10, None, lambda: next(sizes))
    given = [(tuple(x.shape), tuple(y.shape)) for x, y in loader]
    assert [y for _, y in given] == [(4, 10), (4, 10), (2, 10), (3,)]
    assert given[0][0] == (4, 10, 1)
    sizes = iter([4] * 8)
    assert [int(i) for _, y in loader for i in y.flatten()] == list(range(103))
    assert loader.state_dict()["batch"] == len(loader) == 11


# The whole program, as a user starts it.


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "engine"), [("utf-8", "step"), ("ascii", "tape")])
def test_a_piped_run_is_plain_text_with_nothing_on_stderr(tmp_path, encoding, engine):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    environment.pop("PYTHONWARNINGS", None)
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *TINY, "--model.engine", engine],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    out = result.stdout.decode(encoding)
    assert "\x1b" not in out and "\r" not in out and "?" not in out
    assert not re.search(r"warn|tip:|💡", out, re.IGNORECASE)
    assert ("∂C/∂W = δᵀ a" if encoding == "utf-8" else "dC/dW = ") in out
    lines = out.splitlines()
    (header,) = (i for i, line in enumerate(lines) if line.startswith("epoch "))
    assert len({len(line) for line in lines[header : header + 3]}) == 1
    assert any(line.startswith("next ") for line in lines[-8:])
    assert ("one program for a whole step, compiled in" in out) == (engine == "step")


def test_user_errors_are_no_other_errors():
    assert issubclass(DataError, UserError) and issubclass(monitor.Diverged, UserError)
