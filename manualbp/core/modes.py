"""How is this being run? One function answers each question of that kind.

A formula depends on whether autograd records, torch.func transforms, a compiler traces, an
autocast is enabled or a dispatch mode is active. The other modules ask here.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

# ---------------------------------------------------------------- autograd, transforms, tracers

#: autograd records what is computed
is_grad_enabled = torch.is_grad_enabled
#: vmap, grad, jvp or another transform of torch.func is at work
transforms_active = torch._C._are_functorch_transforms_active
#: torch.compile or torch.export traces, Dynamo or what comes after it
is_compiling = torch.compiler.is_compiling
#: Dynamo traces, which reads Python itself
is_dynamo_compiling = torch.compiler.is_dynamo_compiling
#: torch.jit.trace records operations
is_jit_tracing = torch._C._is_tracing
#: the number of dispatch modes at work: make_fx, counters of operations, fake tensors
dispatch_modes = torch._C._len_torch_dispatch_stack


def forward_mode() -> bool:
    """Whether forward-mode AD computes tangents."""
    return forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether torch.func transforms this call, and not while Dynamo traces it."""
    return not is_dynamo_compiling() and transforms_active()


def fused(function: Any, parts: Any) -> Any:
    """``function`` of torch's, or ``parts`` under torch.func, which has no rule for it."""
    return parts if transformed() else function


def may_be_differentiated() -> bool:
    """Whether autograd records, or a transform may ask for a derivative."""
    return is_grad_enabled() or transforms_active()


# -------------------------------------------------------------------------------------- autocast

#: an autocast holds for some device
any_autocast = torch._C._is_any_autocast_enabled


def autocasts(tensor: Tensor) -> bool:
    """Whether an autocast holds for ``tensor``; the meta device knows none."""
    device = tensor.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def autocast_of(tensor: Tensor) -> torch.dtype | None:
    """The dtype of the autocast that holds for ``tensor``, if one does."""
    return torch.get_autocast_dtype(tensor.device.type) if autocasts(tensor) else None


def as_in_forward(autocast: torch.dtype | None, g: Tensor) -> torch.autocast | nullcontext[None]:
    """The autocast of the forward pass, which :func:`autocast_of` noted, for its backward pass."""
    device = g.device.type
    if device == "meta":
        return nullcontext()
    return torch.autocast(device, autocast, enabled=autocast is not None)


def without_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


# --------------------------------------------------------------------------------------- kernels

#: whether kernels may run at all; see manualbp.kernels.enabled
kernels_enabled = os.environ.get("MANUALBP_KERNELS", "1") != "0"


def may_run_kernels() -> bool:
    """Whether kernels are enabled, and nothing records or transforms operations now.

    Autograd, transforms, tracers and dispatch modes each know torch's own operations. Some of them
    know no others.
    """
    return (
        kernels_enabled
        and not is_dynamo_compiling()
        and not is_grad_enabled()
        and not transforms_active()
        and not dispatch_modes()
    )


_PLAIN = frozenset([Tensor, Parameter])
_PLAIN_OR_NONE = _PLAIN | {type(None), bool, int, float}
has_storage = torch._C._has_storage


def plain(tensor: Any, *others: Any) -> bool:
    """Whether these are plain tensors of real numbers on the CPU; the others may be no tensors."""
    if type(tensor) not in _PLAIN:
        # The first of several gradients may be missing.
        return tensor is None and bool(others) and plain(*others)
    for t in others:
        if type(t) not in _PLAIN_OR_NONE:
            return False
    # A batch of gradients has no storage. What a formula computes is where its arguments are.
    return tensor.is_cpu and not tensor.is_complex() and has_storage(tensor)
