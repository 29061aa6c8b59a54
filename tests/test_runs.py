"""Runs of train.py, found again and loaded."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trained import SETTINGS, save, stored

from manualbp import __main__
from manualbp.training import runs
from manualbp.training.errors import UserError
from manualbp.training.runs import find_runs, load_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two runs: the later has its best in the second of three epochs."""
    monkeypatch.chdir(tmp_path)
    first, second = Path("runs/small/version_0"), Path("runs/small/version_1")
    save(first / "checkpoints/last.ckpt", stored(cost="nll", output_activation="log_softmax"), 1000)
    save(second / "checkpoints/best.ckpt", stored(1, 0.75), 2000)
    save(second / "checkpoints/last.ckpt", stored(2, 0.75), 3000)
    return tmp_path


def test_without_a_name_it_is_the_latest_and_its_best(folder):
    run = load_run()
    assert run.path == Path("runs/small/version_1")
    assert run.checkpoint == run.path / "checkpoints/best.ckpt"
    assert (run.epochs, run.steps, run.accuracy) == (2, 200, 0.75)
    assert [each.epochs for each in run.snapshots] == [2, 3]


@pytest.mark.parametrize(
    ("where", "checkpoint"),
    [
        ("runs", "runs/small/version_1/checkpoints/best.ckpt"),
        ("runs/small", "runs/small/version_1/checkpoints/best.ckpt"),
        ("small", "runs/small/version_1/checkpoints/best.ckpt"),
        ("small/version_0", "runs/small/version_0/checkpoints/last.ckpt"),
        ("runs/small/version_1/checkpoints", "runs/small/version_1/checkpoints/best.ckpt"),
        ("runs/small/version_1/checkpoints/last.ckpt",) * 2,
    ],
)
def test_a_run_goes_by_its_folder_a_folder_of_runs_or_a_checkpoint(folder, where, checkpoint):
    assert load_run(where).checkpoint == Path(checkpoint)


def test_the_network_comes_back_as_it_was_trained(folder):
    run = load_run()
    before = torch.get_rng_state()
    net, module = run.net, run.module
    assert torch.equal(torch.get_rng_state(), before)
    assert module.net is net and not any(m.training for m in module.modules())
    saved = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[f"net.{n}"], w) for n, w in net.state_dict().items())
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([3, 1, 4, 1])
    z = torch.tanh(images.flatten(1) @ saved["net.1.weight"].T + saved["net.1.bias"])
    a = torch.sigmoid(z @ saved["net.4.weight"].T + saved["net.4.bias"])
    torch.testing.assert_close(net(images), a)
    expected = torch.nn.functional.mse_loss(a, torch.eye(10)[labels])
    torch.testing.assert_close(run.cost(net(images), labels), expected)
    torch.testing.assert_close(module.cost(net(images), labels), expected)


def test_a_cost_of_classes_takes_classes(folder):
    run = load_run("small/version_0")
    output, labels = torch.randn(4, 10).log_softmax(1), torch.tensor([3, 1, 4, 1])
    expected = torch.nn.functional.nll_loss(output, labels)
    torch.testing.assert_close(run.cost(output, labels), expected)


def test_snapshots_are_those_of_the_same_network_once_each(folder):
    run = load_run()
    save(run.path / "snapshots/start.ckpt", stored(0), 500)
    save(run.path / "snapshots/again.ckpt", stored(2), 500)
    save(run.path / "snapshots/other.ckpt", stored(4, layers=[784, 5, 10]), 500)
    assert [each.steps for each in run.snapshots] == [100, 200, 300]


@pytest.mark.slow
def test_examples_are_those_of_the_run_s_own_split(folder):
    from manualbp.training.data import MNISTDataModule

    run = load_run()
    (run.path / "config.yaml").write_text("data: {val_size: 7, split_seed: 3}\n")
    data = MNISTDataModule(val_size=7, split_seed=3)
    data.setup()
    for split in ("train", "val", "test"):
        images, labels = run.examples(5, split)
        torch.testing.assert_close(images, data.parts[split][0][:5])
        assert torch.equal(labels, data.parts[split][1][:5])
    assert len(run.examples(split="val")[1]) == 7
    with pytest.raises(UserError, match="split is train, val or test, got 'all'"):
        run.examples(split="all")


