"""What `manualbp.Formula` promises to someone who writes a formula of their own."""

import gc
import weakref
from typing import Any, TypeVar

import pytest
import torch
from cases import probabilities
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import SHARP, random_like
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from manualbp import Formula, Tape, formulas, functional, nn


def real(*shape, grad=True):
    return torch.randn(shape, dtype=torch.double, requires_grad=grad)


class Product(Formula):
    """c = a b"""

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def grad_a(g, b):
        return g * b

    @staticmethod
    def grad_b(g, a):
        return g * a


# ------------------------------------------------------------------- a class and nothing else


def test_a_formula_is_a_function():
    """A torch.autograd.Function, by its own name in grad_fn, with its rules as its gradient."""
    assert issubclass(Product, torch.autograd.Function)
    a, b = real(3), real(3)
    c = Product.apply(a, b)
    assert type(c.grad_fn).__name__ == "ProductBackward"
    assert_close(torch.autograd.grad(c.sum(), (a, b)), (b, a))
    assert gradcheck(Product.apply, (a, b)) and gradgradcheck(Product.apply, (a, b))


def test_rules_are_plain_functions():
    """A rule can be called by hand, without autograd."""
    assert_close(Product.grad_a(torch.tensor(2.0), torch.tensor(3.0)), torch.tensor(6.0))


def test_only_what_a_wanted_gradient_needs_is_saved():
    """∂C/∂a needs b, ∂C/∂b needs a: freeze one and the other is not kept."""
    a, b = real(3, grad=False), real(3)
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        Product.apply(a, b)
    assert [t.data_ptr() for t in saved] == [a.data_ptr()]


def test_nothing_outlives_the_graph():
    """No reference cycle: what was kept goes when the output goes, without the collector."""
    x = real(3)
    output = functional.sigmoid(x)
    gone = weakref.ref(output)
    gc.disable()
    try:
        del output
        assert gone() is None
    finally:
        gc.enable()


def test_an_input_changed_after_the_forward_pass_is_noticed():
    """As with torch's own functions, and unlike with a tensor kept as an attribute of ctx."""
    a, b = real(3), real(3, grad=False)
    c = Product.apply(a, b)
    b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        c.sum().backward()


def test_the_derivation_is_readable():
    assert "def keep(" in Product.derivation.source
    assert "def gradients(" in Product.derivation.source


# --------------------------------------------------------------- what is refused, and how


