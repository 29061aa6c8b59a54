"""One gradient an example and its norm: time and peak memory beside every other way to them.

python benchmarks/per_example.py            writes the tables of docs/per-example.md
python benchmarks/per_example.py --quick    a few rounds of it, printed
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from measure import duration, in_turn, machine, table
from torch import Tensor, nn
from torch.nn import functional as F

import manualbp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/per-example.md"
Call = Callable[[], object]


# --------------------------------------------------------------------------------- the networks


def dense(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Sigmoid()]
    return nn.Sequential(*layers)


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip


def resnet18() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    class Residual(BasicBlock):
        """Its sum is not in place, which Opacus refuses."""

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + (x if self.downsample is None else self.downsample(x)))

    net = ResNet(Residual, [2, 2, 2, 2], 10, norm_layer=lambda width: nn.GroupNorm(16, width))
    net.relu = nn.ReLU()
    return net


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        q, k, v = (
            f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.after(x))))


class Transformer(nn.Module):
    """Two blocks, width 64, 4 heads; a vocabulary of 1000, the mean over 32 places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 64)
        self.blocks = nn.Sequential(Block(64, 4), Block(64, 4))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, index: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(index))).mean(1))


def classes(count: int) -> Tensor:
    return torch.randint(10, (count,))


#: name → network, x, y, cost
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor, Tensor, nn.Module]]] = {
    "784-16-16-10, batch 64": lambda: (
        dense(784, 16, 16, 10), torch.rand(64, 784), torch.rand(64, 10), nn.MSELoss()
    ),
    "784-512-512-10, batch 128": lambda: (
        dense(784, 512, 512, 10), torch.rand(128, 784), torch.rand(128, 10), nn.MSELoss()
    ),
    "LeNet, batch 64": lambda: (
        lenet(), torch.rand(64, 1, 28, 28), classes(64), nn.CrossEntropyLoss()
    ),
    "ResNet-18 with GroupNorm, 32×32, batch 16": lambda: (
        resnet18(), torch.randn(16, 3, 32, 32), classes(16), nn.CrossEntropyLoss()
    ),
    "transformer, 32 tokens, batch 32": lambda: (
        Transformer(), torch.randint(1000, (32, 32)), classes(32), nn.CrossEntropyLoss()
    ),
}  # fmt: skip


# -------------------------------------------------------------------------------------- the ways


def norms_of(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: g.flatten(1).norm(dim=1) for name, g in gradients.items()}


