"""All measurements, written to docs/benchmarks.md with its picture.

python benchmarks/report.py              everything, about a quarter of an hour
python benchmarks/report.py --quick      a few rounds of everything, to see that it works
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import models
import overhead
import torch
from measure import duration, machine, ratio, table
from torch.autograd.graph import saved_tensors_hooks

import manualbp

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {
    "784-16-16-10": 32,
    "784-128-10": 64,
    "784-512-512-10": 128,
    "784-2048-2048-10": 512,
}
BASE = "torch.nn eager"
OURS = ["layers under autograd", "tape", "compiled step"]
WAYS = [BASE, "torch.compile", *OURS, "compiled step, 8 a call", "matrix products alone"]
PEERS = ["JAX jit", "JAX scan, 8 a call"]
GROWTH = {
    "width": [(f"784-{w}-{w}-10", 64) for w in (16, 64, 256, 1024)],
    "depth": [("784-" + "64-" * d + "10", 64) for d in (1, 2, 4, 8)],
    "batch": [("784-128-10", b) for b in (8, 32, 128, 512)],
}


class Worker:
    """A way to train a network, in a process of its own, which runs only when asked."""

    def __init__(self, way: str, widths: str, batch: int, device: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "benchmarks/steps.py", way, widths, str(batch), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{way} on {widths} did not start")

    def turn(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def side_by_side(
    ways: list[str], widths: str, batch: int, rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds a step of each way, in turn, A B C A B C …, each in its own process."""
    workers = {way: Worker(way, widths, batch, device) for way in ways}
    figures: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, worker in workers.items():
            figures[way].append(worker.turn())
            time.sleep(0.05)  # until its threads sleep too
    for worker in workers.values():
        worker.end()
    return figures


def steps_table(ways: list[str], rounds: int, device: str = "cpu") -> str:
    columns = {}
    for widths, batch in NETWORKS.items():
        columns[widths] = side_by_side(ways, widths, batch, rounds, device)
        print(f"  {widths}", flush=True)
    rows = []
    for way in ways:
        row = [way]
        for figures in columns.values():
            middle, low, high = ratio(figures, way, BASE)
            spread = f"{middle:.2f} ({low:.2f}–{high:.2f})"
            row.append(duration(statistics.median(figures[BASE])) if way == BASE else spread)
        rows.append(row)
    head = ["one training step", *(f"{w}, batch {b}" for w, b in NETWORKS.items())]
    return table(head, rows)


def growth_picture(path: Path, rounds: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ways = [BASE, *OURS]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True, layout="constrained")
    for axis, (name, points) in zip(axes, GROWTH.items(), strict=True):
        results = [side_by_side(ways, w, b, rounds) for w, b in points]
        if name == "batch":
            at = [b for _, b in points]
        else:
            at = [w.count("-") - 1 if name == "depth" else int(w.split("-")[1]) for w, _ in points]
        for way in ways:
            middles = [statistics.median(r[way]) * 1e6 for r in results]
            axis.plot(at, middles, "o-", label=way, color="0.6" if way == BASE else None)
        axis.set(xscale="log", yscale="log", xlabel={"depth": "hidden layers"}.get(name, name))
        axis.set_xticks(at, map(str, at))
        axis.minorticks_off()
        fixed = {"width": "784-w-w-10, batch 64", "depth": "784-64-…-10, batch 64"}
        axis.set_title(fixed.get(name, "784-128-10"))
        axis.grid(alpha=0.3)
        print(f"  {name}", flush=True)
    axes[0].set_ylabel("µs a training step")
    axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def memory_table() -> str:
    rows = []
    for widths, batch in NETWORKS.items():
        sizes = [int(w) for w in widths.split("-")]
        saved = []
        for nn in (torch.nn, manualbp.nn):
            layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Sigmoid())]
            net, criterion = torch.nn.Sequential(*layers), nn.MSELoss()
            own = {p.data_ptr() for p in net.parameters()}
            seen: dict[int, int] = {}

            def pack(t, own=own, seen=seen):
                if t.data_ptr() not in own:
                    seen[t.data_ptr()] = t.nbytes
                return t

            with saved_tensors_hooks(pack, lambda t: t):
                criterion(net(torch.rand(batch, sizes[0])), torch.rand(batch, sizes[-1]))
            saved.append(sum(seen.values()))
        rows.append([f"{widths}, batch {batch}", *(f"{s / 1024:,.0f} KiB" for s in saved)])
    return table(["kept for the backward pass", "torch.nn", "manualbp.nn"], rows)


