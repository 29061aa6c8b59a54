"""A run that goes on from a checkpoint: where it is, what differs, and what has to come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch

from manualbp.training import generators, stored
from manualbp.training.errors import UserError
from manualbp.training.runs import first_line, read_checkpoint

#: what has no effect on the numbers, or is of the machine
UNNOTICED = (
    *("config", "name", "reference", "threads", "ckpt_path", "resume", "test"),
    *("save_every", "save_every_n_steps", "data.root", "data.eval_batch_size"),
    *("trainer.logger", "trainer.callbacks", "trainer.plugins", "trainer.default_root_dir"),
    *("trainer.enable_", "trainer.log_every_n_steps", "trainer.profiler", "trainer.limit_test_"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
)
#: what belongs to the weights, or to what they have seen → why
FIXED = {
    "model.layers": "the weights have other shapes",
    "model.activation": "the weights were trained with it",
    "model.output_activation": "the weights were trained with it",
    "model.init": "the weights are there already",
    "data.val_size": "examples held out would be trained on",
    "data.split_seed": "examples held out would be trained on",
}
#: what decides which batches an epoch has: free from one epoch to the next
OF_THE_EPOCH = (
    *("data.batch_size", "seed_everything", "trainer.limit_train_batches"),
    *("trainer.overfit_batches", "trainer.accumulate_grad_batches"),
)
#: what the optimizer and its schedule keep
OF_THE_OPTIMIZER = (
    *("model.optimizer", "model.lr", "model.momentum", "model.weight_decay", "model.schedule"),
    *("model.warmup", "trainer.max_epochs", "trainer.max_steps"),
)
#: optimizers whose states are alike
FAMILIES = ({"sgd", "nesterov"}, {"adam", "adamw"}, {"rmsprop"})


class Change(NamedTuple):
    """A setting that is another one now than in the run that is resumed."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} {self.before} → {self.now}"


class Resume(pl.Callback):
    """Saves the generators' states and the settings, and restores what Lightning leaves out.

    Args:
        settings: of this run, plain numbers and names, in a dictionary for each part.
        say: prints a line.

    Attributes:
        changes: the settings that differ from those of the checkpoint.
        restored: whether training has begun, with everything in its place.
    """

    def __init__(self, settings: dict[str, Any], say: Callable[[str], None]) -> None:
        self.settings, self.say = stored.plain(settings), say
        self.changes: list[Change] = []
        self.source: dict[str, Any] = {}
        self.restored = False

    def check(self, path: str, model: pl.LightningModule, trainer: pl.Trainer) -> dict[str, Any]:
        """The checkpoint; raises `UserError` unless the run can go on from it."""
        self.source = check_checkpoint(path, model, trainer.max_epochs)
        self.changes = check_settings(path, self.source, self.settings)
        return self.source

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.ckpt_path or not self.source:
            return
        done = epochs_done(self.source)
        at = f"{done} epoch{'s' * (done != 1)}, {self.source['global_step']} steps"
        self.say(f"resumed         {trainer.ckpt_path}  ({at})")
        for change in self.changes:
            self.say(f"changed         {change}")
        if "generators" not in self.source:
            self.say("resumed         without the generators' states, so not to the last bit")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["settings"] = self.settings
        checkpoint["generators"] = of_all_processes(generators.states())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        changed = {change.name for change in self.changes}
        if changed.intersection(OF_THE_OPTIMIZER):
            honour(trainer, pl_module)
        drawn = self.source.get("generators", [])
        if drawn and "seed_everything" not in changed:
            own = len(drawn) == trainer.world_size
            same = generators.restore(drawn[trainer.global_rank if own else 0])
            if not (own and same):
                self.say("resumed         on other devices, so not to the last bit")
        self.source = {}
        self.restored = True


def of_all_processes(states: dict[str, Any]) -> list[dict[str, Any]]:
    """A list with the states of each process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [states]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, states)
    return found


def honour(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Give optimizer and schedule their settings again, which the checkpoint has replaced."""
    fresh: Any = module.configure_optimizers()
    schedulers: list[Any] = []
    if isinstance(fresh, tuple):
        (fresh,), schedulers = fresh
    (optimizer,) = trainer.optimizers
    for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        group.update({name: value for name, value in new.items() if name != "params"})
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        rates = schedulers[0]["scheduler"].base_lrs
        scheduler.base_lrs, scheduler.last_epoch = rates, trainer.global_step
        share = scheduler.lr_lambdas[0](trainer.global_step)
        scheduler._last_lr = [rate * share for rate in rates]
        for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = rate


