"""Kill runs of train.py at random moments, and compare them with runs that are left alone.

python benchmarks/faults.py                 50 kills, then memory; writes docs/reliability.md
python benchmarks/faults.py --kills 10      so many, printed
python benchmarks/faults.py --steps 500000  memory alone, over so many steps, printed
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no processes of the compiler's own

import pytorch_lightning as pl
import torch
from measure import machine, table

from manualbp.training import metrics, stored
from manualbp.training.cli import CLI, main
from manualbp.training.data import MNISTDataModule

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("autograd", "tape", "step")
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
#: three epochs of 40 steps, a checkpoint every 7
LIMITS = ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", "40"]
LIMITS += ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]
LIMITS += ["--trainer.accelerator", "cpu", "--threads", "1", "--save_every_n_steps", "7"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: within a write: half of the bytes are there; all, under the temporary name; it has its name
PHASES = ("half", "flushed", "renamed")
MEMORY = ["--model.layers", "[784,2,10]", "--model.schedule", "constant", "--data.batch_size", "1"]
MEMORY += ["--trainer.limit_train_batches", "5000", "--trainer.limit_val_batches", "1"]
MEMORY += ["--trainer.accelerator", "cpu", "--threads", "1", "--test", "false"]


class Kill(NamedTuple):
    """A run, and when it is killed.

    Attributes:
        after: the share of the time that the whole run takes; None: while it writes.
        write: in which of its writes, and in which phase of it.
    """

    engine: str
    config: Path
    signal: signal.Signals
    after: float | None
    write: tuple[int, str]


class Outcome(NamedTuple):
    kill: Kill
    saved: bool  # whether there was a checkpoint to go on from
    differs: list[str]


def start(args: list[str], folder: Path, prepare: Callable[[], None]) -> int:
    """Run train.py in a process of its own, which has everything imported; its id."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.chdir(folder)
        # Of a command in the background a shell lets it be ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        prepare()
        status = main(args, ROOT / "configs" / "3b1b.yaml")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def left_alone(args: list[str], folder: Path) -> float:
    """Run to the end; the seconds that it took."""
    begun = time.perf_counter()
    _, status = os.waitpid(start(args, folder, lambda: None), 0)
    if status:
        raise RuntimeError(f"{args} ended with {status}:\n{(folder / 'output.txt').read_text()}")
    return time.perf_counter() - begun