def epochs_table(rounds: int) -> str:
    """Four epochs from a cold start, in turn, and what the last three of them take."""
    ours = "--model.layers [784,128,10] --model.activation relu --model.output_activation identity"
    ours += " --model.cost cross_entropy --model.optimizer sgd --model.lr 0.1 --data.batch_size 64"
    ours += " --model.momentum 0 --model.weight_decay 0 --trainer.max_epochs 4 --test false"
    ours += " --trainer.accelerator cpu"
    usual = "the usual Lightning recipe"
    commands = {usual: ["benchmarks/usual_recipe.py"]}
    for engine in ("autograd", "tape", "step"):
        commands[f"train.py, engine {engine}"] = [
            "train.py",
            *ours.split(),
            "--model.engine",
            engine,
        ]
    cold: dict[str, list[float]] = {name: [] for name in commands}
    warm: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, (script, *rest) in commands.items():
            with tempfile.TemporaryDirectory() as folder:  # for runs, and for what Inductor keeps
                env = os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": folder}
                command = [sys.executable, ROOT / script, *rest]
                start = time.perf_counter()
                done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
                cold[name].append(time.perf_counter() - start)
            if done.returncode:
                raise RuntimeError(f"{name}:\n{done.stdout}\n{done.stderr}")
            line = r"^epoch (\S+) s$" if name == usual else r"^ +\d+ .* (\d+\.\d)$"
            seconds = [float(s) for s in re.findall(line, done.stdout, re.M)]
            warm[name].append(statistics.mean(seconds[1:]))
            print(f"  {name} {cold[name][-1]:.1f} s, an epoch {warm[name][-1]:.2f} s", flush=True)
    rows = []
    for name in commands:
        row = [name]
        for figures in (cold, warm):
            middle = statistics.median(figures[name])
            row += [f"{middle:.2f} s", f"{middle / statistics.median(figures[usual]):.2f}"]
        rows.append(row)
    head = ["784-128-10, batch 64", "4 epochs, cold", "× usual", "a later epoch", "× usual"]
    return table(head, rows)


def one_step(rounds: int) -> str:
    ways = WAYS + (PEERS if find_spec("jax") else [])
    text = f"""Forward, backward and the update of `torch.optim.SGD`; sigmoids, mean squared error.
The first row is the median time, the others are ratios to it, round by round: median and quartiles
of {rounds}.

{steps_table(ways, rounds)}

*Matrix products alone* is the floor under every way that multiplies with torch: the products of a
step and nothing else."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        text += f"\n\nOn {name}:\n\n{steps_table(WAYS, rounds, 'cuda')}"
    return text


def growth(rounds: int) -> str:
    growth_picture(DOCS / "growth.png", max(3, rounds // 4))
    return "![Microseconds a step against width, depth and batch](growth.png)"


def epochs(rounds: int) -> str:
    return f"""Medians of {max(2, rounds // 4)}. Four epochs from cold include Python, imports,
the data and, for `step`, compiling; a later epoch is the mean of the last three.

{epochs_table(max(2, rounds // 4))}"""


def memory(_: int) -> str:
    return f"""Bytes that autograd keeps from forward to backward, parameters not counted.

{memory_table()}"""


def smallest(_: int) -> str:
    return overhead.report()


def whole_models(rounds: int) -> str:
    return f"""Untouched, after `manualbp.convert`, and inside `manualbp.intercept()` too, where all
steps are explicit: forward, cross-entropy and backward, medians of {rounds} rounds in turn.

{models.report(rounds)}"""


SECTIONS = {
    "One training step": one_step,
    "How it grows": growth,
    "Epochs of MNIST": epochs,
    "Memory": memory,
    "Whole models": whole_models,
    "The smallest case": smallest,
}
DOCS = ROOT / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="leave the others as is")
    options = parser.parse_args()
    path = DOCS / "benchmarks.md"
    DOCS.mkdir(exist_ok=True)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    versions = machine()
    known = dict(re.findall(r"^## (.+?)\n\n(.*?)\s*(?=^## |\Z)", old, re.M | re.S))
    for title, measure in SECTIONS.items():
        if title not in known or not options.only or title in options.only:
            print(title, flush=True)
            known[title] = measure(3 if options.quick else 11)
    if find_spec("jax"):
        import jax

        versions += f", JAX {jax.__version__}"
    text = f"""# What it costs

Written by `python benchmarks/report.py`. {versions}.
Each table compares within one run: every way in a process of its own, one after the other in turn.
"""
    text += "".join(f"\n## {title}\n\n{known[title]}\n" for title in SECTIONS)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
