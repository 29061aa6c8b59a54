"""Products by another library are the same products."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from manualbp import formulas, functional, kernels, nn
from manualbp.kernels import conv
from manualbp.kernels import matmul as products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


@pytest.fixture(params=[True, False], ids=["by oneDNN", "by torch.mm"])
def gains(request, monkeypatch):
    """As on a processor where MKL is slow for every product, and as where it never is."""
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: request.param)
    called = []
    onednn = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *a: called.append(a) or onednn(*a))
    with kernels.enabled(True):
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


def laid_out(t: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "gaps":
        return torch.stack([t, t + 9], -1)[..., 0]
    if layout == "transposed":
        return t.mT.contiguous().mT if t.dim() > 1 else t
    if layout == "expanded":
        return t[:1].expand(t.shape)
    return torch.cat([t, t]).narrow(0, 1, t.shape[0])


@pytest.mark.parametrize("which", ["a", "W", "b"])
@pytest.mark.parametrize("layout", ["gaps", "transposed", "expanded", "inside"])
def test_every_stride_is_heeded(gains, which, layout):
    a, w, b = torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)
    given = {"a": a, "W": w, "b": b}
    given[which] = laid_out(given[which], layout)
    a, w, b = given.values()
    with torch.no_grad():
        torch.testing.assert_close(
            formulas.Linear.apply(a, w, b), torch.addmm(b.clone(), a.clone(), w.clone().t())
        )
        torch.testing.assert_close(formulas.MatMul.apply(a, w.t()), a.clone() @ w.clone().t())


@pytest.mark.parametrize("shape", [(1,), (), (6, 1), (6, 4), (1, 4)], ids=str)
def test_a_bias_that_broadcasts_is_not_read_past_its_end(monkeypatch, shape):
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    a, w, b = torch.randn(6, 5), torch.randn(4, 5), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(formulas.Linear.apply(a, w, b), a @ w.t() + b)


def test_a_traced_bias_that_broadcasts_is_left(monkeypatch):
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    given = [torch.randn(1), torch.randn(6, 5), torch.randn(5, 4)]
    graph = make_fx(torch.addmm, tracing_mode="fake")(*given)
    products.choose(graph)
    torch.testing.assert_close(graph(*given), torch.addmm(*given))


def test_windows_that_overlap(gains):
    windows, w = torch.randn(40).unfold(0, 5, 1), torch.randn(4, 5)
    with torch.no_grad():
        torch.testing.assert_close(formulas.Linear.apply(windows, w, None), windows.clone() @ w.t())


@pytest.mark.parametrize("size", [(1, 3, 9), (3, 9)], ids=str)
def test_a_convolution_of_one_example(gains, monkeypatch, size):
    monkeypatch.setattr(conv, "MANY", 1)
    image, kernel = torch.randn(size, requires_grad=True), torch.randn(4, 3, 3, requires_grad=True)
    found = []
    for conv1d in (functional.conv1d, torch.nn.functional.conv1d):
        z = conv1d(image, kernel)
        found.append(torch.autograd.grad(z, [image, kernel], z.detach().cos()))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


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
    # What `torch.backends.mkldnn.enabled = False` does, where torch's own test code froze that.
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad():
            assert torch.equal(formulas.MatMul.apply(x, w), x @ w)
    finally:
        torch._C._set_mkldnn_enabled(True)
