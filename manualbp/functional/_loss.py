"""Costs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.core.modes import is_compiling, transforms_active
from manualbp.functional._arithmetic import sub
from manualbp.functional._common import check_reduction, legacy_reduction, run_of
from manualbp.functional._distance import pairwise_distance
from manualbp.functional._linear import linear

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "squared_error",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost: C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)², a sum over outputs, a mean over examples.

    Nielsen's quadratic cost is half of it. ``mse_loss`` is this cost divided by the number of
    outputs. A learning rate belongs to one of the three.

    Args:
        input: activations a, (n, outputs, \\*), or (outputs,) for a single example.
        target: desired outputs y in the shape of ``input``, or classes as integers: (n, \\*), or ()
            for a single example.
        reduction: ``"mean"`` over examples, ``"sum"``, or ``"none"`` for the cost C₀ of each.

    Raises:
        ValueError: ``target`` has another shape, or ``reduction`` is none of the three.
    """
    check_reduction(reduction)
    classes = not target.is_floating_point()
    expected = (*input.shape[:1], *input.shape[2:]) if input.dim() > 1 else ()
    if target.shape != (expected if classes else input.shape):
        raise ValueError(
            f"target: expected {tuple(input.shape)} for real values or {expected} for classes "
            f"(integers), to go with an input of {tuple(input.shape)}; got {tuple(target.shape)} "
            f"of {target.dtype}"
        )
    input, target = (input, _class_indices(target)) if classes else _promoted(input, target)
    return formulas.SquaredError.apply(input, target, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """C = mean of w (a − y)² over all entries: torch's, whose mean is over outputs too."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_sizes(input, target, weight)
    return formulas.MSE.apply(*_promoted(input, target), weight, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """C = mean of w |a − y| over all entries."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_sizes(input, target, weight)
    return formulas.L1.apply(sub(input, target), weight, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """C = mean over all entries of e² / 2β where e = |a − y| < β, else e − β/2."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise ValueError(f"beta: expected 0 or more; got {beta}")
    _check_sizes(input, target)
    if beta == 0:
        return formulas.L1.apply(sub(input, target), None, reduction)
    return formulas.SmoothL1.apply(*_promoted(input, target), reduction, beta)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """C = mean over all entries of w e² / 2 where e = |a − y| < δ, else w δ (e − δ/2)."""
    check_reduction(reduction)
    if delta <= 0:
        raise RuntimeError(f"delta: expected more than 0; got {delta}")
    _check_sizes(input, target, weight)
    return formulas.Huber.apply(*_promoted(input, target), weight, reduction, delta)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """C = ½ (log v + (a − y)² / v), v = max(``var``, ``eps``): one variance an entry, or a row."""
    check_reduction(reduction)
    if isinstance(var, float):
        # One number, of the dtype that ``var * torch.ones_like(input)`` has in torch's.
        dtype = input.dtype if input.is_floating_point() else torch.get_default_dtype()
        var = input.new_full((1,) * input.dim(), _not_negative(var), dtype=dtype)
    else:
        if not is_compiling() and not transforms_active():
            _not_negative(var.detach().amin().item() if var.numel() else 0)
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif var.dim() != input.dim() or any(
            v not in (1, n) for v, n in zip(var.shape, input.shape, strict=True)
        ):
            raise ValueError(
                f"var: expected the input's shape {tuple(input.shape)}, the same with 1 for the "
                f"last, or without the last; got {tuple(var.shape)}"
            )
    return formulas.GaussianNLL.apply(sub(input, target), var, full, eps, reduction)


def _not_negative(var: float) -> float:
    if var < 0:
        raise ValueError(f"var: expected variances, none negative; got {var}")
    return var


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = λ − y log λ, λ = eᵃ or, without ``log_input``, a; ``full`` adds nearly log y!."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if full:
        _check_numbers(target)
    formula = formulas.PoissonNLLFull if full else formulas.PoissonNLL
    return formula.apply(*_broadcast_and_promoted(input, target), log_input, eps, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """C = y (log y − a), a = log p; the ``"batchmean"`` of it is the divergence of p from y."""
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction)
    elif reduction == "mean" and not is_compiling():
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math "
            "definition.'mean' will be changed to behave the same as 'batchmean' in the next "
            "major release.",
            stacklevel=2,
        )
    elif reduction != "batchmean":
        check_reduction(reduction)
    if not (input.is_floating_point() and target.is_floating_point()):
        raise RuntimeError(
            f"kl_div: expected floating point numbers; got an input of {input.dtype} and a target "
            f"of {target.dtype}"
        )
    formula = formulas.LogKLDiv if log_target else formulas.KLDiv
    return formula.apply(*_broadcast_and_promoted(input, target), reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """C = −log p_y, p = softmax(z): input (n, K, \\*) or (K,), target classes or probabilities."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    options = (weight, ignore_index, reduction, label_smoothing)
    run = run_of(formulas.CrossEntropy, weight)
    return run(input, _class_indices(target), *options)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = −a_y: input log-probabilities (n, K, \\*) or (K,), target classes."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    run = run_of(formulas.NLL, weight)
    return run(input, _class_indices(target), weight, ignore_index, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """C = −y log σ(z) − (1 − y) log(1 − σ(z)), in a form that does not overflow."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    run = run_of(formulas.BCEWithLogits, weight, pos_weight)
    return run(input, target, weight, reduction, pos_weight)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = −w (y log a + (1 − y) log(1 − a)), a probabilities, no logarithm below −100."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.shape != input.shape:
        raise ValueError(
            f"target: expected the input's shape {tuple(input.shape)}; got {tuple(target.shape)}"
        )
    if weight is not None:
        weight = weight.expand(torch.broadcast_shapes(target.shape, weight.shape))  # type: ignore[no-untyped-call]
    return run_of(formulas.BCE, weight)(input, target, weight, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = −w (y log σ(z) + (1 − y) log σ(−z)), the mean over the last axis, the labels."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_numbers(target)
    return formulas.MultiLabelSoftMargin.apply(
        *_broadcast_and_promoted(input, target), weight, reduction
    )


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = log(1 + e^(−y a)), y = ±1, of any shape."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_numbers(target)
    y = target if target.is_floating_point() else target.to(input.dtype)
    cost = formulas.SoftMargin.apply(*_broadcast(input, y), reduction)
    return cost if cost.dtype is input.dtype else cost.to(input.dtype)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = a where y = 1, max(0, margin − a) where y = −1, a a distance, of any shape."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    target = target.detach()  # it only selects the case
    return formulas.HingeEmbedding.apply(*_broadcast(input, target), margin, reduction)[0]


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = max(0, margin − y (a₁ − a₂)), y = 1 where a₁ should be larger, else −1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            f"margin_ranking_loss: expected inputs and target with as many axes; got "
            f"{tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}"
        )
    return formulas.MarginRanking.apply(sub(input1, input2), target, margin, reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = 1 − cos where y = 1, max(0, cos − margin) where y = −1; inputs (n, d) or (d,)."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return formulas.CosineEmbedding.apply(input1, input2, target.detach(), margin, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = max(0, margin + d(a, p) − d(a, n)), d the distance along the last axis.

    With ``swap`` d(p, n) replaces d(a, n) where it is smaller.
    """

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=distance,
        margin=margin,
        swap=swap,
        reduction=legacy_reduction(size_average, reduce, reduction),
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """C = max(0, margin + d(a, p) − d(a, n)) for any distance d.

    With ``swap`` d(p, n) replaces d(a, n) where it is smaller.
    """
    check_reduction(reduction)
    if margin <= 0:
        raise ValueError(f"margin: expected more than 0; got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            f"anchor, positive, negative: expected as many axes; got {tuple(anchor.shape)}, "
            f"{tuple(positive.shape)} and {tuple(negative.shape)}"
        )
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    other = distance(positive, negative) if swap else None
    return formulas.TripletMargin.apply(near, far, other, margin, reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = w_y Σ max(0, margin − a_y + aⱼ)ᵖ / K over j ≠ y: input (n, K) or (K,), target classes."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError(f"p: expected 1 or 2; got {p}")
    if weight is not None and weight.dim() != 1:
        raise ValueError(f"weight: expected one number a class; got {tuple(weight.shape)}")
    count, classes = _count_examples(input, target)
    if target.dim() > 1 or target.numel() != count:
        raise RuntimeError(
            f"target: expected {count} classes for an input of {tuple(input.shape)}; got "
            f"{tuple(target.shape)}"
        )
    if input.dim() and target.shape == input.shape[:-1]:
        return formulas.MultiMargin.apply(input, target, p, margin, weight, reduction)
    rows = (input.reshape(count, classes), target.reshape(count))
    cost = formulas.MultiMargin.apply(*rows, p, margin, weight, reduction)
    return cost.reshape(target.shape) if reduction == "none" else cost


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = Σ max(0, 1 − aᵢ + aⱼ) / K over classes i in the target and j not.

    Args:
        input: (n, K) or (K,).
        target: of the same shape, the classes of each example, then −1 to the end.
        size_average: deprecated, as ``reduce``: see ``reduction``.
        reduce: deprecated.
        reduction: ``"mean"`` over examples, ``"sum"`` or ``"none"``.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _count_examples(input, target)
    if target.shape == input.shape and input.dim():
        return formulas.MultiLabelMargin.apply(input, target, reduction)
    if max(input.dim(), target.dim()) > 1 or target.numel() != input.numel():
        raise RuntimeError(
            f"target: expected the input's shape {tuple(input.shape)}; got {tuple(target.shape)}"
        )
    return formulas.MultiLabelMargin.apply(input.reshape(-1), target.reshape(-1), reduction)


if hasattr(torch.nn.functional, "linear_cross_entropy"):
    if TYPE_CHECKING:
        from torch.nn import LinearCrossEntropyOptions

    __all__ += ["linear_cross_entropy"]

    def linear_cross_entropy(
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        *,
        linear_bias: Tensor | None = None,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
    ) -> Tensor:
        """The cross-entropy of z = Wx + b: input (n, d) or (d,), ``linear_weight`` (K, \\*, d).

        ``options`` let torch compute it in parts. Here it is computed whole.
        """
        if input.dim() not in (1, 2) or linear_weight.dim() < 2:
            raise RuntimeError(
                f"expected an input of 1 or 2 axes and a linear_weight of at least 2; got "
                f"{tuple(input.shape)} and {tuple(linear_weight.shape)}"
            )
        outputs = linear_weight.shape[:-1]
        if linear_bias is not None and linear_bias.shape != outputs:
            raise RuntimeError(
                f"linear_bias: expected {tuple(outputs)}; got {tuple(linear_bias.shape)}"
            )
        if len(outputs) > 1 and input.dim() == 1:
            raise RuntimeError(
                f"a linear_weight of {tuple(linear_weight.shape)} requires a batch of inputs; got "
                f"{tuple(input.shape)}"
            )
        logits = (*input.shape[:-1], *outputs)
        if ignore_index is not None and target.shape == logits:
            raise RuntimeError("ignore_index: no class to ignore where targets are probabilities")
        if len(outputs) > 1:
            linear_weight = linear_weight.reshape(math.prod(outputs), -1)
            linear_bias = None if linear_bias is None else linear_bias.reshape(-1)
        return cross_entropy(
            linear(input, linear_weight, linear_bias).reshape(logits),
            target,
            weight,
            ignore_index=-100 if ignore_index is None else ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )


def _check_sizes(input: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Warn of a target of another size, and raise for such a weight, as torch does."""
    if target.shape != input.shape and not is_compiling():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}). This will likely lead to incorrect results due to broadcasting. "
            f"Please ensure they have the same size.",
            stacklevel=3,
        )
    if weight is not None and weight.shape != input.shape:
        raise ValueError(
            f"weight: expected the input's shape {tuple(input.shape)}; got {tuple(weight.shape)}"
        )


def _count_examples(input: Tensor, target: Tensor) -> tuple[int, int]:
    """The numbers of examples and of classes; () is one example of one class."""
    if target.dtype is not torch.long:
        raise RuntimeError(f"target: expected classes, of torch.int64; got {target.dtype}")
    if input.dim() > 2 or (input.dim() and not input.shape[-1]):
        raise RuntimeError(
            f"input: expected (n, K), (K,) or (), with at least one class; got {tuple(input.shape)}"
        )
    return (1, input.numel()) if input.dim() < 2 else (input.shape[0], input.shape[1])


def _broadcast_and_promoted(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both broadcast to one shape and promoted to one dtype."""
    return _broadcast(*_promoted(input, target))


def _broadcast(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if input.shape == target.shape:
        return input, target
    return torch.broadcast_tensors(input, target)  # type: ignore[no-untyped-call]


def _promoted(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common dtype, because targets may be integers or booleans."""
    # Rules cannot promote: torch's promotion gives less weight to a g without axes.
    if input.dtype is target.dtype:
        return input, target
    dtype = torch.promote_types(input.dtype, target.dtype)
    return input.to(dtype), target.to(dtype)


def _class_indices(target: Tensor) -> Tensor:
    """Classes as int64. As in torch, uint8 is accepted if ``target`` has at most one axis."""
    return target.long() if target.dtype is torch.uint8 and target.dim() < 2 else target


def _check_numbers(target: Tensor) -> None:
    if target.dtype is torch.bool:
        raise NotImplementedError("target: expected numbers; got torch.bool. Pass target.to(...)")
