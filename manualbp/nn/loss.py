"""Costs."""

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.functional._common import check_reduction
from manualbp.functional._override import in_python, not_compiled

__all__ = [
    "AdaptiveLogSoftmaxWithLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "SquaredError",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


class SquaredError(nn.Module):
    """The document's cost: C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)² (formulas.SquaredError).

    For shapes see :func:`manualbp.functional.squared_error`.

    Args:
        reduction: ``"mean"`` over examples, ``"sum"`` or ``"none"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.squared_error(input, target, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}" if self.reduction != "mean" else ""


class MSELoss(nn.MSELoss):
    """torch.nn.MSELoss by formula: C = Σ w (a − y)² / n, n = Σ w, over all outputs of all examples
    (formulas.MSE)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss by formula: C = −Σₖ qₖ log pₖ, p = softmax(z), q = w ⊙ ((1 − ε) y +
    ε/K) (formulas.CrossEntropy)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(nn.NLLLoss):
    """torch.nn.NLLLoss by formula: C = −w_y a_y, a the logarithms of probabilities, y a class
    (formulas.NLL)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss by formula: C = w ((1 − y) z + l log(1 + e⁻ᶻ)), l = 1 + (ρ − 1) y
    (formulas.BCEWithLogits)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class L1Loss(nn.L1Loss):
    """torch.nn.L1Loss by formula: C = Σ w |e| / n, n = Σ w, e = a − y, over all outputs of all
    examples (formulas.L1)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(nn.SmoothL1Loss):
    """torch.nn.SmoothL1Loss by formula: C = (a − y)² / 2β where |a − y| < β, else |a − y| − β/2
    (formulas.SmoothL1)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(nn.HuberLoss):
    """torch.nn.HuberLoss by formula: C = w c, c = (a − y)² / 2 where |a − y| < threshold, else
    threshold (|a − y| − threshold/2) (formulas.Huber)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(nn.BCELoss):
    """torch.nn.BCELoss by formula: C = −w (y log a + (1 − y) log(1 − a)), no logarithm below −100
    (formulas.BCE)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class KLDivLoss(nn.KLDivLoss):
    """torch.nn.KLDivLoss by formula: C = y (log y − a), a the logarithms of probabilities
    (formulas.KLDiv, with log_target formulas.LogKLDiv)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(nn.PoissonNLLLoss):
    """torch.nn.PoissonNLLLoss by formula: C = λ − y l, λ = eᵃ where log_input, else a, l = a where
    log_input, else log(a + ε) (formulas.PoissonNLL, with full formulas.PoissonNLLFull)."""

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(
            log_input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(nn.GaussianNLLLoss):
    """torch.nn.GaussianNLLLoss by formula: C = ½ (log v + e² / v), e = a − y, v no less than ε
    (formulas.GaussianNLL)."""

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class HingeEmbeddingLoss(nn.HingeEmbeddingLoss):
    """torch.nn.HingeEmbeddingLoss by formula: C = a where y = 1, else max(0, margin − a), y = ±1
    (formulas.HingeEmbedding)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class MarginRankingLoss(nn.MarginRankingLoss):
    """torch.nn.MarginRankingLoss by formula: C = max(0, margin − y d), d = a₁ − a₂, y = ±1 for
    which of the two should be larger (formulas.MarginRanking)."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(nn.CosineEmbeddingLoss):
    """torch.nn.CosineEmbeddingLoss by formula: C = 1 − c where y = 1, else max(0, c − margin), c =
    Σⱼ a₁ⱼ a₂ⱼ / ‖a₁‖ ‖a₂‖, y = ±1 (formulas.CosineEmbedding)."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(
            input1, input2, target, self.margin, reduction=self.reduction
        )


class SoftMarginLoss(nn.SoftMarginLoss):
    """torch.nn.SoftMarginLoss by formula: C = log(1 + e^(−y a)), y = ±1 (formulas.SoftMargin)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class MultiMarginLoss(nn.MultiMarginLoss):
    """torch.nn.MultiMarginLoss by formula: C = w_y Σⱼ hⱼᵖ / K, hⱼ = max(0, margin − a_y + aⱼ) where
    j ≠ y, else 0 (formulas.MultiMargin)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction
        )


class MultiLabelMarginLoss(nn.MultiLabelMarginLoss):
    """torch.nn.MultiLabelMarginLoss by formula: C = Σᵢⱼ cᵢ [cⱼ = 0] max(0, 1 − aᵢ + aⱼ) / K, cᵢ how
    often the target has class i (formulas.MultiLabelMargin)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(nn.MultiLabelSoftMarginLoss):
    """torch.nn.MultiLabelSoftMarginLoss by formula: C = Σⱼ wⱼ cⱼ / K, c = −y log σ(z) − (1 − y) log
    σ(−z), K labels an example (formulas.MultiLabelSoftMargin)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)


class TripletMarginLoss(nn.TripletMarginLoss):
    """torch.nn.TripletMarginLoss by formula: C = max(0, margin + d₊ − min(d₋, d±)), d the distances
    within three points (formulas.TripletMargin)."""

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            self.margin,
            self.p,
            self.eps,
            self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(nn.TripletMarginWithDistanceLoss):
    """torch.nn.TripletMarginWithDistanceLoss by formula: C = max(0, margin + d₊ − min(d₋, d±)), d
    the distances within three points (formulas.TripletMargin)."""

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            # Any callable; by default torch's own layer.
            distance_function=in_python(self.distance_function),  # type: ignore[arg-type]
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


class CTCLoss(nn.CTCLoss):
    """torch.nn.CTCLoss by formula: C = −log Σ_π Π_t e^aₜ(πₜ), over the paths π that read as the
    target (formulas.CTC)."""

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor
    ) -> Tensor:
        return F.ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )


class AdaptiveLogSoftmaxWithLoss(nn.AdaptiveLogSoftmaxWithLoss):
    """torch.nn.AdaptiveLogSoftmaxWithLoss: torch's own Python, whose functions run by formula
    (formulas.Linear, formulas.LogSoftmax)."""

    # Shapes depend on how many targets each cluster has, and Dynamo does not know their values.
    forward = not_compiled(in_python(nn.AdaptiveLogSoftmaxWithLoss.forward))


if hasattr(nn, "LinearCrossEntropyLoss"):
    __all__ += ["LinearCrossEntropyLoss"]

    class LinearCrossEntropyLoss(nn.LinearCrossEntropyLoss):
        """torch.nn.LinearCrossEntropyLoss by formula: z = a Wᵀ + b (formulas.Linear), then
        formulas.CrossEntropy."""

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            shape = (self.num_classes, *self.out_features)
            bias = self.linear.bias
            return F.linear_cross_entropy(
                input,
                self.linear.weight.reshape(*shape, self.linear.in_features),
                target,
                linear_bias=None if bias is None else bias.reshape(shape),
                weight=self.weight,
                reduction=self.reduction,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                options=self.options,
            )
