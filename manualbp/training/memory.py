"""What a configuration asks of memory, said before it is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

from manualbp.training.errors import UserError
from manualbp.training.stored import amount

#: while training: the weights, their gradients, and the two that Adam keeps
COPIES = 4


def check_layers(layers: Sequence[int], copies: int = COPIES) -> None:
    """Raise `UserError` if the weights of such a network cannot fit into this machine's memory."""
    weights = sum((width + 1) * following for width, following in pairwise(layers))
    needed, there = 4 * copies * weights, total()
    if needed > there:
        raise UserError(
            f"model.layers {list(layers)} is {weights:,} weights: {amount(needed)} while training, "
            f"of {amount(there)} of memory\n  mend: narrower layers"
        )


def total() -> int:
    """Bytes of this machine's memory, or of what this process may use of it."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(file, encoding="ascii") as limit:
                found = min(found, int(limit.read()))
        except (OSError, ValueError):
            continue
    return found
