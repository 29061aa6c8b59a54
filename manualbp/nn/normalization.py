"""Normalisation."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
    "SyncBatchNorm",
]


class BatchNorm1d(nn.BatchNorm1d):
    """torch.nn.BatchNorm1d by formula: y = x̂ w + b, μ and σ² of each channel over all examples and
    positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d by formula: y = x̂ w + b, μ and σ² of each channel over all examples and
    positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


class BatchNorm3d(nn.BatchNorm3d):
    """torch.nn.BatchNorm3d by formula: y = x̂ w + b, μ and σ² of each channel over all examples and
    positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch.nn.SyncBatchNorm by formula: y = x̂ w + b, μ and σ² of each channel over all examples
    and positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and _processes(self.process_group) > 1:
            warnings.warn("SyncBatchNorm of several processes is torch's own", stacklevel=2)
            return nn.SyncBatchNorm.forward(self, input)
        self._check_non_zero_input_channels(input)
        return _batch_norm(self, input)


class InstanceNorm1d(nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d by formula: y = x̂ w + b, μ and σ² of each channel over all examples
    and positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm), each example
    a batch by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return _instance_norm(self, input)


class InstanceNorm2d(nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d by formula: y = x̂ w + b, μ and σ² of each channel over all examples
    and positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm), each example
    a batch by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return _instance_norm(self, input)


class InstanceNorm3d(nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d by formula: y = x̂ w + b, μ and σ² of each channel over all examples
    and positions (formulas.BatchNorm, by running statistics formulas.FixedBatchNorm), each example
    a batch by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return _instance_norm(self, input)


class LayerNorm(nn.LayerNorm):
    """torch.nn.LayerNorm by formula: y = x̂ ⊙ w + b, μ and σ² of each example over the last axes
    (formulas.LayerNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class GroupNorm(nn.GroupNorm):
    """torch.nn.GroupNorm by formula: y = x̂ w + b, μ and σ² of each group of channels of each
    example (formulas.GroupNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm by formula: y = x̂ ⊙ w, x̂ = x r, r = 1 / √(mean(x²) + ε), of each example
    over the last axes (formulas.RMSNorm)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch.nn.LocalResponseNorm by formula: y = x d⁻ᵝ, d = k + α A(x²), A the mean over
    neighbouring channels (formulas.LocalResponseNorm)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


def _batch_norm(module: Any, input: Tensor) -> Tensor:
    """By the batch's statistics in training, and where there are no running statistics."""
    module._check_input_dim(input)
    mean, var = module.running_mean, module.running_var
    by_batch = module.training or (mean is None and var is None)
    counted = module.training and module.track_running_stats
    if module.training and not module.track_running_stats:
        mean = var = None
    if counted and module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None and mean is not None and var is not None:
            # The running statistics become the mean over all batches so far. Their number stays a
            # tensor, because reading it would break a compiler's graph.
            own = torch.zeros_like(mean), torch.ones_like(var)
            output = F.batch_norm(input, *own, module.weight, module.bias, True, 1.0, module.eps)
            with torch.no_grad():
                share = module.num_batches_tracked.to(mean.dtype).reciprocal()
                for running, batch in zip((mean, var), own, strict=True):
                    running.mul_(1 - share).add_(share * batch)
            return output
    momentum = 0.0 if module.momentum is None else module.momentum
    return F.batch_norm(
        input, mean, var, module.weight, module.bias, by_batch, momentum, module.eps
    )


def _instance_norm(module: Any, input: Tensor) -> Tensor:
    """Also of a single example without an axis of examples."""
    module._check_input_dim(input)
    unbatched = input.dim() == module._get_no_batch_dim()
    axis = 0 if unbatched else 1
    if input.size(axis) != module.num_features:
        if module.affine:
            raise ValueError(
                f"expected input's size at dim={axis} to match num_features"
                f" ({module.num_features}), but got: {input.size(axis)}."
            )
        warnings.warn(
            f"input's size at dim={axis} does not match num_features. "
            "You can silence this warning by not passing in num_features, "
            "which is not used because affine=False",
            stacklevel=3,
        )
    output = F.instance_norm(
        input.unsqueeze(0) if unbatched else input,
        module.running_mean,
        module.running_var,
        module.weight,
        module.bias,
        module.training or not module.track_running_stats,
        0.0 if module.momentum is None else module.momentum,
        module.eps,
    )
    return output.squeeze(0) if unbatched else output


def _processes(group: Any) -> int:
    """The number of processes of a distributed run; 1 without one."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)
