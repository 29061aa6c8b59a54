"""Where torch's own gradient is the worse one, ours is held to the definition."""

import math

import pytest
import torch
from torch.testing import assert_close

import manualbp
from manualbp import functional as F
from manualbp import kernels

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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["layer_norm", "batch_norm", "instance_norm"])
def test_a_bias_alone_has_second_derivatives(name, training):
    x, mean = torch.randn(2, 3, 4, dtype=torch.double), torch.randn(3, dtype=torch.double)
    b = torch.randn(4 if name == "layer_norm" else 3, dtype=torch.double, requires_grad=True)

    def activation(b):
        if name == "layer_norm":
            return F.tanh(F.layer_norm(x, (4,), None, b))
        return F.tanh(getattr(F, name)(x, mean.clone(), mean.exp(), None, b, training))

    assert torch.autograd.gradgradcheck(activation, b)


def test_a_cost_of_counts_that_are_none():
    z, y = torch.randn(2, 5, dtype=torch.double)
    found = slope(lambda y: F.poisson_nll_loss(z, y, full=True, reduction="sum"), -y.relu())
    assert_close(found, -z, **EXACT)


def test_the_distance_of_a_point_from_itself_has_no_second_derivative():
    x = torch.randn(3, 3, dtype=torch.double, requires_grad=True)
    (first,) = torch.autograd.grad(F.dist(x, x), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x, torch.randn_like(x))
    assert not first.any() and not second.any()


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
    """As a number above zero, wherever it lies in memory."""
    nothing = torch.full((71,), math.nan)
    assert getattr(F, name)(nothing).isnan().all()
    assert slope(getattr(F, name), nothing).eq(1).all()


@pytest.mark.parametrize("name", ["elu", "celu", "selu", "hardswish"])
def test_what_is_not_a_number_is_passed_on_by_rule(name):
    """As a number above zero; torch's kernel does so in some places, and elsewhere gives nan."""
    function, nothing = getattr(F, name), torch.full((71,), math.nan)
    above = slope(function, torch.tensor(4.0)).item()
    with kernels.enabled(False):
        assert_close(slope(function, nothing), torch.full_like(nothing, above))
    with kernels.enabled(True):
        found = slope(function, nothing)
    assert (found.isnan() | found.eq(above)).all()


def second(function, *x):
    """The gradient of the gradient's sum, by each argument."""
    x = [v.clone().requires_grad_() for v in x]
    first = torch.autograd.grad(function(*x).sum(), x, create_graph=True)
    found = torch.autograd.grad(sum(f.sum() for f in first), x, allow_unused=True)
    return [torch.zeros_like(v) if f is None else f for f, v in zip(found, x, strict=True)]


def test_second_derivatives_of_what_has_become_straight():
    """As those of the numbers next to them, where the exponential does not overflow."""
    z = torch.tensor([700.0, 710.0, 1e20, math.inf], dtype=torch.double)
    assert_close(second(F.mish, z)[0], torch.zeros_like(z), **EXACT)
    for x, y in ((z, -z), (-z, z)):
        for found in second(F.logaddexp, x, y):
            assert_close(found, torch.zeros_like(z), **EXACT)


def test_second_derivatives_of_powers_at_zero():
    """Those of x², x³ and x^π, the limits from above; below 1 there is none."""
    x, powers = torch.zeros(3, dtype=torch.double), torch.tensor([2, 3, math.pi]).double()
    by_x, by_power = second(F.pow, x, powers)
    assert_close(by_x, second(lambda x: F.pow(x, 2.0), x)[0] * (powers == 2), **EXACT)
    assert_close(by_power, torch.zeros_like(x), **EXACT)
    by_x, _ = second(F.pow, x[:2], torch.tensor([1.0, 0.5]).double())
    assert by_x.isnan().all()


def test_the_second_derivative_of_a_similarity_to_nothing():
    """x · y / ε ‖y‖, the value where x is shorter than ε, is linear in x."""
    y = torch.randn(4, 3, dtype=torch.double)
    (found,) = second(lambda x: F.cosine_similarity(x, y), torch.zeros_like(y))
    assert_close(found, torch.zeros_like(y), **EXACT)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_the_slope_of_prelu_at_zero_is_one(shape):
    """One slope, by which the gradient that arrives is multiplied, at every order."""
    z = torch.zeros(2, 3, dtype=torch.double, requires_grad=True)
    g = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    w = torch.full(shape, 0.25, dtype=torch.double)
    first = torch.autograd.grad(F.prelu(z, w), z, g, create_graph=True)[0]
    assert_close(first, 0.25 * g)
    v = torch.randn_like(g)
    assert_close(torch.autograd.grad(first, g, v)[0], 0.25 * v)


