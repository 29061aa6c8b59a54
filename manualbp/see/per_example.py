"""One gradient for each example of a batch, its norm, and sums of clipped ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manualbp.see.batches import Cost, Pass
from manualbp.see.planning import plan_of
from manualbp.see.rules import ALL, Values
from manualbp.see.walking import Totals, metadata, name_of_leaf, total_gradients, walk
from manualbp.see.ways import Plan, Way, parts

__all__ = ["clipped_grads", "per_example_grads", "per_example_norms"]


def per_example_grads(model: nn.Module, x: Any, y: Any, *, cost: Cost) -> dict[str, Tensor]:
    """The gradient of each example's own cost, for all of them in one backward pass.

    What the loop gives, ``cost(model(x[i:i+1]), y[i:i+1])`` for each i: a cost that is a mean over
    the batch is not divided by its length here. Random numbers are drawn once for the batch.

    Args:
        model: any module that :func:`manualbp.intercept` covers. Nothing of it is changed.
        x: its input, or a tuple of its inputs; examples along axis 0.
        y: what the cost compares the output with; examples along axis 0.
        cost: a function of the output and y that gives a number.

    Returns:
        for each parameter that requires a gradient and that the cost depends on, by its name,
        a tensor (n, \\*shape). A parameter with several names has the first.

    Raises:
        TypeError: ``model`` is no module, ``cost`` cannot be called, or x holds no tensor.
        ValueError: x and y differ in length, the cost is no single number, BatchNorm is in training
            mode, or something else mixes examples.
        TapeError: the model computes what manualbp has no formula of; lists it.
    """
    found = Pass(model, x, y, cost)
    plan, seeds = plan_of(found)
    totals = Totals(found, plan)

    def meet(way: Way, values: Values) -> None:
        totals.add(way.source, _gradients(found, way, values))

    with torch.no_grad():
        walk(found, plan, seeds, meet, keep=False)
        return _in_order(found, totals.by_name())


def per_example_norms(model: nn.Module, x: Any, y: Any, *, cost: Cost) -> dict[str, Tensor]:
    """The norms of :func:`per_example_grads`, without the gradients: (n,) for each parameter.

    ‖δ‖ ‖a‖ for a weighted sum, and by products of positions for a sequence or a convolution where
    these are fewer than the weights. What else has to be computed is computed for a few examples at
    a time. The norm of all parameters together is ``torch.stack([*norms.values()]).norm(dim=0)``.

    Arguments and errors are those of :func:`per_example_grads`.
    """
    found = Pass(model, x, y, cost)
    plan, seeds = plan_of(found)
    return {name: s.sqrt() for name, s in _squares(found, plan, seeds, keep=False).items()}


def clipped_grads(
    model: nn.Module, x: Any, y: Any, *, cost: Cost, max_norm: float
) -> dict[str, Tensor]:
    """Σₙ gₙ min(1, max_norm / ‖gₙ‖), gₙ all gradients of example n: to which DP-SGD adds noise.

    In two backward passes over one forward pass: of the norms, and of the cost of each example
    times its factor.

    Args:
        max_norm: the norm, over all parameters together, that no example's gradient exceeds.

    The other arguments and errors are those of :func:`per_example_grads`.

    Returns:
        for each parameter a tensor in its shape.

    Raises:
        ValueError: ``max_norm`` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    found = Pass(model, x, y, cost)
    plan, seeds = plan_of(found)
    squares = _squares(found, plan, seeds, keep=True)
    if not squares:
        return {}
    norms = torch.stack([s.double() for s in squares.values()]).sum(0).sqrt()
    with torch.no_grad():
        return total_gradients(found, plan, seeds, (max_norm / norms).clamp(max=1))


# ------------------------------------------------------------------------- where gradients meet


def _gradients(found: Pass, way: Way, values: Values) -> Tensor:
    """Those of all examples along one way, computed a few at a time where all would be many."""
    shape, dtype = metadata(found.tape, way.source)
    result: Tensor | None = None
    for part in way.parts(values, found.count):
        gradients = way.gradients(values, shape, found.count, part)
        if part is ALL:
            return gradients
        if result is None:
            result = gradients.new_empty((found.count, *shape), dtype=dtype)
        result[part] = gradients
    assert result is not None
    return result


def _squares(
    found: Pass, plan: Plan, seeds: Sequence[Tensor | None], keep: bool
) -> dict[str, Tensor]:
    """‖∂Cₙ/∂p‖² for each parameter."""
    squares: dict[str, Tensor] = {}
    later: list[tuple[Way, Values]] = []

    def meet(way: Way, values: Values) -> None:
        name = name_of_leaf(found, way.source) if way.source < 0 else None
        if name is None or plan.uses[name] > 1:
            later.append((way, values))  # what several ways bring has to be added up before
            return
        found_squares = way.squares(values)
        if found_squares is None:
            shape, _ = metadata(found.tape, way.source)
            some = [
                _square(way.gradients(values, shape, found.count, part))
                for part in way.parts(values, found.count, shape)
            ]
            found_squares = some[0] if len(some) == 1 else torch.cat(some)
        squares[name] = found_squares

    with torch.no_grad():
        # What is met later is computed with what the tape has saved.
        walk(found, plan, seeds, meet, keep=keep or bool(plan.shared))
        size = sum(metadata(found.tape, s)[0].numel() for s in {w.source for w, _ in later})
        for part in parts(found.count, size) if later else ():
            totals = Totals(found, plan)
            for way, values in later:
                shape, _ = metadata(found.tape, way.source)
                with values.autocast():
                    totals.add(way.source, way.gradients(values, shape, found.count, part))
            for name, gradients in totals.by_name().items():
                some = _square(gradients)
                squares[name] = torch.cat([squares[name], some]) if name in squares else some
    return _in_order(found, squares)


def _square(gradients: Tensor) -> Tensor:
    """‖gₙ‖² of each example."""
    rows = gradients.flatten(1) if gradients.dim() > 1 else gradients.unsqueeze(1)
    return rows.square().sum(1)


def _in_order(found: Pass, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the order of the model's parameters."""
    return {name: given[name] for name in found.names.values() if name in given}
