"""``manualbp.verify``: the catalogue, models with one wrong rule deep inside, bad input."""

import copy
import json
import random
import re

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F

import manualbp
from manualbp import formulas
from manualbp.verification import samples
from manualbp.verification.catalogue import RIGHT, WRONG

# ------------------------------------------------------------------------------- the catalogue


@pytest.mark.slow
@pytest.mark.parametrize("specimen", WRONG, ids=lambda s: s.name)
def test_what_is_wrong_is_found(specimen):
    report = manualbp.verify(specimen.subject(), *specimen.inputs(), **specimen.options)
    assert not report.ok
    first = report.findings[0]
    assert first.kind in specimen.kinds, first
    assert not specimen.argument or first.argument == specimen.argument, first
    assert re.search(specimen.says, first.how), first


@pytest.mark.slow
@pytest.mark.parametrize("specimen", RIGHT, ids=lambda s: s.name)
def test_what_is_right_is_not_accused(specimen):
    report = manualbp.verify(specimen.subject(), *specimen.inputs(), **specimen.options)
    assert report.ok, report


#: every so many of them in the quick tests
STRIDE = 25


@pytest.mark.parametrize("specimen", [*WRONG[::STRIDE], *RIGHT[::STRIDE]], ids=lambda s: s.name)
def test_some_of_both(specimen):
    report = manualbp.verify(specimen.subject(), *specimen.inputs(), **specimen.options)
    assert report.ok == (specimen in RIGHT), report


@pytest.mark.slow
@pytest.mark.parametrize("name", samples.formulas())
def test_formulas_are_right(name):
    formula = samples.formulas()[name]
    for seed in range(2):
        arguments = samples.draw(formula, samples.Seeded(seed))
        report = manualbp.verify(formula, *arguments, surrogate=samples.surrogate(formula))
        assert report.ok, f"seed {seed}\n{report}"


# ------------------------------------------------------------------------------- whole models


class GroupNormWithoutMean(Function):
    """Group norm whose gradient lacks the term of the mean."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups):
        flat = x.reshape(len(x), groups, -1)
        mean, rstd = flat.mean(-1, True), (flat.var(-1, keepdim=True, correction=0) + 1e-5).rsqrt()
        normalized = ((flat - mean) * rstd).reshape(x.shape)
        ctx.save_for_backward(normalized, rstd, weight)
        ctx.groups = groups
        return normalized * weight[:, None, None] + bias[:, None, None]

    @staticmethod
    def backward(ctx, g):
        normalized, rstd, weight = ctx.saved_tensors
        gw = (g * weight[:, None, None]).reshape(len(g), ctx.groups, -1)
        flat = normalized.reshape(gw.shape)
        grad = rstd * (gw - flat * (gw * flat).mean(-1, True))  # - gw.mean(-1, True)
        return (
            grad.reshape(g.shape),
            (g * normalized).sum((0, 2, 3)),
            g.sum((0, 2, 3)),
            None,
        )


class GroupNorm(nn.GroupNorm):
    def forward(self, input):
        return GroupNormWithoutMean.apply(input, self.weight, self.bias, self.num_groups)


class ScaleForgotten(Function):
    """Attention that forgets the scale in the gradient of the keys."""

    @staticmethod
    def forward(ctx, q, k, v):
        p = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v, p = ctx.saved_tensors
        gp = g @ v.mT
        gs = p * (gp - (gp * p).sum(-1, keepdim=True))
        return gs @ k / q.shape[-1] ** 0.5, gs.mT @ q, p.mT @ g


class Attention(nn.Module):
    def forward(self, q, k, v):
        return ScaleForgotten.apply(q, k, v)


class Block(nn.Module):
    def __init__(self, width, wrong):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention = Attention() if wrong else _Right()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(self.attention(q, k, v))
        return x + self.mlp(self.norm2(x))


class _Right(nn.Module):
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


def transformer(wrong=1):
    torch.manual_seed(0)
    blocks = [Block(8, wrong=number == wrong) for number in range(3)]
    return nn.Sequential(nn.Embedding(11, 8), *blocks, nn.Linear(8, 11))


def residual_network(groups_at=None):
    vision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = vision.models.resnet18(num_classes=10)
    if groups_at is not None:
        parent = model.get_submodule(groups_at)
        parent.bn2 = GroupNorm(4, parent.bn2.num_features)
    return model


def _tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(11, (3, 5), generator=generator)


def _cost(output, target):
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


@pytest.mark.slow
def test_a_transformer_is_right():
    report = manualbp.verify(transformer(wrong=None), _tokens(), _tokens(), cost=_cost)
    assert report.ok, report


@pytest.mark.slow
def test_the_attention_that_is_wrong_is_named_and_no_other_layer():
    report = manualbp.verify(transformer(), _tokens(), _tokens(), cost=_cost)
    first = report.findings[0]
    assert (first.kind, first.path, first.argument) == ("wrong", "2.attention", "k"), report
    assert "2.000 ×" not in first.how and "×" in first.how  # √8 = 2.828 times
    assert {f.path for f in report.findings if f.against} == {"2.attention"}
    assert "2.attention" in str(report).splitlines()[0]


@pytest.mark.slow
def test_the_group_norm_that_is_wrong_is_named_and_no_other_layer():
    images, classes = torch.randn(4, 3, 32, 32), torch.arange(4)
    report = manualbp.verify(
        residual_network("layer3.0"), images, classes, cost=nn.CrossEntropyLoss()
    )
    first = report.findings[0]
    assert (first.path, first.argument) == ("layer3.0.bn2", "input"), report
    assert {f.path for f in report.findings if f.against} == {"layer3.0.bn2"}


@pytest.mark.slow
def test_a_residual_network_is_right():
    images, classes = torch.randn(4, 3, 32, 32), torch.arange(4)
    report = manualbp.verify(residual_network(), images, classes, cost=nn.CrossEntropyLoss())
    assert report.ok, report


class Between(nn.Module):
    """Layers that are right, with what is wrong between them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden * hidden.sigmoid().detach())


