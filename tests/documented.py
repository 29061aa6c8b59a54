"""torch with the gradients that docs/differences.md names replaced by those of manualbp."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class Documented(TorchFunctionMode):
    """Inside, torch's own functions have the gradients that the table gives to manualbp.

    So a difference that is gone inside is one that the table already names. What the table says of
    dtypes, branch cuts and errors is left out, and so is what random programs hardly meet.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        mended = MENDED.get(name.removesuffix("_") if not name.endswith("__") else name)
        if mended is None:
            return func(*args, **kwargs)
        if kwargs.pop("inplace", False) or (name.endswith("_") and not name.endswith("__")):
            func = _OUT_OF_PLACE.get(name, func)
            target, *rest = args or (kwargs.pop(next(iter(kwargs))),)
            return target.copy_(mended(func, target.clone(), *rest, **kwargs))
        return mended(func, *args, **kwargs)


Mended = Callable[..., Any]


def _no_view(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A value of its own, where torch gives a view of a step on the way."""

    def copied(t: Any) -> Any:
        return t.clone() if isinstance(t, Tensor) and t.is_floating_point() else t

    return tree_map(copied, func(*args, **kwargs))


def _at_nan(slope: float) -> Mended:
    """g times the slope, where the value is nan."""

    def mended(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nowhere = input.isnan()
        value = func(torch.where(nowhere, 0.25, input), *args, **kwargs)
        return torch.where(nowhere, input * slope, value)

    return mended


def _poisson_nll_loss(
    func: Any,
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    value = F.poisson_nll_loss(input, target, log_input, False, eps=eps, reduction="none")
    if full:
        t = torch.where(target > 1, target, 2)
        stirling = t * t.log() - t + 0.5 * (2 * math.pi * t).log()
        value = value + torch.where(target > 1, stirling, 0)
    return value if reduction == "none" else getattr(value, reduction)()


def _dist(func: Any, input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    difference = input - other
    nothing = difference.eq(0).all() & (difference.numel() > 0)
    norm = torch.linalg.vector_norm(torch.where(nothing, 1, difference), p)
    return torch.where(nothing, 0, norm)


def _cosine_similarity(
    func: Any, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8
) -> Tensor:
    def unit(x: Tensor) -> Tensor:
        nothing = x.eq(0).all(dim, True)
        length = torch.linalg.vector_norm(torch.where(nothing, 1, x), 2, dim, keepdim=True)
        length = torch.where(nothing, 0, length)
        return x / (length + (length.clamp(min=eps) - length).detach())

    return (unit(x1) * unit(x2)).sum(dim)


def _batch_norm(func: Any, *args: Any, **kwargs: Any) -> Any:
    place = 3 if func is F.batch_norm else 1
    given = list(args)
    if place < len(given) and given[place] is not None:
        given[place] = given[place].contiguous()
    if kwargs.get("weight") is not None:
        kwargs["weight"] = kwargs["weight"].contiguous()
    return func(*given, **kwargs)


def _moment(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    value = func(input, *args, **kwargs)
    first = value[0] if isinstance(value, tuple) else value
    names = dict(zip(("dim", "unbiased", "keepdim"), args, strict=False))
    if args and isinstance(args[0], bool):
        names = {"unbiased": args[0]}
    names |= kwargs
    correction = names.get("correction")
    if correction is None:
        correction = int(names.get("unbiased", True))
    count = input.numel() / max(first.numel(), 1)
    if count >= correction or not input.numel():
        return value
    dim, keepdim = names.get("dim"), names.get("keepdim", False)
    squares = (input - input.mean(dim, True)).square().sum(dim, keepdim)
    infinite = squares * math.inf
    if func.__name__.startswith("std"):
        infinite = infinite.sqrt()
    return type(value)((infinite, value[1])) if isinstance(value, tuple) else infinite


def _pow(func: Any, input: Any, exponent: Any) -> Tensor:
    value = func(input, exponent)
    if func.__name__ == "__rpow__":
        input, exponent = exponent, input
    base, power = torch.as_tensor(input), torch.as_tensor(exponent)
    # By the base the second derivative is infinite for powers between 1 and 2.
    special = (base == 0) & ((power >= 2) if base.requires_grad else (power > 1))
    if not special.any():
        return value
    usual = torch.pow(torch.where(special, 1, base), power)
    limit = torch.where(power == 2, base * base, 0 * base)
    return torch.where(special, limit, usual).to(value.dtype)


def _sign(func: Any, input: Tensor) -> Tensor:
    return torch.sign(input)


#: by the name of a function: what runs in its place, given it and its arguments
MENDED: dict[str, Mended] = {
    "elu": _at_nan(1),
    "celu": _at_nan(1),
    "selu": _at_nan(1.0507009873554805),
    "hardswish": _at_nan(1),
    "hardtanh": _at_nan(1),
    "relu6": _at_nan(1),
    "hardshrink": _at_nan(1),
    "softshrink": _at_nan(1),
    "poisson_nll_loss": _poisson_nll_loss,
    "dist": _dist,
    "cosine_similarity": _cosine_similarity,
    "batch_norm": _batch_norm,
    "sgn": _sign,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _moment),
    **dict.fromkeys(("pow", "__pow__", "__rpow__"), _pow),
    **dict.fromkeys(
        "bilinear avg_pool1d max_pool1d max_pool1d_with_indices lp_pool1d adaptive_avg_pool1d "
        "adaptive_max_pool1d adaptive_max_pool1d_with_indices max_unpool1d "
        "multi_head_attention_forward tensordot".split(),
        _no_view,
    ),
}
_OUT_OF_PLACE = {
    "elu_": F.elu,
    "celu_": torch.celu,
    "selu_": torch.selu,
    "hardswish_": F.hardswish,
    "hardtanh_": F.hardtanh,
    "relu6_": F.relu6,
    "pow_": torch.pow,
    "__ipow__": torch.pow,
    "sgn_": torch.sgn,
}
