"""The command line: one run from a configuration file, whose values can be overridden."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger

from manualbp.training.checkpoint import Checkpoint, check_checkpoint
from manualbp.training.classifier import LitClassifier
from manualbp.training.console import Console
from manualbp.training.data import MNISTDataModule
from manualbp.training.engine import check_engine
from manualbp.training.errors import UserError
from manualbp.training.interrupt import SaveOnInterrupt

USAGE = "python train.py [--config FILE] [--model.lr 0.5] [--trainer.max_epochs 10] ..."
DESCRIPTION = "Train a network on MNIST with hand-written gradients."
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


class CLI(LightningCLI):
    """Lightning's command line with this project's console, checkpoints and folders."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="The run goes to runs/<name>; by default the name of the configuration file.",
        )
        parser.add_argument(
            "--reference",
            type=str | None,
            default=None,
            help="What others report for this network, printed beside the test accuracy.",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads. A small network's step is over before a second thread has woken, "
            "and waits for one that a busy neighbour holds up.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Resume from this checkpoint: runs/<name>/version_<n>/checkpoints/last.ckpt.",
        )
        parser.add_argument(
            "--test", type=bool, default=True, help="Read the test set, once, after training."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config
        files = [str(path) for path in config.config or []]
        self.name = config.name or (Path(files[-1]).stem if files else "run")
        title = f"{shorten(files[-1]) if files else 'no configuration file'} · seed"
        live = config.trainer.enable_progress_bar is not False
        self.console = Console(f"{title} {config.seed_everything}", config.reference, live)
        self.interrupt = SaveOnInterrupt()
        self.trainer_defaults["callbacks"] = [self.console, self.interrupt]
        kwargs["enable_progress_bar"] = False  # the console draws its own
        if config.trainer.enable_checkpointing is not False:
            best, last = Checkpoint("best", monitor="val_accuracy"), Checkpoint("last")
            self.trainer_defaults["callbacks"] += [best, last]
        if config.trainer.logger in (None, True):
            folder = config.trainer.default_root_dir or "runs"
            kwargs["logger"] = CSVLogger(folder, self.name, flush_logs_every_n_steps=1)
        return super().instantiate_trainer(**kwargs)

    def run(self) -> int:
        """Train, select by validation, test once, and return the exit status."""
        trainer, model, data, say = self.trainer, self.model, self.datamodule, self.console.say
        ckpt_path = self.config.ckpt_path
        check_engine(trainer, model.hparams["engine"])
        if ckpt_path:
            check_checkpoint(ckpt_path, model, trainer.max_epochs)
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
        checkpoint = trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_path", "")
        if best:
            accuracy = float(checkpoint.best_model_score)  # type: ignore[union-attr]
            epoch = torch.load(best, weights_only=True, mmap=True)["epoch"] + 1
            say(f"best epoch {epoch}, {accuracy:.2%} on validation → {shorten(best)}")
        if self.config.test:
            results = trainer.test(
                model, datamodule=data, ckpt_path=best or None, verbose=False, weights_only=True
            )
            if results:
                batches = sum(trainer.num_test_batches)
                examples = min(len(data.parts["test"][1]), batches * data.eval_batch_size)
                self.console.test_line(results[0]["test_accuracy"], int(examples))
        if trainer.logger and trainer.log_dir and not self.config.trainer.fast_dev_run:
            say(f"run           {shorten(trainer.log_dir)}  (configuration, metrics, checkpoints)")
        first, *others = self.next_commands(trainer)
        say(f"next          {first}")
        for other in others:
            say(f"              {other}")
        return 0

    def next_commands(self, trainer: pl.Trainer) -> list[str]:
        """What can be seen of this run, where there is a checkpoint to show."""
        checkpoint = getattr(trainer.checkpoint_callback, "dirpath", None)
        if not (checkpoint and trainer.log_dir and any(Path(checkpoint).glob("*.ckpt"))):
            return ["python train.py --help"]
        folder = Path(shorten(trainer.log_dir))
        # The latest run in runs/ is found without a name.
        name = "" if folder.parts[:1] == ("runs",) else f" {shlex.quote(str(folder))}"
        answers = {"report": "see it step backwards", "vanishing": "which layer loses δ"}
        answers["trace"] = "every layer's values and gradients"
        width = max(map(len, answers))
        return [
            f"python -m manualbp {command:{width}}{name}  ({about})"
            for command, about in answers.items()
        ]

    def resume_command(self) -> str:
        parts = ["python", "train.py"]
        if self.trainer.log_dir and (Path(self.trainer.log_dir) / "config.yaml").is_file():
            parts += ["--config", shorten(Path(self.trainer.log_dir) / "config.yaml")]
        return shlex.join([*parts, "--ckpt_path", shorten(self.interrupt.saved or "")])


def main(args: list[str] | None = None, default_config: Path | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: the arguments after the program's name; by default those of the process.
        default_config: the configuration used if `args` names none. It is not passed to
            jsonargparse as a default file, because that sets values in every configuration.
    """
    args = sys.argv[1:] if args is None else args
    files, values = split_configs(args)
    if default_config and not files:
        files = ["--config", str(default_config)]
    quieten()
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    cli = None
    try:
        cli = CLI(
            LitClassifier,
            MNISTDataModule,
            run=False,
            args=[*files, *values],
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # plain hyper-parameters need none
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "log_every_n_steps": 0,  # once an epoch
            },
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"usage": USAGE, "description": DESCRIPTION},
        )
        return cli.run()
    except UserError as error:
        return fail(str(error))
    except (KeyboardInterrupt, SystemExit) as error:
        stopped = cli is not None and cli.trainer.interrupted
        if isinstance(error, SystemExit) and not stopped:
            raise
        print("\ninterrupted", file=sys.stderr)
        if cli is not None and cli.interrupt.saved:
            cli.console.say(f"saved         {shorten(cli.interrupt.saved)}")
            cli.console.say(f"resume        {cli.resume_command()}")
        return INTERRUPTED
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored after a Ctrl-C


def split_configs(args: list[str]) -> tuple[list[str], list[str]]:
    """Configuration files, and the other arguments, which override them in any order."""
    files, rest = [], []
    at = iter(args)
    for arg in at:
        if arg in ("-c", "--config"):
            files += [arg, *islice(at, 1)]
        elif arg.startswith("--config="):
            files.append(arg)
        else:
            rest.append(arg)
    return files, rest


def quieten() -> None:
    """Silence Lightning's notices, and warnings about its own code."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Inductor's import logs an error on a machine without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # Lightning 2.6 calls functions that torch and jsonargparse have deprecated since.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")


def fail(message: str) -> int:
    encoding = sys.stderr.encoding or "ascii"
    text = f"error: {message}".encode(encoding, "replace").decode(encoding)
    print(text, file=sys.stderr)
    return 1


def shorten(path: str | Path) -> str:
    """The path relative to the working directory, if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
