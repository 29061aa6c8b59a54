"""Matrix products, each by the faster of the two libraries that torch has.

``torch.mm`` calls MKL, which on processors that are not Intel's takes about twice as long as
oneDNN for all but small products. So formulas multiply with :func:`matmul` and :func:`linear`,
which let oneDNN do it where it is the faster, and :func:`choose` does the same to a traced program.
``torch.backends.mkldnn.enabled = False`` leaves every product to ``torch.mm``.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, library
from torch.nn import functional as F

from manualbp.core.modes import on_cpu

aten = torch.ops.aten

#: multiplications below which oneDNN takes longer to start than it saves
LARGE = 1 << 21


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b, for a of shape (*, n) and a matrix b of shape (n, m)."""
    return _onednn(a, b.t(), None) if _gains(a, b, b.shape[1]) else a @ b


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """a Wᵀ + b, as ``torch.nn.functional.linear``."""
    if _gains(input, weight, weight.shape[0]) and (
        bias is None
        or (bias.dtype is input.dtype and bias.shape == weight.shape[:1] and on_cpu(bias))
    ):
        return _onednn(input, weight, bias)
    return F.linear(input, weight, bias)


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    a, b = _separate(a), _separate(b)
    # The operator takes a bias for contiguous, whatever its strides.
    bias = None if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def _separate(t: Tensor) -> Tensor:
    """``t``, copied if entries of it share memory, as windows do: oneDNN refuses such strides."""
    reach = 0
    for stride, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size > 1 and stride <= reach:
            return t.contiguous()
        reach += stride * (size - 1)
    return t


def _gains(a: Tensor, b: Tensor, columns: int) -> bool:
    """Whether oneDNN is to multiply these."""
    return (
        not torch.compiler.is_compiling()  # which would make a condition of the size
        and a.numel() * columns >= LARGE
        and _mkl_is_slow()
        and a.dtype is b.dtype is torch.float32
        and not torch._C._is_any_autocast_enabled()
        and bool(torch.backends.mkldnn.enabled)
        and on_cpu(a, b)
    )


@cache
def _mkl_is_slow() -> bool:
    """Whether torch multiplies with MKL on another maker's processor, and has oneDNN too."""
    mkl, onednn = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (mkl and onednn):
        return False
    description = Path("/proc/cpuinfo")
    processor = description.read_text() if description.exists() else platform.processor()
    return "Intel" not in processor


# ------------------------------------------------------------------------------ traced programs


def choose(graph: torch.fx.GraphModule) -> None:
    """Let oneDNN compute those float32 products on the CPU that it computes faster, in place."""
    if not _mkl_is_slow() or not torch.backends.mkldnn.enabled:
        return
    for node in graph.graph.nodes:
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        bias, (a, b) = (None if len(node.args) == 2 else node.args[0]), node.args[-2:]
        left, right = a.meta["val"], b.meta["val"]
        plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (left, right))
        if not plain or (bias is not None and bias.meta["val"].shape != right.shape[1:]):
            continue
        if left.numel() * right.shape[1] >= LARGE:
            with graph.graph.inserting_before(node):
                product = graph.graph.call_function(_operator(), (a, b, bias))
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()


@cache
def _operator() -> Any:
    """``product(a, b, bias)``: a b + bias by oneDNN, as an operator that Inductor leaves alone."""
    ours = library.Library("manualbp", "FRAGMENT")  # type: ignore[no-untyped-call]
    ours.define("product(Tensor a, Tensor b, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]
    ours.impl("product", lambda a, b, bias: _onednn(a, b.t(), bias), "CPU")  # type: ignore[no-untyped-call]
    library.register_fake(
        "manualbp::product", lambda a, b, bias: a.new_empty(a.shape[0], b.shape[1]), lib=ours
    )
    _libraries.append(ours)  # which takes its operators with it when it goes
    return torch.ops.manualbp.product.default


_libraries: list[Any] = []
