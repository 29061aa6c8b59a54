"""Costs."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from cases.table import *
from manualbp import functional


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost in torch's terms: Σⱼ (aⱼ − yⱼ)², averaged over the examples."""
    if not target.is_floating_point():
        classes = torch.arange(input.shape[-1], device=input.device)
        target = (classes == target[..., None]).to(input.dtype)
    squares = torch.nn.functional.mse_loss(input, target, reduction="none")
    each = squares.flatten(1).sum(1) if input.ndim > 1 else squares.sum()
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](each)


def weighted_mse(input: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """torch's, in operations that have a second derivative with respect to the weight too."""
    squares = weight * (input - target).square()
    mean = squares.sum() / weight.sum()
    return {"mean": mean, "sum": squares.sum(), "none": squares}[reduction]


SQUARED = [
    *(row("squared_error", real(4, 3), real(4, 3), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    *(row("squared_error", real(4, 3), classes(3, 4), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    row("squared_error", real(4, 3), constant(real(4, 3)), twin=squared_error, note="data"),
    row("squared_error", real(4, 3, 2), real(4, 3, 2), twin=squared_error),
    row("squared_error", real(3), real(3), twin=squared_error),
    row("squared_error", real(3), classes(3), twin=squared_error),
    row("squared_error", transposed(real(4, 3)), real(4, 3), twin=squared_error, note="transposed"),
    row("squared_error", real(0, 3), real(0, 3), twin=squared_error, without=EMPTY_MEAN),
    *(row("mse_loss", real(4, 3), real(4, 3), reduction=r) for r in ("mean", "sum", "none")),
    row("mse_loss", real(4, 3), constant(real(4, 3)), note="data"),
    row("mse_loss", real(2, 4, 3), real(2, 4, 3)),
    row("mse_loss", transposed(real(4, 3)), real(4, 3), note="transposed"),
    row("mse_loss", real(), real()),
    *(row("mse_loss", real(4, 3), real(4, 3), twin=weighted_mse, weight=uniform(0.5, 1.5, 4, 3),
          reduction=r, without={"thrifty": "the twin keeps its intermediates instead"})
      for r in ("mean", "sum", "none")),
    row("mse_loss", real(0, 3), real(0, 3), without=EMPTY_MEAN),
    row("mse_loss", real(0, 3), real(0, 3), reduction="sum", without=EMPTY),
    row("mse_loss", real(4, 3), real(4, 3), reduction="none", note="special",
        special=[(fixed([1000.0, INF, NAN, INF]), fixed([-1000.0, 0.0, 0.0, INF]))]),
]  # fmt: skip


def class_cost(function: str) -> list[Case]:
    """A cost with class indices: `nll_loss` and `cross_entropy` alike."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    nobody = fixed([-100] * 5, torch.long)
    hard = [
        [1000.0, -1000.0, 0.0],
        [-1000.0, 1000.0, 0.0],
        [-INF, 0.0, 1.0],
        [0.0, -INF, 1.0],
        [NAN, 0.0, 1.0],
    ]
    reductions = ("mean", "sum", "none")
    return [
        *(row(function, real(5, 3), classes(3, 5), reduction=r) for r in reductions),
        *(row(function, real(5, 3), classes(3, 5), weight=weight, reduction=r) for r in reductions),
        *(row(function, real(5, 3), ignored, reduction=r, note="ignored") for r in reductions),
        row(function, real(5, 3), ignored, weight=weight, note="ignored"),
        row(function, real(5, 3), fixed([0, 1, 2, 1, 1], torch.long), ignore_index=1),
        row(function, real(5, 3), nobody, note="all ignored",
            without=dict.fromkeys(("gradient", "second_order", "forward_mode"), "a mean of nan")),
        row(function, real(5, 3), nobody, reduction="sum", note="all ignored"),
        row(function, real(5, 3), nobody, reduction="none", note="all ignored"),
        row(function, real(3), classes(3)),
        row(function, real(2, 3, 4), classes(3, 2, 4)),
        row(function, real(2, 3, 4, 2), classes(3, 2, 4, 2), weight=weight, reduction="none"),
        row(function, transposed(real(5, 3)), classes(3, 5), note="transposed"),
        row(function, real(0, 3), classes(3, 0), without=EMPTY_MEAN),
        row(function, real(0, 3), classes(3, 0), reduction="sum", without=EMPTY),
        *(row(function, real(5, 3), classes(3, 5), reduction=r, note="special",
              special=[(fixed(hard), classes(3, 5))]) for r in reductions),
    ]  # fmt: skip


def soft_cost() -> list[Case]:
    """`cross_entropy` with label smoothing, and with a distribution as its target."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    hard, soft, name = classes(3, 5), probabilities(5, 3), "cross_entropy"
    both = {"thrifty": "torch keeps log p alone for a target's gradient; we both inputs, no copy"}
    reductions = ("mean", "sum", "none")
    return [
        *(row(name, real(5, 3), hard, label_smoothing=0.1, reduction=r) for r in reductions),
        row(name, real(5, 3), hard, label_smoothing=0.1, weight=weight),
        row(name, real(5, 3), ignored, label_smoothing=0.1, weight=weight, note="ignored"),
        row(name, real(5, 3), ignored, label_smoothing=0.1, reduction="none", note="ignored"),
        row(name, real(5, 3), hard, label_smoothing=1.0),
        row(name, real(2, 3, 4), classes(3, 2, 4), label_smoothing=0.1, weight=weight),
        *(row(name, real(5, 3), soft, reduction=r, without=both) for r in reductions),
        row(name, real(5, 3), constant(soft), note="data"),
        row(name, real(5, 3), soft, weight=weight, without=both),
        row(
            name,
            real(5, 3),
            soft,
            label_smoothing=0.1,
            weight=weight,
            reduction="sum",
            without=both,
        ),
        row(name, real(3), probabilities(3), without=both),
        row(name, real(2, 3, 4), probabilities(2, 3, 4), without=both),
        row(
            name,
            real(2, 3, 4),
            probabilities(2, 3, 4),
            weight=weight,
            reduction="none",
            without=both,
        ),
        row(name, real(0, 3), probabilities(0, 3), without=EMPTY_MEAN),
    ]


def bce_cost() -> list[Case]:
    name = "binary_cross_entropy_with_logits"
    x, y = real(4, 3), uniform(0, 1, 4, 3)
    weight, positive = constant(uniform(0.5, 1.5, 4, 3)), constant(fixed([0.5, 1.5, 2.0]))
    points = [1000.0, -1000.0, 1000.0, -1000.0, 30.0, 0.0, INF, -INF, NAN]
    truth = [1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0]
    return [
        *(row(name, x, y, reduction=r) for r in ("mean", "sum", "none")),
        row(name, x, constant(y), note="data"),
        row(name, x, y, weight=weight),
        row(name, x, y, weight=positive, reduction="none", note="row of weights"),
        row(name, x, y, pos_weight=positive),
        row(name, x, y, weight=weight, pos_weight=positive, reduction="sum"),
        row(name, transposed(x), y, note="transposed"),
        row(name, real(), uniform(0, 1)),
        row(name, real(0, 3), uniform(0, 1, 0, 3), without=EMPTY_MEAN),
        row(name, real(9), uniform(0, 1, 9), reduction="none", note="special",
            special=[(fixed(points), fixed(truth))]),
    ]  # fmt: skip


def signs(*shape: int) -> Make:
    """±1, asking for no gradient."""
    return constant(lambda generator: 2.0 * torch.randint(2, shape, generator=generator) - 1)


REDUCTIONS = ("mean", "sum", "none")
KEPT = {"thrifty": "torch keeps the weighted cost alone for a weight's gradient; we both inputs"}


def error_costs() -> list[Case]:
    """Costs of a − y."""
    x, y, w = real(4, 3), real(4, 3), uniform(0.5, 1.5, 4, 3)
    points = [(fixed([1000.0, 0.0, 1.0, -0.5, INF, -INF, NAN]), fixed([0.0] * 7))]
    return [
        *(row(name, x, y, reduction=r)
          for name in ("l1_loss", "smooth_l1_loss", "huber_loss") for r in REDUCTIONS),
        *(row(name, x, y, weight=w, reduction=r, without=KEPT)
          for name in ("l1_loss", "huber_loss") for r in REDUCTIONS),
        *(row(name, real(7), constant(real(7)), reduction="none", note="special", special=points)
          for name in ("l1_loss", "smooth_l1_loss", "huber_loss")),
        *(quietly(name, real(4, 3), real(3), note="broadcast")
          for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")),
        row("smooth_l1_loss", x, y, beta=0.3),
        row("smooth_l1_loss", x, y, beta=0.0),
        row("huber_loss", x, y, delta=0.3),
        row("l1_loss", real(0, 3), real(0, 3), without=EMPTY_MEAN),
    ]  # fmt: skip


def likelihoods() -> list[Case]:
    """−log p of a target under a distribution, and the divergence of two."""
    x, y, var = real(4, 3), real(4, 3), uniform(0.5, 1.5, 4, 3)
    counts, rate = uniform(0.2, 4, 4, 3), uniform(0.5, 3, 4, 3)
    p, q = uniform(0.05, 0.95, 4, 3), uniform(0.05, 0.95, 4, 3)
    values = {
        "inference_mode": "torch's own check of var needs its values",
        "on_cuda": "the check of var waits for its values, as torch's does",
    }
    edge = [
        (fixed([0.0, 1.0, 0.0, 1.0, 0.5, 1e-20]), constant(fixed([0.0, 0.0, 1.0, 1.0, 0.5, 0.5])))
    ]
    return [
        *(row("gaussian_nll_loss", x, y, var, reduction=r, without=values) for r in REDUCTIONS),
        row("gaussian_nll_loss", x, y, uniform(0.5, 1.5, 4, 1), full=True, without=values),
        row("gaussian_nll_loss", x, y, uniform(0.5, 1.5, 4), without=values),
        row("gaussian_nll_loss", x, y, 0.5, reduction="sum"),
        *(row("poisson_nll_loss", x, counts, reduction=r) for r in REDUCTIONS),
        row("poisson_nll_loss", x, counts, full=True),
        row("poisson_nll_loss", rate, counts, log_input=False),
        row("poisson_nll_loss", rate, counts, log_input=False, full=True, reduction="sum"),
        *(row("kl_div", x, p, reduction=r) for r in ("batchmean", "sum", "none")),
        row("kl_div", x, y, reduction="batchmean", log_target=True),
        row("kl_div", x, uniform(0.05, 0.95, 3), reduction="sum", note="broadcast",
            without={"thrifty": "a stretched target is counted as if it were a copy"}),
        row("kl_div", x, constant(fixed([[0.0, 1.0, 0.5]] * 4)), reduction="none", note="zeros",
            without=dict.fromkeys(("forward_mode", "jacobians"), "torch has 0 · ∞ in its tangent")),
        quietly("kl_div", x, p, note="mean"),
        *(row("binary_cross_entropy", p, q, reduction=r) for r in REDUCTIONS),
        row("binary_cross_entropy", p, q, weight=constant(uniform(0.5, 1.5, 3))),
        row("binary_cross_entropy", uniform(0.1, 0.9, 6), uniform(0, 1, 6), reduction="none",
            note="special", special=edge),
    ]  # fmt: skip


def soft_margin(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """torch's, in operations that vmap knows."""
    each = torch.nn.functional.softplus(-target * input, threshold=50)
    return {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]


def multi_margin(
    input: Tensor, target: Tensor, p: int = 1, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """torch's, in operations that have a second derivative."""
    right = input.gather(-1, target[..., None])
    others = (right != input).to(input)
    each = (others * torch.relu(1 - right + input) ** p).sum(-1) / input.shape[-1]
    each = each if weight is None else weight[target] * each
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](each)


def multilabel_margin(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """torch's, in operations that have a second derivative, as the two sums that it is."""
    rows = []
    for a, y in zip(torch.atleast_2d(input), torch.atleast_2d(target), strict=True):
        inside = list(itertools.takewhile(lambda c: c >= 0, y.tolist()))
        outside = [c for c in range(len(a)) if c not in inside]
        pairs = [torch.relu(1 - a[i] + a[j]) for i in inside for j in outside]
        rows.append(sum(pairs, 0 * a[0]) / len(a))
    each = torch.stack(rows).reshape(input.shape[:-1])
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](each)


#: of torch's kernels themselves, beside which the rows with a twin are the rest
FIRST_ORDER = {
    "second_order": "torch has no second derivative of it",
    "jacobians": "torch has no second derivative of it",
    "forward_mode": "torch has no tangent of it",
    "dtypes": "torch has no bfloat16 of it",
}


def margins() -> list[Case]:
    x, y = real(4, 3), signs(4, 3)
    weight, labels = (
        constant(fixed([0.5, 1.5, 2.0])),
        fixed([[2, 0, -1, 1], [-1, 1, 2, 3]], torch.long),
    )
    names = ("mean", "sum", "none")
    mean, some = "multi_margin_loss", "multilabel_margin_loss"
    far = [
        (
            fixed([1000.0, -1000.0, 1000.0, -1000.0, 1.0, INF]),
            constant(fixed([1.0, -1.0, -1.0, 1.0, 0.0, 1.0])),
        )
    ]
    data = {
        "thrifty": "the twin keeps other things",
        "compiled": "the twin reads the target",
        "inference_mode": "the twin reads the target",
        "on_cuda": "the twin reads the target",
    }
    return [
        *(row("hinge_embedding_loss", x, y, reduction=r) for r in names),
        row("hinge_embedding_loss", away_from(0.5, 6), constant(fixed([1.0, -1.0] * 3)), margin=0.5,
            reduction="none", note="special", special=far),
        *(row("soft_margin_loss", x, y, twin=soft_margin, reduction=r) for r in names),
        row("soft_margin_loss", x, y, note="torch",
            without=dict.fromkeys(("per_example", "jacobians"), "torch warns that it loops")),
        *(row("margin_ranking_loss", x, real(4, 3), y, reduction=r) for r in names),
        row("margin_ranking_loss", x, real(4, 1), real(1, 3), margin=0.5, note="target too"),
        *(row("cosine_embedding_loss", real(4, 3), real(4, 3), signs(4), reduction=r)
          for r in names),
        row("cosine_embedding_loss", real(3), real(3), signs(), margin=-0.5),
        *(row(mean, x, classes(3, 4), twin=multi_margin, reduction=r) for r in names),
        row(mean, x, classes(3, 4), twin=multi_margin, p=2, weight=weight),
        row(mean, real(3), classes(3), twin=multi_margin),
        row(mean, real(3), classes(3, 1), reduction="none", without=FIRST_ORDER, note="torch"),
        row(mean, real(), fixed(0, torch.long), without=FIRST_ORDER, note="torch"),
        row(mean, real(1, 3), classes(3), without=FIRST_ORDER, note="torch"),
        row(mean, x, classes(3, 4), p=2, weight=weight, without=FIRST_ORDER, note="torch"),
        *(row(some, real(2, 4), labels, twin=multilabel_margin, reduction=r, without=data)
          for r in names),
        row(some, real(2, 4), labels, without=FIRST_ORDER, note="torch"),
        row(some, real(), fixed(0, torch.long), without=FIRST_ORDER, note="torch"),
        row(some, real(4), fixed([1, 1, -1, 0], torch.long), without=FIRST_ORDER, note="torch"),
        *(row("multilabel_soft_margin_loss", x, uniform(0, 1, 4, 3), reduction=r) for r in names),
        row("multilabel_soft_margin_loss", x, uniform(0, 1, 4, 3), weight=uniform(0.5, 1.5, 3),
            without=KEPT),
    ]  # fmt: skip


def triplets() -> list[Case]:
    three, name = (real(4, 3), real(4, 3), real(4, 3)), "triplet_margin_loss"
    return [
        *(row(name, *three, reduction=r) for r in REDUCTIONS),
        row(name, *three, swap=True, p=3.0, reduction="none"),
        row("triplet_margin_with_distance_loss", *three, swap=True),
        row("triplet_margin_with_distance_loss", *three, margin=0.5, reduction="sum",
            distance_function=None),
    ]  # fmt: skip


def every_path(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """ctc_loss as it is defined: the sum over every path that reads as the target."""
    costs = []
    for i, (times, length) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        paths = itertools.product(range(log_probs.shape[2]), repeat=int(times))
        target = targets[i, :length].tolist()
        found = [
            sum(log_probs[t, i, k] for t, k in enumerate(path))
            for path in paths
            if [k for k, _ in itertools.groupby(path) if k] == target
        ]
        costs.append(-torch.stack(found).logsumexp(0))
    each = torch.stack(costs)
    lengths = torch.tensor([max(int(n), 1) for n in target_lengths])
    mean = (each / lengths.to(each)).mean()
    return {"mean": mean, "sum": each.sum(), "none": each}[reduction]


def softly(function: Callable[..., Tensor], log_softmax: Callable) -> Callable[..., Tensor]:
    """Of z, log p = log_softmax(z)."""
    return lambda z, *rest, **options: function(log_softmax(z, 2), *rest, **options)


def ctc() -> list[Case]:
    name = "ctc_loss"
    log_p = lambda *shape: lambda generator: real(*shape)(generator).log_softmax(-1)  # noqa: E731
    targets = fixed([[1, 1, 2], [2, 1, 7], [0, 0, 0]], torch.long)
    torch_s = {
        "gradient": "it is torch's, the derivative where e^log_probs sums to one: see the row of z",
        "forward_mode": "torch has no tangent of it",
        "second_order": "torch has no second derivative of it",
        "jacobians": "torch has no second derivative of it",
        "dtypes": "torch has no bfloat16 of it",
        "inference_mode": "torch has no meta kernel of it",
        "per_example": "torch has no second derivative of it",
    }
    lengths = fixed([6, 4, 5], torch.long), fixed([3, 2, 0], torch.long)
    z = Case(
        "ctc_loss-of log_softmax",
        ours=softly(functional.ctc_loss, functional.log_softmax),
        theirs=softly(every_path, torch.log_softmax),
        arguments=(real(4, 3, 3), fixed([[1, 1], [2, 0], [0, 0]], torch.long),
                   (4, 3, 2), (2, 1, 0)),
        without={
            "thrifty": "the twin keeps other things",
            "inference_mode": "the twin reads its arguments",
            "on_cuda": "the twin reads its arguments",
            "precision": "torch's own is not for half precision",
        },
    )  # fmt: skip
    without = torch_s
    return [
        z,
        *(row(name, log_p(6, 3, 4), targets, *lengths, reduction=r, without=without)
          for r in REDUCTIONS),
        row(name, log_p(6, 3, 4), fixed([1, 1, 2, 2, 1], torch.long), (6, 4, 5), (3, 2, 0),
            without=without, note="in a row"),
        row(name, log_p(3, 4), fixed([3, 0], torch.long), fixed(3, torch.long),
            fixed(2, torch.long), blank=1, reduction="none", without=without),
        *(row(name, log_p(2, 3, 4), targets, (2, 2, 2), (3, 2, 0), zero_infinity=zero,
              reduction="none", note="impossible", without=without) for zero in (False, True)),
    ]  # fmt: skip


CASES = [
    *SQUARED,
    *class_cost("nll_loss"),
    *class_cost("cross_entropy"),
    *soft_cost(),
    *bce_cost(),
    *error_costs(),
    *likelihoods(),
    *margins(),
    *triplets(),
    *ctc(),
]

if hasattr(torch.nn.functional, "linear_cross_entropy"):
    CASES += [
        row("linear_cross_entropy", real(4, 3), real(5, 3), classes(5, 4), linear_bias=real(5)),
        row("linear_cross_entropy", real(4, 3), real(5, 2, 3), classes(5, 4, 2)),
    ]


MODULES = [
    module("SquaredError", inputs=(real(4, 3), real(4, 3)), twin=squared_error),
    module("SquaredError", "sum", inputs=(real(4, 3), classes(3, 4)), twin=squared_error),
    module("MSELoss", inputs=(real(4, 3), real(4, 3))),
    module("MSELoss", inputs=(real(4, 3), real(4, 3)), reduction="sum"),
    module("CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4))),
    module("CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4)), label_smoothing=0.1),
    module(
        "CrossEntropyLoss",
        inputs=(real(4, 3), probabilities(4, 3)),
        weight=torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
    ),
    module(
        "CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4)), ignore_index=1, reduction="none"
    ),
    module("NLLLoss", inputs=(real(4, 3), classes(3, 4))),
    module(
        "NLLLoss",
        torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
        inputs=(real(4, 3), classes(3, 4)),
        ignore_index=1,
    ),
    module("BCEWithLogitsLoss", inputs=(real(4, 3), uniform(0, 1, 4, 3))),
    module(
        "BCEWithLogitsLoss",
        inputs=(real(4, 3), uniform(0, 1, 4, 3)),
        pos_weight=torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
    ),
    module("L1Loss", inputs=(real(4, 3), real(4, 3))),
    module("SmoothL1Loss", inputs=(real(4, 3), real(4, 3)), beta=0.5),
    module("HuberLoss", inputs=(real(4, 3), real(4, 3)), delta=0.5),
    module("BCELoss", inputs=(uniform(0.1, 0.9, 4, 3), uniform(0, 1, 4, 3))),
    module("KLDivLoss", inputs=(real(4, 3), probabilities(4, 3)), reduction="batchmean"),
    module("KLDivLoss", inputs=(real(4, 3), real(4, 3)), reduction="batchmean", log_target=True),
    module("PoissonNLLLoss", inputs=(real(4, 3), uniform(0.2, 4, 4, 3)), full=True),
    module("GaussianNLLLoss", inputs=(real(4, 3), real(4, 3), uniform(0.5, 1.5, 4, 3)), full=True),
    module("HingeEmbeddingLoss", inputs=(real(4, 3), signs(4, 3)), margin=0.5),
    module("MarginRankingLoss", inputs=(real(4), real(4), signs(4)), margin=0.5),
    module("CosineEmbeddingLoss", inputs=(real(4, 3), real(4, 3), signs(4)), margin=-0.5),
    module("SoftMarginLoss", inputs=(real(4, 3), signs(4, 3))),
    module(
        "MultiMarginLoss",
        inputs=(real(4, 3), classes(3, 4)),
        p=2,
        weight=torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
    ),
    module("MultiLabelMarginLoss", inputs=(real(1, 4), fixed([[2, 0, -1, 1]], torch.long))),
    module("MultiLabelSoftMarginLoss", inputs=(real(4, 3), uniform(0, 1, 4, 3))),
    module("TripletMarginLoss", inputs=(real(4, 3), real(4, 3), real(4, 3)), swap=True),
    module("TripletMarginWithDistanceLoss", inputs=(real(4, 3), real(4, 3), real(4, 3)), swap=True),
    module(
        "TripletMarginWithDistanceLoss",
        inputs=(real(4, 3), real(4, 3), real(4, 3)),
        distance_function=torch.nn.CosineSimilarity(),
    ),
    module(
        "CTCLoss",
        inputs=(
            lambda generator: real(6, 3, 4)(generator).log_softmax(-1),
            fixed([[1, 1, 2], [2, 1, 3], [1, 2, 3]], torch.long),
            fixed([6, 4, 5], torch.long),
            fixed([3, 2, 0], torch.long),
        ),
    ),
    module(
        "AdaptiveLogSoftmaxWithLoss",
        4,
        6,
        [2, 4],
        2.0,
        inputs=(real(5, 4), classes(6, 5)),
    ),
    module("AdaptiveLogSoftmaxWithLoss", 4, 6, [2, 4], 2.0, inputs=(real(4), classes(6))),
]

if hasattr(torch.nn, "LinearCrossEntropyLoss"):
    MODULES += [
        module("LinearCrossEntropyLoss", 3, 5, bias=True, inputs=(real(4, 3), classes(5, 4))),
        module(
            "LinearCrossEntropyLoss",
            3,
            5,
            out_features=(2,),
            inputs=(real(4, 3), classes(5, 4, 2)),
        ),
    ]
