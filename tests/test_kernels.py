"""Kernels: each is equal to the mathematics that it is the twin of, and runs only where it may."""

import subprocess
import sys
from contextlib import suppress
from functools import cache

import pytest
import torch
from cases import CASES, Case
from torch.utils._pytree import tree_leaves

import manualbp
from manualbp import Formula, formulas, functional, kernels
from manualbp.core.derivation import KERNELS

#: a few roundings of the largest number, since sums are taken in another order
CLOSE = {torch.double: 1e-13, torch.float: 3e-6}


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def with_kernels():
    """Each kernel that runs, with the namespace of the code that calls it, and its name there."""
    for formula in subclasses(Formula):
        if formula.derivation:
            for function in (formula.derivation.gradients, formula.derivation.forward):
                names = getattr(function, "__globals__", {})
                for i, kernel in enumerate(formula.derivation.kernels):
                    if names.get(f"_kernel{i}") is kernel.function:
                        yield kernel, names, i


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """Kernels run, whether that is faster or not."""
    for _, names, i in with_kernels():
        monkeypatch.setitem(names, f"_profitable{i}", lambda *arguments: True)
    with kernels.enabled(True):
        yield


def results(case, values):
    """Value and gradients, for random upstream gradients."""
    values = [
        v.detach().requires_grad_(v.requires_grad) if torch.is_tensor(v) else v for v in values
    ]
    outputs = [t for t in tree_leaves(case.call(case.ours, *values)) if torch.is_tensor(t)]
    ends = [t for t in outputs if t.requires_grad]
    leaves = [v for v in values if torch.is_tensor(v) and v.requires_grad]
    torch.manual_seed(1)
    above = [torch.randn_like(t) for t in ends]
    return [
        *outputs,
        *(torch.autograd.grad(ends, leaves, above, allow_unused=True) if ends else ()),
    ]


EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0, 20.0, -20.0, 90.0, -90.0, 1e3, -1e3, 1e30, -1e30]
EXTREMES += [torch.inf, -torch.inf, torch.nan]


#: whether 0 · ∞ of a margin is in a sum depends on how the sum is taken, in torch's kernels too
FINITE = {"conv", "conv_transpose"}


def points(case, dtype, kernel):
    """The arguments of a case, its special values, and extremes in its first argument."""
    values = case.inputs(dtype=dtype)
    yield values
    extreme = torch.tensor(EXTREMES, dtype=dtype)
    if kernel.function.__name__ in FINITE:
        extreme = extreme[extreme.isfinite()]
    if torch.is_tensor(values[0]) and values[0].is_floating_point():
        count = values[0].numel()
        for start in range(0, len(extreme), max(count, 1)):
            places = (torch.arange(count) + start) % len(extreme)
            yield [extreme[places].view_as(values[0]).requires_grad_(), *values[1:]]
    for special in case.special:
        made = Case(str(case), case.ours, case.theirs, special, case.options)
        yield made.inputs(dtype=dtype)


@cache
def reached():
    """The cases that run each kernel."""
    found = {kernel: [] for kernel in KERNELS.values()}
    with pytest.MonkeyPatch.context() as patch:
        called = set()
        for kernel, names, i in with_kernels():

            def counted(*arguments, kernel=kernel):
                called.add(kernel)
                return kernel.function(*arguments)

            patch.setitem(names, f"_kernel{i}", counted)
        for case in CASES:
            called.clear()
            for dtype in CLOSE:
                with suppress(RuntimeError, TypeError, ValueError):  # a case of one dtype alone
                    results(case, case.inputs(dtype=dtype))
            for kernel in called:
                found[kernel].append(case)
    return found


@pytest.mark.parametrize(
    "kernel", dict.fromkeys(KERNELS.values()), ids=lambda k: k.function.__name__
)
def test_a_kernel_is_its_rule(kernel):
    assert reached()[kernel], "no case runs it: add a row to tests/cases/"
    for case in reached()[kernel]:
        for dtype in CLOSE:
            for values in points(case, dtype, kernel):
                with kernels.enabled(False):
                    try:
                        stated = results(case, values)
                    except (RuntimeError, TypeError, ValueError):
                        continue
                for a, b in zip(results(case, values), stated, strict=True):
                    alike(a, b, case)


def alike(a, b, case):
    if a is None or not a.is_floating_point():
        assert a is b or torch.equal(a, b), case
        return
    assert a.shape == b.shape and a.dtype == b.dtype, case
    a, b = a.detach(), b.detach()
    finite = b[b.isfinite()]
    size = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    if "fewer digits" in case.without.get("strides", ""):  # sums of terms that cancel
        size *= 100
    torch.testing.assert_close(
        a, b, rtol=0, atol=CLOSE[a.dtype] * size, equal_nan=True, msg=lambda m: f"{case}: {m}"
    )


def test_many_channels_of_few_numbers():
    """More than the rows of the tests have."""
    x = torch.randn(2, 1000, 3, dtype=torch.double, requires_grad=True)
    weight, bias = (torch.randn(1000, dtype=torch.double, requires_grad=True) for _ in range(2))
    for given in (x, None, None, None, None, True), (x, None, None, weight, bias, True):
        case = Case("batch_norm", functional.batch_norm, torch.batch_norm, given)
        with kernels.enabled(False):
            stated = results(case, given)
        for a, b in zip(results(case, given), stated, strict=True):
            alike(a, b, case)


