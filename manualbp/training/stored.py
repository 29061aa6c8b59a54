"""Checkpoint files: written whole or not at all, and refused where a single bit has changed.

A checkpoint is torch's zip file. Its comment, which zip readers skip, is the SHA-256 of all bytes
before it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from manualbp.training.errors import UserError

MARK = b"manualbp sha256 "
SEAL = len(MARK) + 64  # bytes: the mark, then the digits of the sum
END, END_SIZE = b"PK\5\6", 22  # zip's last record; its last two bytes are the comment's length

#: temporary files that are being written now
unfinished: set[Path] = set()


class SaveError(UserError):
    """A file could not be written; the one before, if any, is as it was."""


def write(content: Any, file: str | Path) -> None:
    """Save with torch, to a temporary file beside the target, which then replaces the target.

    Raises:
        SaveError: the disk is full, the folder may not be written, or the like.
    """
    data = sealed(content)
    _replace(Path(file), lambda temporary: _write_bytes(temporary, data), len(data))


def link(source: Path, file: Path) -> None:
    """Give a file a second name. It is copied where the file system has no links.

    Raises:
        SaveError: as in :func:`write`.
    """

    def fill(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)

    _replace(file, fill, source.stat().st_size)


def write_text(text: str, file: Path) -> None:
    """Replace a text file as :func:`write` replaces a checkpoint.

    Raises:
        SaveError: as in :func:`write`.
    """
    data = text.encode()
    _replace(file, lambda temporary: _write_bytes(temporary, data), len(data))


def read(file: str | Path) -> Any:
    """What was saved, tensors on the CPU; after the check that no bit has changed.

    Raises:
        ValueError: it is no checkpoint, or another than the one that was written.
        Exception: whatever torch raises where it holds more than tensors, numbers and names.
    """
    check(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of is refused, or of no interest
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def check(file: str | Path) -> None:
    """Raise `ValueError` unless every byte is as it was written.

    Of a checkpoint without our sum, as torch.save writes it, the sums of the zip file are checked.
    """
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - SEAL))
        seal = stream.read()
        if seal.startswith(MARK):
            if _digest(stream, size - SEAL) != seal[len(MARK) :]:
                raise ValueError("its bytes are not those that were written")
        elif seal[-END_SIZE:].startswith(END) and seal.endswith(b"\0\0"):
            _check_zip(stream, size)
        else:
            raise ValueError("no end of a checkpoint: another file, or cut off")


def sealed(content: Any) -> bytearray:
    """The bytes of torch's file, and their sum as its comment."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = bytearray(buffer.getbuffer())
    assert data[-END_SIZE:].startswith(END), "torch.save has written another format"
    data[-2:] = SEAL.to_bytes(2, "little")
    return data + MARK + hashlib.sha256(data).hexdigest().encode()


def clean(folder: Path) -> None:
    """Remove the temporary files of processes of this machine that have ended."""
    for temporary in folder.glob(f".*.{_host()}.*.tmp"):
        number = temporary.name.split(".")[-2]
        if number.isdigit() and not _alive(int(number)):
            temporary.unlink(missing_ok=True)


def abandon() -> None:
    """Remove what is being written now, because the process is about to end."""
    for temporary in list(unfinished):
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """What can be read back without unpickling: numbers and names; for anything else its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)


def amount(size: float) -> str:
    """Bytes in a unit that a person reads: 15.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _replace(file: Path, fill: Callable[[Path], None], size: int) -> None:
    temporary = file.with_name(f".{file.name}.{_host()}.{os.getpid()}.tmp")
    unfinished.add(temporary)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        fill(temporary)
        os.replace(temporary, file)
        _sync(file.parent)
    except OSError as error:
        _remove(temporary)  # before the free space is asked for
        raise SaveError(f"{file} could not be saved: {_reason(error, file.parent, size)}") from None
    finally:
        # If both are names of one file, replacing does nothing and leaves the temporary one.
        _remove(temporary)
        unfinished.discard(temporary)


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        pass  # another process removes it, once this one has ended


def _write_bytes(file: Path, data: bytes | bytearray) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Bring the folder's list of names to the disk; Windows has no such call."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _reason(error: OSError, folder: Path, size: int) -> str:
    said = error.strerror or type(error).__name__
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return said
    return f"{said} ({amount(size)} needed, {amount(free)} free)"


def _digest(stream: BinaryIO, length: int) -> bytes:
    stream.seek(0)
    total = hashlib.sha256()
    while length > 0:
        part = stream.read(min(length, 1 << 20))
        if not part:
            break
        total.update(part)
        length -= len(part)
    return total.hexdigest().encode()


def _check_zip(stream: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > size:
            raise ValueError("a zip file, but not as torch writes it")
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"the sum of {bad} in it is wrong")


def _host() -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
