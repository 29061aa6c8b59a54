"""Whole models, untouched and converted, side by side: time and bytes.

python benchmarks/models.py
"""

from __future__ import annotations

import copy
import statistics
import timeit
from collections.abc import Callable

import torch
from measure import duration, table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

import manualbp


def resnet18() -> tuple[nn.Module, Tensor]:
    from torchvision.models import resnet18

    return resnet18(num_classes=10), torch.randn(16, 3, 64, 64)


def vit() -> tuple[nn.Module, Tensor]:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(
        image_size=64, patch_size=8, num_layers=6, num_heads=4, hidden_dim=192, mlp_dim=768,
        num_classes=10,
    )  # fmt: skip
    return net, torch.randn(16, 3, 64, 64)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "ResNet-18, batch 16, 64×64": resnet18,
    "ViT, 6 layers, batch 16, 64×64": vit,
}


def cost(net: nn.Module, x: Tensor, y: Tensor, interception: bool) -> Tensor:
    if interception:
        with manualbp.intercept():
            return F.cross_entropy(net(x), y)
    return F.cross_entropy(net(x), y)


def kept(net: nn.Module, x: Tensor, y: Tensor, interception: bool) -> int:
    """Bytes that autograd holds from forward to backward, parameters not counted."""
    own = {p.data_ptr() for p in net.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = max(saved.get(tensor.data_ptr(), 0), tensor.nbytes)
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        cost(net, x, y, interception)
    return sum(saved.values())


def report(rounds: int = 7) -> str:
    rows = []
    for name, make in MODELS.items():
        torch.manual_seed(0)
        net, x = make()
        y = torch.randint(10, (len(x),))
        converted = copy.deepcopy(net)
        manualbp.convert(converted)
        ways = [(net, x, y, False), (converted, x, y, False), (converted, x, y, True)]
        for way in ways:
            cost(*way).backward()
        turns = [
            [timeit.timeit(lambda way=way: cost(*way).backward(), number=1) for way in ways]
            for _ in range(rounds)
        ]
        base, *ratios = (
            statistics.median(turn[i] / (turn[0] if i else 1) for turn in turns) for i in range(3)
        )
        held = [kept(*way) for way in ways]
        row = [name, duration(base), *(f"{r:.2f}" for r in ratios), f"{held[0] / 2**20:.1f} MiB"]
        rows.append([*row, *(f"{h / held[0]:.2f}" for h in held[1:])])
        print("  ".join(rows[-1]), flush=True)
    head = ["forward and backward", "torch.nn", "converted", "and intercepted"]
    return table([*head, "torch.nn keeps", "converted", "and intercepted"], rows)


if __name__ == "__main__":
    report()
