"""Checkpoints and data from strangers: an error in one line or the right result, nothing else."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from trained import stored

from manualbp.training import memory, mnist, runs
from manualbp.training import stored as files
from manualbp.training.errors import UserError


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bits flipped, bytes written over, cut, put in, repeated, moved."""
    draw = random.Random(seed)
    for _ in range(count):
        bad = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at, length = draw.randrange(len(bad)), min(draw.choice((1, 2, 8, 64, 500)), len(bad))
            other = draw.randrange(len(bad))
            match draw.randrange(7):
                case 0 | 1:
                    bad[at] ^= 1 << draw.randrange(8)
                case 2:
                    bad[at : at + length] = draw.randbytes(len(bad[at : at + length]))
                case 3:
                    del bad[at:]
                case 4:
                    del bad[at : at + length]
                case 5:
                    bad[at:at] = draw.randbytes(length)
                case 6:
                    bad[at : at + length] = bad[other : other + length]
            bad = bad or bytearray(b"\0")
        yield bytes(bad)


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error) and str(error)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A good checkpoint of a small network."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs/small/version_0/checkpoints/last.ckpt")
    files.write(stored(layers=[784, 1, 10]), path)
    return path


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    run = runs.open_checkpoint(file)
    _ = run.net, run.title, run.accuracy, run.steps
    return run.weights


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_changed_checkpoint_is_refused(file):
    whole, good = file.read_bytes(), weights_of(file)
    good = {name: w.clone() for name, w in good.items()}
    refused = 0
    for bad in mutations(whole, 900, seed=1):
        file.unlink()
        file.write_bytes(bad)
        try:
            assert same(weights_of(file), good) and bad == whole
        except UserError as error:
            refused += 1
            assert_one_line(error)
    assert refused > 880


def test_a_changed_checkpoint_without_our_sum_is_refused_or_the_same(file):
    torch.save(stored(layers=[784, 1, 10]), file)
    whole, good = file.read_bytes(), {n: w.clone() for n, w in weights_of(file).items()}
    refused = 0
    for bad in mutations(whole, 500, seed=2):
        file.unlink()
        file.write_bytes(bad)
        try:
            assert same(weights_of(file), good)
        except UserError as error:
            refused += 1
            assert_one_line(error)
    assert refused > 250


class Opens:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return (open, ("opened", "w"))


def resealed(data: bytes) -> bytes:
    """As a stranger would who knows how the sum is made."""
    data = data[: -files.SEAL]
    return data + files.MARK + hashlib.sha256(data).hexdigest().encode()


def test_a_checkpoint_made_to_deceive_runs_nothing(file):
    whole = file.read_bytes()
    for bad in mutations(whole[: -files.SEAL], 500, seed=3):
        file.unlink()
        file.write_bytes(resealed(bad + whole[-files.SEAL :]))
        try:
            weights_of(file)
        except UserError as error:
            assert_one_line(error)
    assert not Path("opened").exists()


@pytest.mark.parametrize("where", ["epoch", "state_dict", "hyper_parameters", "callbacks"])
def test_a_payload_is_never_run(file, where):
    files.write(stored() | {where: Opens()}, file)
    with pytest.raises(UserError, match="not a checkpoint of ours, or damaged"):
        weights_of(file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:  # the pickle alone exchanged
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(Opens()) if name.endswith(".pkl") else content)
    with pytest.raises(UserError, match="not a checkpoint of ours, or damaged"):
        weights_of(file)
    assert not Path("opened").exists()


STRANGE = {
    "state_dict": [None, [], {"net.1.weight": 3}, {"net.1.weight": "x"}, {1: torch.ones(2)}],
    "hyper_parameters": [None, {}, [1], {"layers": "x"}],
    "epoch": [None, "x", [], float("nan")],
    "global_step": [None, "x", {}],
    "callbacks": [None, [], {"val_accuracy": 3}, {"val_accuracy": {"best_model_score": "x"}}],
}


@pytest.mark.parametrize("where", STRANGE)
def test_what_is_of_another_kind_is_one_line(file, where):
    for value in STRANGE[where]:
        files.write(stored() | {where: value}, file)
        with pytest.raises(UserError) as caught:
            weights_of(file)
        assert_one_line(caught.value)


@pytest.mark.parametrize("layers", [[784, 10**7, 10**5, 10], [784, 10**12, 10], [784, 2**63, 10]])
def test_a_network_beyond_all_memory_is_refused_before_it_is_made(file, layers):
    content = stored(layers=[784, 1, 10])
    content["hyper_parameters"]["layers"] = layers
    files.write(content, file)
    with pytest.raises(UserError, match="of memory"):
        weights_of(file)
    with pytest.raises(UserError, match=r"model\.layers .* weights: .*B while training, of"):
        memory.check_layers(layers)


def test_a_changed_data_file_is_refused(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    table = {}
    for name in mnist.FILES:
        content = gzip.compress(random.Random(name).randbytes(300))
        (raw / name).write_bytes(content)
        table[name] = (len(content), hashlib.md5(content).hexdigest())
    monkeypatch.setattr(mnist, "FILES", table)
    mnist.check_files(tmp_path)
    for seed, name in enumerate(table):
        whole = (raw / name).read_bytes()
        for bad in mutations(whole, 100, seed=seed):
            (raw / name).write_bytes(bad)
            if bad == whole:
                continue
            with pytest.raises(mnist.DataError, match=name):
                mnist.check_files(tmp_path)
        (raw / name).write_bytes(whole)


def test_changed_metrics_are_numbers_or_one_line(file):
    table = "epoch,step,train_cost,val_cost\n" + "".join(f"{i},{i},0.5,{i / 7}\n" for i in range(9))
    run, path = runs.open_checkpoint(file), file.parent.parent / "metrics.csv"
    for bad in mutations(table.encode(), 300, seed=4):
        path.write_bytes(bad)
        vars(run).pop("metrics", None)
        try:
            values = [value for column in run.metrics.values() for value in column]
            assert all(isinstance(value, float) for value in values)
        except UserError as error:
            assert_one_line(error)


def test_a_changed_configuration_is_read_or_one_line(file):
    config = {"data": {"root": None, "val_size": 7, "split_seed": 3}, "name": "small"}
    run, path = runs.open_checkpoint(file), file.parent.parent / "config.yaml"
    for bad in mutations(yaml.safe_dump(config).encode(), 300, seed=5):
        path.write_bytes(bad)
        try:
            root, size, seed = run.data_settings()
            assert isinstance(root, Path) and isinstance(size, int) and isinstance(seed, int)
        except UserError as error:
            assert_one_line(error)
