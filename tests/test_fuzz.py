"""The strategies for hypothesis, and the command that fuzzes the formulas with them."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import manualbp
from manualbp import formulas
from manualbp.__main__ import main
from manualbp.verification import fuzz, samples
from manualbp.verification.reproduction import written
from manualbp.verification.strategies import (
    arguments,
    broadcastable,
    classes,
    shapes,
    simplest,
    tensors,
    upstream,
)

same = settings(derandomize=True, database=None, deadline=None)


def drawn(strategy: st.SearchStrategy, count: int = 200) -> list[Any]:
    """So many of what a strategy gives."""
    found = []

    @settings(same, max_examples=count)
    @given(strategy)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return found


def layout(t: Tensor) -> str:
    if t.is_contiguous():
        return "contiguous"
    if 0 in t.stride():
        return "expanded"
    return "dense" if t.untyped_storage().nbytes() == t.nbytes else "gaps"


# ------------------------------------------------------------------------------ strategies


def test_shapes_have_so_many_axes() -> None:
    found = drawn(shapes(1, 3))
    assert {len(shape) for shape in found} == {1, 2, 3}
    assert {n for shape in found for n in shape} == {1, 2, 3, 4}
    assert (0,) in drawn(shapes(1, 1, empty=True))


def test_shapes_broadcast() -> None:
    found = drawn(broadcastable(3))
    for shapes_of_one in found:
        torch.broadcast_shapes(*shapes_of_one)
    assert any(len({len(s) for s in three}) > 1 for three in found)
    assert any(a != b and len(a) == len(b) for a, b, _ in found)


def test_tensors_have_the_bounds_dtypes_and_strides_asked_for() -> None:
    dtypes = st.sampled_from([torch.float32, torch.float64])
    found = drawn(tensors((2, 3, 4), dtypes, low=0.5, high=1.5, requires_grad=True))
    assert {t.dtype for t in found} == {torch.float32, torch.float64}
    assert all(t.is_leaf and t.requires_grad for t in found)
    assert all(t.min() >= 0.5 and t.max() <= 1.5 and t.unique().numel() == 24 for t in found)
    assert {layout(t) for t in found} == {"contiguous", "dense", "gaps"}
    assert any(t.movedim(1, -1).is_contiguous() for t in found)  # channels last
    plain = drawn(tensors((2, 3), strided=False), 50)
    assert {layout(t) for t in plain} == {"contiguous"}
    assert len({t.dim() for t in drawn(tensors(), 50)}) == 4


def test_classes_are_below_their_number() -> None:
    found = drawn(classes(st.integers(2, 4), shapes(1, 1)))
    assert {t.dtype for t in found} == {torch.int64}
    assert {n for t in found for n in t.tolist()} == {0, 1, 2, 3}


def test_gradients_arrive_in_every_layout() -> None:
    output = torch.zeros(2, 3, 4, dtype=torch.float32)
    found = drawn(upstream(output))
    assert all((g.shape, g.dtype) == (output.shape, output.dtype) for g in found)
    assert all(g.abs().min() > 0 for g in found)
    assert {layout(g) for g in found} == {"contiguous", "expanded", "dense", "gaps"}


def test_gradients_of_several_outputs_may_be_missing() -> None:
    outputs = (torch.zeros(2), torch.zeros(2, dtype=torch.int64), torch.zeros(3))
    for g in drawn(upstream(outputs), 30):
        assert [None if t is None else tuple(t.shape) for t in g] == [(2,), None, (3,)]
    found = {tuple(t is None for t in g) for g in drawn(upstream(outputs, partial=True))}
    assert found == {(False, True, False), (True, True, False), (False, True, True)}


@pytest.mark.slow
def test_what_fails_is_shrunk() -> None:
    wide = simplest(tensors(shapes(0, 3)), lambda t: t.dim() > 0 and t.shape[-1] > 2)
    assert wide is not None and wide.shape == (3,) and wide.is_contiguous()
    apart = simplest(tensors(shapes(2, 3)), lambda t: not t.is_contiguous())
    assert apart is not None and apart.numel() <= 4
    assert simplest(tensors(), lambda t: t.dim() > 3) is None
    passed = simplest(arguments("Linear"), lambda a: a[2] is not None and a[0].numel() > 1)
    assert passed is not None
    assert [t.numel() for t in passed] in ([2, 1, 1], [2, 2, 1])
    assert all(t.is_contiguous() for t in passed)


@pytest.mark.parametrize("name", samples.formulas())
def test_rules_take_gradients_in_every_layout(name: str) -> None:
    """A few drawn calls of every formula give the same gradients as for a contiguous one."""
    formula = samples.formulas()[name]

    @settings(same, max_examples=2)
    @given(arguments(formula), st.data())
    def check(passed: tuple[Any, ...], data: st.DataObject) -> None:
        leaves = [passed[i].requires_grad_() for i in samples.differentiable(formula, passed)]
        torch.manual_seed(0)
        found = formula.apply(*passed)
        outputs = [t for t in (found if isinstance(found, tuple) else (found,)) if t.requires_grad]
        if not outputs:
            return
        gs = data.draw(upstream(tuple(outputs)))
        pulled = torch.autograd.grad(outputs, leaves, gs, retain_graph=True)
        plain = torch.autograd.grad(outputs, leaves, [g.contiguous() for g in gs])
        torch.testing.assert_close(pulled, plain, rtol=1e-9, atol=1e-12)

    check()


# --------------------------------------------------------------------------------- the command


class WrongForRows(formulas.Linear):
    """z = a Wᵀ + b

    ∂C/∂W = twice what it is, where there are more than two examples
    """

    @staticmethod
    def grad_weight(delta: Tensor, input: Tensor) -> Tensor:
        gradient = formulas.Linear.grad_weight(delta, input)
        return gradient * (1 + (input.numel() // input.shape[-1] > 2))


@pytest.mark.slow
def test_a_fault_is_found_shrunk_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    summary = fuzz.fuzz([WrongForRows], 60.0, calls=8)
    (fault,) = summary.faults
    assert fault.kind == "wrong"
    assert "weight" in fault.verdict
    input, weight, _ = fault.arguments
    assert (input.numel(), weight.numel()) == (3, 1)
    exec(fault.program, {})
    assert capsys.readouterr().out.startswith(fault.verdict)


@pytest.mark.slow
def test_right_formulas_have_none_and_the_seed_says_which_calls() -> None:
    seen: list[list[str]] = []
    for seed in (1, 1, 2):
        calls: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fuzz, "fault_of", lambda _, passed, to=calls: to.append(written(passed)))
            fuzz.fuzz([formulas.Linear, formulas.Tanh], seed=seed, rounds=1)
        seen.append(calls)
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) >= 2 * fuzz.CALLS
    for name in ("Linear", "Softmax"):
        passed = samples.draw(name, samples.Seeded(1))
        assert fuzz.fault_of(samples.formulas()[name], passed) is None


def test_the_command_ends_with_a_status(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def broken(formula: Any, passed: Any) -> fuzz.Fault:
        return fuzz.Fault(formula, passed, "wrong", "it is wrong")

    monkeypatch.setattr(fuzz, "fault_of", lambda formula, passed: None)
    assert main(["fuzz", "Linear", "--minutes", "0.001", "--seed", "3"]) == 0
    assert capsys.readouterr().out.endswith(" calls of 1 formula: nothing found (seed 3)\n")
    monkeypatch.setattr(fuzz, "fault_of", broken)
    monkeypatch.setattr(fuzz, "PATIENCE", 0.5)
    assert main(["fuzz", "Linear", "--minutes", "0.001"]) == 1
    shown = capsys.readouterr().out
    assert "# it is wrong\nimport torch\n" in shown
    assert shown.endswith(" calls of 1 formula: 1 with a fault (seed 0)\n")
    for line, told in (("Liner", "Liner; near to it: Linear"), ("--minutes 0", "above 0, got 0")):
        assert main(["fuzz", *line.split()]) == 2
        assert told in capsys.readouterr().err


def test_it_can_be_interrupted(monkeypatch) -> None:
    def interrupt(formula: Any, passed: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fuzz, "fault_of", interrupt)
    assert fuzz.fuzz([formulas.Linear]).calls == 1


@pytest.mark.slow
def test_without_hypothesis_it_says_what_to_install() -> None:
    """And it alone asks for it: not the samples, nor the module of the command."""
    program = (
        "import sys; from manualbp.__main__ import main; import manualbp.commands._fuzz\n"
        "assert 'hypothesis' not in sys.modules\n"
        "sys.modules['hypothesis'] = None\n"
        "sys.exit(main(['fuzz', 'Linear', '--minutes', '1']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.strip().endswith("pip install manualbp[test]")


# ------------------------------------------------------------------------------- reproductions

VALUES = [
    (1, None, "mean", 0.1, -math.inf, True),
    [(), (1,), {"k": [2.0]}],
    torch.arange(6).reshape(2, 3),
    torch.arange(6.0).reshape(2, 3).T,
    torch.randn(2, 3, dtype=torch.double).requires_grad_(),
    torch.tensor([[1.0, math.nan], [math.inf, 2.0]], dtype=torch.bfloat16)[:, :1],
    torch.randn(2, 1, dtype=torch.double).expand(4, 2, 3),
    torch.zeros(0, 3),
    torch.tensor(True),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_what_is_written_is_the_value(value: Any) -> None:
    read = eval(written(value), {"torch": torch})
    if not isinstance(value, Tensor):
        assert read == value
        return
    torch.testing.assert_close(read, value, rtol=0, atol=0, equal_nan=True)
    assert (read.dtype, read.shape, read.stride()) == (value.dtype, value.shape, value.stride())
    assert read.requires_grad == value.requires_grad


def test_a_call_of_any_number_of_tensors_is_written() -> None:
    fault = fuzz.Fault(formulas.Stack, samples.draw("Stack", samples.Seeded(0)), "wrong", "it is")
    assert str(fault).startswith("# it is\nimport torch\nimport manualbp\n")
    names: dict[str, Any] = {}
    exec(fault.program.rpartition("\n")[0], names)
    assert names["formula"] is manualbp.formulas.Stack and "tensors_0" in names