def define(name="Wrong", **methods):
    """The class statement, with its methods as static ones."""
    return type(Formula)(name, (Formula,), {k: staticmethod(v) for k, v in methods.items()})


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({"grad_wieght": lambda g: g}, ["Wrong.grad_wieght", "'wieght'", "input, weight"]),
        ({"grad_weight": lambda g, outptu: g}, ["Wrong.grad_weight", "'outptu'", "'output'"]),
        ({"grad_weight": lambda input: input}, ["Wrong.grad_weight", "'g' or 'delta'"]),
        ({"grad_weight": lambda: None}, ["Wrong.grad_weight", "'g' or 'delta'"]),
        ({"grad_weight": lambda g, scale=2: g}, ["Wrong.grad_weight", "scale=2", "default"]),
        ({"grad_weight": lambda g, *rest: g}, ["Wrong.grad_weight", "*rest"]),
        ({"forward": lambda input, weight=1: input}, ["Wrong.forward", "weight=1", "default"]),
        ({"forward": lambda input, output: input}, ["Wrong.forward", "'output'"]),
        ({"forward": lambda g: g}, ["Wrong.forward", "'g'"]),
        (
            {"grad_weight": lambda g, loop: g, "loop": lambda loop: loop},
            ["Wrong.loop", "needs itself"],
        ),
        (
            {"grad_weight": lambda g, mean: g, "mean": lambda inptu: inptu},
            ["Wrong.mean", "'inptu'"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_when_the_class_is_defined(methods, said):
    """A TypeError that names the method, the name it does not know, and those it may use."""
    with pytest.raises(TypeError) as error:
        define(**({"forward": lambda input, weight: input * weight} | methods))
    for words in said:
        assert words in str(error.value)


def test_forward_is_a_static_method_without_ctx():
    for forward in (lambda input: input, classmethod(lambda cls, input: input)):
        with pytest.raises(TypeError, match=r"Wrong\.forward must be a static method"):
            type(Formula)("Wrong", (Formula,), {"forward": forward})
    with pytest.raises(TypeError, match=r"Wrong\.forward takes a ctx, but a formula has none"):
        define(forward=lambda ctx, input: input, grad_input=lambda g: g)


def annotated(**annotations):
    def forward(input, other):
        return input * 1

    forward.__annotations__ = annotations
    return forward


@pytest.mark.parametrize("hint", [float, int | None, tuple[int, ...], bool], ids=str)
def test_a_rule_for_what_is_no_tensor_is_refused(hint):
    with pytest.raises(TypeError, match=r"Wrong\.grad_other is a rule for 'other'.*no tensor"):
        define(forward=annotated(other=hint), grad_other=lambda g: g)


@pytest.mark.parametrize("hint", [list[Tensor], tuple[Tensor, ...], list[Tensor] | None], ids=str)
def test_tensors_in_one_argument_are_refused(hint):
    """Autograd sees none of them, so their gradient would be missing without a word."""
    with pytest.raises(TypeError, match=r"'other' as several tensors in one argument.*\*tensors"):
        define(forward=annotated(other=hint), grad_input=lambda g: g)


T = TypeVar("T")
BoundT = TypeVar("BoundT", bound=Tensor)


@pytest.mark.parametrize(
    "hint",
    [Tensor, torch.nn.Parameter, Tensor | None, T, BoundT, Tensor | float, Any, object, "Unknown"],
    ids=str,
)
def test_whatever_can_be_a_tensor_gets_its_gradient(hint):
    """By autograd and on a tape, however it is annotated."""

    def forward(input, weight):
        return input * weight

    forward.__annotations__ = {"input": hint, "weight": hint}
    product = define(
        forward=forward,
        grad_input=lambda g, weight: g * weight,
        grad_weight=lambda g, input: g * input,
    )
    a, b = real(3), torch.nn.Parameter(real(3, grad=False))
    g = random_like(a)
    expected = (g * b, g * a)
    assert_close(torch.autograd.grad(product.apply(a, b), (a, b), g), expected)
    with Tape() as tape:
        output = product.apply(a, b)
    tape.backprop(output, g)
    assert_close((a.grad, b.grad), expected)


def test_what_a_call_gives_is_checked():
    """Each would be silently wrong, or fail in the depths of torch."""
    x = real(3)
    half = define(forward=annotated(other=float), grad_input=lambda g: g)
    with pytest.raises(TypeError, match=r"annotates 'other' as what is no tensor"):
        half.apply(x, torch.tensor(2.0))
    unknown = define(forward=annotated(), grad_input=lambda g: g)
    with pytest.raises(TypeError, match="given a list of tensors, which gets no gradient"):
        unknown.apply(x, [x])
    pair = define(forward=lambda input: (input * 1, input * 2), grad_input=lambda g: g)
    with pytest.raises(TypeError, match="returned 2 values, but one tensor is declared"):
        pair.apply(x)

    class One(Formula):
        outputs = ("output", "mean")

        @staticmethod
        def forward(input):
            return input * 1

        @staticmethod
        def grad_input(g_output):
            return g_output

    with pytest.raises(TypeError, match="returned Tensor, but 2 are declared"):
        One.apply(x)
    written = define(forward=lambda input: input.mul_(2), grad_input=lambda g: 2 * g)
    for argument in (x.detach(), x.detach().requires_grad_(), x * 1):
        with pytest.raises(TypeError, match="changed its argument 'input' in place"):
            written.apply(argument)
    with pytest.raises(TypeError, match=r"Product\.apply\(\) got some positional-only .*: 'a, b'"):
        Product.apply(a=x, b=x)
    with pytest.raises(TypeError, match=r"Product\.apply\(\) missing 1 .* argument: 'b'"):
        Product.apply(x)


def test_any_number_of_tensors_has_one_rule():
    def forward(*tensors):
        return torch.stack(tensors).sum(0)

    with pytest.raises(TypeError, match=r"\*tensors, and no rule.*grad_tensors"):
        define(forward=forward)
    with pytest.raises(TypeError, match="grad_tensors asks for 'output'"):
        define(forward=forward, grad_tensors=lambda g, output: g)
    total = define(forward=forward, grad_tensors=lambda g: [g])
    x = real(3)
    with pytest.raises(TypeError, match="returned 1 gradients for 2 tensors"):
        total.apply(x, x).sum().backward()


def test_a_rule_that_is_no_static_method_is_refused():
    with pytest.raises(TypeError, match=r"Wrong\.grad_input must be a static method"):

        class Wrong(Formula):
            @staticmethod
            def forward(input):
                return input * 2

            def grad_input(g):
                return g * 2


def test_a_missing_rule_raises_when_its_gradient_is_wanted():
    """Never a silent None."""

    class Half(Product):
        pass

    class OnlyA(Formula):
        @staticmethod
        def forward(a, b):
            return a * b

        @staticmethod
        def grad_a(g, b):
            return g * b

    a, b = real(3), real(3)
    (found,) = torch.autograd.grad(OnlyA.apply(a, b.detach()).sum(), a)
    assert_close(found, b.detach())
    with pytest.raises(NotImplementedError, match="OnlyA has no rule for the gradient of 'b'"):
        OnlyA.apply(a, b).sum().backward()


def test_a_rule_of_none_says_that_nothing_flows():
    class StraightPast(Formula):
        grad_b = None

        @staticmethod
        def forward(a, b):
            return a * b

        @staticmethod
        def grad_a(g, b):
            return g * b

    a, b = real(3), real(3)
    StraightPast.apply(a, b).sum().backward()
    assert_close(a.grad, b.detach())
    assert b.grad is None


# --------------------------------------------------------------- the forms that a formula takes


class Extremes(Formula):
    """values, indices = max along an axis;  low = min along it"""

    outputs = ("values", "indices", "low")

    @staticmethod
    def forward(input, dim):
        values, indices = input.max(dim)
        return values, indices, input.min(dim).values

    @staticmethod
    def grad_input(g_values, g_low, input, values, low, dim):
        high = g_values.unsqueeze(dim) * (input == values.unsqueeze(dim))
        return high + g_low.unsqueeze(dim) * (input == low.unsqueeze(dim))


def test_several_outputs():
    """Each has its own gradient; one that no rule asks for is not differentiable."""
    x = real(4, 3)
    values, indices, low = Extremes.apply(x, 1)
    assert not indices.requires_grad and values.requires_grad and low.requires_grad
    g = random_like(values)
    (found,) = torch.autograd.grad((values, low), x, (g, 2 * g), retain_graph=True)
    twin = (x.max(1).values, x.min(1).values)
    assert_close(found, torch.autograd.grad(twin, x, (g, 2 * g))[0])
    (alone,) = torch.autograd.grad(low, x, g)  # values unused: zero, not None
    assert_close(alone, torch.autograd.grad(x.min(1).values, x, g)[0])
    assert gradcheck(lambda x: Extremes.apply(x, 1)[::2], x, check_undefined_grad=True)


def test_several_outputs_under_transforms():
    x = real(4, 3, grad=False)

    def ours(x):
        values, _, low = Extremes.apply(x, 0)
        return (values - low).square().sum()

    def theirs(x):
        return (x.max(0).values - x.min(0).values).square().sum()

    assert_close(torch.func.hessian(ours)(x), torch.func.hessian(theirs)(x))
    assert_close(torch.func.jvp(ours, (x,), (x,)), torch.func.jvp(theirs, (x,), (x,)))
    graph = torch.compile(torch.func.grad(ours), backend="aot_eager")
    assert_close(graph(x), torch.func.grad(theirs)(x))


def counted(calls):
    class Normalise(Formula):
        """y = w x / ‖x‖, with a norm that both rules share"""

        @staticmethod
        def forward(input, weight):
            return weight * input / input.norm()

        @staticmethod
        def norm(input):
            calls.append("norm")
            return input.norm()

        @staticmethod
        def unit(input, norm):
            calls.append("unit")
            return input / norm

        @staticmethod
        def grad_input(g, weight, unit, norm):
            v = g * weight
            return (v - unit * (v * unit).sum()) / norm

        @staticmethod
        def grad_weight(g, unit):
            return g * unit

    return Normalise


@pytest.mark.parametrize("wanted", [("input", "weight"), ("input",), ("weight",)], ids=str)
def test_a_shared_intermediate_is_computed_once(wanted):
    """Once in a backward pass, however many rules want it; never in the forward pass."""
    calls = []
    formula = counted(calls)
    x, w = real(5, grad="input" in wanted), real(5, grad="weight" in wanted)
    output = formula.apply(x, w)
    assert not calls
    leaves = [t for t in (x, w) if t.requires_grad]
    found = torch.autograd.grad(output, leaves, random_like(output))
    assert sorted(calls) == ["norm", "unit"]
    twin = w * x / x.norm()
    assert_close(found, torch.autograd.grad(twin, leaves, random_like(twin)))


def test_a_shared_intermediate_that_no_wanted_rule_needs_is_not_computed():
    calls = []

    class Shift(counted(calls)):
        @staticmethod
        def grad_weight(g, input):
            return g * input / input.norm()

    x, w = real(5, grad=False), real(5)
    Shift.apply(x, w).sum().backward()
    assert not calls


def test_second_order_through_a_shared_intermediate():
    formula = counted([])
    inputs = (real(5), real(5))
    assert gradcheck(formula.apply, inputs) and gradgradcheck(formula.apply, inputs)


def test_options_and_optional_tensors():
    """What is no tensor reaches the rule as it is; a tensor that is None reaches it as None."""

    class Scaled(Formula):
        @staticmethod
        def forward(input, scale, shift):
            return input * scale["by"] + (0 if shift is None else shift)

        @staticmethod
        def grad_input(g, scale):
            return g * scale["by"]

        @staticmethod
        def grad_shift(g, shift):
            assert shift is not None
            return g

    for shift in (None, real(3)):
        x = real(3)
        Scaled.apply(x, {"by": 3.0}, shift).sum().backward()
        assert_close(x.grad, torch.full_like(x, 3.0))


def test_an_option_may_be_a_tensor_or_a_number():
    """Nothing is annotated, so either may come."""
    for b in (real(3), 2.0, torch.tensor(2)):
        a = real(3)
        Product.apply(a, b).sum().backward()
        assert_close(a.grad, torch.zeros_like(a) + (b.detach() if torch.is_tensor(b) else b))


def test_integer_arguments_have_no_gradient():
    x, target = real(4, 3), torch.tensor([0, 2, 1, 1])
    functional.cross_entropy(x, target).backward()
    assert target.grad is None and x.grad is not None


class Sum(Formula):
    """c = a + b, broadcast"""

    broadcasts = True

    @staticmethod
    def forward(a, b):
        return a + b

    @staticmethod
    def grad_a(g):
        return g

    @staticmethod
    def grad_b(g):
        return g


@pytest.mark.parametrize(
    "shapes",
    [((4, 3), (3,)), ((4, 1), (1, 3)), ((), (2, 3)), ((2, 1, 3), (4, 1)), ((0, 3), (3,))],
    ids=str,
)
def test_broadcasting_is_undone_in_one_place(shapes):
    """Not left to autograd to mend: the backward pass itself returns each argument's own shape."""
    a, b = (real(*shape) for shape in shapes)
    output = Sum.apply(a, b)
    g = random_like(output)
    found = output.grad_fn.apply(g)
    assert [f.shape for f in found] == [a.shape, b.shape]
    assert_close(found, torch.autograd.grad(a + b, (a, b), g))


def test_frozen_records_nothing():
    a, b = real(3, grad=False), real(3, grad=False)
    assert Product.apply(a, b).grad_fn is None
    with torch.no_grad():
        assert Product.apply(real(3), b).grad_fn is None


# -------------------------------------------------------------------------- to change a backward


def test_a_subclass_changes_one_rule():
    """The other rules, the value and the name of the class come along."""

    class Doubled(Product):
        @staticmethod
        def grad_a(g, b):
            return 2 * g * b

    a, b = real(3), real(3)
    c = Doubled.apply(a, b)
    assert type(c.grad_fn).__name__ == "DoubledBackward"
    assert_close(torch.autograd.grad(c.sum(), (a, b)), (2 * b, a))
    assert_close(torch.autograd.grad(Product.apply(a, b).sum(), (a, b)), (b, a))

    def cost(a):
        return Doubled.apply(a, b.detach()).sum()

    assert_close(torch.func.grad(cost)(a.detach()), 2 * b.detach())
    graph = torch.compile(cost, backend="aot_eager", fullgraph=True)
    assert_close(torch.autograd.grad(graph(a), a)[0], 2 * b.detach())


def test_a_subclass_of_a_subclass():
    class Doubled(Product):
        @staticmethod
        def grad_a(g, b):
            return 2 * g * b

    class AndFrozen(Doubled):
        grad_b = None

    a, b = real(3), real(3)
    AndFrozen.apply(a, b).sum().backward()
    assert_close(a.grad, 2 * b.detach())
    assert b.grad is None


def test_a_subclass_changes_the_value():
    class Shifted(Product):
        @staticmethod
        def forward(a, b):
            return a * b + 1

    a, b = real(3), real(3)
    assert_close(Shifted.apply(a, b), a * b + 1)
    assert_close(torch.autograd.grad(Shifted.apply(a, b).sum(), a)[0], b.detach())


def test_a_subclass_changes_an_intermediate():
    class Clipped(counted([])):
        @staticmethod
        def norm(input):
            return input.norm().clamp(min=100.0)

    x, w = real(5), real(5)
    (found,) = torch.autograd.grad(Clipped.apply(x, w).sum(), w)
    assert_close(found, x.detach() / 100)


def test_a_family_without_a_value():
    """A base class may state what several formulas share."""

    class Entrywise(Formula):
        @staticmethod
        def grad_input(g, slope):
            return g * slope

    class Cube(Entrywise):
        @staticmethod
        def forward(input):
            return input**3

        @staticmethod
        def slope(input):
            return 3 * input**2

    x = real(4)
    assert gradcheck(Cube.apply, x) and gradgradcheck(Cube.apply, x)


def test_a_backward_written_by_hand():
    """The way out: a class that writes its own backward is an ordinary Function."""

    class ByHand(Formula):
        @staticmethod
        def forward(ctx, input):
            ctx.save_for_backward(input)
            return input * 2

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = real(3)
    output = ByHand.apply(x)
    assert type(output.grad_fn).__name__ == "ByHandBackward"
    output.sum().backward()
    assert_close(x.grad, torch.full_like(x, 7.0))


def test_a_backward_written_by_hand_over_a_formula():
    class Clamped(Product):
        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return (g * b).clamp(-1, 1), (g * a).clamp(-1, 1)

    a, b = real(3), torch.full((3,), 5.0, dtype=torch.double)
    Clamped.apply(a, b).sum().backward()
    assert_close(a.grad, torch.ones_like(a))


# ------------------------------------------------------------------------- ways to run a formula


def test_backward_takes_the_autocast_of_its_forward():
    """Wherever the backward pass is called: its products are in the forward's precision."""
    x, w = torch.randn(4, 8), torch.randn(8, 8, requires_grad=True)
    g = torch.randn(4, 8)
    exact = torch.autograd.grad(functional.linear(x, w), w, g)[0]
    output = functional.linear(x, w)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(output, w, g)
    assert_close(inside, exact, rtol=0, atol=0)


def test_one_tensor_in_two_places():
    """The same tensor as two arguments, and the same value used twice: paths are summed."""
    x = real(3)
    assert_close(torch.autograd.grad(Product.apply(x, x).sum(), x)[0], 2 * x.detach())
    y = functional.sigmoid(x)
    cost = Product.apply(y, y).sum() + y.sum()
    twin = torch.sigmoid(x)
    assert_close(torch.autograd.grad(cost, x), torch.autograd.grad((twin * twin + twin).sum(), x))


def test_a_value_changed_in_place_after_a_formula():
    """relu_ after flatten, += after a layer: what torch allows is allowed, and does the same."""
    x = real(2, 3, 2)
    for change in (torch.relu_, lambda a: a.mul_(2), lambda a: a[0].add_(1)):
        for start in (1, 2):  # the last leaves all as it is
            results = []
            for library in (nn, torch.nn):
                h = x * 1
                change(library.Flatten(start)(h))
                results.append((h, *torch.autograd.grad(h.square(), x, random_like(h))))
            assert_close(*results)


@pytest.mark.parametrize(
    ("name", "options"),
    [("relu", {}), ("leaky_relu", {}), ("elu", {}), ("silu", {}), ("dropout", {"p": 0.5})],
    ids=str,
)
def test_inplace(name, options):
    """`inplace=True` changes its input, as torch's does, and has the same gradient."""
    x = real(4, 3)
    results = []
    for module in (functional, torch.nn.functional):
        torch.manual_seed(0)
        middle = x * 2
        output = getattr(module, name)(middle, inplace=True, **options)
        assert output.data_ptr() == middle.data_ptr()
        results.append((output, *torch.autograd.grad(output, x, random_like(output))))
    assert_close(*results)


# ----------------------------------------------------------------------------------- every shape

sizes = st.integers(0, 4)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(sizes, max_size=3), sizes, sizes, st.booleans())
def test_linear_of_every_shape(batch, inputs, outputs, bias):
    """Any number of batch axes, any of them empty, any number of features, none included."""
    leaves = [real(*batch, inputs), real(outputs, inputs), *([real(outputs)] if bias else [])]
    agree(functional.linear, torch.nn.functional.linear, leaves)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.sampled_from(["cross_entropy", "nll_loss", "mse_loss", "binary_cross_entropy_with_logits"]),
    st.integers(0, 4),
    st.integers(1, 4),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["none", "mean", "sum"]),
    st.booleans(),
)
def test_costs_of_every_shape(name, n, classes, rest, reduction, soft):
    shape = (n, classes, *rest)
    x = real(*shape)
    soft &= name == "cross_entropy"
    if soft or name in ("mse_loss", "binary_cross_entropy_with_logits"):
        target = probabilities(*shape)(torch.Generator().manual_seed(0))
    else:
        target = torch.randint(classes, (n, *rest))
    agree(
        lambda x: getattr(functional, name)(x, target, reduction=reduction),
        lambda x: getattr(torch.nn.functional, name)(x, target, reduction=reduction),
        [x],
    )


