"""Matrix products by oneDNN, where that is faster than MKL.

``torch.mm`` calls MKL, which on processors that are not Intel's takes up to twice as long as
oneDNN for large products. ``torch.backends.mkldnn.enabled = False`` leaves every product
to ``torch.mm``.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, library
from torch.fx import Node

from manualbp import formulas
from manualbp.core import modes
from manualbp.kernels import of
from manualbp.tape import compiled_step

__all__ = ["product"]

aten = torch.ops.aten

#: number of multiplications below which oneDNN's overhead is longer than the time it saves
LARGE = 1 << 25
#: multiplications up to which a call of a library takes longer than the product itself
SMALL = 1 << 15


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, for a of shape (*, n) and a matrix b of shape (n, m), by the faster library.

    For kernels: both are plain tensors on the CPU, and nothing records operations.
    """
    if large(a, b.shape[1]) and _one_dtype(a, b):
        return _onednn(a, b.t(), None)
    return a @ b


def large(a: Tensor, columns: int) -> bool:
    """Whether oneDNN is faster for a product of ``a`` and a matrix of so many columns."""
    products = a.numel() * columns
    # A symbolic size is no int, and a compiler would guard on it.
    return type(products) is int and products >= LARGE and _mkl_is_slow()


def _one_dtype(*tensors: Tensor | None) -> bool:
    """Whether oneDNN supports these: float32, not empty, without autocast."""
    return (
        all(t is None or (t.dtype is torch.float32 and t.numel() > 0) for t in tensors)
        and not modes.any_autocast()
        and bool(torch.backends.mkldnn.enabled)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


# -------------------------------------------------------------------------------------- formulas


@of(
    formulas.Linear.forward,
    profitable=lambda input, weight: large(input, weight.shape[0]),
    supported=lambda input, weight, bias: (
        weight.dim() == 2
        and _one_dtype(input, weight, bias)
        and (bias is None or bias.shape == weight.shape[:1])
    ),
)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _onednn(input, weight, bias)


@of(
    formulas.Linear.grad_input,
    formulas.Linear.grad_weight,
    profitable=lambda g, input, weight: large(g, _columns(weight, input)),
    supported=lambda g, input, weight: _one_dtype(g, input, weight),
)
def linear_back(
    needs: tuple[bool, bool], g: Tensor, input: Tensor | None, weight: Tensor | None
) -> tuple[Tensor | None, ...]:
    rows = g.reshape(-1, g.shape[-1])
    return (
        _onednn(g, weight.t(), None) if needs[0] and weight is not None else None,
        _by_rows(rows, input.reshape(-1, input.shape[-1]))
        if needs[1] and input is not None
        else None,
    )


@of(
    formulas.MatMul.forward,
    profitable=lambda input, other: large(input, other.shape[-1]),
    supported=lambda input, other: (
        other.dim() == 2 and input.dim() > 0 and _one_dtype(input, other)
    ),
)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    return _onednn(input, other.t(), None)


@of(
    formulas.MatMul.grad_input,
    formulas.MatMul.grad_other,
    profitable=lambda g, input, other: large(g, _inner(input, other)),
    supported=lambda g, input, other: _matrices(g, input, other) and _one_dtype(g, input, other),
)
def matmul_back(
    needs: tuple[bool, bool], g: Tensor, input: Tensor | None, other: Tensor | None
) -> tuple[Tensor | None, ...]:
    return (
        _onednn(g, other, None) if needs[0] and other is not None else None,
        _by_rows(input, g) if needs[1] and input is not None else None,
    )


def _matrices(*tensors: Tensor | None) -> bool:
    return all(t is None or t.dim() == 2 for t in tensors)


def _columns(one: Tensor | None, other: Tensor | None) -> int:
    """Columns of the factor that is saved, because each rule saves one; 0 if neither is."""
    found = other if one is None else one
    return 0 if found is None else found.shape[-1]


def _inner(input: Tensor | None, other: Tensor | None) -> int:
    """How many products are summed in each entry of A B."""
    return _columns(input, None) if other is None else other.shape[max(other.dim() - 2, 0)]


# --------------------------------------------------------------------------------------- oneDNN


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    a, b = _separate(a), _separate(b)
    # The operator ignores the strides of a bias.
    bias = None if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def _by_rows(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b. MKL is faster, 1.1 to 3 times, if there are more rows than columns to sum over."""
    if len(a) > min(a.shape[1], b.shape[1]):
        return a.t() @ b
    return _onednn(a.t(), b.t(), None)


def _separate(t: Tensor) -> Tensor:
    """``t``, copied if its entries overlap in memory, because oneDNN refuses such strides."""
    reach = 0
    for stride, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size > 1 and stride <= reach:
            return t.contiguous()
        reach += stride * (size - 1)
    return t


@cache
def _mkl_is_slow() -> bool:
    """Whether torch multiplies with MKL on a processor that is not Intel's, and has oneDNN too."""
    mkl, onednn = torch.backends.mkl.is_available(), torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (mkl and onednn):
        return False
    description = Path("/proc/cpuinfo")
    processor = description.read_text() if description.exists() else platform.processor()
    return "Intel" not in processor


# ------------------------------------------------------------------------------ traced programs


def choose(graph: torch.fx.GraphModule) -> None:
    """Replace, in the graph, the float32 products on the CPU that oneDNN computes faster."""
    if _mkl_is_slow() and torch.backends.mkldnn.enabled:
        _replace(graph, (torch.float32,), range(LARGE, sys.maxsize), _by_onednn)


def expand(graph: torch.fx.GraphModule) -> None:
    """Replace small products on the CPU by sums, which Inductor fuses with their neighbours."""
    _replace(graph, (torch.float32, torch.float64), range(SMALL + 1), _by_sums)


def _replace(
    graph: torch.fx.GraphModule,
    dtypes: tuple[torch.dtype, ...],
    multiplications: range,
    build: Callable[[torch.fx.Graph, Node, Node, Node | None], Node | None],
) -> None:
    """Replace products of so many multiplications by what ``build`` makes of a b + bias.

    Where ``build`` returns None, the product stays.
    """
    if not modes.kernels_enabled:
        return
    for node in graph.graph.nodes:
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        bias, (a, b) = (None if len(node.args) == 2 else node.args[0]), node.args[-2:]
        left, right = a.meta["val"], b.meta["val"]
        plain = all(t.device.type == "cpu" and t.dtype in dtypes for t in (left, right))
        if not plain or left.numel() * right.shape[1] not in multiplications:
            continue
        with graph.graph.inserting_before(node):
            product = build(graph.graph, a, b, bias)
        if product is not None:
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()


def _by_onednn(graph: torch.fx.Graph, a: Node, b: Node, bias: Node | None) -> Node | None:
    if bias is not None and bias.meta["val"].shape != b.meta["val"].shape[1:]:
        return None
    return graph.call_function(_operator(), (a, b, bias))


def _by_sums(graph: torch.fx.Graph, a: Node, b: Node, bias: Node | None) -> Node:
    call = graph.call_function
    factors = call(aten.unsqueeze.default, (a, 2)), call(aten.unsqueeze.default, (b, 0))
    product = call(aten.sum.dim_IntList, (call(aten.mul.Tensor, factors), [1]))
    return product if bias is None else call(aten.add.Tensor, (product, bias))


@cache
def _operator() -> Any:
    """``product(a, b, bias)``: a b + bias by oneDNN, as an operator that Inductor calls."""
    ours = library.Library("manualbp", "FRAGMENT")  # type: ignore[no-untyped-call]
    ours.define("product(Tensor a, Tensor b, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]
    ours.impl("product", lambda a, b, bias: _onednn(a, b.t(), bias), "CPU")  # type: ignore[no-untyped-call]
    library.register_fake(
        "manualbp::product", lambda a, b, bias: a.new_empty(a.shape[0], b.shape[1]), lib=ours
    )
    _libraries.append(ours)  # the operators are removed when it is freed
    return torch.ops.manualbp.product.default


_libraries: list[Any] = []

compiled_step.GRAPH_PASSES += [choose, expand]