def test_what_is_wrong_between_layers_is_found():
    report = manualbp.verify(Between(), torch.randn(3, 4))
    assert not report.ok
    assert report.findings[0].argument.startswith("first."), report


@pytest.mark.slow
def test_the_padding_of_an_embedding_is_no_mistake_of_a_model():
    model = transformer(wrong=None)
    model[0] = nn.Embedding(11, 8, padding_idx=3)
    assert (_tokens() == 3).any()
    report = manualbp.verify(model, _tokens(), _tokens(), cost=_cost)
    assert report.ok, report
    assert any("padding_idx" in check.skipped for check in report.checks)


@pytest.mark.slow
def test_a_frozen_parameter_is_left_alone():
    model = transformer(wrong=None)
    model[0].weight.requires_grad_(False)
    assert manualbp.verify(model, _tokens(), _tokens(), cost=_cost).ok


# ------------------------------------------------------------------------------- nothing is changed


def test_nothing_is_changed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.ReLU(inplace=True))
    net[0].weight.grad = torch.ones(3, 4)
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(5, 8)[:, ::2].requires_grad_()
    numbers = x.detach().clone()
    state, python = torch.get_rng_state(), random.getstate()
    report = manualbp.verify(net, x)
    assert report.ok, report
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python
    assert torch.equal(x, numbers) and x.stride() == (8, 2) and x.grad is None
    assert x._version == 0 and x.requires_grad
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(net[0].weight.grad, torch.ones(3, 4)) and net[0].bias.grad is None
    assert net.training and all(p.requires_grad for p in net.parameters())


def test_what_a_function_reaches_is_put_back():
    norm = nn.BatchNorm1d(3).double()
    assert manualbp.verify(lambda x: norm(x), torch.randn(4, 3, dtype=torch.double)).ok
    assert torch.equal(norm.running_mean, torch.zeros(3).double())


def test_where_rounding_is_all_there_is_nobody_is_accused():
    # 40 times this, 1 + erf(z/√2) is eight times the distance of two numbers near 1.
    assert manualbp.verify(formulas.GELU, torch.tensor([[-0.19887]], dtype=torch.double), "none").ok


def test_what_draws_in_memory_order_draws_the_same_near_the_inputs():
    x = torch.randn(2, 4, 4, dtype=torch.double).permute(1, 2, 0)
    report = manualbp.verify(formulas.Dropout, x, 0.2)
    assert report.ok, report
    assert report.checks[0].tried, report


# ------------------------------------------------------------------------------- the report


class Halved(Function):
    @staticmethod
    def forward(ctx, x, weight, power):
        ctx.save_for_backward(x, weight)
        ctx.power = power
        return x**power * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g * weight * ctx.power * x ** (ctx.power - 1), 0.5 * g * x**ctx.power, None


def halved():
    return manualbp.verify(Halved, torch.rand(4, 3) + 1, torch.randn(4, 3), 2)


def test_a_report_says_it_in_every_form():
    report = halved()
    assert not report and not report.ok
    assert repr(report).count("\n") == 0 and "weight" in repr(report)
    assert str(report).splitlines()[0] == report.verdict
    assert "[weight]: is 0.500 × the derivative" in report.verdict
    first = report.findings[0]
    assert (first.kind, first.path, first.argument) == ("wrong", "", "weight")
    assert first.error == pytest.approx(0.5)
    assert [f.argument for f in report.findings if f.against] == ["weight"]
    with pytest.raises(AssertionError, match=re.escape("0.500 × the derivative")):
        report.raise_if_failed()
    told = json.loads(report.to_json())
    assert told["ok"] is False and told["findings"][0]["argument"] == "weight"
    assert {c["name"] for c in told["checks"]} >= {"central differences", "repeated runs"}


def test_torch_compile_may_be_left_out():
    x, net = torch.randn(4, 3), nn.Sequential(manualbp.nn.Linear(3, 2))
    for given in ((formulas.Tanh, x), (net, x)):
        for compile in (True, False):
            report = manualbp.verify(*given, compile=compile)
            assert report.ok
            assert any(c.name == "torch.compile" for c in report.checks) is compile


