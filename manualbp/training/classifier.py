"""A classifier trained by hand-written gradients, described by plain strings and numbers."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from manualbp.training import engine as engines
from manualbp.training import memory, monitor, network
from manualbp.training.engine import Engine
from manualbp.training.errors import UserError
from manualbp.training.network import Activation, Cost, Init

Optimizer = Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "linear", "cosine"]
Batch = tuple[Tensor, Tensor]


class LitClassifier(pl.LightningModule):
    """A network of Linear layers, a cost and an optimizer, each chosen by name.

    Args:
        layers: widths, from the number of inputs to the number of classes.
        activation: after every Linear layer but the last.
        output_activation: after the last one; `identity` where the cost takes logits.
        input_dropout: probability of dropping a pixel while training.
        dropout: probability of dropping a hidden activation while training.
        init: how the weights start.
        cost: `squared_error` is Σⱼ(aⱼ−yⱼ)² averaged over examples; `mse` divides it by the number
            of outputs as well, so its learning rates are that many times larger.
        optimizer: how the gradients are used.
        lr: learning rate at its highest.
        momentum: of `sgd`, `nesterov` and `rmsprop`; the others have fixed ones.
        weight_decay: decoupled from the gradient in `adamw`, added to it elsewhere.
        schedule: how the learning rate falls, from step to step, to 0 at the end.
        warmup: share of the steps over which the learning rate first rises from 0.
        engine: what computes a step: `autograd`, with the formulas as its backward functions;
            `tape`, the formulas recorded as they run, and run backwards without autograd; `step`,
            forward pass, backward pass and update compiled into one program. Compiling takes
            seconds; then it is the fastest. It does not support `rmsprop`. The weights are the
            same to rounding, except that dropout in a compiled program draws other random numbers.
    """

    def __init__(
        self,
        layers: list[int] = [784, 16, 16, 10],  # noqa: B006 (never written to)
        activation: Activation = "sigmoid",
        output_activation: Activation = "sigmoid",
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        init: Init = "torch",
        cost: Cost = "squared_error",
        optimizer: Optimizer = "sgd",
        lr: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        engine: Engine = "autograd",
    ) -> None:
        super().__init__()
        if layers and (len(layers) < 2 or min(layers) < 1):
            raise UserError(f"model.layers needs two positive widths or more, got {layers}")
        shares = {"input_dropout": input_dropout, "dropout": dropout, "warmup": warmup}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise UserError(f"model.{name} must lie in [0, 1), got {share}")
        memory.check_layers(layers)
        if engine == "step" and optimizer == "rmsprop":
            raise UserError(
                "--model.engine step knows the updates of sgd, nesterov, adam and adamw, and not "
                "that of rmsprop\n  mend: --model.engine tape, which takes any optimizer"
            )
        self.save_hyperparameters()
        self.net: torch.nn.Module = network.build(
            layers, activation, output_activation, input_dropout, dropout, init
        )
        self.criterion = network.COSTS[cost]()
        self.accuracy = MulticlassAccuracy(layers[-1] if layers else 10, average="micro")
        self.automatic_optimization = engine == "autograd"
        self.costs: list[Tensor] = []  # of each step of the epoch, on the step's device
        self.total_steps: float | None = None

    @classmethod
    def from_network(cls, net: torch.nn.Module, **settings: Any) -> LitClassifier:
        """A classifier of any network that maps images (N, 1, 28, 28) to 10 outputs."""
        module = cls(layers=[], **settings)
        module.net = net
        return module

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.net(images)
        return output

    def cost(self, output: Tensor, labels: Tensor) -> Tensor:
        """The cost C that is differentiated: a mean over the examples."""
        y = network.targets(labels, self.hparams["cost"], output)
        value: Tensor = self.criterion(output, y)
        return value

    def setup(self, stage: str) -> None:
        if stage == "fit":
            engines.check_engine(self.trainer, self.hparams["engine"])

    def on_train_start(self) -> None:
        if not self.automatic_optimization:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, torch.optim.Optimizer)
            self.tape = engines.TapeStep(self.net, self.cost, optimizer)
            self.step = engines.step_of(self.hparams["engine"], self.net, self.cost, optimizer)
        self.costs = [costs.to(self.device) for costs in self.costs]  # those of a checkpoint

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        if not self.automatic_optimization:
            self._train_batches(batch, batch_idx)
            return None
        images, labels = batch
        cost = self.cost(self.net(images), labels)
        if not cost.isfinite():
            raise self._diverged(batch, batch_idx)
        self._note(cost.detach().reshape(1))
        return cost

    @staticmethod
    def loads_stacked_batches(batch: Batch) -> bool:
        """Whether the loader gave several batches along a first axis."""
        return batch[1].dim() > 1

    def _train_batches(self, batch: Batch, batch_idx: int) -> None:
        """A step for each batch; the loader may give several batches along a first axis."""
        images, labels = batch
        if not self.loads_stacked_batches(batch):
            images, labels = images.unsqueeze(0), labels.unsqueeze(0)
        schedulers = self.lr_schedulers() or []
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        costs = engines.train_batches(self.step, self.tape, images, labels, schedulers)
        if isinstance(costs, engines.FailedStep):
            raise self._diverged(costs.batch, batch_idx + costs.place)
        self._note(costs)
        engines.count_steps(self.trainer, len(costs))

    def on_train_epoch_start(self) -> None:
        self.costs = []

    def _note(self, costs: Tensor) -> None:
        self.costs.append(costs)
        if len(self.costs) >= 1024:  # a tensor takes a hundred times the memory of its number
            self.costs = [torch.cat(self.costs)]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.sample = batch
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log once an epoch. Lightning calls this hook before the one that ends the epoch."""
        # The last update can make weights nan or infinite too, and no training step follows it.
        if not all(p.isfinite().all() for p in self.net.parameters()):
            raise self._diverged(self.sample, int(self.trainer.num_training_batches))
        if self.costs:
            mean = torch.cat(self.costs).cpu().double().mean()
            self.log("train_cost", mean.float(), sync_dist=True)
        with torch.inference_mode(False):
            images, labels = (t.clone() for t in self.sample)
            deltas, saturated = monitor.measure(self.net, self.cost, images, labels)
        for name, norm in deltas.items():
            self.log(f"delta/{name}", norm, sync_dist=True)
        self.log("saturated", saturated, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def configure_optimizers(self) -> Any:
        h = self.hparams
        settings = {"lr": h["lr"], "weight_decay": h["weight_decay"]}
        if h["optimizer"] in ("sgd", "nesterov", "rmsprop"):
            settings["momentum"] = h["momentum"]
        if h["optimizer"] == "nesterov":
            settings["nesterov"] = True
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        kinds |= {"rmsprop": torch.optim.RMSprop}
        kind = kinds.get(h["optimizer"], torch.optim.SGD)
        optimizer = kind(self.net.parameters(), **settings)
        self.total_steps = None
        if h["schedule"] == "constant" and not h["warmup"]:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _rate(self, step: int) -> float:
        # Not at step 0: to count the steps Lightning would set up the loaders, before a checkpoint
        # has restored their positions.
        if step and self.total_steps is None:
            self.total_steps = self.trainer.estimated_stepping_batches
        progress = step / self.total_steps if step and self.total_steps else 0.0
        return rate(progress, self.hparams["schedule"], self.hparams["warmup"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        if self.costs and progress.processed < progress.started:  # in the middle of an epoch
            checkpoint["costs"] = torch.cat(self.costs).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        engines.sync_progress(checkpoint)
        self.costs = [checkpoint["costs"]] if "costs" in checkpoint else []

    def _evaluate(self, part: str, batch: Batch) -> None:
        images, labels = batch
        output = self.net(images)
        self.accuracy(output, labels)
        settings: dict[str, Any] = {"on_epoch": True, "batch_size": len(labels)}
        self.log(f"{part}_cost", self.cost(output, labels), sync_dist=True, **settings)
        self.log(f"{part}_accuracy", self.accuracy, **settings)

    def _diverged(self, batch: Batch, batch_idx: int) -> monitor.Diverged:
        where = f"epoch {self.current_epoch + 1}, step {batch_idx + 1} of the epoch"
        return monitor.Diverged(where, monitor.first_non_finite(self.net, self.cost, batch))


def rate(progress: float, schedule: str, warmup: float) -> float:
    """The share of the highest learning rate, after a share `progress` of all steps."""
    if progress < warmup:
        return progress / warmup
    left = min(max((1 - progress) / (1 - warmup), 0.0), 1.0)
    if schedule == "linear":
        return left
    if schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return 1.0