def strike(kill: Kill) -> None:
    """Let this process get the signal in the middle of a write."""
    number, phase = kill.write
    writes, write, replace, sync = 0, stored._write_bytes, os.replace, stored._sync

    def send() -> None:
        if writes == number:
            os.kill(os.getpid(), kill.signal)

    def half(file: Path, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if phase == "half":
            file.write_bytes(data[: len(data) // 2])
            send()
        write(file, data)

    def flushed(source: Any, target: Any) -> None:
        if phase == "flushed":
            send()
        replace(source, target)

    def renamed(folder: Path) -> None:
        if phase == "renamed":
            send()
        sync(folder)

    stored._write_bytes, stored._sync = half, renamed
    stored.os.replace = flushed


def killed(kill: Kill, args: list[str], folder: Path, seconds: float) -> bool:
    """Start the run and kill it; whether it had not ended before."""
    if kill.after is None:
        process = start(args, folder, lambda: strike(kill))
    else:
        process = start(args, folder, lambda: None)
        time.sleep(kill.after * seconds)
        os.kill(process, kill.signal)
    return os.waitpid(process, 0)[1] != 0


def result(folder: Path, name: str) -> dict[str, Any]:
    """All that a run leaves: weights, optimizer, schedule, generators, the best, metrics."""
    versions = sorted(
        (folder / "runs" / name).glob("version_*"), key=lambda path: int(path.name[8:])
    )
    last = next(path for path in reversed(versions) if (path / "checkpoints/last.ckpt").exists())
    found = stored.read(last / "checkpoints" / "last.ckpt")
    del found["loops"]  # counts of each of Lightning's loops, also of those that did not run
    del found["settings"]["name"]
    found["best"] = stored.read(last / "checkpoints" / "best.ckpt")["state_dict"]
    return found | {"metrics": metrics.read(last / "metrics.csv")}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two results differ in a bit."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for name in one for d in differences(one[name], other[name], f"{path}/{name}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}/{i}")]
    return [] if one == other else [path]


def drawn(count: int, seed: int, names: list[str]) -> list[Kill]:
    """Kills of every engine, configuration and signal in turn, at random moments."""
    draw = random.Random(seed)
    runs = [(e, c) for e, c in product(ENGINES, CONFIGS) if not names or c.stem in names]
    draw.shuffle(runs)
    kills = []
    for i in range(count):
        # Another signal with each turn of the twelve runs, and every third while writing.
        number = SIGNALS[(i + i // len(runs)) % len(SIGNALS)]
        after = None if (i // len(SIGNALS)) % 3 == 2 else draw.uniform(0.1, 1.0)
        kills.append(Kill(*runs[i % len(runs)], number, after, (draw.randint(1, 18), "")))
        kills[-1] = kills[-1]._replace(write=(kills[-1].write[0], draw.choice(PHASES)))
    return kills


def run_kills(count: int, seed: int, folder: Path, names: list[str]) -> list[Outcome]:
    """Kill each run, start it again with the same command, and compare it with one left alone."""
    expected: dict[tuple[str, str], tuple[dict[str, Any], float]] = {}
    outcomes = []
    for i, kill in enumerate(drawn(count, seed, names)):
        args = ["--config", str(kill.config), "--model.engine", kill.engine, *LIMITS, "--resume"]
        key = (kill.engine, kill.config.stem)
        if key not in expected:
            name = "-".join(key)
            if kill.engine == "step":  # compiled once, so that the time is that of the others
                left_alone([*args, "--name", f"first-{name}"], folder)
            seconds = left_alone([*args, "--name", name], folder)
            expected[key] = result(folder, name), seconds
        for attempt in range(8):
            name = f"kill-{i}-{attempt}"
            if killed(kill, [*args, "--name", name], folder, expected[key][1]):
                break
            sooner = None if kill.after is None else kill.after * 0.8
            kill = kill._replace(after=sooner, write=(max(1, kill.write[0] // 2), kill.write[1]))
        else:
            raise RuntimeError(f"{kill} always came too late")
        saved = any((folder / "runs" / name).glob("*/checkpoints/last.ckpt"))
        left_alone([*args, "--name", name], folder)
        differs = differences(expected[key][0], result(folder, name))
        outcomes.append(Outcome(kill, saved, differs))
        print(f"{i + 1:3} {'-'.join(key):22} {kill.signal.name} {moment(kill):16}", end=" ")
        print("anew" if not saved else "", *(differs[:3] or ["bit for bit"]), flush=True)
    text = (folder / "output.txt").read_text(encoding="utf-8")
    if "Traceback" in text:
        raise RuntimeError(text[text.index("Traceback") :][:3000])
    return outcomes


def moment(kill: Kill) -> str:
    return "any moment" if kill.after is not None else f"writing, {kill.write[1]}"


def kills_table(outcomes: list[Outcome]) -> str:
    rows = []
    for number, writing in product(SIGNALS, (False, True)):
        these = [o for o in outcomes if o.kill.signal == number]
        these = [o for o in these if (o.kill.after is None) == writing]
        if these:
            saved = sum(o.saved for o in these)
            same = sum(not o.differs for o in these)
            when = "while writing" if writing else "at any moment"
            cells = [f"{number.name}, {when}", f"{len(these)}", f"{saved}"]
            rows.append([*cells, f"{len(these) - saved}", f"{same}"])
    total = [str(sum(int(row[i]) for row in rows)) for i in range(1, 5)]
    return table(
        ["killed by", "runs", "went on from a checkpoint", "began anew", "equal to the last bit"],
        [*rows, ["all", *total]],
    )


class Watch(pl.Callback):
    """Notes the memory of the process at each epoch's end."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: pl.Trainer, _: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        with self.file.open("a") as file:
            file.write(f"{trainer.global_step} {size:.1f}\n")


def memory_table(steps: int, folder: Path) -> str:
    """What each engine's process takes after a tenth of the steps, half of them, and all."""
    rows, marks = [], (steps // 10, steps // 2, steps)
    for engine in ENGINES:
        file, instantiate = folder / f"{engine}.txt", CLI.instantiate_trainer

        def prepare(file: Path = file, instantiate: Any = instantiate) -> None:
            def watched(self: CLI, **kwargs: Any) -> pl.Trainer:
                trainer = instantiate(self, **kwargs)
                trainer.callbacks.insert(0, Watch(file))
                return trainer

            CLI.instantiate_trainer = watched  # type: ignore[method-assign]

        args = [*MEMORY, "--trainer.max_epochs", f"{steps // 5000}", "--model.engine", engine]
        begun = time.perf_counter()
        _, status = os.waitpid(start([*args, "--name", engine], folder, prepare), 0)
        if status:
            raise RuntimeError((folder / "output.txt").read_text())
        lines = map(str.split, file.read_text().splitlines())
        noted = {int(step): float(size) for step, size in lines}
        logged = (folder / "runs" / engine / "version_0" / "metrics.csv").stat().st_size
        cells = [f"{noted[mark]:.0f} MB" for mark in marks]
        grown = f"{noted[marks[2]] - noted[marks[0]]:+.1f} MB"
        took = f"{(time.perf_counter() - begun) / 60:.1f} min"
        rows.append([f"`{engine}`", *cells, grown, stored.amount(logged), took])
        print(*rows[-1], flush=True)
    heads = [f"after {mark:,} steps" for mark in marks]
    return table(["engine", *heads, "grown by", "`metrics.csv`", "time"], rows)


def publish(name: str, text: str) -> None:
    """Put the text between the marks of that name in docs/reliability.md."""
    page = ROOT / "docs" / "reliability.md"
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def load_data() -> None:
    """MNIST once, for all the processes."""
    data = MNISTDataModule()
    data.setup()

    def setup(self: MNISTDataModule, stage: str | None = None) -> None:
        self.parts = data.parts

    MNISTDataModule.setup = setup  # type: ignore[method-assign]


def run() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--configs", nargs="+", default=[], help="of these configurations alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", action="store_true", help="into docs/reliability.md all the same"
    )
    options = parser.parse_args()
    everything = options.kills is None and options.steps is None
    torch.set_num_threads(1)
    load_data()
    status = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if everything or options.kills:
            outcomes = run_kills(options.kills or 50, options.seed, folder, options.configs)
            text = f"{machine()}; `python benchmarks/faults.py`.\n\n{kills_table(outcomes)}"
            print(text)
            status = int(any(outcome.differs for outcome in outcomes))
            if everything or options.write:
                publish("kills", text)
        if everything or options.steps:
            text = memory_table(options.steps or 500_000, folder)
            print(text)
            if everything or options.write:
                publish("memory", text)
    return status


if __name__ == "__main__":
    sys.exit(run())