def test_a_right_one_raises_nothing():
    report = manualbp.verify(torch.tanh, torch.randn(3, 2))
    assert report
    report.raise_if_failed()
    assert "right in" in report.verdict


def test_only_what_requires_a_gradient_is_verified():
    x, weight = torch.rand(4, 3) + 1, torch.randn(4, 3)
    assert manualbp.verify(Halved, x.requires_grad_(), weight, 2).ok


def test_a_reference_with_another_value_is_a_finding():
    x = torch.randn(3)
    report = manualbp.verify(torch.sin, x, reference=torch.cos)
    assert not report.ok and "reference" in report.findings[0].how
    assert manualbp.verify(torch.sin, x, reference=lambda t: (t - torch.pi / 2).cos()).ok


def test_a_reference_in_float32_alone_is_compared_in_float32():
    def only_float32(factor, slope):
        class Scaled(Function):
            @staticmethod
            def forward(ctx, x):
                assert x.dtype is torch.float32, "expected float32"
                return factor * x

            @staticmethod
            def backward(ctx, g):
                return slope * g

        return Scaled

    x = torch.randn(4, 3)
    report = manualbp.verify(lambda t: 3 * t, x, reference=only_float32(3, 3))
    assert report.ok, report
    check = next(c for c in report.checks if c.name == "the reference")
    assert check.tried and check.skipped.endswith("so in float32")
    report = manualbp.verify(lambda t: 3 * t, x, reference=only_float32(3.1, 3.1))
    assert "value differs from the reference's" in report.findings[0].how


class OffByALittle(formulas.Linear):
    """z = a Wᵀ + b

    ∂C/∂W = δᵀ a, by five in 10⁹ too much: less than central differences see of many numbers
    """

    @staticmethod
    def grad_weight(delta, input):
        return (1 + 5e-9) * (delta.mT @ input)


@pytest.mark.parametrize("layer", [manualbp.nn.Linear, nn.Linear])
def test_a_layer_is_compared_with_torch_s_twin(layer, monkeypatch):
    made, x = layer(3, 2), torch.randn(4, 3)
    manualbp.convert(made)
    report = manualbp.verify(made, x)
    assert report.ok and type(made) is manualbp.nn.Linear
    assert {c.name: c.tried for c in report.checks}["autograd of torch's twin"] == 3
    monkeypatch.setattr(manualbp.functional, "linear", OffByALittle.apply)
    report = manualbp.verify(made, x)
    assert [f.argument for f in report.findings if f.against] == ["weight"], report
    assert report.findings[0].how.endswith("beside autograd of torch's twin")


def test_where_torch_s_twin_is_another_function_on_purpose_nobody_is_accused():
    tied = torch.tensor([[1.0, 1.0, 0.5, 0.5]])
    assert manualbp.verify(manualbp.nn.MaxPool1d(2), tied).ok
    assert manualbp.verify(manualbp.nn.ReLU(), torch.zeros(3)).ok


def test_a_model_too_is_compared_with_its_reference():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
    x = torch.randn(5, 3, dtype=torch.double)
    report = manualbp.verify(net, x, reference=lambda t: 2 * net(t))
    assert not report.ok and "reference" in report.findings[0].how


def test_a_surrogate_is_what_the_backward_is_held_to():
    class Straight(Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, g):
            return g

    x = torch.randn(4, 3)
    assert not manualbp.verify(Straight, x).ok
    assert manualbp.verify(Straight, x, surrogate=lambda t: t).ok
    report = manualbp.verify(Straight, x, surrogate=lambda t: 2 * t)
    assert "0.500 ×" in report.findings[0].how


def test_at_a_kink_other_points_are_drawn():
    report = manualbp.verify(torch.relu, torch.tensor([0.0, 1.0, -1.0]))
    assert report.ok and "kink" in {f.kind for f in report.findings}


def test_float32_alone_is_verified_as_sharply_as_that_allows():
    class Single(Function):
        @staticmethod
        def forward(ctx, x):
            if x.dtype is not torch.float:
                raise TypeError("float32 only")
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.cos()

    class Wrong(Single):
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 1.01 * g * x.cos()

    x = torch.randn(4, 3)
    report = manualbp.verify(Single, x)
    assert report.ok and any("float32 only" in c.skipped for c in report.checks)
    assert not manualbp.verify(Wrong, x).ok


# ------------------------------------------------------------------------------- bad input


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="f: expected a Function, a function of tensors or a modu"):
        manualbp.verify(3, torch.randn(2))


def test_inputs_without_a_floating_tensor_are_refused():
    with pytest.raises(ValueError, match="inputs: expected a floating point tensor among them"):
        manualbp.verify(torch.sin, torch.arange(3))


def test_a_cost_without_a_target_is_refused():
    with pytest.raises(ValueError, match=r"cost: expected the inputs of the model and then the ta"):
        manualbp.verify(nn.Linear(2, 2), torch.randn(3, 2), cost=nn.MSELoss())


def test_what_the_forward_pass_raises_passes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        manualbp.verify(nn.Linear(2, 2), torch.randn(3, 5))
