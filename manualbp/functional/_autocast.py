"""torch's autocast, for formulas: the precision in which each function runs under it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from manualbp.core.modes import any_autocast

Function = Callable[..., Any]
#: from a function's arguments, by name, to one of the policies below
Policy = Callable[..., str]

#: cast to float32
SINGLE = "single"
#: cast to autocast's own dtype
LOWER = "lower"
#: cast to float32 if one of the tensors is float32, else to autocast's own dtype
WIDEST = "widest"
#: not cast: torch does not list the function, though it may list operators of its formula
AS_IT_IS = "as it is"
#: cast by torch at each operator of the formula
BY_OPERATOR = "by operator"


def _always(policy: str, names: str) -> dict[str, Policy]:
    return dict.fromkeys(names.split(), lambda **_: policy)


def _without_weight(weight: Tensor | None, **_: Any) -> str:
    """With a weight torch's function is Python over operators that autocast does not list."""
    return SINGLE if weight is None else AS_IT_IS


def _without_dtype(dtype: torch.dtype | None, **_: Any) -> str:
    return SINGLE if dtype is None else AS_IT_IS


def _in_parts(
    linear_weight: Tensor, target: Tensor, label_smoothing: float, options: Any, **_: Any
) -> str:
    """Where torch computes in parts, it calls an operator that autocast does not list."""
    parts = options is not None and linear_weight.dim() == 2 and label_smoothing == 0
    return AS_IT_IS if parts and not target.requires_grad else BY_OPERATOR


_EVERYWHERE: dict[str, Policy] = {
    **_always(
        SINGLE,
        "binary_cross_entropy_with_logits cdist cosine_embedding_loss cross_entropy "
        "hinge_embedding_loss huber_loss kl_div margin_ranking_loss multi_margin_loss "
        "multilabel_margin_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss "
        "triplet_margin_loss",
    ),
    **_always(LOWER, "scaled_dot_product_attention"),
    "l1_loss": _without_weight,
    "mse_loss": _without_weight,
    "linear_cross_entropy": _in_parts,
}
#: device → function → policy. A function is not listed if its formula's forward is the operator
#: that torch casts for, or if torch casts for none of its operators.
POLICIES: dict[str, dict[str, Policy]] = {
    "cpu": {
        **_EVERYWHERE,
        **_always(
            SINGLE,
            "adaptive_avg_pool3d adaptive_max_pool3d adaptive_max_pool3d_with_indices avg_pool3d "
            "binary_cross_entropy ctc_loss grid_sample lp_pool3d max_unpool1d max_unpool2d "
            "max_unpool3d prod trace",
        ),
        **_always(AS_IT_IS, "multilabel_soft_margin_loss"),
        **_always(WIDEST, "cat concat hstack vstack stack index_copy"),
        "max_pool3d": lambda return_indices, **_: AS_IT_IS if return_indices else SINGLE,
        "pad": lambda pad, mode, **_: (
            SINGLE if mode == "replicate" or (mode == "reflect" and len(pad) < 6) else AS_IT_IS
        ),
    },
    "cuda": {
        **_EVERYWHERE,
        **_always(LOWER, "einsum"),
        **_always(WIDEST, "tensordot grid_sample bilinear"),
        **_always(AS_IT_IS, "trace"),
        **_always(SINGLE, "multilabel_soft_margin_loss"),  # as its sum over the labels
        **dict.fromkeys(("cumprod", "cumsum", "prod"), _without_dtype),
    },
}
LISTED = frozenset(name for policies in POLICIES.values() for name in policies)


def as_torch_casts(function: Function) -> Function:
    """``function``, run under autocast in the precision in which torch runs it there.

    Autograd or a tape records the casts. The formula then runs without autocast, forwards and
    backwards. A function is not wrapped if torch casts for its operators in the same way, because
    the wrapper costs 0.2 µs outside of autocast.
    """
    name = function.__name__
    bind = inspect.signature(function).bind

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not any_autocast():
            return function(*args, **kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        device = tensors[0].device.type if tensors else "cpu"
        policy = POLICIES.get(device, {}).get(name)
        if policy is None or not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        given = bind(*args, **kwargs)
        given.apply_defaults()
        cast = policy(**given.arguments)
        if cast == BY_OPERATOR:
            return function(*args, **kwargs)
        if cast != AS_IT_IS:
            single = cast == SINGLE
            single |= cast == WIDEST and any(t.dtype is torch.float for t in tensors)
            dtype = torch.float if single else torch.get_autocast_dtype(device)
            args, kwargs = _cast(args, dtype), {k: _cast(v, dtype) for k, v in kwargs.items()}
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        # torch's autocast does not cast float64.
        left = value.dtype is torch.double or not value.is_floating_point()
        return value if left else value.to(dtype)
    if type(value) in (tuple, list):
        return type(value)(_cast(v, dtype) for v in value)
    return value