@pytest.mark.parametrize(
    ("name", "cut"), [("asin", 1.57), ("acos", -1.57), ("asinh", 1.57j), ("acosh", 0.5)]
)
def test_on_a_branch_cut_the_slope_is_of_one_side(name, cut):
    z = torch.full((5,), cut, dtype=torch.cdouble)
    aside = 1e-12 * (1j if cut.imag == 0 else 1)
    found, left, right = (slope_of_complex(name, z + d) for d in (0, aside, -aside))
    nearest = torch.minimum((found - left).abs(), (found - right).abs())
    assert_close(nearest, torch.zeros_like(nearest), rtol=0, atol=1e-9)


def slope_of_complex(name, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(getattr(F, name)(z), z, torch.ones_like(z))[0]


def test_bytes_are_converted_before_they_are_negated():
    z = torch.tensor([0, 3], dtype=torch.uint8)
    assert_close(F.softmin(z, 0, dtype=torch.double), (-z.double()).softmax(0), **EXACT)


def test_a_weight_of_any_strides():
    w = torch.randn(3, 2, dtype=torch.double)[:, 0]
    x, g = (torch.randn(4, 3, dtype=torch.double) for _ in range(2))
    found = slope(lambda x: F.batch_norm(x, None, None, w, None, training=True) * g, x)
    expected = slope(lambda x: normalised(x, w, 0) * g, x)
    assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_window_without_a_norm(axes):
    """The slope of 0, at the tip of a cone, is as that of the norm of nothing: 0."""
    z = torch.zeros(1, 1, *(4,) * axes, dtype=torch.double)
    pool = getattr(F, f"lp_pool{axes}d")
    assert_close(slope(lambda z: pool(z, 2, 2), z), torch.zeros_like(z), **EXACT)


def test_what_has_no_formula_is_refused_and_torchs_inside_interception():
    x, index = torch.randn(3, 3, dtype=torch.double), torch.tensor([[0, 1, 2], [2, 0, 1]])
    with pytest.raises(NotImplementedError, match="nuc"):
        F.norm(x, "nuc")
    with pytest.raises(TypeError, match="reduce"):
        F.scatter(x, 0, index, x, reduce="add")
    nuclear = manualbp.intercept()(lambda x: torch.norm(x, "nuc"))
    assert_close(nuclear(x), torch.norm(x, "nuc"), **EXACT)
    assert_close(slope(nuclear, x), slope(lambda x: torch.norm(x, "nuc"), x), **EXACT)
    scatter = manualbp.intercept()(torch.scatter)  # torch has no derivative of it either
    expected = torch.scatter(x, 0, index, 2.0, reduce="multiply")
    assert_close(scatter(x, 0, index, 2.0, reduce="multiply"), expected, **EXACT)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="of torch 2.12 and later")
def test_options_of_linear_cross_entropy_change_nothing():
    """They are about the parts in which torch computes it; whole, it has second derivatives."""
    from torch.nn import LinearCrossEntropyOptions

    x, w = (torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((4, 3), (5, 3)))
    target = torch.tensor([0, 4, 2, 2])
    options = LinearCrossEntropyOptions(batch_chunk_size=2)

    def cost(x, w, options=options):
        return F.linear_cross_entropy(x, w, target, options=options)

    found, whole = (torch.autograd.grad(cost(x, w, o), (x, w)) for o in (options, None))
    assert_close(found, whole, **EXACT)
    assert torch.autograd.gradgradcheck(cost, (x, w))


@pytest.mark.parametrize("truth", [0, 1])
def test_the_angle_beside_true_and_false(truth):
    """As beside 1 and 0."""
    x, which = torch.randn(4, dtype=torch.double), torch.tensor([True, False, True, True])
    order = (lambda a, b: (a, b)) if truth else (lambda a, b: (b, a))
    found = slope(lambda x: F.atan2(*order(which, x)), x)
    assert_close(found, slope(lambda x: F.atan2(*order(which.double(), x)), x), **EXACT)


@pytest.mark.parametrize("function", [F.var, F.std])
def test_a_correction_above_the_count_is_as_infinite_as_the_value(function):
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        value = function(x, 0, correction=3)
    assert value.isinf().all()
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert not gradient.isfinite().any()


def test_the_zero_that_a_sign_passes_back_is_a_number():
    x = torch.tensor([-2.0], requires_grad=True)
    for sign in (torch.sign, F.sign, F.sgn):
        (gradient,) = torch.autograd.grad(sign(F.sqrt(x)), x)
        assert gradient.isnan()
    (gradient,) = torch.autograd.grad(torch.sgn(torch.sqrt(x)), x)
    assert gradient == 0


@pytest.mark.parametrize("pool", ["avg_pool1d", "max_pool1d"])
def test_hooks_of_a_value_that_is_no_view_here_are_called(pool):
    """Though it is written to afterwards, through a view of it that the cost uses alone."""
    output = getattr(F, pool)(torch.rand(2, 3, 8, requires_grad=True), 2)
    output.register_hook(lambda g: seen.append(g))
    output.retain_grad()
    seen, view = [], output.view_as(output)
    g = torch.randn_like(view.mul_(2))
    view.backward(g)
    assert_close(seen[0], 2 * g, **EXACT)  # of the value before it was doubled
    assert_close(output.grad, g, **EXACT)
