"""Every option of every layer that torch takes, converted: right, or left with the reason."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from cases import MODULES
from properties import SHARP, random_like
from torch import nn
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

import manualbp

#: what is tried for an option of this name; for another, what its default suggests
VALUES: dict[str, list[Any]] = {
    "mode": "nearest linear bilinear bicubic trilinear area nearest-exact sum mean max".split(),
    "padding_mode": ["zeros", "reflect", "replicate", "circular"],
    "padding": [0, 1, "same", "valid"],
    "reduction": ["mean", "sum", "none", "batchmean"],
    "nonlinearity": ["tanh", "relu"],
    "approximate": ["none", "tanh"],
    "activation": ["relu", "gelu", torch.nn.functional.silu, torch.tanh],
    "max_norm": [1.0],
    "padding_idx": [0, -1],
    "norm_type": [1.0],
    "p": [1, 2, 3, 1.0, 3.0, 0.25, float("inf")],
    "momentum": [None, 0.3],
    "dim": [0, 1, -1],
    "dropout": [0.5],
    "scale_factor": [2.0, 0.5, (1.5,)],
    "distance_function": [lambda a, b: (a - b).abs().sum(-1), nn.CosineSimilarity()],
    "norm": [nn.LayerNorm(4)],
    "weight": [torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in range(1, 7)],
    "blank": [],  # a target that has it is of no use
}
VALUES["pos_weight"] = VALUES["weight"]
#: old names of others, places of weights, dtypes, other processes
NOT_OPTIONS = {"device", "dtype", "size_average", "reduce", "_weight", "_random_samples"}
NOT_OPTIONS |= {"process_group", "custom_encoder", "custom_decoder", "args", "kwargs"}
#: torch's constructors of these take what comes
RECURRENT = {"num_layers": [2], "bias": [False], "batch_first": [True], "dropout": [0.5]}
RECURRENT |= {"bidirectional": [True]}
OPEN: dict[str, dict[str, list[Any]]] = {
    "RNN": RECURRENT | {"nonlinearity": ["relu"]},
    "GRU": RECURRENT,
    "LSTM": RECURRENT | {"proj_size": [1, 2]},
}

#: torch rounds a constant of theirs to single precision
ROUNDED = {"CELU", "Hardsigmoid"}

LAYERS = [row for row in MODULES if hasattr(nn, row.name)]


def suggested(default: Any) -> list[Any]:
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, (int, float)):
        return [default + 1, default * 2 + 0.1]
    return [1, 2, 0.5, True] if default is None else []


def variants(row: Any) -> list[dict[str, Any]]:
    """The row's own arguments, each option in turn at another value."""
    parameters = inspect.signature(getattr(nn, row.name)).parameters
    given: dict[str, Any] = dict(zip(parameters, row.arguments, strict=False)) | row.options
    options = {
        name: VALUES.get(name, suggested(parameter.default))
        for name, parameter in parameters.items()
        if name not in NOT_OPTIONS and parameter.default is not parameter.empty
    }
    if row.name in OPEN:
        options, given = OPEN[row.name], dict(row.options)
    return [given | {name: value} for name, values in options.items() for value in values]


def run(module: nn.Module, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Values and gradients; of copies of the inputs, which may be written over."""
    given = [t.clone() if isinstance(t, torch.Tensor) else t for t in inputs]
    torch.manual_seed(0)
    outputs = [t for t in tree_leaves(module(*given)) if isinstance(t, torch.Tensor)]
    ends = [t for t in outputs if t.requires_grad]
    starts = [t for t in (*tree_leaves(inputs), *module.parameters())]
    starts = [t for t in starts if isinstance(t, torch.Tensor) and t.requires_grad]
    if not ends or not starts:
        return outputs, []
    above = [random_like(t) for t in ends]
    return outputs, list(torch.autograd.grad(ends, starts, above, allow_unused=True))


def kinds(model: nn.Module) -> list[type]:
    return [type(m) for m in model.modules()]


@pytest.mark.filterwarnings("ignore")  # torch's own, of options that do not go together
@pytest.mark.parametrize(
    "training, keep_types", [(True, False), (False, True)], ids=["training", "evaluation"]
)
@pytest.mark.parametrize("row", LAYERS, ids=str)
def test_an_option_that_torch_takes_is_right_or_left(row, training, keep_types):
    """With new classes in training, with types that are kept in evaluation."""
    close = {"rtol": 1e-6, "atol": 1e-7} if row.name in ROUNDED else SHARP
    for options in variants(row):
        arguments = row.arguments if row.name in OPEN else ()

        def made(options=options, arguments=arguments):
            torch.manual_seed(0)
            kind = getattr(nn, row.name)
            return kind(*arguments, **options).double().train(training)

        try:
            wanted = run(made(), row.make())
        except Exception:
            continue  # torch does not take it, or not with these inputs
        layer = made()
        report = manualbp.convert(layer, keep_types=keep_types)
        assert bool(report.left) == bool(options.get("sparse")), (options, report)
        assert not keep_types or kinds(layer) == kinds(made())
        try:
            found = run(layer, row.make())
        except Exception as error:
            raise AssertionError(f"{row.name}: {options}, which torch takes") from error
        for ours, theirs in zip((*found[0], *found[1]), (*wanted[0], *wanted[1]), strict=True):
            assert_close(
                ours, theirs, **close, msg=lambda m, o=options: f"{o}: {m}", equal_nan=True
            )
