"""The catalogue is what it says: its right ones are right, its wrong ones wrong, without verify."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from manualbp.verification.catalogue import RIGHT, WRONG, Specimen

KINDS = {"wrong", "imprecise", "nan", "mutates", "nondeterministic", "stale", "raises"}


def name(specimen: Specimen) -> str:
    return specimen.name


def title(specimen: Specimen) -> str:
    """What its class or function is called."""
    subject = specimen.subject()
    return getattr(subject, "__name__", type(subject).__name__)


# --------------------------------------------------------------------------------- a call to test


def called(subject) -> Callable:
    is_function = isinstance(subject, type) and issubclass(subject, Function)
    return subject.apply if is_function else subject


def floating(values) -> list[Tensor]:
    """Those whose gradient is looked at."""
    found = [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]
    return [x for x in found if x.requires_grad] or found


class Call:
    """A specimen with its arguments, and its parameters among the leaves."""

    def __init__(self, specimen: Specimen, double: bool = False) -> None:
        self.subject = specimen.subject()
        self.options = specimen.options
        given = specimen.inputs()
        if double:
            given = tuple(widened(x) for x in given)
            if isinstance(self.subject, nn.Module):
                self.subject.double()
        wanted = {id(x) for x in floating(given)}
        self.arguments = [
            x.detach().requires_grad_(id(x) in wanted) if isinstance(x, Tensor) else x
            for x in given
        ]
        self.leaves = [x for x in self.arguments if isinstance(x, Tensor) and x.requires_grad]
        if isinstance(self.subject, nn.Module):
            self.leaves += [p for p in self.subject.parameters() if p.requires_grad]
            self.buffers = {n: b.clone() for n, b in self.subject.named_buffers()}

    def __call__(self, function: Callable | None = None) -> list[Tensor]:
        """The outputs that a gradient may arrive at; the same random numbers each time."""
        torch.manual_seed(0)
        # Copies: what works in place, and says so, works on no leaf.
        given = [x.clone() if isinstance(x, Tensor) else x for x in self.arguments]
        if isinstance(self.subject, nn.Module):
            for path, buffer in self.buffers.items():
                module, _, name = path.rpartition(".")
                setattr(self.subject.get_submodule(module), name, buffer.clone())
        if "cost" in self.options:
            *inputs, target = given
            output = self.options["cost"](self.subject(*inputs), target)
        else:
            output = (function or called(self.subject))(*given)
        if isinstance(output, dict):
            output = output.values()
        outputs = [output] if isinstance(output, Tensor) else list(output)
        return [x for x in outputs if isinstance(x, Tensor) and x.is_floating_point()]


def widened(x):
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach().double().requires_grad_(x.requires_grad)
    return x


def random_like(x: Tensor, seed: int) -> Tensor:
    made = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.double
    )
    return made.to(x.dtype)


def backward(call: Call, outputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """The gradients of ⟨g, outputs⟩ by the backward pass, g random."""
    alive = [x for x in outputs if x.requires_grad]
    upstream = [random_like(x, seed + i) for i, x in enumerate(outputs) if x.requires_grad]
    found = torch.autograd.grad(alive, call.leaves, upstream, allow_unused=True)
    return [
        torch.zeros_like(x) if g is None else g.to_dense()
        for x, g in zip(call.leaves, found, strict=True)
    ]


def slope(call: Call, leaf: Tensor, direction: Tensor, seed: int, shorter: float = 1) -> float:
    """The derivative of ⟨g, outputs⟩ along a direction: central differences, extrapolated."""

    def value(step: float) -> Tensor:
        at = leaf.detach().clone()
        with torch.no_grad():
            leaf.add_(step * direction)
            outputs = call()
            leaf.copy_(at)
        return sum((random_like(x, seed + i) * x).sum() for i, x in enumerate(outputs))

    def central(step: float) -> Tensor:
        return (value(step) - value(-step)) / (2 * step)

    step = 1e-4 * max(1e-3, min(1.0, leaf.detach().abs().max().item())) * shorter
    return ((4 * central(step / 2) - central(step)) / 3).item()


def errors(specimen: Specimen, seed: int = 1) -> list[float]:
    """How far the gradient of each leaf is from the central difference, in float64."""
    call = Call(specimen, double=True)
    surrogate = specimen.options.get("surrogate")
    gradients = backward(call, call(), seed)
    by_surrogate = backward(call, call(surrogate), seed) if surrogate else gradients
    found = []
    for leaf, gradient, other in zip(call.leaves, gradients, by_surrogate, strict=True):
        direction = random_like(leaf, seed + 100)
        got = (gradient * direction).sum().item()
        if surrogate:
            expected = [(other * direction).sum().item()]
        else:
            expected = [slope(call, leaf, direction, seed, shorter) for shorter in (1, 1e-2)]
        size = max(gradient.norm().item() * direction.norm().item(), abs(expected[0]), 1e-5)
        found.append(min(abs(got - e) / size for e in expected))
    return found


def with_first(change: Callable) -> Callable[[Specimen], Specimen]:
    """A specimen with its first argument changed."""

    def changed(specimen: Specimen) -> Specimen:
        def inputs():
            first, *others = specimen.inputs()
            return (change(first), *others)

        return replace(specimen, inputs=inputs)

    return changed


# ---------------------------------------------------------------------------------------- the list


def test_there_are_enough_and_each_has_a_name_of_its_own():
    assert len(WRONG) >= 75 and len(RIGHT) >= 75
    names = [s.name for s in (*WRONG, *RIGHT)]
    assert all(names) and len(set(names)) == len(names)


@pytest.mark.parametrize("specimen", [*WRONG, *RIGHT], ids=name)
def test_a_specimen_says_what_it_must_and_its_forward_runs(specimen):
    re.compile(specimen.says)
    assert specimen.met and len(specimen.name) < 100
    assert specimen.kinds <= KINDS
    assert bool(specimen.kinds) == (specimen in WRONG)
    first, second = specimen.inputs(), specimen.inputs()
    for a, b in zip(first, second, strict=True):
        assert not isinstance(a, Tensor) or (a is not b and torch.equal(a, b))
    outputs = Call(specimen)()
    assert outputs and all(x.isfinite().all() for x in outputs)


# --------------------------------------------------------------------------------------- right ones

#: given where they have no derivative
AT_KINKS = {"ReLUAtZero", "MaxOfTies", "ClampAtBounds"}
#: take no float64
ONLY_SINGLE = {"CubeSingle", "CubeSingleFactor"}


@pytest.mark.parametrize("specimen", RIGHT, ids=name)
def test_a_right_one_runs_backward_and_changes_nothing(specimen):
    call = Call(specimen)
    before = [x.detach().clone() for x in call.leaves]
    outputs = call()
    first = backward(call, outputs)
    second = backward(call, call())
    for x, old, one, two in zip(call.leaves, before, first, second, strict=True):
        assert one.shape == x.shape and one.isfinite().all()
        assert torch.equal(x, old) and torch.equal(one, two)


@pytest.mark.parametrize("specimen", [s for s in RIGHT if title(s) not in ONLY_SINGLE], ids=name)
def test_a_right_one_agrees_with_central_differences(specimen):
    if title(specimen) in AT_KINKS:
        specimen = with_first(lambda x: x + 0.1 * random_like(x, 9))(specimen)
    for seed in range(3):
        assert max(errors(specimen, seed)) < 1e-7, errors(specimen, seed)


@pytest.mark.parametrize("specimen", RIGHT, ids=name)
def test_a_right_one_has_its_second_derivative_or_raises(specimen):
    if title(specimen) in ONLY_SINGLE or "surrogate" in specimen.options:
        return
    if title(specimen) in AT_KINKS:
        specimen = with_first(lambda x: x + 0.1 * random_like(x, 9))(specimen)
    try:
        assert not second_order(specimen)
    except RuntimeError as error:
        assert "once_differentiable" in str(error)


# --------------------------------------------------------------------------------------- wrong ones


def differs(specimen: Specimen, sharp: float = 1e-7) -> bool:
    """Whether a backward pass raises, or gives something else than central differences do."""
    try:
        return not max(errors(specimen)) < sharp
    except (RuntimeError, TypeError, ValueError, NameError) as error:
        assert "raises" in specimen.kinds, error
        return True


def at(change: Callable) -> Callable[[Specimen], bool]:
    """It differs with its first argument changed."""
    return lambda specimen: differs(with_first(change)(specimen))


def alone(*wanted: int) -> Callable[[Specimen], bool]:
    """It differs where these arguments alone require a gradient."""

    def seen(specimen: Specimen) -> bool:
        def inputs():
            given = specimen.inputs()
            return tuple(x.requires_grad_() if i in wanted else x for i, x in enumerate(given))

        return differs(replace(specimen, inputs=inputs))

    return seen


def changes(specimen: Specimen) -> bool:
    """It changes an argument, a parameter or the gradient that arrives."""
    call = Call(specimen)
    given = [x.detach().clone() for x in call.leaves]
    leaves = list(call.leaves)
    output = called(call.subject)(*call.arguments)
    g = random_like(output, 1)
    arrived = g.clone()
    torch.autograd.grad(output, leaves, g)
    pairs = [*zip(leaves, given, strict=True), (g, arrived)]
    return not all(torch.equal(x, before) for x, before in pairs)


def stale(change: Callable) -> Callable[[Specimen], bool]:
    """What is changed between forward and backward changes the gradient, and nothing raises."""

    def seen(specimen: Specimen) -> bool:
        call = Call(specimen)
        outputs, again = call(), Call(specimen)
        expected = backward(again, again())
        given = [x.clone() for x in call.arguments]
        output = called(call.subject)(*given)
        with torch.no_grad():
            change(call, given, output)
        g = random_like(output, 1)
        found = torch.autograd.grad(output, call.leaves, g)
        assert len(outputs) == 1
        return not all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))

    return seen


def another_call(call: Call, given: list[Tensor], output: Tensor) -> None:
    called(call.subject)(*(x + 1 for x in given))


def twice(specimen: Specimen) -> bool:
    """The second backward of one graph, or of the same call, gives something else."""
    call = Call(specimen)
    outputs = call()
    g = random_like(outputs[0], 1)
    first, second = (
        torch.autograd.grad(outputs, call.leaves, g, retain_graph=True)[0].clone() for _ in range(2)
    )
    return not torch.equal(first, second)


def one_result(specimen: Specimen) -> bool:
    """Two results lie in the same memory."""
    call = Call(specimen)
    kept = backward(call, call(), seed=1)[0]
    before = kept.clone()
    backward(call, call(), seed=2)
    return not torch.equal(kept, before)


def not_finite(specimen: Specimen) -> bool:
    call = Call(specimen)
    finite = all(g.isfinite().all() for g in backward(call, call()))
    wide = Call(specimen, double=True)
    return not finite and all(g.isfinite().all() for g in backward(wide, wide()))


def imprecise(specimen: Specimen, than: float = 1e-4) -> bool:
    """In its own precision it is further from float64 than a rounding or a few."""
    own, wide = Call(specimen), Call(specimen, double=True)
    pairs = zip(backward(own, own()), backward(wide, wide()), strict=True)
    return any((a.double() - b).norm() > than * b.norm() for a, b in pairs)


def second_order(specimen: Specimen) -> bool:
    """Its second derivative is not that of its first, and nothing raises."""
    call = Call(specimen, double=True)

    def first(create_graph: bool = False) -> Tensor:
        outputs = [x for x in call() if x.requires_grad]
        upstream = [random_like(x, 1).requires_grad_() for x in outputs]
        found = torch.autograd.grad(outputs, call.leaves, upstream, create_graph=create_graph)
        return sum((random_like(x, 3) * x).sum() for x in found)

    leaf = call.leaves[0]
    direction = random_like(leaf, 2) * leaf.detach().abs()
    # Not grad(…, leaf), which goes round the error that once_differentiable left in the graph.
    first(create_graph=True).backward()
    got = 0.0 if leaf.grad is None else (leaf.grad * direction).sum()
    at = leaf.detach().clone()

    def differs_by(step: float) -> Tensor:
        values = []
        for sign in (1, -1):
            leaf.data = at + sign * step * direction
            values.append(first())
        expected = (values[0] - values[1]) / (2 * step)
        return abs(got - expected) / max(abs(expected), 1e-3)

    return min(differs_by(1e-5), differs_by(1e-8)) > 1e-4


def forward_mode(specimen: Specimen) -> bool:
    """⟨g, J u⟩ is not ⟨Jᵀ g, u⟩."""
    call = Call(specimen, double=True)
    (output,) = call()
    g = random_like(output, 1)
    tangents = tuple(random_like(x, 2 + i) for i, x in enumerate(call.leaves))
    pulled = torch.autograd.grad(output, call.leaves, g)
    primals = tuple(x.detach() for x in call.leaves)
    _, pushed = torch.func.jvp(called(call.subject), primals, tangents)
    expected = sum((a * b).sum() for a, b in zip(pulled, tangents, strict=True))
    return not torch.allclose((g * pushed).sum(), expected)


def mapped(specimen: Specimen) -> bool:
    """vmap gives something else than a loop, over whatever axis the batch is."""
    function = called(specimen.subject())
    inputs = specimen.inputs()
    for axis in (0, 1):
        batch = [torch.stack([x, x + 1, 2 * x], axis) for x in inputs]
        looped = [function(*(b.select(axis, i) for b in batch)) for i in range(3)]
        found = torch.func.vmap(function, in_dims=axis)(*batch)
        if not torch.allclose(found, torch.stack(looped)):
            return True
    return False


def under_autocast(specimen: Specimen) -> bool:
    plain, cast = Call(specimen), Call(specimen)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = cast()
    pairs = zip(backward(plain, plain()), backward(cast, outputs), strict=True)
    return any((a - b).norm() > 0.2 * a.norm() for a, b in pairs)


def upstream(arrange: Callable) -> Callable[[Specimen], bool]:
    """It raises, or differs, for the same gradient with other strides."""

    def seen(specimen: Specimen) -> bool:
        call = Call(specimen)
        expected = backward(call, call())
        (output,) = call()
        try:
            found = torch.autograd.grad(output, call.leaves, arrange(random_like(output, 1)))
        except RuntimeError:
            return "raises" in specimen.kinds
        return not torch.allclose(found[0], expected[0])

    return seen


def column_major(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


def one_output(specimen: Specimen) -> bool:
    call = Call(specimen)
    try:
        torch.autograd.grad(call()[0].sum(), call.leaves)
    except TypeError:
        return True
    return False


def evaluated(specimen: Specimen) -> bool:
    return differs(replace(specimen, subject=lambda: specimen.subject().eval()))


def close_only(specimen: Specimen) -> bool:
    """It differs, by less than single precision."""
    return differs(specimen, 1e-9)


def another_value(specimen: Specimen) -> bool:
    (output,), reference = Call(specimen)(), specimen.options["reference"]
    return not torch.allclose(output, reference(*specimen.inputs()))


def entry_by_entry(specimen: Specimen) -> bool:
    """One entry of its last gradient is wrong, by much less than the others' size."""
    call = Call(specimen, double=True)
    gradient, leaf = backward(call, call())[-1], call.leaves[-1]
    for entry, found in zip(torch.eye(leaf.numel(), dtype=leaf.dtype), gradient, strict=True):
        direction = leaf.detach().abs() * entry
        expected = slope(call, leaf, direction, 1)
        if abs((found * direction).sum() - expected) > 1e-3 * abs(expected):
            return True
    return False


