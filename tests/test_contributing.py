"""CONTRIBUTING.md as a new contributor follows it: to the letter, and it ends in green."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import module, row

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: file, the name for its __all__, code
STEPS = re.findall(
    r'^```python\n# (\S+\.py)(?:, "(\w+)" in __all__)?\n(.*?)^```', TEXT, re.M | re.S
)


@pytest.mark.slow
def test_a_function_that_torch_lacks_ends_in_green(tmp_path: Path) -> None:
    """The steps, in a copy of this checkout; then the tests of the new name, and of any name."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("manualbp", "tests", "docs"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    assert len(STEPS) == 5
    for path, name, code in STEPS:
        text = (tmp_path / path).read_text(encoding="utf-8")
        if name:
            text = text.replace("__all__ = [\n", f'__all__ = [\n    "{name}",\n', 1)
        (tmp_path / path).write_text(f"{text}\n\n{code}", encoding="utf-8")
    tested = ("completeness", "formulas", "mathematics", "nn", "samples")
    files = [f"tests/test_{file}.py" for file in tested]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files, "-k", "every or snake"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) > 150


def test_the_kernel_that_it_shows_is_one_of_ours() -> None:
    (shown,) = re.findall(r"^```python\n(@of.*?)^```", TEXT, re.M | re.S)
    files = (ROOT / "manualbp/kernels").glob("*.py")
    assert any(shown in file.read_text(encoding="utf-8") for file in files)


def test_a_row_of_what_torch_lacks_asks_for_a_twin() -> None:
    with pytest.raises(LookupError, match="torch has no function 'squared_error': give its row a"):
        row("squared_error")
    with pytest.raises(LookupError, match="torch has no module 'SquaredError': give its row a"):
        module("SquaredError", inputs=())