class Forgotten(formulas.ReLU):
    """a = max(z, 0)

    ∂C/∂z = 3 g
    """

    @staticmethod
    @manualbp.rule
    def grad_input(g):
        return 3 * g


@pytest.mark.parametrize(
    "module, shape",
    [(manualbp.nn.BatchNorm2d(3), (2, 3, 1, 2)), (manualbp.nn.MaxPool3d(2, 1), (2, 2, 4, 4, 5))],
    ids=["batch_norm", "max_pool3d"],
)
def test_input_and_gradient_may_be_laid_out_differently(module, shape):
    """torch's kernel of the one mistakes the gradient's strides, of the other the indices'."""
    x = torch.randn(shape, dtype=torch.double)
    module.double()
    g = torch.randn_like(module(x))
    found = []
    for enabled in (True, False):
        for of_x in (_contiguous, _channels_last, _columns_first):
            for of_g in (_contiguous, _channels_last, _columns_first):
                leaf = of_x(x).requires_grad_()
                with kernels.enabled(enabled):
                    found += torch.autograd.grad(module(leaf), leaf, of_g(g))
    for gradient in found:
        torch.testing.assert_close(gradient, found[-1], rtol=1e-12, atol=1e-12)


def _contiguous(t):
    return t.clone(memory_format=torch.contiguous_format)


def _channels_last(t):
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def _columns_first(t):
    """Channels last, but the pixels by columns."""
    return t.transpose(1, 3).contiguous().transpose(1, 3)


@pytest.mark.parametrize("reduction, expected", [("mean", torch.nan), ("sum", 0.0)])
def test_a_margin_of_no_examples_is_a_sum_of_none(reduction, expected):
    """torch's kernels leave the value as the memory was."""
    scores, rows = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)
    found = [
        manualbp.functional.multi_margin_loss(scores, rows[:, 0], reduction=reduction),
        manualbp.functional.multilabel_margin_loss(scores, rows, reduction=reduction),
    ]
    torch.testing.assert_close(found, [torch.tensor(expected)] * 2, equal_nan=True)


def test_the_cost_of_pixels_takes_any_strides():
    """torch's nll_loss raises for these, and so would its kernel."""
    log_probs = torch.randn(4, 4, 2, 3).permute(3, 2, 0, 1).requires_grad_()
    classes = torch.arange(48).reshape(3, 4, 4) % 2
    manualbp.functional.nll_loss(log_probs, classes).backward()
    found = log_probs.grad
    contiguous = log_probs.detach().contiguous().requires_grad_()
    manualbp.functional.nll_loss(contiguous, classes).backward()
    torch.testing.assert_close(found, contiguous.grad, rtol=0, atol=0)


def test_a_rule_stated_anew_is_what_runs():
    x = torch.randn(5, requires_grad=True)
    Forgotten.apply(x).sum().backward()
    assert x.grad.eq(3).all()
    assert not Forgotten.derivation.kernels


class Double(Formula):
    """y = 2 x + b

    ∂C/∂x = 2 g
    ∂C/∂b = g
    """

    @staticmethod
    def forward(input, bias):
        return 2 * input + bias

    @staticmethod
    def grad_input(g):
        return 2 * g

    @staticmethod
    def grad_bias(g):
        return g


def test_one_kernel_for_several_rules_and_only_where_it_may():
    asked = []

    @kernels.of(Double.grad_input, Double.grad_bias, profitable=lambda needs, g: g.numel() > 1)
    def double(needs, g):
        asked.append(needs)
        return 20 * g, 10 * g

    def gradients(*values, **options):
        return torch.autograd.grad(Double.apply(*values).sum(), values, **options)

    x, b = (torch.randn(3, requires_grad=True) for _ in range(2))
    assert [g[0].item() for g in gradients(x, b)] == [20, 10]
    assert asked == [(True, True)]
    (g,) = torch.autograd.grad(Double.apply(x, b.detach()).sum(), x)
    assert g[0] == 20 and asked[1:] == [(True, False)]
    with kernels.enabled(False):
        assert gradients(x, b)[0][0] == 2
    assert gradients(x, b, create_graph=True)[0][0] == 2, "what is differentiated again"
    assert torch.func.grad(lambda x: Double.apply(x, b).sum())(x)[0] == 2, "a transform"
    assert gradients(*(torch.randn(1, requires_grad=True) for _ in range(2)))[0] == 2, "small"
    with manualbp.Tape() as tape:
        cost = manualbp.functional.sum(Double.apply(x, b))
    tape.backprop(cost)
    assert x.grad[0] == 20, "a tape"


def test_a_kernel_of_nothing_is_refused():
    with pytest.raises(TypeError, match="no formula has all the methods that <lambda> is to"):
        kernels.of(torch.relu)(lambda g: g)
    with pytest.raises(TypeError, match="asks for 'weight'"):
        kernels.of(formulas.Softsign.grad_input)(lambda g, weight: g)
    assert not {torch.relu, formulas.Softsign.grad_input} & {*KERNELS}
    x = torch.randn(3, requires_grad=True)
    assert formulas.Softsign.apply(x).sum().backward() is None


@pytest.mark.slow
def test_the_environment_switches_kernels_off():
    code = "from manualbp.core import modes as p; assert not p.kernels_enabled"
    subprocess.run([sys.executable, "-c", code], check=True, env={"MANUALBP_KERNELS": "0"})