def agree(ours, theirs, leaves):
    output, twin = ours(*leaves), theirs(*leaves)
    assert_close(output, twin, equal_nan=True, **SHARP)
    g = random_like(output)
    found = torch.autograd.grad(output, leaves, g)
    assert_close(found, torch.autograd.grad(twin, leaves, g), equal_nan=True, **SHARP)


@pytest.mark.parametrize("one", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("count", [2, 4])
def test_batch_norm_reads_no_memory_behind_its_arguments(one, count):
    """Nor does it write there: torch's kernel does not ask how many numbers there are."""
    names = ("weight", "bias", "running_mean", "running_var")
    given = dict.fromkeys(names) | {one: torch.ones(count)}
    with pytest.raises(RuntimeError, match=f"{one} should contain 3 elements not"):
        formulas.BatchNorm.apply(torch.zeros(2, 3, 4), *given.values(), 0.1, 1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("linear", (real(4, 3), real(5, 2)), {}),
        ("linear", (real(4, 3), real(5, 3), real(4)), {}),
        ("mse_loss", (real(4, 3), real(5, 3)), {}),
        ("mse_loss", (real(4, 3), real(4, 3)), {"reduction": "average"}),
        ("cross_entropy", (real(4, 3), torch.tensor([0, 1])), {}),
        ("cross_entropy", (real(4, 3), torch.tensor([0, 1, 2, 3])), {}),
        ("cross_entropy", (real(4, 3), torch.tensor([0, 1, 2, -1])), {}),
        ("cross_entropy", (real(4, 3), torch.zeros(4, dtype=torch.long)), {"reduction": "all"}),
        ("cross_entropy", (real(4, 3), real(4, 2)), {}),
        ("cross_entropy", (real(4, 3), torch.zeros(4, dtype=torch.long)), {"label_smoothing": 2.0}),
        ("nll_loss", (real(4, 3), torch.tensor([0, 1])), {}),
        ("nll_loss", (real(4, 3), torch.tensor([0, 1, 2, 7])), {}),
        ("binary_cross_entropy_with_logits", (real(4, 3), real(4, 2)), {}),
        ("dropout", (real(3),), {"p": 1.5}),
        ("dropout", (real(3),), {"p": -0.1}),
        ("softmax", (real(3, 2),), {"dim": 2}),
        ("gelu", (real(3),), {"approximate": "nonsense"}),
        ("relu", (torch.zeros(3, dtype=torch.long).bool(),), {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:Using a target size")  # both warn before they refuse
def test_what_torch_refuses_is_refused(name, arguments, options):
    """With an exception of the same type."""
    with pytest.raises(Exception) as theirs:
        getattr(torch.nn.functional, name)(*arguments, **options)
    with pytest.raises(theirs.type):
        getattr(functional, name)(*arguments, **options)


def test_the_document_s_cost_says_what_it_expected():
    with pytest.raises(ValueError, match=r"target: expected \(4, 3\).*or \(4,\).*got \(4, 2\)"):
        functional.squared_error(real(4, 3), real(4, 2))
    with pytest.raises(ValueError, match="'none', 'mean' or 'sum'; got 'average'"):
        functional.squared_error(real(4, 3), real(4, 3), reduction="average")


def test_formulas_can_be_imported_by_name():
    assert formulas.Linear.forward is not None


# ------------------------------------------------------------------------------ half precision


class Far(Formula):
    """a = z² / 10⁶

    ∂C/∂z = 2 g z / 10⁶
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return (input.float().square() / 1e6).to(input.dtype)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * (input * input / 1e6) / input * 2  # z² is more than float16 can say


class FarInHalf(Far):
    opmath = False


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_rules_of_half_precision_compute_in_single(dtype):
    x = torch.tensor([300.0, 1000.0], dtype=dtype, requires_grad=True)
    g = torch.tensor([1.0, -0.5], dtype=dtype)
    expected = (2 * g.double() * x.detach().double() / 1e6).to(dtype)
    (found,) = torch.autograd.grad(Far.apply(x), x, g)
    assert found.dtype is dtype
    assert_close(found, expected, rtol=0, atol=0)

    with Tape() as tape:
        output = Far.apply(x)
    tape.backprop(output, g)
    assert x.grad.dtype is dtype
    assert_close(x.grad, expected, rtol=0, atol=0)

    compiled = torch.compile(lambda z: Far.apply(z), backend="aot_eager", fullgraph=True)
    assert_close(torch.autograd.grad(compiled(x), x, g)[0], expected, rtol=0, atol=0)

    pushed = torch.func.jvp(Far.apply, (x.detach(),), (g,))[1]
    assert pushed.dtype is dtype
    assert_close(pushed, expected, rtol=0, atol=0)

    (first,) = torch.autograd.grad(Far.apply(x), x, g, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert_close(second, (2 * g.double() / 1e6).to(dtype), rtol=2e-2, atol=0)

    mapped = torch.func.vmap(torch.func.grad(lambda z: Far.apply(z).sum()))(x.detach())
    assert mapped.dtype is dtype


def test_a_formula_may_keep_half_precision():
    x = torch.tensor([300.0, 1000.0], dtype=torch.half, requires_grad=True)
    (found,) = torch.autograd.grad(FarInHalf.apply(x).sum(), x)
    assert not found.isfinite().any()


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "addcmul", "addcdiv", "where", "cat"])
def test_a_real_argument_beside_a_complex_one(name):
    """Its gradient is the real part, which autograd leaves to a Function to take."""
    function = {
        "addcmul": lambda x, y: functional.addcmul(x, x + 1, y, value=0.5),
        "addcdiv": lambda x, y: functional.addcdiv(x, x + 1, y, value=0.5),
        "where": lambda x, y: functional.where(torch.tensor([True, False, True]), x, y),
        "cat": lambda x, y: functional.cat((x[0], y)),
    }.get(name, getattr(functional, name))
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    y = torch.randn(3, dtype=torch.cdouble, requires_grad=True)
    assert gradcheck(function, (x, y), check_forward_ad=True)
    assert gradgradcheck(function, (x, y))

    def cost(x, y):
        return function(x, y).abs().square().sum()

    expected = torch.autograd.grad(cost(x, y), (x, y))
    for a, b in zip(torch.func.grad(cost, (0, 1))(x, y), expected, strict=True):
        assert_close(a, b)
