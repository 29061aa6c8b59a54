"""Where torch's own gradient is the worse one, ours is held to the definition."""

import math

import pytest
import torch
from torch.testing import assert_close

from manualbp import functional as F

EXACT = {"rtol": 1e-14, "atol": 1e-14}


def slope(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def test_no_single_precision_inside():
    x = torch.linspace(-2.9, 2.9, 5, dtype=torch.double)
    assert_close(slope(F.hardsigmoid, x), torch.full_like(x, 1 / 6), **EXACT)
    x = torch.linspace(-2, -1, 5, dtype=torch.double)
    assert_close(slope(lambda x: F.celu(x, 0.3), x), (x / 0.3).exp(), **EXACT)


def normalised(x, w, axes):
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt() * w


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm", "instance_norm"])
def test_second_derivatives_by_torch_func(name):
    shape, one_each = ((2, 3, 4), (3,)) if name == "instance_norm" else ((3, 4), (4,))
    x, w, g = (torch.randn(s, dtype=torch.double) for s in (shape, one_each, shape))
    ours = {
        "layer_norm": lambda x, w: F.layer_norm(x, (4,), w, None),
        "batch_norm": lambda x, w: F.batch_norm(x, None, None, w, None, training=True),
        "instance_norm": lambda x, w: F.instance_norm(x, None, None, w, None),
    }[name]
    axis = {"layer_norm": 1, "batch_norm": 0, "instance_norm": 2}[name]
    trailing = (1,) * (name == "instance_norm")

    def hessian(function):
        cost = torch.func.jacrev(lambda x, w: (g * function(x, w)).sum(), (0, 1))
        return torch.func.jacrev(cost, (0, 1))(x, w)

    expected = hessian(lambda x, w: normalised(x, w.reshape(-1, *trailing), axis))
    assert_close(hessian(ours), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("factor", [1.999, 2.01])
def test_nearest_is_the_transpose_of_its_forward_pass(factor):
    x = torch.randn(1, 1, 7, dtype=torch.double)

    def larger(x):
        return F.interpolate(x, scale_factor=factor, mode="nearest")

    rows = [larger(e.view_as(x)).flatten() for e in torch.eye(7, dtype=torch.double)]
    g = torch.randn_like(rows[0])
    assert_close(
        slope(lambda x: larger(x).flatten() * g, x).flatten(), torch.stack(rows) @ g, **EXACT
    )


def test_limits():
    x = torch.tensor([-1000.0, 0.0])
    assert_close(slope(lambda x: F.soft_margin_loss(x, torch.ones(2), reduction="sum"), x),
                 torch.tensor([-1.0, -0.5]))  # fmt: skip
    infinite = torch.tensor([math.inf])
    assert slope(F.mish, infinite).item() == 1
    assert slope(F.softsign, infinite).item() == slope(F.softsign, -infinite).item() == 0


def test_a_bias_without_a_weight_has_second_derivatives():
    x = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    b = torch.randn(4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, b: F.layer_norm(x, (4,), None, b), (x, b))


@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
def test_no_axes_are_all_axes(name):
    x = torch.randn(3, 4, dtype=torch.double)

    def spread(x, dim):
        found = getattr(F, name)(x, dim=dim)
        return found if isinstance(found, torch.Tensor) else found[0]

    assert_close(slope(lambda x: spread(x, ()), x), slope(lambda x: spread(x, None), x), **EXACT)


def test_the_largest_of_two_differences():
    """A subgradient of max: its shares sum to one, as a step of either side would have it."""
    x = torch.tensor([[1.0, 1.0]], dtype=torch.double)
    y = torch.zeros(1, 2, dtype=torch.double)
    assert_close(slope(lambda x: F.cdist(x, y, p=math.inf), x), torch.full_like(x, 0.5), **EXACT)


@pytest.mark.parametrize("name", ["hardtanh", "relu6", "hardshrink", "softshrink"])
def test_what_is_not_a_number_is_passed_on(name):
    nothing = torch.tensor([math.nan])
    assert getattr(F, name)(nothing).isnan() and slope(getattr(F, name), nothing).item() == 1


def test_bytes_are_converted_before_they_are_negated():
    z = torch.tensor([0, 3], dtype=torch.uint8)
    assert_close(F.softmin(z, 0, dtype=torch.double), (-z.double()).softmax(0), **EXACT)


def test_a_weight_of_any_strides():
    w = torch.randn(3, 2, dtype=torch.double)[:, 0]
    x, g = (torch.randn(4, 3, dtype=torch.double) for _ in range(2))
    found = slope(lambda x: F.batch_norm(x, None, None, w, None, training=True) * g, x)
    expected = slope(lambda x: normalised(x, w, 0) * g, x)
    assert_close(found, expected, rtol=1e-11, atol=1e-12)