def test_metrics_are_those_of_each_epoch(folder):
    run = load_run()
    with pytest.raises(UserError, match=r"metrics\.csv: .*; the run logged no metrics"):
        _ = run.metrics
    (run.path / "metrics.csv").write_text(
        "delta/1,epoch,step,test_cost,val_cost\n0.5,0,10,,1.5\n0.25,1,20,,1.0\n,1,20,0.9,\n"
    )
    expected = {"delta/1": [0.5, 0.25], "epoch": [0, 1], "step": [10, 20], "val_cost": [1.5, 1]}
    assert run.metrics == expected


class Opens:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return (open, ("opened", "w"))


def test_a_checkpoint_is_never_unpickled(folder):
    save(Path("other.ckpt"), stored() | {"epoch": Opens()}, 0)
    Path("plain.ckpt").write_bytes(pickle.dumps(Opens()))
    for name in ("other.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match=f"^{name}: not a checkpoint of ours, or damaged"):
            load_run(name)
    assert not Path("opened").exists()


def damaged() -> dict[str, object]:
    other = stored()
    other["state_dict"] = stored(layers=[784, 5, 10])["state_dict"]
    strange = stored()
    strange["hyper_parameters"] = SETTINGS | {"activation": "cube"}
    return {
        "tensor.ckpt": torch.rand(3),
        "foreign.ckpt": stored() | {"hyper_parameters": {"lr": 1.0}},
        "code.ckpt": stored() | {"hyper_parameters": SETTINGS | {"layers": []}},
        "other.ckpt": other,
        "strange.ckpt": strange,
    }


REFUSED = {
    "runs/smal/version_1": "there is no run runs/smal/version_1; near to it: runs/small/version_1",
    "mlp": "there is no run mlp; near to it: runs/small/version_1, runs/small/version_0",
    "empty": "empty has no checkpoint: is it a folder that train.py wrote?",
    "tensor.ckpt": "tensor.ckpt: not a checkpoint of ours, or damaged",
    "cut.ckpt": "cut.ckpt: not a checkpoint of ours, or damaged",
    "words.txt": "words.txt: not a checkpoint of ours, or damaged",
    "foreign.ckpt": "foreign.ckpt: a checkpoint, but not of train.py",
    "code.ckpt": "code.ckpt: of LitClassifier.from_network, whose network is code",
    "other.ckpt": "1.weight is (5, 784) and should be (6, 784)",
    "strange.ckpt": "its settings describe no network of ours (KeyError: 'cube')",
}


@pytest.mark.parametrize("where", REFUSED)
def test_what_is_no_run_is_one_line(folder, where):
    Path("empty").mkdir()
    Path("words.txt").write_text("words")
    whole = load_run().checkpoint.read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name, content in damaged().items():
        save(Path(name), content, 0)
    with pytest.raises(UserError) as caught:
        load_run(where)
    assert REFUSED[where] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_run_it_says_what_makes_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for where in (None, "3b1b"):
        with pytest.raises(UserError, match=r"python train\.py makes one"):
            load_run(where)
    assert __main__.main(["runs"]) == 0
    assert capsys.readouterr().out == "no run in runs: python train.py makes one\n"


def test_runs_lists_them_the_latest_first(folder, capsys):
    save(Path("runs/cut/version_0/checkpoints/last.ckpt"), torch.rand(2), 500)
    assert __main__.main(["runs"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "run"
    second, first, cut = (re.split(r"  +", row) for row in rows)
    assert second[:5] == [
        "runs/small/version_1",
        "784-6-10 tanh, sigmoid",
        "mse",
        "2 of 3",
        "75.00%",
    ]
    assert first[:4] == ["runs/small/version_0", "784-6-10 tanh, log_softmax", "nll", "1 of 1"]
    assert cut[0] == "runs/cut/version_0" and cut[1].startswith("not a checkpoint of ours")
    assert [str(path) for path in find_runs(runs.RUNS)] == [second[0], first[0], cut[0]]
    assert __main__.main(["runs", "nowhere"]) == 2


def test_loading_a_run_does_not_wait_for_lightning(folder):
    program = (
        "import sys; from manualbp.training.runs import load_run; run = load_run(); run.net; "
        "run.examples(2); print(sorted({'pytorch_lightning', 'torchvision'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")
