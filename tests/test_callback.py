"""TraceCallback: what it logs and keeps, of modules of ours and of anybody's."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pl = pytest.importorskip("pytorch_lightning")

import manualbp  # noqa: E402
from manualbp.training import TraceCallback  # noqa: E402
from manualbp.training.classifier import LitClassifier  # noqa: E402
from manualbp.training.runs import open_checkpoint, read_checkpoint  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
]


class Theirs(pl.LightningModule):
    """A module in which nothing has the name that the callback looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self.body(batch["x"]), batch["y"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Logger(pl.loggers.CSVLogger):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(name.startswith("trace/") for name in metrics):
            self.seen.append(metrics)


def fit(module: Any, batches: Any, callback: Any, folder: Path, epochs: int = 2) -> Logger:
    logger = Logger(folder)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=logger,
        callbacks=[callback],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer.fit(module, loader)
    return logger


def digits() -> list[tuple[Tensor, Tensor]]:
    return [(torch.rand(20, 1, 28, 28), torch.randint(10, (20,))) for _ in range(2)]


def test_a_classifier_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LitClassifier(layers=[784, 6, 10], lr=0.1)
    callback = TraceCallback(weights=[("1.weight", 3, 407)], examples=8)
    data = digits()
    logger = fit(module, data, callback, tmp_path)
    assert len(logger.seen) == 2
    last = logger.seen[-1]
    x, y = data[0][0][:8], data[0][1][:8]
    trace = manualbp.trace(module.net, x, y, cost=module.cost)
    step = trace.vanishing().steps[-1]
    assert last["trace/1/log_delta"] == pytest.approx(step.log, rel=1e-5)
    assert last["trace/1/by_weights"] == pytest.approx(step.weights, rel=1e-4)
    assert last["trace/1/by_slope"] == pytest.approx(step.slope, rel=1e-4)
    assert last["trace/1/saturated"] == pytest.approx(step.saturated)
    gradient = trace.grads["1.weight"][3, 407]
    assert last["trace/1.weight[3,407]"] == pytest.approx(float(gradient), rel=1e-4)
    assert 0 <= last["trace/1.weight[3,407]/cancellation"] <= 1
    files = sorted(Path(logger.log_dir).glob("snapshots/*.ckpt"))
    assert [file.name for file in files] == ["epoch_0001.ckpt", "epoch_0002.ckpt"]
    first, second = map(open_checkpoint, files)
    assert (first.epochs, second.epochs) == (1, 2) and first.steps < second.steps
    assert [run.steps for run in second.snapshots] == [first.steps, second.steps]
    for name, value in module.net.state_dict().items():
        assert torch.equal(second.net.state_dict()[name], value)
    assert not torch.equal(first.weights["1.weight"], second.weights["1.weight"])
    told = read_checkpoint(files[-1])["trace"]
    assert told["vanishing"]["steps"][-1]["log"] == pytest.approx(step.log, rel=1e-5)
    assert told["explain"][0]["name"] == "1.weight"


def test_any_module_by_functions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = [{"x": torch.rand(6, 4), "y": torch.randint(3, (6,))} for _ in range(2)]
    callback = TraceCallback(
        every=2,
        model=lambda module: module.body,
        cost=lambda module: F.cross_entropy,
        batch=lambda batch: (batch["x"], batch["y"]),
        snapshots=False,
    )
    module = Theirs()
    logger = fit(module, data, callback, tmp_path, epochs=5)
    assert len(logger.seen) == 2
    assert {name for name in logger.seen[0] if name.endswith("log_delta")} == {
        "trace/0/log_delta",
        "trace/3/log_delta",
    }
    assert all(math.isfinite(value) for value in logger.seen[0].values())
    assert not (Path(logger.log_dir) / "snapshots").exists()
    assert module.body[2].training


def test_it_changes_nothing_of_the_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = digits()
    weights = []
    for callback in (TraceCallback(), pl.Callback()):
        torch.manual_seed(1)
        module = LitClassifier(layers=[784, 6, 10], dropout=0.5, lr=0.1)
        fit(module, data, callback, tmp_path)
        weights.append(module.net.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_several_batches_along_a_first_axis() -> None:
    callback = TraceCallback(examples=64)
    module = LitClassifier(layers=[784, 6, 10], engine="tape")
    x, y = torch.rand(3, 5, 1, 28, 28), torch.randint(10, (3, 5))
    callback.on_train_batch_start(None, module, (x, y), 0)
    assert callback._given is not None
    assert torch.equal(callback._given[1], y.flatten()) and callback._given[0].shape[0] == 15
    assert "trace/1/log_delta" in callback.look(module)[0]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 64"):
        TraceCallback(every=0)
    with pytest.raises(TypeError, match=r"Theirs has none of cost, criterion.*cost=lambda"):
        fit(Theirs(), [], TraceCallback(), tmp_path)
    callback = TraceCallback(cost=lambda module: F.cross_entropy)
    with pytest.raises(TypeError, match="expected batches of input and target, got dict"):
        callback.on_train_batch_start(None, Theirs(), {"x": 1}, 0)


def test_importing_manualbp_imports_no_lightning() -> None:
    code = "import sys, manualbp, manualbp.training; print('pytorch_lightning' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
