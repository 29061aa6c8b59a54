"""Arguments written on a command line: ``4x3``, ``2:int64:10``, ``none``, ``=0.5``."""

from __future__ import annotations

import ast
import re
from typing import Any

import torch
from torch import Tensor

from manualbp.commands.line import near
from manualbp.training.errors import UserError

#: dtypes by their names in torch, but for those that are packed or quantised
DTYPES: dict[str, torch.dtype] = {
    name: value
    for name, value in sorted(vars(torch).items())
    if isinstance(value, torch.dtype) and not re.match(r"q|bits|float[48]|u?int\d$", name)
} | {"int8": torch.int8, "uint8": torch.uint8}
WORDS = {"none": None, "true": True, "false": False}
FORMS = "a shape (4x3, 4x3:float64, 2:int64:10, scalar) or a value (none, true, =3, =0.5, =mean)"


def make(text: str, generator: torch.Generator, option: str = "--input") -> Any:
    """The argument that ``text`` describes.

    Args:
        text: ``SHAPE[:DTYPE[:MAX]]`` is a tensor: of normal numbers, or of whole ones from 0 to
            MAX - 1, of ``float32`` unless said. ``none``, ``true``, ``false`` and decimals are
            themselves; after ``=`` any Python literal is, and else a string.
        generator: draws the numbers.
        option: whose value it is, for messages.

    Raises:
        UserError: it is none of these; says why.
    """
    if text.startswith("="):
        return _literal(text[1:])
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    shape, _, rest = text.partition(":")
    dtype, _, most = rest.partition(":")
    if shape == "scalar" or re.fullmatch(r"\d+([x×,]\d+)*", shape):
        sizes = [int(n) for n in re.findall(r"\d+", shape)]
        return _tensor(sizes, _dtype(dtype, text, option), most, generator, f"{option} {text}")
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=e))(e[-+]?\d+)?", text):
        return float(text)
    raise UserError(f"{option} {text}: expected {FORMS}")


def described(value: Any) -> str:
    """``float32 4×3``, or the value itself."""
    if not isinstance(value, Tensor):
        return repr(value)
    shape = "×".join(map(str, value.shape)) or "scalar"
    return f"{str(value.dtype).removeprefix('torch.')} {shape}"


def _literal(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _dtype(name: str, text: str, option: str) -> torch.dtype:
    if not name:
        return torch.float32
    if name not in DTYPES:
        meant = near(name, DTYPES) or ["float32", "float64", "int64", "bool"]
        raise UserError(f"{option} {text}: torch has no dtype {name}; near to it: {_listed(meant)}")
    return DTYPES[name]


def _tensor(
    sizes: list[int], dtype: torch.dtype, most: str, generator: torch.Generator, given: str
) -> Tensor:
    whole = not (dtype.is_floating_point or dtype.is_complex)
    if most and (not whole or dtype is torch.bool):
        raise UserError(f"{given}: a largest value is for whole numbers; leave out :{most}")
    highest = 2 if dtype is torch.bool else 10
    if most:
        limit = torch.iinfo(dtype).max
        if not re.fullmatch(r"\d+", most) or not 0 < int(most) <= limit:
            raise UserError(f"{given}: expected a number from 1 to {limit} after {dtype}:")
        highest = int(most)
    try:
        if whole:
            return torch.randint(highest, sizes, generator=generator).to(dtype)
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return torch.randn(sizes, generator=generator, dtype=wide).to(dtype)
    except (RuntimeError, OverflowError):
        raise UserError(f"{given}: does not fit into memory; give a smaller shape") from None


def _listed(names: list[str]) -> str:
    return ", ".join(names)
