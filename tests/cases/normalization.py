"""Normalisation."""

from torch import Tensor

from cases.table import *

MOVED = {"inputs_unchanged": "the running statistics are updated in place, as torch's are"}
#: d²C/dx dw comes without its terms through μ and σ, where d²C/dw dx has them
HESSIAN = {"jacobians": "torch.func's own Hessian is not symmetric; see the textbook's rows"}
#: C++ code multiplies by a weight that is not there
BIAS_ALONE = {"second_order": "torch's own fails for a bias without a weight; see the textbook's"}
TEXTBOOK = {"thrifty": "the twin keeps its intermediates instead"}
UNMAPPED = {"explicit": "two moves around it"}
NOBODY = EMPTY | {"thrifty": "of an empty batch torch keeps nothing, we the statistics' shape"}
FAR = {
    "gradient": "a nudge is near the rounding of the input",
    "second_order": "a nudge is near the rounding of the input",
    "strides": "sums in another order agree to fewer digits",
    "jacobians": "torch.func's own Hessian is not symmetric; see the textbook's rows",
}
HALF = {"dtypes": "torch has no average pooling in three dimensions of bfloat16"}


def textbook(
    input: Tensor,
    axes: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """In elementary operations, all of whose derivatives are right."""
    centred = input - input.mean(axes, keepdim=True)
    y = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def textbook_batch_norm(
    input: Tensor,
    running_mean: None,
    running_var: None,
    training: bool,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    last = textbook(input.movedim(1, -1), tuple(range(input.dim() - 1)), weight, bias)
    return last.movedim(-1, 1)


def textbook_layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    return textbook(input, tuple(range(-len(normalized_shape), 0)), weight, bias)


def offset(make: Make, by: float = 1e3) -> Make:
    """The same numbers far from 0, where a difference of large sums would cancel."""
    return lambda generator: make(generator) + by


def channels_last(make: Make) -> Make:
    """The same numbers, those of one position beside one another in memory."""
    return lambda generator: make(generator).movedim(1, -1).contiguous().movedim(-1, 1)


def statistics(channels: int) -> tuple[Make, Make]:
    """A running mean and a running variance: constants."""
    return constant(real(channels)), constant(uniform(0.5, 1.5, channels))


def affine(*shape: int) -> dict[str, Make]:
    return {"weight": real(*shape), "bias": real(*shape)}


def running(channels: int) -> dict[str, Make]:
    return dict(zip(("running_mean", "running_var"), statistics(channels), strict=True))


OF_NOTHING = {"complex_numbers": "torch's kernel takes complex numbers only where it runs of none"}

BATCH = [
    row("batch_norm", real(4, 3), None, None, **affine(3), training=True, without=HESSIAN),
    row("batch_norm", real(4, 3), None, None, **affine(3), training=True, note="textbook",
        twin=textbook_batch_norm, without=TEXTBOOK),
    row("batch_norm", real(3, 2, 4), None, None, training=True),
    row("batch_norm", real(3, 2, 4), None, None, bias=real(2), training=True, note="textbook",
        twin=textbook_batch_norm, without=TEXTBOOK),
    row("batch_norm", real(2, 3, 2, 2), *statistics(3), **affine(3), training=True,
        without=MOVED | HESSIAN),
    row("batch_norm", channels_last(real(2, 3, 2, 2)), None, None, weight=real(3), training=True,
        note="channels last", without=HESSIAN),
    row("batch_norm", transposed(real(2, 3, 2, 4)), None, None, training=True, eps=0.1,
        note="transposed"),
    row("batch_norm", real(2, 2, 1, 2, 2), None, None, **affine(2), training=True,
        without=HESSIAN),
    row("batch_norm", real(0, 3, 2), *statistics(3), **affine(3), training=True, without=NOBODY),
    row("batch_norm", offset(real(32, 2, 3)), None, None, **affine(2), training=True,
        note="offset", without=FAR),
    row("batch_norm", real(4, 3), *statistics(3), **affine(3)),
    row("batch_norm", real(2, 3, 2, 2), *statistics(3)),
    row("batch_norm", real(2, 3, 2, 2), *statistics(3), bias=real(3), eps=0.1,
        without=BIAS_ALONE),
    row("batch_norm", real(0, 3, 2), *statistics(3), **affine(3), without=NOBODY),
    row("batch_norm", offset(real(4, 3), 1e4), constant(offset(real(3), 1e4)),
        constant(uniform(0.5, 1.5, 3)), **affine(3), note="offset", without=FAR),
    row("batch_norm", real(0), None, None, without=NOBODY | OF_NOTHING),
    row("batch_norm", real(0), None, None, **affine(3), training=True,
        without=NOBODY | OF_NOTHING | UNMAPPED),
]  # fmt: skip

INSTANCE = [
    row("instance_norm", real(2, 3, 4)),
    row("instance_norm", real(2, 3, 2, 2), **running(3), **affine(3), without=MOVED | HESSIAN),
    row("instance_norm", channels_last(real(2, 3, 2, 2)), **affine(3), note="channels last",
        without=HESSIAN),
    row("instance_norm", real(2, 2, 1, 2, 2), eps=0.1),
    row("instance_norm", real(2, 3, 2, 2), *statistics(3), **affine(3), use_input_stats=False),
]  # fmt: skip

LAYER = [
    row("layer_norm", real(4, 3), [3], **affine(3), without=HESSIAN),
    row("layer_norm", real(4, 3), [3], **affine(3), note="textbook", twin=textbook_layer_norm,
        without=TEXTBOOK),
    row("layer_norm", real(4, 3), [3]),
    row("layer_norm", real(2, 3, 4), [3, 4], weight=real(3, 4), eps=0.1, without=HESSIAN),
    row("layer_norm", real(2, 2, 2, 3), [2, 3], **affine(2, 3), note="textbook",
        twin=textbook_layer_norm, without=TEXTBOOK),
    row("layer_norm", real(2, 2, 2, 3), [2, 3], bias=real(2, 3), without=BIAS_ALONE),
    row("layer_norm", real(3), [3], **affine(3), without=HESSIAN),
    row("layer_norm", transposed(real(2, 4, 3)), [3], **affine(3), note="transposed",
        without=HESSIAN),
    row("layer_norm", real(0, 3), [3], **affine(3), without=EMPTY),
    row("layer_norm", offset(real(4, 64)), [64], **affine(64), note="offset", without=FAR),
]  # fmt: skip

GROUP = [
    row("group_norm", real(2, 4, 3), 2, **affine(4)),
    row("group_norm", real(2, 4, 2, 2), 2),
    row("group_norm", real(2, 4), 2, **affine(4)),
    row("group_norm", real(2, 4, 2, 2), 4, weight=real(4), eps=0.1),
    row("group_norm", real(2, 4, 2, 2), 1, bias=real(4)),
    row("group_norm", channels_last(real(2, 4, 2, 3)), 2, **affine(4), note="channels last"),
    row("group_norm", transposed(real(2, 4, 2, 3)), 2, **affine(4), note="transposed"),
    row("group_norm", real(0, 4, 3), 2, **affine(4), without=EMPTY),
    row("group_norm", offset(real(2, 4, 16)), 2, **affine(4), note="offset", without=FAR),
]  # fmt: skip

OTHERS = [
    row("rms_norm", real(4, 3), [3], weight=real(3)),
    row("rms_norm", real(2, 3, 4), [3, 4]),
    row("rms_norm", real(2, 3, 4), [4], weight=real(4), eps=0.1),
    row("rms_norm", transposed(real(2, 4, 3)), [3], weight=real(3), note="transposed"),
    row("rms_norm", real(0, 3), [3], weight=real(3), without=EMPTY),
    row("local_response_norm", real(2, 4, 3), 3, alpha=0.5),
    row("local_response_norm", real(2, 4, 2, 3), 2, alpha=0.5, beta=1.5, k=2.0, without=HALF),
    row("local_response_norm", channels_last(real(1, 5, 2, 2)), 4, alpha=0.5,
        note="channels last", without=HALF),
    row("local_response_norm", real(1, 3, 1, 2, 2), 5, without=HALF),
    row("normalize", real(4, 3), special=[(fixed([[0.0, 0.0, 0.0], [INF, 1.0, 0.0]]),)]),
    row("normalize", real(2, 3, 4), p=3.0, dim=-1),
    row("normalize", away_from(0, 4, 3), p=1.0),
    row("normalize", away_from(0, 4, 3), p=1.5, dim=0),
    row(
        "normalize",
        fixed([[1.0, -3.0, 2.0], [0.5, 2.0, -0.3]]),
        p=INF,
        special=[(fixed([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]]),)],
    ),
    row("normalize", fixed([[1.0, -0.6, 0.2], [0.5, 2.0, -0.3]]), p=INF, eps=1.5, note="clamped"),
    row("normalize", away_from(0, 4, 3), p=0.0),
    row("normalize", real(2, 3, 4), dim=(1, 2)),
    row("normalize", fixed([[0.1, 0.2, -0.3], [1.0, -2.0, 3.0]]), eps=1.0, note="clamped"),
    row("normalize", transposed(real(4, 3)), note="transposed"),
    row("normalize", real(0, 3), without=EMPTY),
]  # fmt: skip

CASES = [*BATCH, *INSTANCE, *LAYER, *GROUP, *OTHERS]


MODULES = [
    module("BatchNorm1d", 3, inputs=(real(4, 3),)),
    module("BatchNorm1d", 3, inputs=(real(4, 3, 2),), momentum=None),
    module("BatchNorm2d", 3, inputs=(real(2, 3, 2, 2),), eps=0.1, momentum=0.3),
    module("BatchNorm2d", 3, inputs=(real(2, 3, 2, 2),), track_running_stats=False),
    module("BatchNorm2d", 3, inputs=(real(2, 3, 2, 2),), affine=False),
    module("BatchNorm3d", 2, inputs=(real(2, 2, 1, 2, 2),)),
    module("SyncBatchNorm", 3, inputs=(real(4, 3),)),
    module("InstanceNorm1d", 3, inputs=(real(2, 3, 4),)),
    module("InstanceNorm1d", 3, inputs=(real(3, 4),), affine=True),
    module("InstanceNorm2d", 3, inputs=(real(2, 3, 2, 2),), affine=True, track_running_stats=True),
    module("InstanceNorm2d", 3, inputs=(real(3, 2, 2),), track_running_stats=True, momentum=0.3),
    module("InstanceNorm3d", 2, inputs=(real(2, 2, 1, 2, 2),), affine=True),
    module("LayerNorm", 3, inputs=(real(4, 3),)),
    module("LayerNorm", (2, 3), inputs=(real(4, 2, 3),), elementwise_affine=False),
    module("LayerNorm", 3, inputs=(real(4, 3),), bias=False),
    module("GroupNorm", 2, 4, inputs=(real(2, 4, 3),)),
    module("GroupNorm", 2, 4, inputs=(real(2, 4, 2, 2),), affine=False),
    module("RMSNorm", 3, inputs=(real(4, 3),)),
    module("RMSNorm", (2, 3), inputs=(real(4, 2, 3),), eps=0.1, elementwise_affine=False),
    module("LocalResponseNorm", 3, inputs=(real(2, 4, 3),), alpha=0.5),
]
