"""MNIST from the repository's own files."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from manualbp.training.errors import UserError

Pair = tuple[Tensor, Tensor]

FILES = {  # name: (bytes, md5)
    "train-images-idx3-ubyte.gz": (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels-idx1-ubyte.gz": (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
    "t10k-images-idx3-ubyte.gz": (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
    "t10k-labels-idx1-ubyte.gz": (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
}
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
REPOSITORY_DATA = Path(__file__).resolve().parents[2] / "data"


class DataError(UserError):
    """A data file is missing, or is not the original."""


def check_files(root: Path) -> None:
    """Raise `DataError`, naming the file and the mend, unless all four files are the originals."""
    raw = root / "MNIST" / "raw"
    mend = (
        "git checkout -- data/MNIST/raw"
        if root == REPOSITORY_DATA
        else "--data.root <the folder that holds MNIST/raw>"
    )
    for name, (size, md5) in FILES.items():
        path = raw / name
        try:
            content = path.read_bytes()
        except OSError as error:
            found = "it is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        else:
            found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if found_md5 == md5:
                continue
            kind = "truncated" if len(content) < size else "corrupt"
            found = f"it is {kind}: {len(content):,} bytes, md5 {found_md5}"
        raise DataError(
            f"cannot read MNIST from {path}\n"
            f"  found:    {found}\n"
            f"  expected: {size:,} bytes, md5 {md5}\n"
            f"  mend:     {mend}\n"
            f"            or save {MIRROR}{name} as that file"
        )


def load(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) with pixels in [0, 1], and labels (N,)."""
    part = "train" if train else "t10k"
    images = _numbers(root, f"{part}-images-idx3-ubyte.gz", header=16).view(-1, 1, 28, 28)
    return images.float().div_(255), _numbers(root, f"{part}-labels-idx1-ubyte.gz", header=8).long()


def split(images: Tensor, labels: Tensor, val_size: int, seed: int) -> dict[str, Pair]:
    """The training examples without `val_size` of them, and these, which `seed` selects."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    val, train = order[:val_size], order[val_size:]
    return {"train": (images[train], labels[train]), "val": (images[val], labels[val])}


def _numbers(root: Path, name: str, header: int) -> Tensor:
    with gzip.open(root / "MNIST" / "raw" / name) as file:
        return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8, offset=header)
