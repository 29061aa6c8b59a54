"""Whether a faster way to the same numbers may be taken, which only plain tensors can go."""

from __future__ import annotations

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


def transformed() -> bool:
    """Whether torch.func transforms this call; some of torch's kernels know nothing of it."""
    compiling = torch.compiler.is_compiling()
    return not compiling and torch._C._are_functorch_transforms_active()
