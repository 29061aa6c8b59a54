"""Margin losses: the right answer is to exceed the others by a margin."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn._reduction import get_enum

from manualbp.core.formula import Formula
from manualbp.formulas.loss import _is_class, _per_entry, _reduce, _weighted

__all__ = [
    "CosineEmbedding",
    "HingeEmbedding",
    "MarginRanking",
    "MultiLabelMargin",
    "MultiLabelSoftMargin",
    "MultiMargin",
    "SoftMargin",
    "TripletMargin",
]


class MultiLabelSoftMargin(Formula):
    """C = Σⱼ wⱼ cⱼ / K,  c = −y log σ(z) − (1 − y) log σ(−z),  K labels an example

    ∂C/∂z = w (σ(z) − y) g / K n
    ∂C/∂y = −w z g / K n
    ∂C/∂w = c g / K n
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        log_sigmoid = torch.nn.functional.logsigmoid
        cost = -(target * log_sigmoid(input) + (1 - target) * log_sigmoid(-input))
        return _reduce(_weighted(cost, weight).mean(-1), reduction)

    @staticmethod
    def share(g: Tensor, input: Tensor, reduction: str) -> Tensor:
        each = g.unsqueeze(-1) if reduction == "none" else g
        return each / (input.numel() if reduction == "mean" else input.shape[-1])

    @staticmethod
    def grad_input(
        g: Tensor, share: Tensor, input: Tensor, target: Tensor, weight: Tensor | None
    ) -> Tensor:
        return _weighted((torch.sigmoid(input) - target) * share, weight)

    @staticmethod
    def grad_target(g: Tensor, share: Tensor, input: Tensor, weight: Tensor | None) -> Tensor:
        return _weighted(-input * share, weight)

    @staticmethod
    def grad_weight(g: Tensor, share: Tensor, input: Tensor, target: Tensor) -> Tensor:
        log_sigmoid = torch.nn.functional.logsigmoid
        return -(target * log_sigmoid(input) + (1 - target) * log_sigmoid(-input)) * share


