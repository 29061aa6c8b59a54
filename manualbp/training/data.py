"""MNIST in memory, and its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from manualbp.training import engine
from manualbp.training.errors import UserError
from manualbp.training.mnist import REPOSITORY_DATA, check_files, load, split


class Order:
    """The indices of the examples that one process reads in one epoch, in order.

    Every epoch has its own shuffle, a function of `seed` and the epoch alone. The processes share
    it, and each takes every `world_size`-th example. When shuffling, all get equally many.
    """

    def __init__(
        self, total: int, shuffle: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.total, self.shuffle, self.seed = total, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        extra = 0 if self.shuffle else self.total % self.world_size > self.rank
        return self.total // self.world_size + extra

    def indices(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.rank, self.total, self.world_size)
        # Seeds of two runs differ by more than the number of epochs. A CPU generator uses 32 bits.
        seed = (self.seed * 1_000_003 + self.epoch) % 2**32
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.total, generator=generator)
        return order[self.rank :: self.world_size][: len(self)]


class Batches:
    """Tensors indexed by the batch: a loader without workers, collation or copies to the device.

    Lightning sets the epoch through `sampler`, and saves `state_dict` in its checkpoints, so that
    a run stopped in the middle of an epoch resumes with the next batch.

    With `call_size`, each item is several whole batches along a first axis; it returns how many.
    """

    batch_sampler = None  # Lightning reads it beside the sampler

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        order: Order | None = None,
        call_size: Callable[[], int] | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.sampler, self.call_size = order or Order(len(labels)), call_size
        self.done = 0
        self.resume: dict[str, int] | None = None

    def __len__(self) -> int:
        # A smaller last batch is dropped only if the next epoch shuffles its examples again.
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.sampler.shuffle)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        at, self.resume = self.resume, None
        self.done = at["batch"] if at and at["epoch"] == self.sampler.epoch else 0
        order = self.sampler.indices().to(self.labels.device)
        size, whole = self.batch_size, len(order) // self.batch_size
        while self.done < len(self):
            count = min(self.call_size(), whole - self.done) if self.call_size else 0
            start = self.done * size
            self.done += max(count, 1)
            index = order[start : self.done * size]
            images, labels = self.images[index], self.labels[index]
            if count > 0:
                images = images.view(count, size, *images.shape[1:])
                labels = labels.view(count, size)
            yield images, labels

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.sampler.epoch, "batch": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resume = state


class MNISTDataModule(pl.LightningDataModule):
    """MNIST: 55,000 examples for training, 5,000 for validation, 10,000 for one test.

    Args:
        batch_size: examples a step (of each process, when there are several).
        eval_batch_size: examples a step of validation and test; it affects the speed alone.
        root: folder that holds `MNIST/raw/*.gz`; by default the repository's own `data`.
        val_size: how many of the 60,000 training examples are held out for validation.
        split_seed: seed that selects them; independent of the seed of the run.
    """

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int = 1000,
        root: str | None = None,
        val_size: int = 5000,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise UserError(
                f"batch sizes must be at least 1, got {batch_size} and {eval_batch_size}"
            )
        if not 0 < val_size < 60_000:
            raise UserError(f"data.val_size must lie between 1 and 59,999, got {val_size}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.root = Path(root).expanduser().absolute() if root else REPOSITORY_DATA
        self.val_size, self.split_seed = val_size, split_seed
        # The seed of the run is the same in every process.
        self.seed = torch.initial_seed()
        self.parts: dict[str, tuple[Tensor, Tensor]] = {}

    def setup(self, stage: str | None = None) -> None:
        if not self.parts:
            check_files(self.root)
        if stage in (None, "fit", "validate") and "train" not in self.parts:
            parts = split(*load(self.root, train=True), self.val_size, self.split_seed)
            self.parts |= {name: self._place(*part) for name, part in parts.items()}
        if stage in (None, "test") and "test" not in self.parts:
            self.parts["test"] = self._place(*load(self.root, train=False))

    def train_dataloader(self) -> Batches:
        call_size = engine.next_call_size(self.trainer, self.batch_size) if self.trainer else None
        return self._batches("train", self.batch_size, shuffle=True, call_size=call_size)

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ones of the first epoch's training examples."""
        images, labels = next(iter(self._batches("train", self.batch_size, shuffle=True)))
        return images[:count], labels[:count]

    def val_dataloader(self) -> Batches:
        return self._batches("val", self.eval_batch_size)

    def test_dataloader(self) -> Batches:
        return self._batches("test", self.eval_batch_size)

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, Tensor], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        return batch  # it is on the device already

    def _batches(
        self,
        part: str,
        batch_size: int,
        shuffle: bool = False,
        call_size: Callable[[], int] | None = None,
    ) -> Batches:
        images, labels = self.parts[part]
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        order = Order(len(labels), shuffle, self.seed, rank, world_size)
        if shuffle and len(order) < batch_size:
            raise UserError(
                f"data.batch_size is {batch_size}, but there are {len(order)} training examples"
            )
        return Batches(images, labels, batch_size, order, call_size)

    def _place(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return images.to(device), labels.to(device)
