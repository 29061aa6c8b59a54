"""Whether a faster way to the same numbers may be taken, which only plain tensors can go."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)


def on_cpu(*tensors: Tensor) -> bool:
    """Whether these are plain tensors on the CPU, and nobody follows what is done with them.

    Neither autograd nor a transform nor a tracer nor a counter of operations: they know torch's
    own operations, and some of them no others.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and all(
            type(t) in _PLAIN
            and t.device.type == "cpu"
            and torch._C._has_storage(t)  # a batch of gradients has none
            for t in tensors
        )
    )


#: whether kernels may run at all; see manualbp.kernels.enabled
kernels_enabled = os.environ.get("MANUALBP_KERNELS", "1") != "0"


def may_run_kernels() -> bool:
    """Whether nobody follows what is done with tensors now: see :func:`on_cpu`."""
    return (
        kernels_enabled
        and not _is_compiling()
        and not _is_grad_enabled()
        and not _transforms_active()
        and not _len_torch_dispatch_stack()
    )


_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_transforms_active = torch._C._are_functorch_transforms_active
_len_torch_dispatch_stack = torch._C._len_torch_dispatch_stack
_has_storage = torch._C._has_storage


def plain(*values: Any) -> bool:
    """Whether those that are tensors are plain tensors of real numbers on the CPU."""
    for t in values:
        if type(t) in _PLAIN:
            # A batch of gradients has no storage.
            if not t.is_cpu or t.is_complex() or not _has_storage(t):
                return False
        elif isinstance(t, Tensor):
            return False
    return True


def transformed() -> bool:
    """Whether torch.func transforms this call; some of torch's kernels know nothing of it."""
    traced = torch.compiler.is_dynamo_compiling()
    return not traced and torch._C._are_functorch_transforms_active()
