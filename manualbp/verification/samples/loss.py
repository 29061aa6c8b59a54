"""Arguments of the costs: outputs of a network, and classes, numbers or probabilities wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import SURROGATES, of

Arguments = tuple[Any, ...]


def _reduction(s: Source, *more: str) -> str:
    return s.choice("mean", "sum", "none", *more)


def _outputs(s: Source) -> tuple[int, ...]:
    """(n, K, …) or (K,): at least two classes."""
    if s.boolean():
        return (s.size(2),)
    return (s.batch(), s.size(2), *s.sizes(0, 2))


def _of_classes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of classes, for outputs of this one."""
    return (shape[0], *shape[2:]) if len(shape) > 1 else ()


def _positive(s: Source, *shape: int) -> Tensor:
    return s.tensor(*shape, low=0.2, high=2)


@of(f.SquaredError)
def _squared_error(s: Source) -> Arguments:
    shape = _outputs(s)
    classes = s.boolean()
    target = s.classes(shape[min(1, len(shape) - 1)], *_of_classes(shape)) if classes else None
    return s.tensor(*shape), s.tensor(*shape) if target is None else target, _reduction(s)


def _weighted(s: Source) -> Arguments:
    """Two that broadcast; or three of one shape, the last of them weights."""
    if s.boolean():
        shape = s.shape()
        return s.tensor(*shape), s.tensor(*shape), _positive(s, *shape)
    first, second = s.broadcastable(2)
    return s.tensor(*first), s.tensor(*second), None


@of(f.MSE)
def _mse(s: Source) -> Arguments:
    return *_weighted(s), _reduction(s)


@of(f.L1)
def _l1(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), s.maybe(lambda: _positive(s, *shape)), _reduction(s)


@of(f.SmoothL1)
def _smooth_l1(s: Source) -> Arguments:
    first, second = s.broadcastable(2)
    return s.tensor(*first), s.tensor(*second), _reduction(s), s.choice(1.0, 0.5)


@of(f.Huber)
def _huber(s: Source) -> Arguments:
    return *_weighted(s), _reduction(s), s.choice(1.0, 0.5)


@of(f.GaussianNLL)
def _gaussian_nll(s: Source) -> Arguments:
    shape = s.shape(1, 3)
    var = _positive(s, *shape[:-1], s.choice(shape[-1], 1))
    return s.tensor(*shape), var, s.boolean(), 1e-6, _reduction(s)


def _of_clamped_variance(error: Tensor, var: Tensor, *others: Any) -> Tensor:
    """The rule, as torch's, lets the gradient through where a variance is below ε."""
    # A little above ε, where the clamp of the value lets the gradient through too.
    clamped = (1 + 1e-12) * var.clamp(min=others[1]).detach() + (var - var.detach())
    return f.GaussianNLL.forward(error, clamped, *others)


SURROGATES[f.GaussianNLL] = _of_clamped_variance


@of(f.PoissonNLL, f.PoissonNLLFull)
def _poisson_nll(s: Source) -> Arguments:
    shape, logarithms = s.shape(), s.boolean()
    rate = s.tensor(*shape) if logarithms else _positive(s, *shape)
    return rate, s.tensor(*shape, low=0.2, high=4), logarithms, s.choice(1e-8, 0.1), _reduction(s)


@of(f.KLDiv)
def _kl_div(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), _positive(s, *shape), _reduction(s, "batchmean")


@of(f.LogKLDiv)
def _log_kl_div(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), s.tensor(*shape), _reduction(s, "batchmean")


def _ignoring(s: Source, target: Tensor, classes: int) -> tuple[Tensor, int]:
    """Classes, of which the first may be ignored, and the class that is."""
    ignored = s.choice(-100, classes - 1)
    if target.numel() < 2 or ignored >= 0:
        # Not all of them, because the mean over none has no derivative.
        return target if ignored < 0 else target % (classes - 1), ignored
    first = torch.arange(target.numel()).reshape(target.shape) < s.integer(0, 1)
    return torch.where(first, ignored, target), ignored


@of(f.CrossEntropy)
def _cross_entropy(s: Source) -> Arguments:
    shape = _outputs(s)
    classes, ignored = shape[min(1, len(shape) - 1)], -100
    if s.boolean():
        target = s.tensor(*shape).softmax(min(1, len(shape) - 1))
    else:
        target, ignored = _ignoring(s, s.classes(classes, *_of_classes(shape)), classes)
    weight = s.maybe(lambda: _positive(s, classes))
    return s.tensor(*shape), target, weight, ignored, _reduction(s), s.choice(0.0, 0.1)


@of(f.NLL)
def _nll(s: Source) -> Arguments:
    shape = _outputs(s)
    classes = shape[min(1, len(shape) - 1)]
    target, ignored = _ignoring(s, s.classes(classes, *_of_classes(shape)), classes)
    weight = s.maybe(lambda: _positive(s, classes))
    return s.tensor(*shape, low=-3, high=-0.1), target, weight, ignored, _reduction(s)


@of(f.BCE)
def _bce(s: Source) -> Arguments:
    shape = s.shape()
    output, target = (s.tensor(*shape, low=0.05, high=0.95) for _ in range(2))
    return output, target, s.maybe(lambda: _positive(s, *shape)), _reduction(s)


@of(f.BCEWithLogits)
def _bce_with_logits(s: Source) -> Arguments:
    shape = s.shape()

    def of_some_axes() -> Tensor:
        kept = shape[s.integer(0, len(shape)) :]
        return _positive(s, *(s.choice(n, n, 1) for n in kept))

    target = s.tensor(*shape, low=0.05, high=0.95)
    weight, pos_weight = s.maybe(of_some_axes), s.maybe(of_some_axes)
    return s.tensor(*shape, low=-4, high=4), target, weight, _reduction(s), pos_weight
