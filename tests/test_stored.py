"""Checkpoint files: whole or not at all, and any flipped bit is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from manualbp.training import stored
from manualbp.training.errors import UserError
from manualbp.training.runs import read_checkpoint

CONTENT = {"state_dict": {"w": torch.arange(3.0)}, "epoch": 1, "global_step": 2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "last.ckpt"
    stored.write(CONTENT, path)
    return path


def test_what_was_written_is_read_by_us_and_by_torch(file):
    for found in (stored.read(file), torch.load(file, weights_only=True)):
        assert torch.equal(found["state_dict"]["w"], torch.arange(3.0))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_every_flipped_bit_is_refused(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (place % 8, (place * 5 + 3) % 8):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(ValueError):
                stored.check(file)


def test_every_shortened_file_is_refused(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError):
            stored.check(file)


def test_of_a_file_of_torch_itself_the_zip_s_sums_are_checked(file):
    torch.save(CONTENT, file)
    assert read_checkpoint(file)["epoch"] == 1
    whole = file.read_bytes()
    place = whole.index(torch.arange(3.0).numpy().tobytes())
    file.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    with pytest.raises(UserError, match="not a checkpoint of ours, or damaged"):
        read_checkpoint(file)


def test_a_failed_write_leaves_the_file_before_and_nothing_else(file, monkeypatch):
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(stored.SaveError, match=r"last\.ckpt could not be saved: No space .* free"):
        stored.write(CONTENT, file)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("before", ["fsync", "replace"])
def test_a_process_killed_while_writing_leaves_the_file_before(file, before):
    program = (
        "import os, signal, sys; from manualbp.training import stored\n"
        f"os.{before} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"stored.write({{'epoch': 5}}, {str(file)!r})"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert stored.read(file)["epoch"] == 1
    assert len(list(file.parent.iterdir())) == 2
    stored.clean(file.parent)
    assert list(file.parent.iterdir()) == [file]


def test_two_names_of_one_file_can_be_exchanged(file):
    other = file.with_name("best.ckpt")
    for _ in range(2):  # the second time both are one file already
        stored.link(file, other)
    assert other.samefile(file)
    stored.write(CONTENT | {"epoch": 2}, file)
    assert (stored.read(other)["epoch"], stored.read(file)["epoch"]) == (1, 2)
    assert len(list(file.parent.iterdir())) == 2


def test_a_temporary_file_of_a_process_that_lives_is_left_alone(file):
    mine = file.with_name(f".last.ckpt.{stored._host()}.{os.getpid()}.tmp")
    mine.write_bytes(b"")
    stored.clean(file.parent)
    assert mine.exists()


@pytest.mark.parametrize(
    ("size", "said"), [(3, "3 bytes"), (15_230_000, "15.2 MB"), (4e13, "40.0 TB")]
)
def test_amounts(size, said):
    assert stored.amount(size) == said