def ordinary(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    def run() -> None:
        net.zero_grad()
        cost(net(x), y).backward()

    return run


def loop(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    parameters = dict(net.named_parameters())

    def run() -> dict[str, Tensor]:
        each = [
            torch.autograd.grad(cost(net(x[i : i + 1]), y[i : i + 1]), [*parameters.values()])
            for i in range(len(x))
        ]
        return dict(zip(parameters, map(torch.stack, zip(*each, strict=True)), strict=True))

    return run


def vmap(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def own(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cost(torch.func.functional_call(net, p, (x.unsqueeze(0),)), y.unsqueeze(0))

    each = torch.func.vmap(torch.func.grad(own), (None, 0, 0))
    return lambda: each(parameters, x, y)


def opacus(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    from opacus import GradSampleModule

    wrapped = GradSampleModule(net, strict=True)

    def run() -> dict[str, Tensor]:
        wrapped.zero_grad(set_to_none=True)
        for p in wrapped.parameters():
            p.grad_sample = None
        cost(wrapped(x), y).backward()
        return {n.removeprefix("_module."): p.grad_sample for n, p in wrapped.named_parameters()}

    return run


def opacus_ghost(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(net, max_grad_norm=1.0, use_ghost_clipping=True)

    def run() -> dict[str, Tensor]:
        wrapped.zero_grad(set_to_none=True)
        cost(wrapped(x), y).backward()
        return {n.removeprefix("_module."): p._norm_sample for n, p in wrapped.named_parameters()}

    return run


def backpack(what: str) -> Callable[..., Call]:
    def way(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
        import backpack
        from backpack.extensions import BatchGrad, BatchL2Grad

        extension = {"grad_batch": BatchGrad, "batch_l2": BatchL2Grad}[what]()
        net, cost = backpack.extend(net), backpack.extend(cost)

        def run() -> dict[str, Tensor]:
            net.zero_grad()
            with backpack.backpack(extension):
                cost(net(x), y).backward()
            found = {n: getattr(p, what) for n, p in net.named_parameters()}
            for p in net.parameters():
                delattr(p, what)
            return {n: g.sqrt() for n, g in found.items()} if what == "batch_l2" else found

        return run

    return way


def grads(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    return lambda: manualbp.per_example_grads(net, x, y, cost=cost)


def norms(net: nn.Module, x: Tensor, y: Tensor, cost: nn.Module) -> Call:
    return lambda: manualbp.per_example_norms(net, x, y, cost=cost)


def then_norms(way: Callable[..., Call]) -> Callable[..., Call]:
    def of(*given: object) -> Call:
        run = way(*given)
        return lambda: norms_of(run())

    return of


ORDINARY = "forward and backward"
GRADS: dict[str, Callable[..., Call]] = {
    "loop": loop,
    "vmap(grad)": vmap,
    "Opacus": opacus,
    "BackPACK": backpack("grad_batch"),
    "manualbp": grads,
}
NORMS: dict[str, Callable[..., Call]] = {
    "vmap(grad)": then_norms(vmap),
    "Opacus, ghost": opacus_ghost,
    "Opacus, of gradients": then_norms(opacus),
    "BackPACK": backpack("batch_l2"),
    "manualbp": norms,
}


def made(network: str, way: Callable[..., Call], expected: dict[str, Tensor] | None) -> Call | None:
    """The way on this network, or None where it refuses it or gives other numbers."""
    torch.manual_seed(0)
    run = way(*NETWORKS[network]())
    try:
        found = run()
    except Exception as error:
        print(f"    {network}: {type(error).__name__}: {str(error)[:90]}", flush=True)
        return None
    if expected is not None:
        for name, value in expected.items():
            ours = found[name]
            # Some give the share of a mean: a factor of the number of examples.
            scale = (value.norm() / ours.norm()).round()
            if not torch.allclose(ours * scale, value, rtol=1e-3, atol=1e-5):
                print(f"    {network}: other numbers for {name}", flush=True)
                return None
    return run


def ways(network: str, check: bool = True) -> tuple[dict[str, Call], dict[str, Call]]:
    torch.manual_seed(0)
    expected = loop(*NETWORKS[network]())() if check else None
    gradients = {name: made(network, way, expected) for name, way in GRADS.items()}
    sizes = norms_of(expected) if expected is not None else None
    del expected
    squares = {name: made(network, way, sizes) for name, way in NORMS.items()}
    torch.manual_seed(0)
    plain = {ORDINARY: ordinary(*NETWORKS[network]())}
    return (
        plain | {name: run for name, run in gradients.items() if run},
        plain | {name: run for name, run in squares.items() if run},
    )


# ------------------------------------------------------------------------------------- measuring


def peak(run: Call) -> float:
    """MiB that the process holds at most during a call, beyond what it held before."""
    gc.collect()
    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def held(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    before = held("VmRSS")
    result = run()
    found = held("VmHWM") - before
    del result
    return found / 1024


def memory(network: str) -> dict[str, dict[str, float]]:
    """In a process of its own, whose allocator gives everything back."""
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, __file__, "--memory-of", network]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def cell(seconds: float | None, best: bool, mib: float | None) -> str:
    if seconds is None:
        return "—"
    text = f"**{duration(seconds)}**" if best else duration(seconds)
    return text if mib is None else f"{text}, {mib:.0f} MiB"


def report(rounds: int, only: str) -> dict[str, dict[str, list[str]]]:
    """The row of each network in each table."""
    rows: dict[str, dict[str, list[str]]] = {"gradients": {}, "norms": {}}
    for network in NETWORKS:
        if only and only not in network:
            continue
        held = memory(network)
        for kind, names, runs in zip(rows, (GRADS, NORMS), ways(network), strict=True):
            # Of the processor, because in one thread that is the time of the call alone.
            figures = in_turn(runs, rounds, seconds=0.03, clock=time.process_time)
            middle = {name: statistics.median(f) for name, f in figures.items()}
            plain = middle.pop(ORDINARY)
            best = min(middle, key=lambda name: middle[name])
            ratios = [a / b for a, b in zip(figures["manualbp"], figures[ORDINARY], strict=True)]
            peers = {name: t for name, t in middle.items() if name != "manualbp"}
            rival = min(peers, key=lambda name: peers[name])
            ahead = [a / b for a, b in zip(figures[rival], figures["manualbp"], strict=True)]
            row = [network, duration(plain)]
            row += [cell(middle.get(n), n == best, held[kind].get(n)) for n in names]
            row += [f"{statistics.median(ahead):.2f}", f"{statistics.median(ratios):.2f}"]
            rows[kind][network] = row
            print("  ".join(row), flush=True)
    return rows


def write(rows: dict[str, dict[str, list[str]]], rounds: int) -> None:
    """Into the page, where the rows of other networks stay."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- measured -->\n", "<!-- end of what is measured -->"
    before, rest = page.split(start)
    old, after = rest.split(end)
    known: dict[str, dict[str, list[str]]] = {"gradients": {}, "norms": {}}
    for line in old.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if cells[0] in known:
            kind = cells[0]
        elif cells[0] in NETWORKS:
            known[kind][cells[0]] = cells
    tables = []
    for kind, names in zip(rows, (GRADS, NORMS), strict=True):
        head = [kind, ORDINARY, *names, "best other / manualbp", "manualbp / forward and backward"]
        both = known[kind] | rows[kind]
        tables.append(table(head, [both[n] for n in NETWORKS if n in both]))
    text = "\n\n".join([f"{machine()}. Medians of {rounds} rounds.", *tables])
    PAGE.write_text(f"{before}{start}\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, printed")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--memory-of", help="one network, as its own process")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.memory_of:
        gradients, squares = ways(options.memory_of, check=False)
        kinds = {"gradients": gradients, "norms": squares}
        print(json.dumps({k: {n: peak(run) for n, run in v.items()} for k, v in kinds.items()}))
        return
    rounds = 3 if options.quick else options.rounds
    rows = report(rounds, options.only)
    if not options.quick:
        write(rows, rounds)


if __name__ == "__main__":
    main()
