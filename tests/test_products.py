"""Products by another library are the same products."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from manualbp import nn, products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


@pytest.fixture(params=[True, False], ids=["by oneDNN", "by torch.mm"])
def gains(request, monkeypatch):
    """As on a processor where MKL is slow for every product, and as where it never is."""
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: request.param)
    called = []
    onednn = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *a: called.append(a) or onednn(*a))
    yield request.param
    assert bool(called) is request.param


def several(x, w, b, d):
    return torch.addmm(b, x, w.t()), d @ w, d.mT @ x, torch.addmm(d, x, w.t())


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(s, dtype=dtype) for s in ((6, 5), (4, 5), (4,), (6, 4))]


def chosen(given: list[torch.Tensor]) -> tuple[torch.fx.GraphModule, int]:
    graph = make_fx(several, tracing_mode="fake")(*given)
    products.choose(graph)
    return graph, sum("manualbp.product" in str(n.target) for n in graph.graph.nodes)


def test_a_traced_program_has_the_same_numbers(gains):
    given = inputs()
    graph, changed = chosen(given)
    assert changed == (3 if gains else 0)  # not the sum with a matrix
    for ours, theirs in zip(graph(*given), several(*given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    if gains:
        assert chosen(inputs(torch.float64))[1] == 0


def test_small_products_of_a_program_are_left(monkeypatch):
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    assert chosen(inputs())[1] == 0


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5), (5,)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "expanded", "gaps", "permuted"])
def test_a_layer_has_the_same_gradients(gains, shape, layout):
    ours, theirs = nn.Linear(5, 4), torch.nn.Linear(5, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape)
    if layout == "gaps":
        x = torch.stack([x, x], -1)[..., 0]
    elif layout == "permuted":
        x = x.movedim(-1, 0).contiguous().movedim(0, -1)
    results = []
    for layer in (ours, theirs):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        output = layer(given)
        g = torch.ones(()).expand(output.shape) if layout == "expanded" else output.detach().cos()
        results.append((output, *torch.autograd.grad(output, [given, *layer.parameters()], g)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_who_knows_only_torch_s_product_finds_it(monkeypatch):
    """Double backward, transforms, counters of operations, autocast: as without oneDNN."""
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    layer, x = nn.Linear(5, 4), torch.randn(6, 5, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    weight = layer.weight.detach()
    expected = (2 * weight.T @ weight).sum(0).expand(6, 5)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-6)
    mapped = torch.func.vmap(torch.func.grad(lambda row: layer(row).square().sum()))(x)
    torch.testing.assert_close(mapped, first, rtol=1e-5, atol=1e-6)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 6 * 5 * 4
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    x, w = torch.randn(256, 256), torch.randn(256, 256)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with torch.no_grad():
        assert torch.equal(products.matmul(x, w), x @ w)
