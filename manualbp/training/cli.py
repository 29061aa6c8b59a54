"""The command line: one run from a configuration file, whose values can be overridden."""

from __future__ import annotations

import locale
import logging
import os
import shlex
import signal
import sys
import warnings
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ActionYesNo
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from manualbp.training import resume
from manualbp.training.checkpoint import Checkpoints, seconds
from manualbp.training.checkpoint_io import WholeFiles
from manualbp.training.classifier import LitClassifier
from manualbp.training.console import Console
from manualbp.training.data import MNISTDataModule
from manualbp.training.engine import check_engine
from manualbp.training.errors import UserError
from manualbp.training.interrupt import SIGNALS, Interrupt
from manualbp.training.metrics import Metrics, tested
from manualbp.training.runs import read_checkpoint

USAGE = "python train.py [--config FILE] [--model.lr 0.5] [--trainer.max_epochs 10] ..."
DESCRIPTION = "Train a network on MNIST with hand-written gradients."


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
            help="Resume from this checkpoint: runs/<name>/version_<n>/checkpoints/last.ckpt; "
            "last: the latest of runs/<name>.",
        )
        parser.add_argument(
            "--resume",
            action=ActionYesNo,
            default=False,
            help="Go on with the latest of runs/<name>; start where there is none.",
        )
        parser.add_argument(
            "--save_every", type=str, default="10m", help="Time between checkpoints: 10m, 90s, 0."
        )
        parser.add_argument(
            "--save_every_n_steps", type=int, default=0, help="Steps between checkpoints."
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
        self.interrupt, warn = Interrupt(), self.console.warn
        self.resume = resume.Resume(config.as_dict(), self.console.say)
        self.trainer_defaults["callbacks"] = [self.console, self.interrupt, self.resume]
        self.checkpoints = Checkpoints(
            self.interrupt, warn, config.save_every_n_steps, seconds(config.save_every)
        )
        kwargs["enable_progress_bar"] = False  # the console draws its own
        if config.trainer.enable_checkpointing is not False:
            self.trainer_defaults["callbacks"].append(self.checkpoints)
        if config.trainer.logger in (None, True):
            self.folder = config.trainer.default_root_dir or "runs"
            kwargs["logger"] = Metrics(self.folder, self.name, warn)
        trainer = super().instantiate_trainer(**kwargs)
        with suppress(MisconfigurationException):  # of strategies that write files of their own
            trainer.strategy.checkpoint_io = WholeFiles()
        return trainer

    def find_checkpoint(self) -> str | None:
        """Where the run goes on from, if it does."""
        path: str | None = self.config.ckpt_path
        if path != "last" and (path or not self.config.resume):
            return path
        folder = Path(self.folder) / self.name
        found = resume.latest(folder, self.console.warn)
        if found is None and path == "last":
            raise UserError(f"--ckpt_path last: there is no checkpoint in {folder}/ yet")
        return str(found) if found else None

    def run(self) -> int:
        """Train, select by validation, test once, and return the exit status."""
        trainer, model, data, say = self.trainer, self.model, self.datamodule, self.console.say
        self.interrupt.listen()
        check_engine(trainer, model.hparams["engine"])
        ckpt_path = self.find_checkpoint()
        if ckpt_path is not None:
            found = self.resume.check(ckpt_path, model, trainer)
            done = not self.config.test or tested(Path(ckpt_path).parents[1] / "metrics.csv")
            if self.config.resume and done and resume.is_complete(found, trainer):
                say(f"complete      {shorten(ckpt_path)}: nothing is left to be trained")
                return 0
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        try:
            trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        except Exception as error:
            if ckpt_path is None or self.resume.restored or isinstance(error, UserError):
                raise
            raise resume.not_restored(ckpt_path, error) from error
        best = self.best_checkpoint()
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
        return 0 if self.checkpoints.complete else 1

    def best_checkpoint(self) -> str:
        """The path of the best by validation, of which a line is printed; "" if there is none."""
        best = self.checkpoints.best_model_path
        if not best or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return ""
        if not Path(best).is_file():
            self.console.warn(f"{best} is missing: what follows is of the last weights")
            return ""
        epoch, accuracy = read_checkpoint(best)["epoch"] + 1, self.checkpoints.best_model_score
        self.console.say(f"best epoch {epoch}, {accuracy:.2%} on validation → {shorten(best)}")
        return best

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
        return shlex.join([*parts, "--ckpt_path", shorten(self.checkpoints.saved or "")])

    def stopped(self) -> int:
        """Say how to go on after Ctrl-C or a signal, and return the exit status."""
        print("\ninterrupted", file=sys.stderr)
        if self.checkpoints.saved:
            self.console.say(f"saved         {shorten(self.checkpoints.saved)}")
            self.console.say(f"resume        {self.resume_command()}")
        return self.interrupt.status


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
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    threads = torch.get_num_threads()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # closed: python train.py >&-
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
    except OSError as error:
        if error.strerror is None:
            raise
        return fail(f"{error.filename or getattr(cli, 'folder', 'runs')}: {error.strerror}")
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not (cli is not None and cli.trainer.interrupted):
            raise
        if cli is not None:
            return cli.stopped()
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():  # Lightning leaves Ctrl-C ignored after one
            signal.signal(number, handler or signal.SIG_DFL)


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
    # Files without a stated encoding are read and written in that of the locale: configurations.
    if locale.getpreferredencoding(False).upper() != "UTF-8":
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
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
