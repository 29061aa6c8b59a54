"""Every sample on which PyTorch tests its own functions and modules, run by ours beside torch's."""

import inspect
import re

import pytest
import torch
import torch_samples
from agreement import disagreement, doubled, imprecision, outcome, refused_alike

from manualbp import functional, nn

FUNCTIONS = {
    name: f
    for name, f in vars(functional).items()
    if inspect.isfunction(f) and not name.startswith("_")
}
MODULES = {name: m for name, m in vars(nn).items() if inspect.isclass(m)}
#: the document's own, which torch does not have
OURS_ALONE = {"squared_error", "SquaredError", "index"}
NAMES = [name for name in FUNCTIONS if name not in OURS_ALONE]

# Whether ours warns as torch does is the business of other tests; torch's samples often warn.
pytestmark = pytest.mark.filterwarnings("ignore")

#: function → what of a sample or of the difference names one that docs/differences.md explains
ON_PURPOSE = {
    "celu": r"\n +gradients",
    "celu_": r"\n +gradients",
    "hardsigmoid": r"\n +gradients",
    "norm": r"nuc",
    "linear_cross_entropy": r"options=Linear.*\n +(second|gradient: torch raises)",
}


def function_of_torch(name):
    """torch's function of a name."""
    spaces = (torch.nn.functional, torch, torch.linalg, torch.Tensor)
    return next(getattr(space, name) for space in spaces if hasattr(space, name))


def on_a_copy(function):
    """A function that writes in place, of a copy that is no leaf."""
    return lambda input, *args, **kwargs: function(input.clone(), *args, **kwargs)


def compared(name, call):
    """How ours and torch's differ on a sample; None where they agree."""
    functions = FUNCTIONS[name], call.function
    mine, its = map(on_a_copy, functions) if name.endswith("_") else functions
    if call.dtype in (torch.double, torch.cdouble) or not call.dtype.is_floating_point:
        return disagreement(*(outcome(f, *call.fresh()) for f in (mine, its)))
    how = {"order": 1, "rounded": call.dtype}
    ours, torchs = (outcome(f, *call.fresh(), **how) for f in (mine, its))
    return imprecision(ours, torchs, outcome(its, *doubled(call.fresh()), **how))


def check(name, calls):
    found = []
    for call in calls:
        if difference := compared(name, call):
            line = f"{call}\n    {difference}"
            if name not in ON_PURPOSE or not re.search(ON_PURPOSE[name], line):
                found.append(line)
    report(found)


def report(found):
    assert not found, f"{len(found)} samples differ:\n" + "\n".join(found[:5])


@pytest.mark.parametrize("name", NAMES)
def test_samples(name):
    """Value, gradient and second order in float64."""
    check(name, torch_samples.calls(function_of_torch(name), at_most=100))


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    """What torch refuses ours refuses, with an error of torch's type."""
    found = []
    for call in torch_samples.errors(function_of_torch(name)):
        if "out" in call.kwargs:
            continue  # nothing here writes into a given tensor
        ours, theirs = (outcome(f, *call.fresh()) for f in (FUNCTIONS[name], call.function))
        if theirs.error and (difference := refused_alike(ours, theirs)):
            found.append(f"{call}\n    {difference}")
    report(found)
