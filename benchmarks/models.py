"""Whole models, untouched and converted, side by side: time and bytes.

python benchmarks/models.py
"""

from __future__ import annotations

import copy
import statistics
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

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


def step(net: nn.Module, x: Tensor, y: Tensor, interception: bool) -> Callable[[], None]:
    def run() -> None:
        if interception:
            with manualbp.intercept():
                cost = F.cross_entropy(net(x), y)
        else:
            cost = F.cross_entropy(net(x), y)
        cost.backward()

    return run


def kept(net: nn.Module, forward: Callable[[], Tensor]) -> int:
    own = {p.data_ptr() for p in net.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = max(saved.get(tensor.data_ptr(), 0), tensor.nbytes)
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        forward()
    return sum(saved.values())


def report(rounds: int = 7) -> str:
    rows = []
    for name, make in MODELS.items():
        torch.manual_seed(0)
        net, x = make()
        y = torch.randint(10, (len(x),))
        theirs, ours, both = net, copy.deepcopy(net), copy.deepcopy(net)
        manualbp.convert(ours)
        manualbp.convert(both)
        ways = [step(theirs, x, y, False), step(ours, x, y, False), step(both, x, y, True)]
        for way in ways:
            way()
        turns = [[timeit.timeit(way, number=1) for way in ways] for _ in range(rounds)]
        base = statistics.median(turn[0] for turn in turns)
        ratios = [
            statistics.median(turn[i] / turn[0] for turn in turns) for i in range(1, len(ways))
        ]

        def intercepted(both: nn.Module = both, x: Tensor = x, y: Tensor = y) -> Tensor:
            with manualbp.intercept():
                return F.cross_entropy(both(x), y)

        bytes_kept = [
            kept(theirs, lambda: F.cross_entropy(theirs(x), y)),
            kept(ours, lambda: F.cross_entropy(ours(x), y)),
            kept(both, intercepted),
        ]
        rows.append(
            [
                name,
                duration(base),
                *(f"{r:.2f}" for r in ratios),
                f"{bytes_kept[0] / 2**20:.1f} MiB",
                *(f"{b / bytes_kept[0]:.2f}" for b in bytes_kept[1:]),
            ]
        )
        print("  ".join(rows[-1]), flush=True)
    head = ["forward and backward", "torch.nn", "converted", "and intercepted"]
    return table(head + ["torch.nn keeps", "converted", "and intercepted"], rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    report()
