"""The README as its reader follows it: every snippet runs, every command does what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def command(mark: str) -> str:
    found = re.search(rf"<!-- ci: {mark} -->\n```console\n\$ (.*?)\n```", TEXT, re.S)
    assert found, f"README.md has no command marked {mark}"
    return found[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # Inductor's, of parts of torch
def test_the_snippets_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "SquaredErrorBackward" in capsys.readouterr().out
    z = torch.randn(3, requires_grad=True)
    names["StraightThrough"].apply(z).backward(torch.ones(3))  # type: ignore[attr-defined]
    assert torch.equal(z.grad, torch.ones(3))


@pytest.mark.slow
def test_its_formulas_pass_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    stated = [b for b in blocks("python") if re.search(r"^class \w+\(manualbp", b, re.M)]
    assert len(stated) == 2
    file = tmp_path / "snippets.py"
    file.write_text("import torch\nimport manualbp\n" + "\n".join(stated), encoding="utf-8")
    # As the package is checked, whose cache then serves.
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_each_file_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_two_commands_need_no_other_installation() -> None:
    for mark, extra in (("train", "train"), ("test", "test")):
        steps = command(mark).split(" && ")
        assert steps[0] == "python3 -m venv .venv"
        assert steps[1] == f'.venv/bin/pip install -q -e ".[{extra}]"'
        assert steps[2].startswith(".venv/bin/python ")


@pytest.mark.slow
def test_the_first_command_trains_offline_without_a_warning(tmp_path: Path) -> None:
    """Its last step, as it stands: the whole run, from a cold start to the test accuracy."""
    _, script = shlex.split(command("train").split(" && ")[-1])
    run = subprocess.run(
        [sys.executable, str(ROOT / script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert (run.returncode, run.stderr) == (0, "")
    accuracy = re.search(r"^test accuracy (\d+\.\d+)%", run.stdout, re.M)
    assert accuracy and float(accuracy[1]) >= 94.5
    assert not re.search(r"warn|tip:|\x1b", run.stdout, re.I)


def changes() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [line[2:].split("#")[0].split() for line in lines if line.startswith("$ python ")]
    return [words[2:] for words in commands if words[1] == "train.py"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", changes(), ids=" ".join)
def test_the_commands_that_change_a_run_are_understood(arguments: list[str], tmp_path, monkeypatch):
    """Each one on a few batches, the checkpoint that it names made first."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    import train

    few = ["--trainer.max_epochs", "1", "--test", "false"]
    for part in ("train", "val"):
        few += [f"--trainer.limit_{part}_batches", "2"]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as stopped:
            train.main(arguments)
        assert stopped.value.code == 0
        return
    if "--ckpt_path" in arguments:
        assert train.main(few) == 0
        few[1] = "2"
    assert train.main([*arguments, *few]) == 0