def single_factor(specimen: Specimen) -> bool:
    call = Call(specimen)
    (leaf,), (found,) = call.leaves, backward(call, call())
    direction = random_like(leaf, 2)
    at, values = leaf.detach().clone(), []
    for sign in (1, -1):
        leaf.data = at + sign * 1e-2 * direction
        values.append((random_like(leaf, 1) * call()[0]).sum())
    return abs((values[0] - values[1]) / 2e-2 - (found * direction).sum()) > 0.1


#: where a wrong one does not differ from central differences at its own arguments: what shows it
SEEN = {
    "ELUNegative": at(torch.neg),
    "HardswishBeyond": at(lambda x: x + 4),
    "HuberBeyond": at(lambda x: x + 4),
    "LinearGradientsShift": alone(1),
    "LinearFrozenWeight": alone(0, 2),
    "ProductAlone": alone(0),
    "LinearOfOne": at(lambda x: x[:1]),
    "BatchNormEvaluation": evaluated,
    "DropoutEvaluation": evaluated,
    "RMSNormInGradient": changes,
    "SquareInSaved": changes,
    "ReLUInInput": changes,
    "CubeOnContext": stale(lambda call, given, output: given[0].add_(1)),
    "ExpOnContext": stale(lambda call, given, output: output.data.add_(1)),
    "LinearOnContext": stale(lambda call, given, output: given[1].add_(1)),
    "TanhOnClass": stale(another_call),
    "RemembersInput": stale(another_call),
    "SigmoidScratch": twice,
    "Workspace": twice,
    "SharedResult": one_result,
    "SquareOfSigmoid": second_order,
    "SoftplusKept": second_order,
    "TanhDetached": second_order,
    "SiLUData": second_order,
    "BilinearNoGrad": second_order,
    "SigmoidSecondSign": second_order,
    "SinTangentSign": forward_mode,
    "ProductTangentTerm": forward_mode,
    "CumulativeMapped": mapped,
    "SquareMapped": mapped,
    "SteepOverflow": not_finite,
    "SoftplusOverflow": not_finite,
    "LogSumExpOverflow": not_finite,
    "LogSigmoidCancels": imprecise,
    "StandardizeCancels": imprecise,
    "SwishFastInSingle": imprecise,
    "SwishThroughSingle": close_only,
    "SwishReturnsSingle": close_only,
    "LinearScaledUnderAutocast": under_autocast,
    "CubeSingleFactor": single_factor,
    "CubedView": upstream(column_major),
    "CubedStorage": upstream(column_major),
    "SinCosUndefined": one_output,
    "gelu_of_another_kind": another_value,
    "NumpyTanhSingle": close_only,
    "UnitsSmall": entry_by_entry,
}


@pytest.mark.parametrize("specimen", WRONG, ids=name)
def test_a_wrong_one_is_wrong(specimen):
    seen = SEEN.get(title(specimen), differs)
    assert seen(specimen)


HIDDEN = [s for s in WRONG if title(s) in {*SEEN} - ONLY_SINGLE]


@pytest.mark.parametrize("specimen", HIDDEN, ids=name)
def test_it_is_hidden_at_its_own_arguments(specimen):
    assert not differs(specimen)


def test_each_way_to_see_belongs_to_a_specimen():
    assert {*SEEN} <= {title(s) for s in WRONG} | {"NumpyTanhSingle"}
