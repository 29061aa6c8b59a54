"""A gradient check of the network before it is trained."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manualbp.training.monitor import Cost

TOLERANCE = 1e-5


class GradientCheck(NamedTuple):
    """The largest error of the backward pass against finite differences."""

    weights: int
    max_error: float
    worst: str

    @property
    def ok(self) -> bool:
        return self.max_error < TOLERANCE  # False for NaN


def check_gradients(
    net: nn.Module,
    cost: Cost,
    images: Tensor,
    labels: Tensor,
    weights: int = 200,
    seed: int = 0,
    nudge: float = 1e-5,
) -> GradientCheck:
    """Compare `weights` randomly chosen ∂C/∂w with (C(w + h) − C(w − h)) / 2h.

    Runs on a copy, in float64 on the CPU, in evaluation mode. The weights are spread evenly over
    the parameters. An error is relative to the largest difference found in the same parameter, so
    that rounding in a gradient that is nearly 0 does not count.
    """
    net = copy.deepcopy(net).cpu().double().eval()
    images, labels = images.cpu().double(), labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not parameters:
        return GradientCheck(0, 0.0, "")
    with torch.enable_grad():
        gradients = torch.autograd.grad(cost(net(images), labels), list(parameters.values()))
    share = -(-weights // len(parameters))
    checked, errors = 0, dict[str, float]()
    for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
        chosen = torch.randperm(p.numel(), generator=generator)[:share]
        flat = p.detach().view(-1)  # shares memory with the parameter

        def difference(at: int, h: float, flat: Tensor = flat) -> float:
            w = flat[at].item()
            costs = []
            for moved in (w + h, w - h):
                flat[at] = moved
                with torch.no_grad():
                    costs.append(cost(net(images), labels).item())
            flat[at] = w
            return (costs[0] - costs[1]) / (2 * h)

        slopes = [difference(at, nudge) for at in chosen.tolist()]
        differences = torch.tensor(slopes, dtype=torch.float64)
        ours = gradient.flatten()[chosen]
        scale = torch.stack([ours.abs().max(), differences.abs().max()]).max().clamp_min(1e-6)
        # A nudge may cross the kink of a ReLU; then a smaller one does not. It helps no wrong rule.
        for i in ((ours - differences).abs() >= TOLERANCE * scale).nonzero().flatten().tolist():
            tries = [difference(int(chosen[i]), nudge / by) for by in (1, 10, 100)]
            off = {abs(found - ours[i].item()): found for found in tries}
            differences[i] = off[min(off)]
        errors[name] = ((ours - differences).abs().max() / scale).item()
        checked += len(chosen)
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    return GradientCheck(checked, errors[worst], worst)
