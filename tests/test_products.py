"""Products by another library are the same products."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from manualbp import products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


def several(x, w, b, d):
    return torch.addmm(b, x, w.t()), d @ w, d.mT @ x, torch.addmm(d, x, w.t())


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(s, dtype=dtype) for s in ((6, 5), (4, 5), (4,), (6, 4))]


def chosen(given: list[torch.Tensor]) -> tuple[torch.fx.GraphModule, int]:
    graph = make_fx(several, tracing_mode="fake")(*given)
    products.choose(graph)
    return graph, sum("manualbp.product" in str(n.target) for n in graph.graph.nodes)


def test_the_same_numbers(monkeypatch):
    monkeypatch.setattr(products, "_gains", lambda *_: True)
    given = inputs()
    graph, changed = chosen(given)
    assert changed == 3  # not the sum with a matrix
    for ours, theirs in zip(graph(*given), several(*given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_only_where_it_gains_and_only_in_single_precision(monkeypatch):
    assert chosen(inputs())[1] == 0  # too small
    monkeypatch.setattr(products, "_gains", lambda *_: True)
    assert chosen(inputs(torch.float64))[1] == 0


def test_it_is_measured():
    assert products._gains((256, 256), (256, 1), (256, 256), (1, 256)) in (True, False)
