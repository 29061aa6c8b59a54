"""README and docs as a reader follows them: snippets run and print what is shown, names exist."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.M | re.S)


def snippets(page: Path) -> list[tuple[str, str]]:
    """Each Python block of a page, and the text block right below it, which is what it prints."""
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


def command(mark: str) -> str:
    found = re.search(rf"<!-- ci: {mark} -->\n```console\n\$ (.*?)\n```", TEXT, re.S)
    assert found, f"README.md has no command marked {mark}"
    return found[1]


RUN = [page for page in PAGES if snippets(page) and page.name != "CONTRIBUTING.md"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # Inductor's, of parts of torch
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_snippets_run_in_order(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And print what is shown below them, where "…" stands for anything."""
    names: dict[str, object] = {}
    for code, shown in snippets(page):
        exec(compile(code, page.name, "exec"), names)
        printed = capsys.readouterr().out
        how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        as_shown = doctest.OutputChecker().check_output(shown.replace("…", "..."), printed, how)
        assert as_shown or not shown, (
            f"{page.name} shows\n{shown}\nbut there was printed\n{printed}"
        )


@pytest.mark.slow
def test_formulas_pass_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    blocks = [code for page in RUN for code, _ in snippets(page)]
    stated = [b for b in blocks if re.search(r"^class \w+\(manualbp", b, re.M)]
    assert len(stated) == 4
    file = tmp_path / "snippets.py"
    names = "import torch\nimport manualbp\nfrom torch import Tensor\n"
    file.write_text(names + "\n".join(stated), encoding="utf-8")
    # As the package is checked, whose cache then serves.
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_file_it_links_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http|\.\./\.\./actions)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    scripts = re.findall(r"python (\S+\.py)", text)
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"^([\w-]+)$", index, re.M)}
    assert named >= {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}


WRITTEN = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "manualbp").rglob("*.py"))]


def test_each_name_of_ours_that_is_written_exists() -> None:
    """In pages, docstrings and comments: dotted names, and paths of files."""
    missing = []
    for file in WRITTEN:
        text = file.read_text(encoding="utf-8")
        for name in set(re.findall(r"(?<!ops\.)\bmanualbp(?:\.[A-Za-z_]\w*)+", text)):
            if not known(name):
                missing.append(f"{file.name}: {name}")
        for path in set(re.findall(r"\b(?:manualbp|tests|docs)/[\w/]+\.\w+", text)):
            if not (ROOT / path).exists():
                missing.append(f"{file.name}: {path}")
    assert not missing, missing


def known(name: str) -> bool:
    """Whether a dotted name leads to something; a folder's module is found without importing it."""
    first, *rest = name.split(".")
    found, at = import_module(first), ROOT / first
    for part in rest:
        at = at / part
        if hasattr(found, part):
            found = getattr(found, part)
        elif at.is_dir() or at.with_suffix(".py").exists():
            found = import_module(".".join(at.relative_to(ROOT).parts))
        else:
            return False
    return True


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
    """The arguments of each command that trains otherwise than by default."""
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    commands = [
        line.split("#")[0].split()[3:] for line in lines if line[:17] == "$ python train.py"
    ]
    return [arguments for arguments in commands if arguments]


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
