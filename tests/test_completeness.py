"""What was forgotten is named: a formula without a row, a function with its own ideas."""

import inspect
import subprocess
import sys

import pytest
import torch
from cases import CASES
from properties import PROPERTIES

import manualbp
from manualbp import Formula, formulas, functional, nn

FORMULAS = {name: f for name, f in vars(formulas).items() if inspect.isclass(f)}
FUNCTIONS = {name: getattr(functional, name) for name in functional.__all__}
MODULES = {name: m for name, m in vars(nn).items() if inspect.isclass(m)}

#: the document's own, which torch does not have
OURS_ALONE = {"squared_error", "SquaredError"}


def behind(output: torch.Tensor) -> set[type[Formula]]:
    """The formulas in the graph behind an output."""
    found, queue = set(), [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None:
            found.add(getattr(getattr(node, "_forward_cls", None), "formula", None))
            queue += [f for f, _ in node.next_functions]
    return found


def exercised() -> set[type[Formula]]:
    """The formulas that some row runs, as its graph says, not as the row does."""
    found = set()
    for case in CASES:
        found |= behind(case.call(case.ours, *case.inputs()))
    return found


def test_every_formula_has_a_row():
    assert not set(FORMULAS.values()) - exercised()


def test_every_function_has_a_row():
    assert not set(FUNCTIONS) - {case.ours.__name__ for case in CASES}


def test_every_row_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert not {name for name in names if names.count(name) > 1}


def test_every_exception_names_a_property_and_a_reason():
    known = {holds.__name__ for holds in PROPERTIES}
    for case in CASES:
        assert set(case.without) <= known, case.name
        assert all(case.without.values()), case.name


def test_every_class_of_the_package_is_exported():
    """A formula that formulas/__init__.py forgets would escape all of the above."""
    stated = {f for f in everything_below(Formula) if f.__module__.startswith("manualbp.formulas.")}
    assert stated == set(FORMULAS.values())
    assert set(FUNCTIONS) == {
        name
        for name, function in vars(functional).items()
        if inspect.isfunction(function)
        and function.__module__ == functional.__name__
        and not name.startswith("_")
    }


def everything_below(cls: type) -> set[type]:
    return {cls}.union(*map(everything_below, cls.__subclasses__())) - {Formula}


@pytest.mark.parametrize("name", FORMULAS)
class TestFormula:
    def test_the_docstring_is_mathematics(self, name):
        """First the value; after a blank line one ∂ line a rule, in the order of the methods."""
        lines = (inspect.getdoc(FORMULAS[name]) or "").splitlines()
        assert lines, f"{name} has no docstring"
        assert "=" in lines[0], f"{name}: the first line states the value"
        assert len(lines) > 2 and not lines[1], f"{name}: a blank line after the value"
        rules = [m for m in vars(FORMULAS[name]) if m.startswith("grad_")]
        stated = [line for line in lines[2:] if line.startswith("∂C/∂")]
        assert len(stated) == len(rules), f"{name}: rules {rules}, stated {stated}"
        assert stated == lines[2:], f"{name}: nothing but the rules"

    def test_the_rules_follow_the_arguments(self, name):
        """One order: of forward's arguments, of the methods, of the lines of the docstring."""
        formula = FORMULAS[name]
        arguments = list(inspect.signature(formula.forward).parameters)
        rules = [m.removeprefix("grad_") for m in vars(formula) if m.startswith("grad_")]
        assert rules == sorted(rules, key=arguments.index)

    def test_everything_is_annotated(self, name):
        formula = FORMULAS[name]
        for method in (m for m in vars(formula).values() if isinstance(m, staticmethod)):
            if method.__func__.__module__ != formula.__module__:
                continue
            signature = inspect.signature(method.__func__)
            for parameter in signature.parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter}"
            assert signature.return_annotation is not signature.empty, name


def _linear(input, weight, bias=None): ...
def _gelu(input, approximate="none"): ...
def _softplus(input, beta=1, threshold=20): ...
def _flatten(input, start_dim=0, end_dim=-1): ...


#: functions written in C++, of which Python cannot ask the signature: as torch documents them
BUILTIN = {f.__name__: inspect.signature(f) for f in (_linear, _gelu, _softplus, _flatten)}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestFunction:
    def test_it_says_what_it_does(self, name):
        assert inspect.getdoc(FUNCTIONS[name])

    def test_some_module_calls_it(self, name):
        assert any(
            name in vars(m)["forward"].__code__.co_names
            for m in MODULES.values()
            if "forward" in vars(m)
        )


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in OURS_ALONE])
def test_the_signature_of_a_function_is_torch_s(name):
    """Names, order and defaults of the parameters."""
    twin = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    try:
        theirs = inspect.signature(twin)
    except ValueError:
        theirs = BUILTIN[f"_{name}"]
    ours = inspect.signature(FUNCTIONS[name])
    assert parameters(ours) == parameters(theirs)


def parameters(signature: inspect.Signature) -> list[tuple[str, object]]:
    return [(p.name, p.default) for p in signature.parameters.values()]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in OURS_ALONE])
def test_a_module_is_torch_s_with_another_forward(name):
    """A subclass of its twin that overrides `forward`, with its arguments, and nothing else."""
    module, twin = MODULES[name], getattr(torch.nn, name)
    assert module.__bases__ == (twin,)
    added = {k for k in vars(module) if not (k.startswith("__") and k.endswith("__"))}
    assert added <= {"forward"}
    assert list(inspect.signature(module.forward).parameters) == list(
        inspect.signature(twin.forward).parameters
    )


def test_importing_it_imports_torch_and_nothing_heavier():
    heavy = ["pytorch_lightning", "lightning", "torchvision", "torchmetrics", "matplotlib"]
    program = f"import sys, manualbp; print(sorted(set({heavy}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr
    assert not found.stderr


def test_the_version_is_stated_once():
    assert manualbp.__version__[0].isdigit()
