"""What the annotations of a forward say: which arguments are surely tensors, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Size, Tensor


class TensorContainer:
    """Several tensors in one argument, such as a list of them."""


#: what is surely no tensor
_NOT_TENSORS = (int, float, complex, str, bytes, slice, torch.dtype, torch.device, Size, NoneType)


def kinds(forward: Callable[..., Any]) -> dict[str, Any]:
    """For each parameter: Tensor (or None), None for anything but, Any for either.

    What an annotation does not say for certain is Any.
    """
    try:
        hints = get_type_hints(forward)
    except NameError:  # annotations that only a type checker can read: then nothing is known
        hints = {}
    return {name: _kind(hints.get(name, Any)) for name in signature(forward).parameters}


def _kind(hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar):
        hints = hint.__constraints__ or (hint.__bound__ or Any,)
        return _kind(Union[hints])  # noqa: UP007 # of a tuple
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, UnionType):
        kinds = [_kind(part) for part in parts if part is not NoneType]
        return kinds[0] if all(kind is kinds[0] for kind in kinds) else Any
    if origin in (Literal, type, Callable):
        return None
    if origin is not None:  # a container
        kinds = [_kind(part) for part in parts if part is not Ellipsis]
        if Tensor in kinds or TensorContainer in kinds:
            return TensorContainer
        return None if all(kind is None for kind in kinds) else Any
    if isinstance(hint, type):
        if issubclass(hint, _NOT_TENSORS):
            return None
        return Tensor if issubclass(hint, Tensor) else Any
    return Any
