"""The matrix products of a program, each by the faster of the two libraries that torch has."""

from __future__ import annotations

import operator
import timeit
from functools import cache
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def choose(graph: torch.fx.GraphModule) -> None:
    """Let oneDNN compute those float32 products on the CPU that it computes faster, in place.

    ``torch.mm`` calls MKL, which on processors that are not Intel's takes twice as long as oneDNN
    for all but small products. Which is faster is measured, once for each size and layout.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for node in graph.graph.nodes:
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        bias, (a, b) = (None if len(node.args) == 2 else node.args[0]), node.args[-2:]
        left, right = a.meta["val"], b.meta["val"]
        plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (left, right))
        if not plain or (bias is not None and bias.meta["val"].dim() != 1):
            continue
        if _gains(tuple(left.shape), left.stride(), tuple(right.shape), right.stride()):
            with graph.graph.inserting_before(node):
                product = graph.graph.call_function(_operator(), (a, b, bias))
            product.meta = dict(node.meta)
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


@cache
def _operator() -> Any:
    """``product(a, b, bias)``: a b + bias by oneDNN, as an operator that Inductor leaves alone."""
    library = torch.library.Library("manualbp", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define("product(Tensor a, Tensor b, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]
    library.impl("product", _product, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(
        "manualbp::product", lambda a, b, bias: a.new_empty(a.shape[0], b.shape[1]), lib=library
    )
    _libraries.append(library)  # which takes its operators with it when it goes
    return torch.ops.manualbp.product.default


_libraries: list[Any] = []


@cache
def _gains(
    left: tuple[int, ...], left_stride: tuple[int, ...], right: Any, right_stride: Any
) -> bool:
    """Whether oneDNN multiplies matrices of these sizes and layouts faster, copies included."""
    # Below this both are done in less time than it takes to call the slower-starting of them.
    if left[0] * left[1] * right[1] < 1 << 20:
        return False
    a = torch.empty_strided(left, left_stride).uniform_()
    b = torch.empty_strided(right, right_stride).uniform_()

    product = _operator()
    with torch.no_grad():
        ways = [timeit.Timer(lambda: product(a, b, None)), timeit.Timer(lambda: torch.mm(a, b))]
        for way in ways:
            way.timeit(1)
        rounds = [[way.timeit(2) for way in ways] for _ in range(3)]
    ours, theirs = (min(map(operator.itemgetter(i), rounds)) for i in (0, 1))
    return ours < 0.9 * theirs
