"""The runs that train.py wrote: found, listed, and loaded from plain numbers and names."""

from __future__ import annotations

import csv
import difflib
import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manualbp.training import memory, mnist, network, stored
from manualbp.training.errors import UserError

if TYPE_CHECKING:
    from manualbp.training.classifier import LitClassifier

RUNS = Path("runs")
#: what a checkpoint of ours says of its network
SETTINGS = (*inspect.signature(network.build).parameters, "cost")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network: a checkpoint that train.py wrote, and the folder it is in.

    Attributes:
        path: the folder of the run.
        checkpoint: the file that was loaded: the best by validation, unless another was asked for.
        hparams: the settings of the classifier, plain numbers and names.
        epochs: how many had been trained.
        steps: how many updates that was.
        accuracy: the best on validation up to then, if it was measured.
        weights: of the network, by the names of its ``state_dict``.
    """

    path: Path
    checkpoint: Path
    hparams: dict[str, Any]
    epochs: int
    steps: int
    accuracy: float | None
    weights: dict[str, Tensor]

    @cached_property
    def net(self) -> nn.Module:
        """The network, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):  # whoever looks at a run draws no random numbers
            net = network.build(**{name: self.hparams[name] for name in SETTINGS[:-1]})
        net.load_state_dict(self.weights)
        return net.eval()

    @cached_property
    def criterion(self) -> nn.Module:
        """The cost as a module, which takes targets of its own form."""
        return network.COSTS[self.hparams["cost"]]()

    def cost(self, output: Tensor, labels: Tensor) -> Tensor:
        """The cost C that the run was trained on, of labels (n,): a mean over the examples."""
        y = network.targets(labels, self.hparams["cost"], output)
        value: Tensor = self.criterion(output, y)
        return value

    @cached_property
    def module(self) -> LitClassifier:
        """The classifier that was trained, around the same network."""
        from manualbp.training.classifier import LitClassifier  # imports Lightning: seconds

        with torch.random.fork_rng(devices=[]):
            module = LitClassifier(**self.hparams)
        module.net = self.net
        return module.eval()

    @property
    def snapshots(self) -> list[Run]:
        """The run at every moment that it kept a checkpoint of, in the order of training."""
        files = sorted({*self.path.glob("checkpoints/*.ckpt"), *self.path.glob("snapshots/*.ckpt")})
        kept = {run.steps: run for run in map(open_checkpoint, files) if run.like(self)}
        return [kept[steps] for steps in sorted({**kept, self.steps: self})]

    @cached_property
    def metrics(self) -> dict[str, list[float]]:
        """What was logged after each epoch, from ``metrics.csv``: a column by its name, and
        ``epoch``, from 0. Columns that have no number for each epoch are left out.

        Raises:
            UserError: there is no such file.
        """
        file = self.path / "metrics.csv"
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                rows = [row for row in csv.DictReader(lines) if row.get("val_cost")]
            heads = [name for name in (rows[0] if rows else {}) if name is not None]
            names = [name for name in heads if all(row.get(name) for row in rows)]
            return {name: [float(row[name]) for row in rows] for name in names}
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; the run logged no metrics") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise UserError(f"{file}: no table of numbers ({first_line(error)})") from None

    @property
    def title(self) -> str:
        """What it is in a line: the folder, the network, the cost."""
        return f"{self.path} · {self.architecture} · {self.hparams['cost']}"

    @property
    def architecture(self) -> str:
        """The widths and the activations: ``784-16-16-10 sigmoid``."""
        h = self.hparams
        hidden = [h["activation"]] if len(h["layers"]) > 2 else []
        last = [h["output_activation"]] if h["output_activation"] not in hidden else []
        return f"{'-'.join(map(str, h['layers']))} {', '.join(hidden + last)}"

    def like(self, other: Run) -> bool:
        """Whether both have the same network, whatever its weights."""
        return all(self.hparams[name] == other.hparams[name] for name in SETTINGS)

    def examples(self, n: int | None = None, split: str = "test") -> tuple[Tensor, Tensor]:
        """The first images (n, 1, 28, 28) of the run's own data, pixels in [0, 1], and labels (n,).

        Args:
            n: how many; None: all.
            split: ``"train"``, ``"val"`` or ``"test"``, as the run divided them.
        """
        if split not in ("train", "val", "test"):
            raise UserError(f"split is train, val or test, got {split!r}")
        root, size, seed = self.data_settings()
        mnist.check_files(root)
        if split == "test":
            images, labels = mnist.load(root, train=False)
        else:
            images, labels = mnist.split(*mnist.load(root, train=True), size, seed)[split]
        return images[:n], labels[:n]

    def data_settings(self) -> tuple[Path, int, int]:
        """Root, size and seed of the validation set, from the configuration saved with the run.

        Raises:
            UserError: that is no configuration.
        """
        import yaml  # type: ignore[import-untyped]

        file = self.path / "config.yaml"
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
            settings = dict(config.get("data") or {})
            root = Path(settings.get("root") or mnist.REPOSITORY_DATA).expanduser()
            size, seed = settings.get("val_size", 5000), settings.get("split_seed", 0)
            if not isinstance(size, int) or not isinstance(seed, int) or not 0 < size < 60_000:
                raise ValueError(f"val_size {size}, split_seed {seed}")
        except FileNotFoundError:
            return mnist.REPOSITORY_DATA, 5000, 0
        except Exception as error:  # what yaml raises of strange text is of many kinds
            raise UserError(f"{file}: no configuration of ours ({first_line(error)})") from None
        return root, size, seed


