"""The order of the house: sizes, names, imports."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import manualbp
from manualbp import functional, nn

PACKAGE = Path(manualbp.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: functions of more than sixty lines → the reason
LONG = {
    "functional/_attention.py: multi_head_attention_forward": (
        "torch's function of that name, step by step; its checks and its masks share every name"
    ),
    "tape/compiled_step.py: CompiledStep._trace": (
        "one closure is traced, over what the cases that refuse it have to compare afterwards"
    ),
}


def lines_of_functions(path: Path) -> dict[str, int]:
    """How many lines each function has below its signature and docstring."""
    found: dict[str, int] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                body = child.body[1:] if ast.get_docstring(child) else child.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                found[f"{path.relative_to(PACKAGE)}: {prefix}{child.name}"] = lines
                visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, prefix)

    visit(ast.parse(path.read_text()), "")
    return found


def test_no_file_is_longer_than_600_lines():
    lengths = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in FILES}
    assert {name: n for name, n in lengths.items() if n > 600} == {}


def test_no_function_is_longer_than_60_lines_without_a_reason():
    lengths = {name: n for path in FILES for name, n in lines_of_functions(path).items()}
    assert {name for name, n in lengths.items() if n > 60} == {*LONG}


def test_no_module_bears_the_name_of_what_is_exported():
    """Else ``import manualbp.convert as c`` would give a function."""
    exported = {n for n in manualbp.__all__ if not inspect.ismodule(getattr(manualbp, n))}
    modules = {module.name for module in pkgutil.walk_packages([str(PACKAGE)], "manualbp.")}
    assert {"manualbp.conversion.modules", "manualbp.functional._conv"} <= modules
    assert {m for m in modules if m.rpartition(".")[2] in exported} == set()
    for package in (functional, nn):  # both have modules beside their functions
        own = {m for m in modules if m.startswith(f"{package.__name__}.")}
        names = {m.rpartition(".")[2] for m in own}
        assert {n for n in names if not inspect.ismodule(getattr(package, n))} == set()


@pytest.mark.slow
def test_importing_it_imports_torch_and_nothing_heavier():
    heavy = ["pytorch_lightning", "lightning", "torchvision", "torchmetrics", "matplotlib"]
    program = f"import sys, manualbp; print(sorted(set({heavy}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr
    assert not found.stderr


#: what belongs to a kernel: work in place, fused operations, bits of numbers
SPEED = re.compile(r"\.(mul_|add_|sub_|addcmul|view\(torch\.int)")


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("formulas/*.py")), ids=lambda p: p.stem)
def test_formulas_are_mathematics(path):
    lines = path.read_text().splitlines()
    assert [f"{path.name}:{i}: {x}" for i, x in enumerate(lines, 1) if SPEED.search(x)] == []