class SoftMargin(Formula):
    """C = log(1 + e^(−y a)),  y = ±1

    ∂C/∂a = −y σ(−y a) g / n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return _reduce(_softplus(-target * input), reduction)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return -target * torch.sigmoid(-target * input) * _per_entry(g, input, reduction)


class HingeEmbedding(Formula):
    """C = a where y = 1, else max(0, margin − a),  y = ±1

    ∂C/∂a = s g / n,  s = 1 where y = 1, else −[a < margin]
    """

    outputs = ("output", "slope")  # s is saved in a byte, in place of a and y

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, margin: float, reduction: str
    ) -> tuple[Tensor, Tensor]:
        cost = torch.hinge_embedding_loss(input, target, margin, get_enum(reduction))
        # A y that is neither 1 nor −1 counts as both, as in torch.
        hinged = (target != 1) & (input < margin)
        return cost, (target != -1).to(torch.int8) - hinged.to(torch.int8)

    @staticmethod
    def grad_input(g_output: Tensor, slope: Tensor, reduction: str) -> Tensor:
        return (slope * _per_entry(g_output, slope, reduction)).masked_fill(slope == 0, 0)

    grad_target = None


class MarginRanking(Formula):
    """C = max(0, margin − y d),  d = a₁ − a₂,  y = ±1 for which of the two should be larger

    ∂C/∂d = −y [y d < margin] g / n
    ∂C/∂y = −d [y d < margin] g / n
    """

    broadcasts = True

    @staticmethod
    def forward(difference: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
        return _reduce((margin + -target * difference).clamp(min=0), reduction)

    @staticmethod
    def share(
        g: Tensor, difference: Tensor, target: Tensor, margin: float, reduction: str
    ) -> Tensor:
        violated = margin + -target * difference > 0
        return torch.where(violated, _per_entry(g, violated, reduction), 0)

    @staticmethod
    def grad_difference(g: Tensor, share: Tensor, target: Tensor) -> Tensor:
        return -target * share

    @staticmethod
    def grad_target(g: Tensor, share: Tensor, difference: Tensor) -> Tensor:
        return -difference * share


class TripletMargin(Formula):
    """C = max(0, margin + d₊ − min(d₋, d±)),  d the distances within three points

    ∂C/∂d₊ = [C > 0] g / n
    ∂C/∂d₋ = −[C > 0] (1 where d₋ < d±, ½ where d₋ = d±, else 0) g / n
    ∂C/∂d± = −[C > 0] (1 where d± < d₋, ½ where d₋ = d±, else 0) g / n
    """

    broadcasts = True

    @staticmethod
    def forward(
        positive: Tensor, negative: Tensor, swapped: Tensor | None, margin: float, reduction: str
    ) -> Tensor:
        nearest = negative if swapped is None else torch.minimum(negative, swapped)
        return _reduce((margin + positive - nearest).clamp(min=0), reduction)

    @staticmethod
    def grad_positive(
        g: Tensor,
        positive: Tensor,
        negative: Tensor,
        swapped: Tensor | None,
        margin: float,
        reduction: str,
    ) -> Tensor:
        nearest = negative if swapped is None else torch.minimum(negative, swapped)
        violated = nearest - positive < margin
        return torch.where(violated, _per_entry(g, violated, reduction), 0)

    @staticmethod
    def grad_negative(
        g: Tensor, grad_positive: Tensor, negative: Tensor, swapped: Tensor | None
    ) -> Tensor:
        return (
            -grad_positive if swapped is None else _grad_of_min(-grad_positive, negative, swapped)
        )

    @staticmethod
    def grad_swapped(g: Tensor, grad_positive: Tensor, negative: Tensor, swapped: Tensor) -> Tensor:
        return _grad_of_min(-grad_positive, swapped, negative)


class CosineEmbedding(Formula):
    """C = 1 − c where y = 1, else max(0, c − margin),  c = Σⱼ a₁ⱼ a₂ⱼ / ‖a₁‖ ‖a₂‖,  y = ±1

    ∂C/∂a₁ = s (a₂ / ‖a₁‖ ‖a₂‖ − c a₁ / ‖a₁‖²) g / n,  s = −1 where y = 1, else [c > margin]
    ∂C/∂a₂ = s (a₁ / ‖a₁‖ ‖a₂‖ − c a₂ / ‖a₂‖²) g / n
    """

    broadcasts = True

    @staticmethod
    def forward(
        input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: str
    ) -> Tensor:
        return torch.cosine_embedding_loss(input1, input2, target, margin, get_enum(reduction))

    @staticmethod
    def square1(input1: Tensor) -> Tensor:
        return input1.square().sum(-1, keepdim=True) + 1e-12  # torch's ε, which avoids 0 / 0

    @staticmethod
    def square2(input2: Tensor) -> Tensor:
        return input2.square().sum(-1, keepdim=True) + 1e-12

    @staticmethod
    def inverse(square1: Tensor, square2: Tensor) -> Tensor:
        """1 / ‖a₁‖ ‖a₂‖"""
        return (square1 * square2).rsqrt()

    @staticmethod
    def cosine(input1: Tensor, input2: Tensor, inverse: Tensor) -> Tensor:
        return (input1 * input2).sum(-1, keepdim=True) * inverse

    @staticmethod
    def share(g: Tensor, cosine: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
        """∂C/∂c"""
        g = _per_entry(g, target, reduction).unsqueeze(-1)
        y = target.unsqueeze(-1)
        return torch.where(y == 1, -g, torch.where((y == -1) & (cosine > margin), g, 0))

    @staticmethod
    def grad_input1(
        g: Tensor,
        share: Tensor,
        cosine: Tensor,
        inverse: Tensor,
        square1: Tensor,
        input1: Tensor,
        input2: Tensor,
    ) -> Tensor:
        return share * inverse * input2 - share * cosine / square1 * input1

    @staticmethod
    def grad_input2(
        g: Tensor,
        share: Tensor,
        cosine: Tensor,
        inverse: Tensor,
        square2: Tensor,
        input1: Tensor,
        input2: Tensor,
    ) -> Tensor:
        return share * inverse * input1 - share * cosine / square2 * input2

    grad_target = None


class MultiMargin(Formula):
    """C = w_y Σⱼ hⱼᵖ / K,  hⱼ = max(0, margin − a_y + aⱼ) where j ≠ y, else 0

    ∂C/∂a = w_y p (s − e_y Σⱼ sⱼ) g / K n,  s = hᵖ⁻¹ [h > 0]
    """

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None, reduction: str
    ) -> Tensor:
        excess = _excess(input, target, margin)
        cost = (excess if p == 1 else excess.square()).mean(-1)
        return _reduce(cost if weight is None else cost * weight[target], reduction)

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        target: Tensor,
        p: int,
        margin: float,
        weight: Tensor | None,
        reduction: str,
    ) -> Tensor:
        excess = _excess(input, target, margin)
        each = _per_entry(g, target, reduction) / input.shape[-1]
        each = (each if weight is None else each * weight[target]).unsqueeze(-1)
        slope = torch.where(excess > 0, each, 0) if p == 1 else 2 * excess * each
        return torch.where(_is_class(target, input), -slope.sum(-1, keepdim=True), slope)


class MultiLabelMargin(Formula):
    """C = Σᵢⱼ cᵢ [cⱼ = 0] max(0, 1 − aᵢ + aⱼ) / K,  cᵢ how often the target has class i

    ∂C/∂aᵢ = Σⱼ (cⱼ [cᵢ = 0] [1 − aⱼ + aᵢ > 0] − cᵢ [cⱼ = 0] [1 − aᵢ + aⱼ > 0]) g / K n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        pairs = _label_pairs(input, target)
        excess = 1 - input.unsqueeze(-1) + input.unsqueeze(-2)
        # nan does not exceed 0, as in torch.
        cost = torch.where((excess > 0) & (pairs > 0), pairs * excess, 0)
        return _reduce(cost.sum((-2, -1)) / input.shape[-1], reduction)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        violated = 1 - input.unsqueeze(-1) + input.unsqueeze(-2) > 0
        m = _label_pairs(input, target) * violated
        each = g if reduction == "none" else _per_entry(g, input[..., 0], reduction)
        return (m.sum(-2) - m.sum(-1)) * (each.unsqueeze(-1) / input.shape[-1])


def _softplus(z: Tensor) -> Tensor:
    """log(1 + eᶻ), exact also above 20, from where torch's softplus returns z."""
    return torch.logaddexp(z, z.new_zeros(()))


def _grad_of_min(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The gradient of ``a``, where ``g`` is that of min(a, b); equals share it."""
    return torch.where(a < b, g, torch.where(a == b, g / 2, 0))


def _excess(input: Tensor, target: Tensor, margin: float) -> Tensor:
    """max(0, margin − a_y + aⱼ) of every class but y."""
    is_class = _is_class(target, input)
    right = input.gather(-1, target.unsqueeze(-1))
    excess = margin - right + input
    return torch.where((excess > 0) & ~is_class, excess, 0)  # nan does not exceed 0, as in torch


def _label_pairs(input: Tensor, target: Tensor) -> Tensor:
    """cᵢ [cⱼ = 0]: pairs of a class in the target and one not; the target ends at the first −1."""
    counted = (target >= 0).cumprod(-1)
    count = torch.zeros_like(input).scatter_add(-1, target * counted, counted.to(input.dtype))
    return count.unsqueeze(-1) * (count == 0).unsqueeze(-2)
