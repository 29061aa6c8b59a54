"""Backward passes that are wrong, after real reports, and right ones in every style people write.

Where a file has a right one and its wrong siblings, they share the forward pass: what differs is
the slip. They are written as people write them, without annotations.
"""

from manualbp.verification.catalogue import (
    attention,
    convolution,
    deliberate,
    elementwise,
    linear,
    losses,
    networks,
    normalization,
    orders,
    precision,
    reductions,
    state,
    structure,
    styles,
)
from manualbp.verification.catalogue.specimen import Specimen

__all__ = ["RIGHT", "WRONG", "Specimen"]

_FILES = (
    elementwise,
    linear,
    convolution,
    normalization,
    attention,
    losses,
    state,
    orders,
    precision,
    structure,
    reductions,
    networks,
    deliberate,
    styles,
)

#: something verify must find in each
WRONG: list[Specimen] = [specimen for file in _FILES for specimen in file.WRONG]
#: nothing verify may find in any
RIGHT: list[Specimen] = [specimen for file in _FILES for specimen in file.RIGHT]