def load_run(where: str | Path | None = None) -> Run:
    """The run of that folder, or of that checkpoint; the latest below ``runs/`` without a name.

    Args:
        where: a checkpoint; the folder of a run; a folder of runs, whose latest is meant; or a name
            below ``runs/``: ``3b1b``, ``3b1b/version_0``.

    Raises:
        UserError: there is none; it is no checkpoint of ours, or damaged; in one line.
    """
    if where is None:
        if not (found := find_runs(RUNS)):
            raise UserError(f"there is no run in {RUNS}/ yet: python train.py makes one")
        return open_checkpoint(preferred(found[0]))
    path = next((p for p in (Path(where), RUNS / where) if p.exists()), None)
    if path is None:
        known = [str(name) for folder in find_runs(RUNS) for name in (folder, *checkpoints(folder))]
        near = difflib.get_close_matches(str(where), known, n=3, cutoff=0.6)
        near = near or [str(folder) for folder in find_runs(RUNS)[:3]]
        hint = f"near to it: {', '.join(near)}" if near else "python train.py makes one"
        raise UserError(f"there is no run {where}; {hint}")
    if path.is_file():
        return open_checkpoint(path)
    if not (found := find_runs(path)):
        kept = "a configuration, but " if (path / "config.yaml").is_file() else ""
        raise UserError(f"{path} has {kept}no checkpoint: is it a folder that train.py wrote?")
    return open_checkpoint(preferred(found[0]))


def find_runs(folder: Path) -> list[Path]:
    """The folders of runs at or below a folder that hold a checkpoint, the latest first."""
    if folder.name == "checkpoints":
        folder = folder.parent
    depths = ("", "*/", "*/*/")  # of runs/3b1b/version_0, of runs/3b1b and of runs
    files = [file for depth in depths for file in folder.glob(f"{depth}checkpoints/*.ckpt")]
    when = {file.parent.parent: max(map(modified, file.parent.glob("*.ckpt"))) for file in files}
    return sorted(when, key=lambda path: (-when[path], str(path)))


def checkpoints(folder: Path) -> list[Path]:
    """Those of a run, the latest first."""
    return sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda file: -modified(file))


def preferred(folder: Path) -> Path:
    """The best checkpoint by validation, else the last."""
    named = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    return next((file for file in named if file.is_file()), checkpoints(folder)[0])


def modified(file: Path) -> float:
    return file.stat().st_mtime


def open_checkpoint(file: Path) -> Run:
    """The run of a checkpoint, after the check that it holds what it says.

    Raises:
        UserError: it is none, or damaged, or of another kind, or its weights are not those of the
            network that it describes. Nothing but tensors, numbers and names is read from it.
    """
    try:
        return _opened(file, read_checkpoint(file))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{file}: not a checkpoint of ours, or damaged "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None


def _opened(file: Path, stored: dict[str, Any]) -> Run:
    hparams = stored.get("hyper_parameters")
    if not isinstance(hparams, dict) or any(name not in hparams for name in SETTINGS):
        raise UserError(f"{file}: a checkpoint, but not of train.py: it describes no network")
    if not hparams["layers"]:
        raise UserError(
            f"{file}: of LitClassifier.from_network, whose network is code: build it, and load "
            'torch.load(…, weights_only=True)["state_dict"] into it'
        )
    prefix = "net."
    weights = {n.removeprefix(prefix): w for n, w in stored["state_dict"].items()}
    folder = file.parent.parent if file.parent.name in ("checkpoints", "snapshots") else file.parent
    steps = int(stored["global_step"])
    run = Run(folder, file, hparams, int(stored["epoch"]) + 1, steps, score(stored), weights)
    _check_weights(run)
    return run


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """What a checkpoint of Lightning's holds; its tensors stay on the disk until they are used.

    Raises:
        UserError: it is none, or it holds more than tensors, numbers and names.
    """
    try:
        found = stored.read(file)
        _ = found["state_dict"], found["epoch"], found["global_step"]
    except Exception as error:
        raise UserError(
            f"{file}: not a checkpoint of ours, or damaged ({first_line(error)})"
        ) from None
    return dict(found)


def first_line(error: Exception) -> str:
    """What an error says, in a line that can be printed; its name if it says nothing."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]


def score(stored: dict[str, Any]) -> float | None:
    """The best validation accuracy, as the callback noted it that keeps the best."""
    for name, state in stored.get("callbacks", {}).items():
        if "val_accuracy" in str(name) and state.get("best_model_score") is not None:
            return float(state["best_model_score"])
    return None


def _check_weights(run: Run) -> None:
    """Raise `UserError` unless the network that is described has weights of these shapes."""
    there = {name: tuple(w.shape) for name, w in run.weights.items()}
    try:
        memory.check_layers(run.hparams["layers"], copies=1)
        with torch.device("meta"):
            net = network.build(**{name: run.hparams[name] for name in SETTINGS[:-1]})
        here = {name: tuple(w.shape) for name, w in net.state_dict().items()}
        _ = network.COSTS[run.hparams["cost"]]
    except Exception as error:
        raise UserError(
            f"{run.checkpoint}: its settings describe no network of ours "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None
    if here != there:
        name = next(n for n in (*there, *here) if here.get(n) != there.get(n))
        raise UserError(
            f"{run.checkpoint}: its weights are of another network than the one it describes: "
            f"{name} is {there.get(name, 'missing')} and should be {here.get(name, 'missing')}"
        )
