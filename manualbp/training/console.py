"""The output of a run: plain lines of fixed width, and a progress bar on a terminal."""

from __future__ import annotations

import math
import os
import sys
import time
import unicodedata
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import manualbp
from manualbp.training.check import GradientCheck, check_gradients
from manualbp.training.classifier import LitClassifier
from manualbp.training.data import MNISTDataModule
from manualbp.training.describe import Row, describe
from manualbp.training.errors import UserError

ASCII = str.maketrans(
    {"∂": "d", "δ": "delta", "Σ": "sum", "σ": "sigma", "′": "'", "‖": "|", "⊙": "*", "√": "sqrt"}
    | {"→": "->", "·": "-", "−": "-", "±": "+-", "×": "x", "ε": "eps", "ρ": "rho", "Φ": "Phi"}
    | {"≥": ">=", "≤": "<=", "φ": "phi", "α": "alpha", "π": "pi", "∈": "in", "–": "-", "⌊": "["}
    | {"≙": "="}
)
MOST_DELTAS = 4  # columns of ‖δ‖; a deeper network shows its first and last layers


class Console(pl.Callback):
    """Reports a run on standard output.

    Args:
        title: the name of the run, for the first line.
        reference: the accuracy that others report for this network, for the last lines.
        live: whether to draw a progress bar if standard output is a terminal.
    """

    def __init__(self, title: str = "", reference: str | None = None, live: bool = True) -> None:
        self.title, self.reference = title, reference
        encoding = sys.stdout.encoding or "ascii"
        try:
            "".join(map(chr, ASCII)).encode(encoding)
            self.unicode = True
        except (UnicodeEncodeError, LookupError):
            self.unicode = False
        self.live = live and sys.stdout.isatty() and self.unicode
        self.bar: Progress | None = None
        self.started = self.epoch_started = time.perf_counter()
        self.first_epoch = 0
        self.header_shown = False
        self.silent = False
        self.warned: set[str] = set()  # in this epoch

    # The output, in the order in which it is printed.

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.silent = not trainer.is_global_zero  # one process prints
        self.started = time.perf_counter()
        device = pl_module.device
        threads = torch.get_num_threads()
        where = f"cpu ({threads} thread{'s' if threads > 1 else ''})"
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        versions = f"manualbp {manualbp.__version__} · torch {torch.__version__}"
        self.say(f"{versions} · {where} · {self.title}")
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, MNISTDataModule):
            sizes = {part: len(labels) for part, (_, labels) in data.parts.items()}
            self.say(
                f"MNIST  {sizes['train']:,} train / {sizes['val']:,} validation / 10,000 test"
                f"  (pixels in [0, 1]; {data.root})"
            )
            images, labels = data.examples(16)
            assert isinstance(pl_module, LitClassifier)
            self.table(describe(pl_module.net, pl_module.cost, images[:2], labels[:2]))
            self.check(check_gradients(pl_module.net, pl_module.cost, images, labels))

    def table(self, rows: list[Row]) -> None:
        """The layers and the formula of each one's backward pass."""
        cells = [("layer", "", "shape", "backward pass", "parameters")]
        cells += [(r.name, r.kind, r.shape, r.backward, f"{r.parameters:,}") for r in rows]
        cells.append(("", "", "", "", f"{sum(r.parameters for r in rows):,}"))
        texts = [[self.plain(text) for text in row] for row in cells]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        self.say()
        for *left, last in texts:
            line = "  ".join(text.ljust(w) for text, w in zip(left, widths, strict=False))
            self.say(f"  {line}  {last.rjust(widths[-1])}")
        self.say()

    def check(self, result: GradientCheck) -> None:
        """The outcome of the gradient check; raises `UserError` where it failed."""
        self.say(
            f"gradient check  {result.weights} weights, formula against finite differences in "
            f"float64: largest relative error {result.max_error:.1e}  "
            f"{'ok' if result.ok else 'FAILED'}"
        )
        if not result.ok:
            raise UserError(
                f"the gradient check failed, worst at {result.worst}: nothing was trained\n"
                "  mend: the backward rules of that layer and of those after it"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        if self.live and not self.silent:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, console=RichConsole(), transient=True)
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_started = time.perf_counter()
        self.warned.clear()
        if self.bar:
            for task in self.bar.task_ids:
                self.bar.remove_task(task)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = getattr(pl_module, "step", None)
        if step and step.notice:
            self.say(f"engine          {step.notice}")
            step.notice = None
        # Not at every step, because drawing the bar takes longer than a step.
        done = trainer.fit_loop.epoch_loop.batch_idx + 1
        if self.bar and (done % 64 == 0 or done == trainer.num_training_batches):
            if not self.bar.task_ids:  # also where a run goes on in the middle of an epoch
                total = int(trainer.num_training_batches)
                self.bar.add_task(f"epoch {trainer.current_epoch + 1}", total=total)
            self.bar.update(self.bar.task_ids[0], completed=done)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        deltas = [name for name in metrics if name.startswith("delta/")]
        half = MOST_DELTAS // 2
        shown = deltas if len(deltas) <= MOST_DELTAS else deltas[:half] + deltas[-half:]
        columns = [
            ("epoch", 5, f"{trainer.current_epoch + 1}"),
            ("train C", 9, number(metrics.get("train_cost"), ".5f")),
            ("val C", 9, number(metrics.get("val_cost"), ".5f")),
            ("val acc", 8, number(metrics.get("val_accuracy"), ".2%")),
        ]
        for name in shown:
            layer = deltas.index(name) + 1
            columns.append((f"‖δ{superscript(layer)}‖", 9, number(metrics[name], ".1e")))
        columns.append(("saturated", 9, number(metrics.get("saturated"), ".1%")))
        columns.append(("s", 6, f"{time.perf_counter() - self.epoch_started:.1f}"))
        if not self.header_shown:
            self.header_shown = True
            self.say()
            self.say("  ".join(self.plain(head).rjust(width) for head, width, _ in columns))
        self.say("  ".join(text.rjust(width) for _, width, text in columns))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop_bar()
        epochs = trainer.current_epoch - self.first_epoch
        self.say()
        if epochs:
            self.say(
                f"{epochs} epoch{'s' * (epochs != 1)} in {time.perf_counter() - self.started:.1f} s"
            )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.stop_bar()

    def test_line(self, accuracy: float, examples: int) -> None:
        error = math.sqrt(accuracy * (1 - accuracy) / examples)
        said = f"   ({self.reference})" if self.reference else ""
        self.say(f"test accuracy {accuracy:.2%} ± {error:.2%} (sampling error){said}")

    # Printing.

    def say(self, text: str = "") -> None:
        if self.silent:
            return
        text = self.plain(text).rstrip()
        try:
            if self.bar:
                self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, flush=True)
        except (OSError, ValueError) as error:  # a pipe that nobody reads, a full disk, closed
            self.silent = True
            discard_output()
            reason = getattr(error, "strerror", None) or error
            self.warn(f"standard output: {reason}; the run goes on without it")

    def warn(self, text: str) -> None:
        """A line on standard error, once an epoch."""
        first, *_ = text.split(":")
        if first not in self.warned:
            self.warned.add(first)
            encoding = getattr(sys.stderr, "encoding", None) or "ascii"
            try:
                line = f"warning: {text}".encode(encoding, "replace").decode(encoding)
                print(line, file=sys.stderr, flush=True)
            except (OSError, ValueError):
                pass  # there is nobody to be told

    def plain(self, text: str) -> str:
        """The text in characters that standard output can encode."""
        if self.unicode:
            return text
        text = unicodedata.normalize("NFKD", text.translate(ASCII)).translate(ASCII)
        return text.encode("ascii", "replace").decode()

    def stop_bar(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def discard_output() -> None:
    """Let what is still written to standard output vanish, also when Python ends."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def superscript(digits: int) -> str:
    return str(digits).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
