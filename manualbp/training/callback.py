"""What is inside the backward pass while a network trains: numbers and snapshots, once an epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from manualbp.see import trace
from manualbp.training import stored
from manualbp.training.monitor import evaluating

Cost = Callable[..., Tensor]
#: where a Lightning module keeps its network and its cost, by the names that people give them
MODELS, COSTS = ("net", "model", "network"), ("cost", "criterion", "loss_fn", "loss")


class TraceCallback(pl.Callback):
    """Logs once an epoch where the gradient goes, and why chosen weights move.

    ::

        callback = TraceCallback(weights=[("0.weight", 3, 407)])
        trainer = pl.Trainer(callbacks=[callback])

    The numbers are those of :func:`manualbp.trace` on the same examples throughout, the first of
    the first training batch, in evaluation mode. For each layer with parameters
    ``trace/<path>/log_delta`` is log₁₀‖δ‖, ``trace/<path>/by_weights`` and ``/by_slope`` the two
    parts of its step, and ``/saturated``, ``/dead`` shares of the units of its activation. For
    each weight ``trace/<name>[3,407]`` is ∂C/∂w, and ``/cancellation`` how much the examples agree.

    Beside the logger's files, in ``snapshots/``, each epoch leaves the weights and these numbers.
    ``python -m manualbp report`` steps through those of a run of ``train.py``.

    Args:
        every: epochs from one look to the next.
        weights: a name and an index each.
        examples: how many.
        model: a function that finds the network in the Lightning module; otherwise it is its
            ``net``, ``model`` or ``network``, and else the module itself.
        cost: a function that finds the cost in it, which takes the network's output and the target;
            otherwise it is its ``cost``, ``criterion``, ``loss_fn`` or ``loss``.
        batch: a function of a training batch that gives input and target; otherwise the batch is
            such a pair.
        snapshots: whether the weights are kept.

    Raises:
        ValueError: ``every`` or ``examples`` is below 1.
        TypeError: when training starts, of a module in which no cost is found; when it has a first
            batch, of a batch that is no pair.
    """

    def __init__(
        self,
        every: int = 1,
        weights: Sequence[tuple[Any, ...]] = (),
        examples: int = 64,
        *,
        model: Callable[[Any], nn.Module] | None = None,
        cost: Callable[[Any], Cost] | None = None,
        batch: Callable[[Any], tuple[Any, Any]] | None = None,
        snapshots: bool = True,
    ) -> None:
        if every < 1 or examples < 1:
            raise ValueError(f"every and examples are at least 1, got {every} and {examples}")
        self.every, self.examples, self.snapshots = every, examples, snapshots
        self.weights = [tuple(weight) for weight in weights]
        self._model, self._cost, self._batch = model, cost, batch
        self._given: tuple[Any, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._given = None
        self.cost_of(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._given is None:
            self._given = tree_map(self._first, self._pair(batch, pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every == 0
        if self._given is None or not due or not trainer.is_global_zero:
            return
        numbers, told = self.look(pl_module)
        for name, value in numbers.items():
            pl_module.log(name, value, rank_zero_only=True)
        if self.snapshots and trainer.log_dir and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save(trainer, pl_module, told)

    def look(self, pl_module: Any) -> tuple[dict[str, float], dict[str, Any]]:
        """The numbers that are logged, by their names, and what the snapshot keeps."""
        assert self._given is not None
        model, (x, y) = self.model_of(pl_module), self._given
        with evaluating(model):
            found = trace(model, x, y, cost=self.cost_of(pl_module))
            vanishing = found.vanishing()
            explained = [found.explain(name, *index) for name, *index in self.weights]
        numbers: dict[str, float] = {}
        for step in vanishing.steps:
            at = f"trace/{step.path}"
            numbers |= {f"{at}/log_delta": step.log, f"{at}/by_weights": step.weights}
            if step.activations:
                numbers[f"{at}/by_slope"] = step.slope
                numbers[f"{at}/saturated"] = step.saturated or 0.0
                numbers[f"{at}/dead"] = step.dead or 0.0
        for each in explained:
            at = f"trace/{each.name}[{','.join(map(str, each.index))}]"
            numbers |= {at: each.value, f"{at}/cancellation": each.cancellation}
        told = {"vanishing": vanishing.to_dict(), "explain": [e.to_dict() for e in explained]}
        return {name: v for name, v in numbers.items() if math.isfinite(v)}, told

    def model_of(self, pl_module: Any) -> nn.Module:
        """The network in a Lightning module."""
        if self._model is not None:
            return self._model(pl_module)
        named = (getattr(pl_module, name, None) for name in MODELS)
        return next((found for found in named if isinstance(found, nn.Module)), pl_module)

    def cost_of(self, pl_module: Any) -> Cost:
        """The cost in a Lightning module."""
        if self._cost is not None:
            return self._cost(pl_module)
        named = (getattr(pl_module, name, None) for name in COSTS)
        found = next((cost for cost in named if callable(cost)), None)
        if found is None:
            raise TypeError(
                f"TraceCallback: {type(pl_module).__name__} has none of {', '.join(COSTS)}: say "
                f"which is its cost, as in cost=lambda module: torch.nn.functional.cross_entropy"
            )
        return found

    def _pair(self, batch: Any, pl_module: Any) -> tuple[Any, Any]:
        if self._batch is not None:
            return self._batch(batch)
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise TypeError(
                f"TraceCallback: expected batches of input and target, got "
                f"{type(batch).__name__}: say how, as in batch=lambda b: (b['x'], b['y'])"
            )
        x, y = batch
        stacked = getattr(pl_module, "loads_stacked_batches", None)
        return (x.flatten(0, 1), y.flatten(0, 1)) if stacked and stacked(batch) else (x, y)

    def _first(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim():
            return value[: self.examples].detach().clone()
        return value

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, told: Any) -> None:
        """As a checkpoint, without the optimizer's state."""
        folder = Path(trainer.log_dir or "") / "snapshots"
        content = {
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "state_dict": pl_module.state_dict(),
            "hyper_parameters": stored.plain(dict(pl_module.hparams)),
            "trace": told,
        }
        try:
            stored.write(content, folder / f"epoch_{trainer.current_epoch + 1:04}.ckpt")
        except stored.SaveError as error:
            warnings.warn(f"TraceCallback: {error}; training goes on", stacklevel=2)
