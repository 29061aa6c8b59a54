"""The states of all generators of random numbers, as tensors and numbers."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def states() -> dict[str, Any]:
    """Those of torch on the CPU and on each CUDA device, of Python, and of NumPy if it is used."""
    found: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if _cuda():
        found["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        kind, numbers, *place = sys.modules["numpy"].random.get_state()
        found["numpy"] = (kind, torch.from_numpy(numbers.astype("int64")), *place)
    return found


def restore(found: dict[str, Any]) -> bool:
    """Set all generators; False if the states are of another number of CUDA devices."""
    torch.set_rng_state(found["torch"])
    random.setstate(found["python"])
    if "numpy" in found and "numpy" in sys.modules:
        kind, numbers, *place = found["numpy"]
        numpy = sys.modules["numpy"]
        numpy.random.set_state((kind, numbers.numpy().astype("uint32"), *place))
    devices = found.get("cuda", [])
    here = torch.cuda.device_count() if _cuda() else 0
    for device, state in enumerate(devices[:here]):
        torch.cuda.set_rng_state(state, device)
    return len(devices) == here


def _cuda() -> bool:
    """Whether CUDA is in use: asking for its states would otherwise begin it."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
