"""Padding."""

from cases.table import *

CASES = [
    row("pad", real(3, 4), pad=(1, 2)),
    row("pad", real(2, 3, 4), pad=(1, 0, 2, 1, 0, 1), value=-1.5),
    row("pad", real(3, 4), pad=(1, -2, -1, 0), value=2.0),
    row("pad", real(3, 4), pad=(0, 0)),
    row("pad", transposed(real(2, 3, 4)), pad=(1, 1, 1, 1), note="transposed"),
    row("pad", real(0, 3), pad=(1, 1), without=EMPTY),
    row("pad", real(3, 4), pad=(1, 1), note="special", special=[(fixed([[1.0, INF, NAN]]),)]),
    *(row("pad", real(2, 4), pad=(2, 1), mode=mode)
      for mode in ("reflect", "replicate")),
    *(row("pad", real(2, 2, 4), pad=(0, 3), mode=mode)
      for mode in ("reflect", "replicate", "circular")),
    *(row("pad", real(2, 2, 3, 4), pad=(3, 2, 1, 2), mode=mode)
      for mode in ("reflect", "replicate", "circular")),
    *(row("pad", real(2, 3, 3, 2), pad=(1, 1, 2, 0, 1, 2), mode=mode)
      for mode in ("reflect", "replicate")),
    row("pad", real(1, 2, 3, 3, 2), pad=(1, 1, 2, 0, 1, 2), mode="circular"),
    *(row("pad", real(2, 2, 3, 4), pad=(2, -1, -1, 1), mode=mode)
      for mode in ("reflect", "replicate", "circular")),
    row("pad", real(2, 1, 2), pad=(5, 3), mode="replicate", note="wider than within"),
    row("pad", transposed(real(2, 3, 4)), pad=(1, 1), mode="circular", note="transposed"),
    row("pad", real(0, 2, 4), pad=(2, 1), mode="circular", without=EMPTY),
]  # fmt: skip


IMAGES = {1: real(2, 2, 4), 2: real(2, 2, 4, 3), 3: real(2, 2, 4, 3, 3)}

MODULES = [
    *(module(f"{name}Pad{n}d", 1, inputs=(image,))
      for name in ("Circular", "Reflection", "Replication", "Zero")
      for n, image in IMAGES.items()),
    *(module(f"ConstantPad{n}d", 1, 2.5, inputs=(image,)) for n, image in IMAGES.items()),
    module("ReflectionPad2d", (1, 2, 0, 1), inputs=(real(2, 4, 3),)),
    module("ZeroPad2d", (1, -1, 2, 0), inputs=(real(4, 3),)),
]  # fmt: skip
