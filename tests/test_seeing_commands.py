"""The commands that look into a run: what they take, and what they say of a mistake."""

from __future__ import annotations

import pytest
import torch
from trained import save, stored

from manualbp import __main__
from manualbp.commands import seeing
from manualbp.training.runs import load_run


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command where there are two runs: its exit status, what it printed, its errors."""
    torch.manual_seed(0)
    for when, name in enumerate(("old", "new")):
        layers = [784, 6, 10] if name == "old" else [784, 5, 4, 10]
        file = tmp_path / f"runs/{name}/version_0/checkpoints/best.ckpt"
        save(file, stored(3, layers=layers, dropout=0.0), when)
    monkeypatch.chdir(tmp_path)

    def call(command: str) -> tuple[int, str, str]:
        status = __main__.main(command.split())
        return (status, *capsys.readouterr())

    return call


def test_the_run_may_be_left_out(run) -> None:
    for words, name, rest in (
        (["1.weight", "3", "407"], "new", ["1.weight", "3", "407"]),
        (["old", "1.weight", "3", "407"], "old", ["1.weight", "3", "407"]),
        (["2", "5"], "new", ["2", "5"]),
        (["runs/old/version_0", "2", "5"], "old", ["2", "5"]),
        ([], "new", []),
    ):
        found, left = seeing.run_of(words)
        assert (found.path.parent.name, left) == (name, rest)


def test_explain_is_that_of_the_trace(run) -> None:
    status, out, err = run("explain old 1.weight 3 407 --class 7 --examples 20 --example 2")
    assert (status, err) == (0, "")
    trained = load_run("old")
    trace = seeing.traced(trained, 20, "train", 7)
    answer = trace.explain("1.weight", 3, 407)
    assert str(answer) in out and answer.of_example(2) in out
    assert out.startswith(f"{trained.title} · epoch 4 · 20 train examples of class 7\n")
    assert set(answer.classes) == {7}
    images, labels = trained.examples(None, "train")
    assert torch.equal(trace.x, images[labels == 7][:20])


def test_paths_of_an_activation_and_of_a_weight(run) -> None:
    trace = seeing.traced(load_run(None), 10, "val")
    for words in ("2 3 --example 1", "1.weight 4 407 --top 3"):
        status, out, err = run(f"paths {words} --examples 10 --split val")
        assert (status, err) == (0, "")
        asked = (
            (("2", 3), {"example": 1}) if words[0] == "2" else (("1.weight", 4, 407), {"top": 3})
        )
        assert str(trace.paths(*asked[0], **asked[1])) in out


def test_nudge_and_vanishing_and_trace(run) -> None:
    status, out, _ = run("nudge 1.weight 3 407 --by=-0.5 --examples 10")
    assert status == 0 and "1.weight[3, 407] − 0.500: C was" in out
    trace = seeing.traced(load_run("old"), 10, "test")
    for command, expected in (("trace", trace), ("vanishing", trace.vanishing())):
        status, out, _ = run(f"{command} old --examples 10 --split test")
        assert status == 0 and str(expected) in out


@pytest.mark.parametrize(
    "command, message",
    [
        ("explain 0.weight 3 407", "'0.weight' is no parameter; near to it:"),
        ("explain 1.weight 5 0", "(5, 784): index 5 is out of range of axis 0"),
        ("explain nope 1.weight 3 407", "there is no run nope"),
        ("explain", "expected a name and whole numbers, as in"),
        ("explain 1.weight x", "there is no run 1.weight"),
        ("explain 1.weight 3 407 --class 11", "--class 11: there are [0, 1, 2"),
        ("explain 1.weight 3 407 --class seven", "--class: "),
        ("explain 1.weight 3 407 --example 100", "--example 100: there are 0 to 99"),
        ("paths 77 3", "'77' is no layer that ran; "),
        ("paths 2 99", "99"),
        ("nudge 1.weight 3", "expected 2 indices, got 1 (3)"),
        ("trace old new", "one RUN, got old new"),
        ("vanishing --examples 0", "--examples is at least 1"),
        ("trace --split all", "split is train, val or test, got 'all'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run, command: str, message: str) -> None:
    status, out, err = run(command)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_checkpoint_of_another_kind_is_not_unpickled(run, tmp_path) -> None:
    class Mine:
        def __reduce__(self):
            return (print, ("unpickled",))

    file = save(tmp_path / "runs/new/version_0/checkpoints/bad.ckpt", {"state_dict": 1}, 9)
    assert "not a checkpoint of ours" in run(f"trace {file}")[2]
    torch.save(Mine(), file)
    status, out, err = run(f"explain {file} 1.weight 3 407")
    assert (status, out) == (2, "") and "not a checkpoint of ours" in err
