"""The norms of gradients while a network trains, and the first NaN or infinity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from manualbp.training.errors import UserError

Cost = Callable[[Tensor, Tensor], Tensor]

WEIGHTED_SUMS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
SQUASHING = (
    nn.Sigmoid,
    nn.Tanh,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
)
SATURATED = 0.05  # of the steepest slope


class Diverged(UserError):
    """A NaN or an infinity occurred in training."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"training diverged at {where}: first seen in {what}\n"
            "  mend: a smaller --model.lr, or --model.warmup 0.1"
        )


def measure(
    net: nn.Module, cost: Cost, images: Tensor, labels: Tensor
) -> tuple[dict[str, float], float]:
    """‖δ‖ of each weighted sum by module name, and the share of saturated units.

    ‖δ‖ is the norm of one example's ∂C₀/∂z, averaged over the examples, so that it does not
    depend on how many there are. A unit is saturated, for one example, if its activation's slope
    |σ′(z)| is below 5 % of the largest possible; for ReLU, if it is 0.
    """
    with torch.enable_grad(), evaluating(net), recording(net) as record:
        value = cost(net(images), labels)
    sums = [(name, out) for name, module, _, out in record if isinstance(module, WEIGHTED_SUMS)]
    deltas = torch.autograd.grad(value, [z for _, z in sums], allow_unused=True)
    norms = {
        name: delta.flatten(1).norm(dim=1).sum().item()
        for (name, _), delta in zip(sums, deltas, strict=True)
        if delta is not None
    }
    flat = units = 0
    for _, module, z, _ in record:
        if isinstance(module, SQUASHING):
            slopes = slope(module, z)
            flat += int((slopes < SATURATED * steepest(module, z)).sum())
            units += slopes.numel()
    return norms, flat / units if units else 0.0


def slope(activation: nn.Module, z: Tensor) -> Tensor:
    """|σ′(z)|, computed by the activation's backward pass."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(activation(z).sum(), z)[0].abs()


def steepest(activation: nn.Module, like: Tensor) -> float:
    z = torch.linspace(-8, 8, 257, device=like.device, dtype=like.dtype)
    return slope(activation, z).max().item()


def first_non_finite(net: nn.Module, cost: Cost, batch: tuple[Tensor, Tensor]) -> str:
    """Name the tensor in which a NaN or an infinity first appeared.

    It has to be called before the gradients of the last step are cleared. If a weight is not
    finite, the last step's backward pass caused it: the answer is the first such gradient, from
    the cost backwards. Otherwise this step's forward pass caused it.
    """
    bad_weights = [name for name, p in net.named_parameters() if not p.isfinite().all()]
    if bad_weights:
        for name, p in reversed(list(net.named_parameters())):
            if p.grad is not None and not p.grad.isfinite().all():
                layer, _, kind = name.rpartition(".")
                return f"∂C/∂{kind} of layer {layer}, so in its δ, one step before"
        return f"{bad_weights[-1]}, one step before: its gradient was finite, the update not"
    images, labels = batch
    if not images.isfinite().all():
        return "the images"
    with torch.no_grad(), keeping_buffers(net), recording(net) as record:
        cost(net(images), labels)
    for name, module, _, out in record:
        if not out.isfinite().all():
            symbol = "z" if isinstance(module, WEIGHTED_SUMS) else "a"
            return f"{symbol}, the output of layer {name} ({type(module).__name__})"
    return "the cost C, from finite outputs"


@contextmanager
def recording(net: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor, Tensor]]]:
    """Record (name, module, input, output) of every innermost module that runs."""
    record: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: record.append((name, module, inputs[0], output))

    leaves = [(n, m) for n, m in net.named_modules() if not any(m.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def keeping_buffers(net: nn.Module) -> Iterator[None]:
    """Restore running statistics afterwards, which a forward pass may set to NaN."""
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block: no dropout, and no update of running statistics."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