def check_checkpoint(
    path: str, model: pl.LightningModule, max_epochs: int | None
) -> dict[str, Any]:
    """What it holds; raises `UserError` unless a run of `model` can go on from it."""
    if not Path(path).is_file():
        near = sorted(Path("runs").glob("*/version_*/checkpoints/last.ckpt"))
        found = "\n  ".join(["there are:", *map(str, near)]) if near else "there is none in runs/"
        raise UserError(f"--ckpt_path {path}: no such file; {found}")
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"--ckpt_path {error}") from None
    here = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    try:
        there = {name: tuple(t.shape) for name, t in checkpoint["state_dict"].items()}
    except (AttributeError, TypeError) as error:
        raise not_restored(path, error) from None
    if here != there:
        name = next(n for n in (*there, *here) if here.get(n) != there.get(n))
        raise UserError(
            f"--ckpt_path {path}: another network than the one configured: {name} is "
            f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here\n"
            "  mend: the configuration of that run, --config <its folder>/config.yaml"
        )
    if not {"loops", "optimizer_states", "lr_schedulers", "callbacks"} <= checkpoint.keys():
        raise UserError(
            f"--ckpt_path {path}: weights alone, without the state of their training: it can be "
            "looked at, but not resumed"
        )
    try:
        done = epochs_done(checkpoint)
    except (KeyError, TypeError, ValueError) as error:
        raise not_restored(path, error) from None
    if max_epochs is not None and 0 <= max_epochs < done:
        raise UserError(
            f"--ckpt_path {path}: has been trained for {done} epochs already; "
            f"--trainer.max_epochs is {max_epochs}"
        )
    return checkpoint


def not_restored(path: str, error: Exception) -> UserError:
    """What is said of a checkpoint whose state another version or another hand has written."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    return UserError(f"--ckpt_path {path}: cannot be resumed ({reason})")


def check_settings(path: str, checkpoint: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """What differs from the checkpoint's settings; raises `UserError` for what may not."""
    before = checkpoint.get("settings") or {"model": checkpoint.get("hyper_parameters", {})}
    changes = differences(before, now)
    for change in changes:
        if reason := _reason_against(change, checkpoint, flat(now).get("model.optimizer")):
            raise UserError(
                f"--{change.name} {change.now}: it is {change.before} in {path}, and {reason}\n"
                f"  mend: --{change.name} {change.before}, or a new run without --ckpt_path"
            )
    return changes


def _reason_against(change: Change, checkpoint: dict[str, Any], optimizer: Any) -> str | None:
    name, before, now = change
    if name in OF_THE_EPOCH and not between_epochs(checkpoint):
        return "the checkpoint is from the middle of an epoch, whose batches it decides"
    if name == "model.optimizer" and not any({before, now} <= family for family in FAMILIES):
        return f"{now} cannot go on with what {before} has kept"
    if name == "model.momentum" and optimizer == "rmsprop" and not before:
        return "rmsprop has kept no momentum so far"
    return FIXED.get(name)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """The settings that both have and that differ, but for those without effect."""
    one, other = flat(before), flat(now)
    return [
        Change(name, one[name], other[name])
        for name in other
        if name in one and one[name] != other[name] and not name.startswith(UNNOTICED)
    ]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"model": {"lr": 1}}`` as ``{"model.lr": 1}``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {}
        found |= {} if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def epochs_done(checkpoint: dict[str, Any]) -> int:
    return int(_progress(checkpoint)["processed"])


def between_epochs(checkpoint: dict[str, Any]) -> bool:
    progress = _progress(checkpoint)
    return bool(progress["processed"] == progress["started"])


def _progress(checkpoint: dict[str, Any]) -> dict[str, int]:
    progress: dict[str, int] = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return progress


def latest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The latest ``last.ckpt`` of the runs ``version_<n>`` in a folder that is whole.

    By the number of the version, because clocks may be set back.
    """
    versions = [path for path in folder.glob("version_*") if path.name[8:].isdigit()]
    for version in sorted(versions, key=lambda path: -int(path.name[8:])):
        file = version / "checkpoints" / "last.ckpt"
        if not file.exists():
            continue
        try:
            read_checkpoint(file)
        except UserError as error:
            say(f"passed over: {error}")
        else:
            return file
    return None


def is_complete(checkpoint: dict[str, Any], trainer: pl.Trainer) -> bool:
    """Whether nothing is left to be trained."""
    epochs = trainer.max_epochs
    if 0 <= trainer.max_steps <= checkpoint["global_step"]:
        return True
    return epochs is not None and 0 <= epochs <= epochs_done(checkpoint)
