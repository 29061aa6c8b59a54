"""Each pair of the table of `intercept()`: torch's function and ours, on torch's own samples."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import CASES
from torch import Tensor
from torch.utils._pytree import tree_map
from torch_samples import calls, entries, fresh
from twins import Outcome, called, difference, foreign, name_of

from manualbp.functional._override import twins

PAIRS = {name_of(function): (function, ours) for function, ours in twins().items()}


def real(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()


def cell(gates: int) -> tuple[Tensor, ...]:
    return real(2, 3), real(2, 4), real(4 * gates, 3), real(4 * gates, 4), real(4 * gates)


x = real(4, 3)
#: arguments of functions that are neither in torch's tables nor in our rows
MORE: dict[str, list[tuple[Any, ...]]] = {
    "F.rrelu_": [(x,), (x, 0.2, 0.6, True)],
    "Tensor.where": [(x, x > 0, real(3)), (x, x > 0, 0.5)],
    **{
        f"torch.{name}": [(x, 0.5, True), (x, 0.5, False), (x, 0.0, True)]
        for dropout in ("dropout", "alpha_dropout", "feature_alpha_dropout")
        for name in (dropout, f"{dropout}_")
    },
    **{
        f"{space}.max_pool1d_with_indices": [(real(1, 2, 6), 2), (real(2, 7), 3, 2, 1, 1, True)]
        for space in ("F", "torch")
    },
    "F.max_pool2d_with_indices": [(real(1, 2, 4, 4), 2), (real(1, 5, 6), (3, 2), 1, 1)],
    "F.max_pool3d_with_indices": [(real(1, 2, 4, 3, 4), 2), (real(1, 5, 6, 4), 3, 2, 1)],
    "torch.adaptive_max_pool1d": [(real(2, 2, 6), 3), (real(2, 7), (2,))],
    "F.adaptive_max_pool1d_with_indices": [(real(2, 2, 6), 3), (real(2, 7), 2)],
    "F.adaptive_max_pool2d_with_indices": [(real(2, 4, 5), 2), (real(1, 2, 5, 4), (2, None))],
    "F.adaptive_max_pool3d_with_indices": [(real(1, 2, 3, 4, 3), 2)],
    "F.fractional_max_pool2d_with_indices": [(real(2, 3, 5, 6), 2, (2, 4)),
                                             (real(3, 5, 6), 2, None, (0.5, 0.5))],
    "F.fractional_max_pool3d_with_indices": [(real(1, 2, 4, 5, 4), 2, 2)],
    "torch.lstm_cell": [(real(2, 3), (real(2, 4), real(2, 4)), *cell(4)[2:], real(16))],
    "torch.gru_cell": [(*cell(3), real(12)), cell(3)[:4]],
    "torch.rnn_tanh_cell": [(*cell(1), real(4))],
    "torch.rnn_relu_cell": [(*cell(1), real(4)), cell(1)[:4]],
    "F.native_channel_shuffle": [(torch.randn(2, 6, 2, 2), 3)],
}  # fmt: skip


#: where torch's own function runs on some of the samples → why
BY_TORCH = {
    "torch.norm": "the nuclear norm is a sum of singular values, which have no formula",
    "Tensor.addbmm_": "torch makes a result larger than its input in place",
}
#: where the numbers lie otherwise in memory → why
LAID_OUT = {"F.max_unpool2d": "torch's is channels last where its input is"}
#: to how much the gradients agree, where torch rounds to single precision (docs/differences.md)
ROUNDED = {"F.hardsigmoid": 1e-7, "F.celu": 1e-7, "torch.celu": 1e-7, "F.celu_": 1e-7}
#: not differentiable in torch
FORMULA_ALONE = {"F.native_channel_shuffle"}


def samples(name: str) -> Iterator[tuple[str, Any, Any]]:
    """torch's samples of a function; then the rows of the function of ours that it is paired with.

    Some 60 of the former at most, evenly.
    """
    function, ours = PAIRS[name]
    stated = [(str(c), c.args, c.kwargs) for c in calls(function)]
    yield from stated[:: len(stated) // 60 + 1]
    ours = getattr(ours, "__wrapped__", ours)
    for case in CASES:
        if getattr(case.ours, "__wrapped__", case.ours) is ours:
            values = case.inputs()
            count = len(case.arguments)
            named = dict(zip(case.options, values[count:], strict=True))
            yield f"the row {case.name}", tuple(values[:count]), named
    for i, args in enumerate(MORE.get(name, ())):
        yield f"MORE #{i}", args, {}


def both(name: str, args: Any, kwargs: Any) -> tuple[Outcome, Outcome]:
    function, leaf = PAIRS[name][0], not name.endswith("_") or name.endswith("__")
    return called(function, args, kwargs, False, leaf), called(function, args, kwargs, True, leaf)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_of_one_meaning(name):
    """Values, types, strides, what is written to and what is a view of what, and gradients."""
    by_formula = 0
    for sample, args, kwargs in samples(name):
        theirs, ours = both(name, args, kwargs)
        differs = difference(
            theirs, ours, rtol=ROUNDED.get(name, 1e-9), strides=name not in LAID_OUT
        )
        assert not differs, f"{sample}: {differs}"
        others = foreign(ours)
        assert not others or name in BY_TORCH, f"{sample}: {others}"
        by_formula += bool(ours.differentiable()) and not others
    assert by_formula or name in FORMULA_ALONE


def wanting(value: Any) -> Any:
    """Tensors for an error, with a wish for gradients where they can have one."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.is_leaf:
        return value.detach().requires_grad_()
    return value


@pytest.mark.parametrize("name", PAIRS)
def test_what_torch_refuses_is_refused_in_its_words(name):
    """Where one cannot be told from the other it is by torch's function that it is refused."""
    function = PAIRS[name][0]
    for info in (e for e in entries(function) if e.error_inputs_func):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors = list(info.error_inputs("cpu"))
        for error in errors:
            sample = error.sample_input
            values = fresh(((sample.input, *sample.args), sample.kwargs))
            args, kwargs = tree_map(wanting, values)
            theirs, ours = both(name, args, kwargs)
            assert not (differs := difference(theirs, ours)), f"{args} {kwargs}: {differs}"
            assert str(theirs.error) == str(ours.error)
