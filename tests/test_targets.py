"""Every cost × every dtype of input and target: what torch takes, with its value and gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from manualbp import functional

DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
          torch.half, torch.bfloat16, torch.float, torch.double)  # fmt: skip
LOWER = {torch.half, torch.bfloat16}

X = [[0.3, -0.7, 1.2], [-1.1, 0.4, 0.2], [0.6, 0.9, -0.5], [0.1, -0.2, 0.8]]
P = [[0.3, 0.7, 0.2], [0.1, 0.4, 0.9], [0.6, 0.9, 0.5], [0.1, 0.2, 0.8]]
BITS = [[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]]
SIGNS = [[-1, 1, 1], [1, -1, 1], [-1, -1, 1], [1, 1, -1]]
CLASSES = [0, 2, 1, 2]


def _with(*before: Callable[[Tensor], Any], **options: Any) -> Callable[..., Tensor]:
    """A call with more arguments, made of the input, before or after the target."""
    return lambda f, x, y, **o: f(x, *(b(x) for b in before), y, **options, **o)


COSTS = [
    ("mse_loss", X, BITS, _with()),
    ("l1_loss", X, BITS, _with()),
    ("smooth_l1_loss", X, BITS, _with()),
    ("smooth_l1_loss", X, BITS, _with(beta=0.0)),
    ("huber_loss", X, BITS, _with()),
    ("gaussian_nll_loss", X, BITS, lambda f, x, y, **o: f(x, y, torch.ones_like(x), **o)),
    ("poisson_nll_loss", X, BITS, _with()),
    ("poisson_nll_loss", P, BITS, _with(log_input=False)),
    ("poisson_nll_loss", X, [[0, 3, 5], *BITS[1:]], _with(full=True)),
    ("kl_div", X, BITS, _with()),
    ("kl_div", X, BITS, _with(log_target=True)),
    ("binary_cross_entropy", P, BITS, _with()),
    ("binary_cross_entropy_with_logits", X, BITS, _with()),
    ("multilabel_soft_margin_loss", X, BITS, _with()),
    ("soft_margin_loss", X, SIGNS, _with()),
    ("hinge_embedding_loss", X, SIGNS, _with()),
    ("margin_ranking_loss", X, SIGNS, _with(lambda x: x.detach().flip(0))),
    ("cosine_embedding_loss", X, [1, -1, -1, 1], _with(lambda x: x.detach().flip(0))),
    ("cross_entropy", X, CLASSES, _with()),
    ("cross_entropy", X, CLASSES, _with(label_smoothing=0.1)),
    ("cross_entropy", X, BITS, _with()),
    ("nll_loss", X, CLASSES, _with()),
    ("nll_loss", [X], [[0, 2, 1]], _with()),
    ("multi_margin_loss", X, CLASSES, _with()),
    ("multilabel_margin_loss", X, [[0, 2, -1]] * 4, _with()),
]  # fmt: skip

#: where torch has no kernel for the input, whatever the target, and a formula needs none
NO_KERNEL = ("multi_margin_loss", "multilabel_margin_loss")


def outcome(f: Callable[..., Tensor], values: Any, target: Any, call: Any, dtypes: Any) -> Any:
    """Value and gradient, or the kind of error and whether the backward pass raised it."""
    x = torch.tensor(values, dtype=dtypes[0], requires_grad=True)
    y = torch.tensor(target).to(dtypes[1])
    results = []
    for reduction in ("mean", "none"):
        try:
            cost = call(f, x, y, reduction=reduction)
        except (RuntimeError, ValueError, IndexError) as error:
            return type(error), False
        g = torch.linspace(0.3, 1.7, cost.numel(), dtype=cost.dtype).reshape(cost.shape)
        try:
            results += [cost, *torch.autograd.grad(cost, x, g)]
        except RuntimeError as error:
            return type(error), True
    return results


@pytest.mark.parametrize(
    ("name", "values", "target", "call"), COSTS, ids=[f"{i}-{c[0]}" for i, c in enumerate(COSTS)]
)
@pytest.mark.parametrize("dtype", DTYPES[-4:], ids=str)
def test_as_torch_takes_it(name, values, target, call, dtype):
    for other in DTYPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours, theirs = (
                outcome(getattr(f, name), values, target, call, (dtype, other))
                for f in (functional, torch.nn.functional)
            )
        said = f"{name} of {dtype} with a target of {other}"
        if isinstance(theirs, list):
            if (name, other) == ("soft_margin_loss", torch.uint8):
                continue  # there torch's gradient is of other numbers: see docs/differences.md
            assert isinstance(ours, list), f"{said}: {ours}"
            coarse = {"rtol": 3e-2, "atol": 3e-2} if LOWER & {dtype, other} else {}
            torch.testing.assert_close(
                ours, theirs, msg=lambda m, said=said: f"{said}: {m}", **coarse
            )
        elif theirs[1] or (name in NO_KERNEL and dtype in LOWER):
            # Ours supports calls for which torch's backward pass fails or has no kernel.
            assert isinstance(ours, list) or issubclass(ours[0], RuntimeError), said
        else:
            assert ours == theirs, said


@pytest.mark.parametrize("name", ["weight", "pos_weight", "classes", "classes, nll"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_weight_that_wants_a_gradient(name, grad):
    """As torch has it: the gradient, or torch's error."""
    z, weight = torch.tensor(X).requires_grad_(grad), torch.tensor([0.5, 2.0, 1.5])
    p, y, k = torch.tensor(P), torch.tensor(BITS).float(), torch.tensor(CLASSES)
    calls: dict[str, Callable[..., Tensor]] = {
        "weight": lambda f, w: f.cross_entropy(z, p, w, label_smoothing=0.1),
        "pos_weight": lambda f, w: f.binary_cross_entropy_with_logits(z, y, p * w, pos_weight=w),
        "classes": lambda f, w: f.cross_entropy(z, k, w),
        "classes, nll": lambda f, w: f.nll_loss(z, k, w),
    }
    found = []
    for f in (torch.nn.functional, functional):
        w = weight.clone().requires_grad_()
        try:
            found.append(torch.autograd.grad(calls[name](f, w), [z, w] if grad else [w]))
        except RuntimeError as error:
            found.append((type(error), str(error)))
    theirs, ours = found
    if isinstance(theirs[0], Tensor):
        torch.testing.assert_close(ours, theirs)
    else:
        assert ours == theirs
