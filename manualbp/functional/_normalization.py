"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp import formulas
from manualbp.core.modes import autocasts
from manualbp.formulas.normalization import check_channels

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = x̂ w + b, each channel (axis 1) normalised over all examples and positions.

    In training, each batch is normalised by its own mean and variance, and the running ones are
    updated in place by ``momentum``. Otherwise the running ones are used, as constants.

    Raises:
        ValueError: in training, a channel has one number alone, or ``eps`` is not positive.
    """
    if training:
        torch_functional._verify_batch_size(input.size())  # type: ignore[attr-defined]
    if eps < 0 or (training and eps == 0):
        bound = "positive during training" if training else "non-negative"
        raise ValueError(f"batch_norm eps must be {bound}, but got {eps}")
    if input.numel() == 0:  # torch accepts an empty input of any shape
        channels = next((t.numel() for t in (weight, bias) if t is not None), 1)
        nothing = input.reshape(0, channels)
        options = (weight, bias, None, None, momentum, eps)
        return formulas.BatchNorm.apply(nothing, *options)[0].reshape(input.shape)
    if training:
        check_channels(input, running_mean=running_mean, running_var=running_var)
        return formulas.BatchNorm.apply(
            input, weight, bias, running_mean, running_var, momentum, eps
        )[0]
    if running_mean is None or running_var is None:
        raise RuntimeError("running_mean and running_var must be defined in evaluation mode")
    return formulas.FixedBatchNorm.apply(input, weight, bias, running_mean, running_var, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = x̂ w + b, each channel (axis 1) of each example normalised over its positions.

    The running mean and variance, if any, are updated as in :func:`batch_norm`, by the average
    over the examples.

    Raises:
        ValueError: a channel of an example has one number alone.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "Expected running_mean and running_var to be defined when use_input_stats is false"
            )
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    torch_functional._verify_spatial_size(input.size())  # type: ignore[attr-defined]
    check_channels(
        input,
        running_mean=running_mean,
        running_var=running_var,
        weight=weight,
        bias=bias,
    )
    # The channels of all examples become the channels of one example.
    count = input.shape[0]
    output = formulas.BatchNorm.apply(
        input.contiguous().view(1, -1, *input.shape[2:]),
        _repeated(weight, count),
        _repeated(bias, count),
        running_mean,
        running_var,
        momentum,
        eps,
    )[0]
    return output.view(input.shape)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = x̂ ⊙ w + b, each example normalised over its last axes, of ``normalized_shape``."""
    return formulas.LayerNorm.apply(
        _in_full_precision(input), tuple(normalized_shape), weight, bias, eps
    )[0]


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = x̂ w + b, each of ``num_groups`` groups of channels (axis 1) of each example normalised.

    Raises:
        ValueError: a group has one number alone.
    """
    if input.dim() < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.dim()}"
        )
    count, channels, *positions = input.shape
    torch_functional._verify_batch_size(  # type: ignore[attr-defined]
        [count * channels // num_groups, num_groups, *positions]
    )
    return formulas.GroupNorm.apply(_in_full_precision(input), num_groups, weight, bias, eps)[0]


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """y = x̂ ⊙ w, x̂ = x / √(mean(x²) + ε) over the last axes, of ``normalized_shape``."""
    return formulas.RMSNorm.apply(input, tuple(normalized_shape), weight, eps)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """y = x / (k + α A(x²))ᵝ, A the mean over ``size`` neighbouring channels (axis 1).

    Raises:
        ValueError: ``input`` has fewer than three axes.
    """
    if input.dim() < 3:
        raise ValueError(f"Expected 3D or higher dimensionality (got {input.dim()} dimensions)")
    if input.numel() == 0:
        return input
    return formulas.LocalResponseNorm.apply(input, size, alpha, beta, k)


def normalize(
    input: Tensor,
    p: float = 2.0,
    dim: int | tuple[int, ...] = 1,
    eps: float = 1e-12,
    out: Tensor | None = None,
) -> Tensor:
    """y = x / max(‖x‖, ε), the p-norm along ``dim``; into ``out`` without a gradient."""
    if out is not None:
        return torch_functional.normalize(input, p, dim, eps, out)  # type: ignore[arg-type]
    return formulas.Normalize.apply(input, p, dim, eps)[0]


def _repeated(tensor: Tensor | None, count: int) -> Tensor | None:
    """``tensor`` repeated ``count`` times, in one row."""
    return None if tensor is None else tensor.expand(count, -1).reshape(-1)


def _in_full_precision(input: Tensor) -> Tensor:
    """In single precision under a CUDA autocast, to which torch casts its own function."""
    lower = input.dtype in (torch.half, torch.bfloat16)
    return input.float() if lower and input.is_cuda and autocasts(input) else input
