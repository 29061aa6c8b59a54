"""What must hold of every case: each property is one function that raises where it does not.

Upstream gradients are random throughout: ones hide a missing transpose, and worse.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, wraps
from threading import Barrier, Lock
from typing import Any

import pytest
import torch
from cases import Case
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import manualbp
from manualbp.core.graph import is_structural, nodes

#: in float64; sees an error of 1e-8, a float32 round trip included
SHARP = {"rtol": 1e-9, "atol": 1e-12}
#: finite differences cannot do better; torch's own 1e-3 lets a rule pass that is wrong by 0.1 %
NUDGE = {"rtol": 1e-6, "atol": 1e-8}


def close(found: Any, expected: Any, **tolerance: float) -> None:
    """Equal within the tolerance, nan for nan: an empty batch has a mean of nan, as torch's has."""
    assert_close(found, expected, equal_nan=True, **tolerance)


def random_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Numbers in [−1, 1) without pattern, the same each time: multiples of the golden ratio, mod 1.

    Drawn without a random generator, which torch.func would refuse.
    """
    count = torch.arange(1, tensor.numel() + 1, dtype=torch.double, device=tensor.device)
    made = 2 * ((count + 100 * seed) * 0.6180339887498949 % 1) - 1
    return made.reshape(tensor.shape).to(tensor.dtype)


def gradients(function: Callable, leaves: list[Tensor], g: Tensor | None = None) -> tuple:
    """The gradients of ⟨g, function(leaves)⟩, g random."""
    output = function(*leaves)
    return torch.autograd.grad(output, leaves, random_like(output) if g is None else g)


def weighted_sum(function: Callable) -> Callable[..., Tensor]:
    """⟨g, function(·)⟩: a number, with a random gradient for everything in the output."""

    def call(*leaves: Tensor) -> Tensor:
        output = function(*leaves)
        return (random_like(output) * output).sum()

    return call


def without_warnings(message: str) -> Callable[[Callable], Callable]:
    """A property that takes a warning of torch's as none."""

    def decorate(holds: Callable) -> Callable:
        @wraps(holds)
        def quietly(case: Case) -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message)
                holds(case)

        return quietly

    return decorate


# ------------------------------------------------------------------------------ first order


def value(case: Case) -> None:
    """The value is torch's, in double and in single precision."""
    for dtype, tolerance in ((torch.double, SHARP), (torch.float, {"rtol": 1e-5, "atol": 1e-6})):
        leaves, ours, theirs = case.sides(dtype=dtype)
        close(ours(*leaves), theirs(*leaves), **tolerance)


def gradient(case: Case) -> None:
    """The rules are the derivative: a finite nudge of every input agrees."""
    leaves, ours, _ = case.sides()
    gradcheck(ours, leaves, **NUDGE, check_batched_grad=True)


def same_gradient(case: Case) -> None:
    """The gradient is the one that autograd finds for torch's twin."""
    leaves, ours, theirs = case.sides()
    close(gradients(ours, leaves), gradients(theirs, leaves), **SHARP)


def partial_gradients(case: Case) -> None:
    """The gradient of one input alone is the one it has beside the others."""
    leaves, ours, _ = case.sides()
    for i, (leaf, together) in enumerate(zip(leaves, gradients(ours, leaves), strict=True)):
        alone = [x.detach() for x in leaves]
        alone[i] = leaf
        output = ours(*alone)
        (found,) = torch.autograd.grad(output, [leaf], random_like(output))
        close(found, together, **SHARP)


def special_values(case: Case) -> None:
    """At kinks, saturated, infinite and nan: value and gradient are torch's, nan for nan."""
    for dtype in (torch.double, torch.float):
        for points in case.special:
            leaves, ours, theirs = replace(case, arguments=points).sides(dtype=dtype)
            close(ours(*leaves), theirs(*leaves))
            close(gradients(ours, leaves), gradients(theirs, leaves))


def precise(case: Case) -> None:
    """In single precision a saturated unit's gradient is as near the truth as torch's."""
    for points in case.special:
        there = replace(case, arguments=points)
        leaves, _, theirs = there.sides()
        truth = gradients(theirs, leaves)
        leaves, ours, theirs = there.sides(dtype=torch.float)
        found, twin = gradients(ours, leaves), gradients(theirs, leaves)
        for x, exact, f, t in zip(leaves, truth, found, twin, strict=True):
            allowed = 4 * (t - exact).abs() + 1e-5 * exact.abs() + 1e-37
            coarse = ~((f - exact).abs() <= allowed) & x.isfinite() & exact.isfinite()
            assert not coarse.any(), (
                f"in single precision, at {x[coarse].tolist()}, the gradient is "
                f"{f[coarse].tolist()}, torch's {t[coarse].tolist()}, the truth "
                f"{exact[coarse].tolist()}: does the rule subtract what is nearly equal?"
            )


#: how large the inputs are made whose value and gradients are held to the truth
MAGNITUDES = (1e-4, 1.0, 10.0, 1e4)
#: units in the last place of the largest entry, beside twice torch's own error: a rule of several
#: operations rounds more often than one kernel; in half precision it is computed in single
ROUNDINGS = {torch.half: 0.75, torch.bfloat16: 0.75, torch.float: 3.0}
#: the same for an entry of any size, if no sum that cancels stands behind it
ENTRY = 32.0


def precision(case: Case) -> None:
    """Value and gradients, in single and half precision, err at most twice as much as torch's.

    The truth is torch's in double precision, of the same rounded numbers. What one draw leaves in
    doubt the median of nine decides.
    """
    for dtype, scale in itertools.product(ROUNDINGS, MAGNITUDES):
        drawn = _errors(case, dtype, scale)
        if drawn is None or _small(drawn, dtype):
            continue
        each = [_errors(case, dtype, scale, seed, steadily=True) for seed in range(9)]
        middle = torch.stack([e for e in each if e is not None]).median(0).values
        assert _small(middle, dtype), (
            f"{dtype}, inputs of {scale:g}: for the value and each gradient the error in ulp, "
            f"torch's, that of an entry, torch's:\n{middle}"
        )


def _small(errors: Tensor, dtype: torch.dtype) -> bool:
    largest, theirs, entry, theirs_of_entry = errors.unbind(1)
    within = (largest <= 2 * theirs + ROUNDINGS[dtype]) & (entry <= 2 * theirs_of_entry + ENTRY)
    return bool(within.all())


def _errors(
    case: Case, dtype: torch.dtype, scale: float, seed: int = 0, *, steadily: bool = False
) -> Tensor | None:
    """Of the value and of each gradient, the errors of ours and of torch's, in ulp: a row of four.

    The first two are the largest error by the largest entry; the others that of an entry by itself,
    ``steadily``: of those that a small change of the inputs changes as little, in both.
    """
    inputs = [_scaled(value, scale, dtype) for value in case.inputs(seed)]
    leaves, ours, theirs = case.of(inputs)
    try:
        twin = _both(theirs, leaves, seed)
    except (RuntimeError, NotImplementedError):
        return None  # torch has no kernel for the dtype, or none for numbers of that size
    x, ours_exact, exact = case.of([_scaled(v, 1.0, torch.double) for v in inputs])
    results = [_both(ours, leaves, seed), twin, _both(exact, x, seed)]
    if steadily:
        near = [(leaf.detach() * (1 + 1e-11 * random_like(leaf))).requires_grad_() for leaf in x]
        results += [_both(ours_exact, x, seed), _both(exact, near, seed)]
    return torch.tensor([_in_ulp(*of) for of in zip(*results, strict=True)])


def _in_ulp(
    found: Tensor,
    twin: Tensor,
    truth: Tensor,
    own: Tensor | None = None,
    near: Tensor | None = None,
) -> tuple[float, ...]:
    limits = torch.finfo(found.dtype)
    there = twin.isfinite() & truth.isfinite() & (truth.abs() <= limits.max)
    if not there.any():
        return (0.0,) * 4
    values = (found, twin, truth, truth if own is None else own, truth if near is None else near)
    f, t, x, own, near = (v.detach().double()[there] for v in values)
    errors, size = [(f - x).abs().nan_to_num(nan=torch.inf), (t - x).abs()], x.abs().max()
    if (own - x).abs().max() > 1e-8 * size:
        return (0.0,) * 4  # in double precision they differ too: all of it is rounding
    steady = ((own - x).abs() <= 1e-15 * x.abs()) & ((near - x).abs() <= 4e-11 * x.abs())
    steady &= x.abs() > 1e-10 * size
    smallest = limits.smallest_normal
    ulp, each = (limits.eps * v.clamp(min=smallest) for v in (size, x.abs()))
    largest = [float(e.max() / ulp) for e in errors]
    return (*largest, *(float((e / each * steady).nan_to_num(0.0).max()) for e in errors))


def _scaled(value: Any, scale: float, dtype: torch.dtype) -> Any:
    """A floating point tensor in ``dtype``, what asks for a gradient ``scale`` times as large."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    scaled = value.detach() * scale if value.requires_grad else value
    return scaled.to(dtype).detach().requires_grad_(value.requires_grad)


def _both(function: Callable, leaves: list[Tensor], seed: int) -> list[Tensor]:
    """The value, and the gradients of ⟨g, value⟩; g such that single precision holds it."""
    output = function(*leaves)
    g = random_like(output.to(torch.bfloat16), seed).to(output.dtype)
    return [output, *torch.autograd.grad(output, leaves, g)]


def saturated(case: Case) -> None:
    """A saturated unit has a finite gradient: no 0 · ∞ on the way."""
    for points in case.special:
        leaves, ours, _ = replace(case, arguments=points).sides()
        large = [x.detach().nan_to_num(0.0, 1000.0, -1000.0).requires_grad_() for x in leaves]
        for found in gradients(ours, large):
            assert found.isfinite().all()


# ------------------------------------------------------------- second order, forward, functional


def second_order(case: Case) -> None:
    """The rules can be differentiated again: a finite nudge of the gradient agrees."""
    leaves, ours, _ = case.sides()
    gradgradcheck(ours, leaves, gen_non_contig_grad_outputs=True, **NUDGE)


def same_second_order(case: Case) -> None:
    """The gradient of the gradient, along random numbers, is torch's twin's."""
    leaves, ours, theirs = case.sides()

    def twice(function: Callable) -> tuple:
        output = function(*leaves)
        g = random_like(output).requires_grad_()
        first = torch.autograd.grad(output, leaves, g, create_graph=True)
        along = sum((random_like(f, seed=1) * f).sum() for f in first)
        wanted = [*leaves, g]
        return torch.autograd.grad(along, wanted, allow_unused=True, materialize_grads=True)

    close(twice(ours), twice(theirs), **SHARP)


def forward_mode(case: Case) -> None:
    """Tangents are the transpose of the rules, by torch.func.jvp and by dual numbers alike."""
    leaves, ours, theirs = case.sides()
    x = tuple(leaf.detach() for leaf in leaves)
    tangents = tuple(random_like(leaf, seed=1) for leaf in leaves)
    output, pushed = torch.func.jvp(ours, x, tangents)
    close((output, pushed), torch.func.jvp(theirs, x, tangents), **SHARP)

    with forward_ad.dual_level():
        dual = ours(*map(forward_ad.make_dual, x, tangents))
        close(forward_ad.unpack_dual(dual).tangent, pushed, **SHARP)

    pulled = gradients(ours, leaves)
    transposed = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    close((random_like(output) * pushed).sum(), transposed, **SHARP)


def per_example(case: Case) -> None:
    """vmap over the gradient is the gradient of each example."""
    examples = [case.inputs(seed, grad=False) for seed in range(3)]
    first = examples[0]
    tensors = [i for i, a in enumerate(first) if isinstance(a, Tensor)]
    wanted = [i for i, a in enumerate(case.inputs()) if isinstance(a, Tensor) and a.requires_grad]

    def cost(function: Callable) -> Callable[..., Tensor]:
        def call(*given: Tensor) -> Tensor:
            values = list(first)
            for i, tensor in zip(tensors, given, strict=True):
                values[i] = tensor
            return case.call(function, *values)

        return torch.func.grad(weighted_sum(call), tuple(map(tensors.index, wanted)))

    stacked = [torch.stack([e[i] for e in examples]) for i in tensors]
    mapped = torch.func.vmap(cost(case.ours), randomness="same")(*stacked)
    each = [cost(case.theirs)(*(e[i] for i in tensors)) for e in examples]
    close(mapped, tuple(map(torch.stack, zip(*each, strict=True))), **SHARP)


def jacobians(case: Case) -> None:
    """jacrev, jacfwd and hessian are torch's twin's."""
    leaves, ours, theirs = case.sides()
    every = tuple(range(len(leaves)))
    jacfwd, jacrev = partial(torch.func.jacfwd, randomness="same"), torch.func.jacrev
    for transform in (jacrev, jacfwd):
        close(transform(ours, every)(*leaves), transform(theirs, every)(*leaves), **SHARP)

    def hessian(function: Callable) -> tuple:
        return jacfwd(jacrev(weighted_sum(function), every), every)(*leaves)

    close(hessian(ours), hessian(theirs), **SHARP)


def compiled(case: Case) -> None:
    """torch.compile traces it whole, forwards and backwards, and changes nothing."""
    torch._dynamo.reset()
    values = case.inputs()
    leaves, ours, _ = case.sides()
    graph = torch.compile(case.ours, backend="aot_eager", fullgraph=True)
    output = case.call(graph, *values)
    close(output, ours(*leaves), **SHARP)
    wanted = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    found = torch.autograd.grad(output, wanted, random_like(output))
    close(found, gradients(ours, leaves), **SHARP)


@without_warnings("There is a performance drop")
def mapped(case: Case) -> None:
    """The gradient through vmap, from outside it, is that of each example; so is the tangent."""
    examples = [case.inputs(seed, grad=False) for seed in range(3)]
    first = examples[0]
    wanted = [i for i, a in enumerate(case.inputs()) if isinstance(a, Tensor) and a.requires_grad]
    stacked = [torch.stack([e[i] for e in examples]).requires_grad_() for i in wanted]

    def of(function: Callable) -> Callable[..., Tensor]:
        def call(*leaves: Tensor) -> Tensor:
            values = list(first)
            for i, leaf in zip(wanted, leaves, strict=True):
                values[i] = leaf
            return case.call(function, *values)

        return call

    def over(function: Callable) -> Callable[..., Tensor]:
        return torch.func.vmap(of(function), randomness="same")

    try:
        gradients(over(case.theirs), stacked)
    except RuntimeError:
        return  # torch itself cannot
    output = over(case.ours)(*stacked)
    g = random_like(output)
    found = torch.autograd.grad(output, stacked, g)
    each = [[s[n].detach().requires_grad_() for s in stacked] for n in range(3)]
    expected = [gradients(of(case.ours), leaves, gn) for leaves, gn in zip(each, g, strict=True)]
    close(found, tuple(map(torch.stack, zip(*expected, strict=True))), **SHARP)
    if case.random:
        return  # vmap forgets that the mask has no tangent
    points = [tuple(leaf.detach() for leaf in leaves) for leaves in (stacked, *each)]
    along = [tuple(random_like(s, seed=1) for s in stacked)]
    along += [tuple(t[n] for t in along[0]) for n in range(3)]
    pushed = torch.func.jvp(over(case.ours), points[0], along[0])
    one = [torch.func.jvp(of(case.ours), *pair) for pair in zip(points[1:], along[1:], strict=True)]
    close(pushed, tuple(map(torch.stack, zip(*one, strict=True))), **SHARP)


# --------------------------------------------------------------------------- types and layouts


def own_shapes(case: Case) -> None:
    """A rule itself returns its argument's shape and dtype; autograd would mend both in silence."""
    for dtype in (torch.double, torch.float):
        leaves, ours, _ = case.sides(dtype=dtype)
        output = ours(*leaves)
        node = output.grad_fn
        if node is None or is_structural(node):
            continue  # the input itself, as it came, or moved
        # The engine makes up zeros for the outputs that went unused.
        incoming = [
            torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata
        ]
        incoming[output.output_nr] = random_like(output)
        returned = node.apply(*incoming)
        pulled = returned if isinstance(returned, tuple) else (returned,)
        receivers = [f for f, _ in node.next_functions if f is not None]
        for found, f in zip((p for p in pulled if p is not None), receivers, strict=True):
            if hasattr(f, "variable"):
                assert (found.shape, found.dtype) == (f.variable.shape, f.variable.dtype)


def dtypes(case: Case) -> None:
    """The output has the dtype and shape of the twin's, each gradient those of its input."""
    for dtype in (torch.double, torch.float, torch.bfloat16):
        leaves, ours, theirs = case.sides(dtype=dtype)
        output, twin = ours(*leaves), theirs(*leaves)
        assert (output.dtype, output.shape) == (twin.dtype, twin.shape)
        for found, leaf in zip(gradients(ours, leaves), leaves, strict=True):
            assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape)


def complex_numbers(case: Case) -> None:
    """Of complex numbers, where torch takes them, everything is torch's; on a tape too."""
    leaves, ours, theirs = case.sides(dtype=torch.cdouble)
    try:
        expected = (theirs(*leaves), gradients(theirs, leaves))
    except Exception:
        return
    try:
        output = ours(*leaves)
    except Exception:
        if getattr(case.theirs, "__module__", None) in ("torch.nn.functional", None):
            raise
        return  # the twin is made of other operations than torch's function, which refuses too
    close((output, gradients(ours, leaves)), expected, **SHARP)
    computed = not any(output is leaf for leaf in leaves)
    if not computed or not output.isfinite().all() or not _by_formula(output):
        return
    gradcheck(ours, leaves, **NUDGE)
    tangents = tuple(random_like(leaf, seed=1) for leaf in leaves)
    pushed = torch.func.jvp(ours, tuple(leaf.detach() for leaf in leaves), tangents)[1]
    pulled = sum((p * t.conj()).sum() for p, t in zip(expected[1], tangents, strict=True))
    close((random_like(output) * pushed.conj()).sum().real, pulled.real, **SHARP)
    with manualbp.Tape() as tape:
        output = ours(*leaves)
    tape.backprop(output, random_like(output))
    close([leaf.grad for leaf in leaves], list(expected[1]), **SHARP)
    # On the left a root may have another sign.
    left = [(-leaf).detach().requires_grad_() for leaf in leaves]
    close(gradients(ours, left), gradients(theirs, left), **SHARP)


def _by_formula(output: Tensor) -> bool:
    """Whether all that is behind an output is a formula, or moves values."""
    return all(is_structural(n) or hasattr(n, "_forward_cls") for n in nodes(output.grad_fn))


def autocast(case: Case) -> None:
    """Under bfloat16 autocast: the twin's output dtype, the input's gradient dtype, both close."""
    leaves, ours, theirs = case.sides(dtype=torch.float)
    with torch.autocast("cpu", torch.bfloat16):
        output, twin = ours(*leaves), theirs(*leaves)
    assert output.dtype == twin.dtype
    coarse = {"rtol": 2e-2, "atol": 2e-2}
    close(output, twin, **coarse)
    found = torch.autograd.grad(output, leaves, random_like(output))
    close(found, torch.autograd.grad(twin, leaves, random_like(twin)), **coarse)


def strides(case: Case) -> None:
    """Any strides will do: of the inputs, and of the gradient that arrives."""
    leaves, ours, _ = case.sides()
    output = ours(*leaves)
    for g in _layouts(output):
        expected = gradients(ours, leaves, g.contiguous())
        close(gradients(ours, leaves, g), expected, **SHARP)
        gapped = [_gaps(leaf.detach()).requires_grad_() for leaf in leaves]
        close(gradients(ours, gapped, g), expected, **SHARP)


def _layouts(output: Tensor) -> list[Tensor]:
    """Gradients as they arrive from a sum, a cat, a transpose, a strided slice."""
    g = random_like(output)
    layouts = [random_like(output.new_empty(())).expand(output.shape), _gaps(g)]
    if g.ndim:
        layouts += [torch.cat([g, g], -1).narrow(-1, g.shape[-1], g.shape[-1])]
        layouts += [g.movedim(0, -1).contiguous().movedim(-1, 0)]
    return layouts


def _gaps(tensor: Tensor) -> Tensor:
    """The same numbers, with nan between one and the next."""
    apart = tensor.new_full((*tensor.shape, 2), torch.nan)
    apart[..., 0] = tensor
    return apart[..., 0]


# ------------------------------------------------------------------------------- side effects


def written_over(case: Case) -> None:
    """Where torch lets its value be written over before the backward pass, ours may be too."""

    def doubled(function: Callable) -> Callable[..., Tensor]:
        return lambda *leaves: function(*leaves).mul_(2.0)

    leaves, ours, theirs = case.sides()
    try:
        gradients(doubled(theirs), leaves)
    except RuntimeError:
        return
    g = random_like(ours(*leaves))
    close(gradients(doubled(ours), leaves, g), gradients(ours, leaves, 2 * g), **SHARP)


def inputs_unchanged(case: Case) -> None:
    """Neither inputs nor the gradient that arrives are written to."""
    values = case.inputs()
    before = [(v.detach().clone(), v._version) if isinstance(v, Tensor) else v for v in values]
    output = case.call(case.ours, *values)
    wanted = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    g = random_like(output)
    torch.autograd.grad(output, wanted, g)
    close(g, random_like(output), rtol=0, atol=0)
    assert g._version == 0
    for v, was in zip(values, before, strict=True):
        if isinstance(v, Tensor):
            close(v.detach(), was[0], rtol=0, atol=0)
            assert v._version == was[1]


def aliases(case: Case) -> None:
    """The output shares memory with the inputs that the twin's shares memory with, and no others.

    With a gradient wanted or not: what is written into the output changes as many inputs.
    """
    for grad in (True, False):
        shared = []
        for function in (case.ours, case.theirs):
            values = case.inputs(grad=grad)
            output = case.call(function, *values)
            shared.append([_overlap(output, v) for v in values if isinstance(v, Tensor)])
        assert shared[0] == shared[1]


def _overlap(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() != 0


def frozen(case: Case) -> None:
    """Where no gradient is wanted none is prepared: nothing is saved, nothing recorded."""
    for grad_enabled in (True, False):
        values = case.inputs(grad=not grad_enabled)
        with torch.set_grad_enabled(grad_enabled):
            output, saved = _saving(case.ours, case, values)
        assert output.grad_fn is None
        assert saved == 0


def thrifty(case: Case) -> None:
    """No more bytes are kept for the backward pass than torch keeps, whichever gradient it is."""
    wanted = [i for i, a in enumerate(case.inputs()) if isinstance(a, Tensor) and a.requires_grad]
    for subset in [wanted, *([i] for i in wanted)]:
        kept = []
        for function in (case.ours, case.theirs):
            values = case.inputs(grad=False)
            for i in subset:
                values[i].requires_grad_()
            kept.append(_saving(function, case, values)[1])
        assert kept[0] <= kept[1], f"{kept[0]} bytes, torch {kept[1]}"


def _saving(function: Callable, case: Case, values: list[Any]) -> tuple[Tensor, int]:
    """The output, and the bytes of distinct storage kept for its backward pass."""
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        known = saved.get(tensor.data_ptr())
        if known is None or known.nbytes < tensor.nbytes:
            saved[tensor.data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = case.call(function, *values)
    return output, sum(t.nbytes for t in saved.values())


def freed(case: Case) -> None:
    """What is kept is kept as autograd keeps it: used again if asked to, freed if not."""
    leaves, ours, _ = case.sides()
    first, again = gradients(ours, leaves), ours(*leaves)
    g = random_like(again)
    kept = torch.autograd.grad(again, leaves, g, retain_graph=True)
    close(kept, first, rtol=0, atol=0)
    hidden = [v for v in _flat(getattr(again.grad_fn, "__dict__", {})) if isinstance(v, Tensor)]
    assert not hidden, "a tensor is kept out of autograd's sight"
    torch.autograd.grad(again, leaves, g)
    _, saved = _saving(case.ours, case, case.inputs())
    if saved:
        with pytest.raises(RuntimeError, match="a second time"):
            torch.autograd.grad(again, leaves, g)


def _flat(value: Any) -> list[Any]:
    """What lies in a nest of dictionaries, lists and tuples."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [v for item in value for v in _flat(item)] if type(value) in (tuple, list) else [value]


def inference_mode(case: Case) -> None:
    """In inference mode it runs as torch's twin does."""
    leaves, ours, theirs = case.sides()
    with torch.inference_mode():
        close(ours(*leaves), theirs(*leaves), **SHARP)


def without_values(case: Case) -> None:
    """On the meta device and of fake tensors: the twin's shapes and dtypes, forwards and back."""
    with torch.device("meta"):
        leaves, ours, theirs = case.sides(device="meta")
        _same_kinds(ours, theirs, leaves)
    # Without the marks of constants, which torch would take for parts of a subclass.
    inputs = [_unmarked(a) if isinstance(a, Tensor) else a for a in case.inputs()]
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in inputs]
        wanted = [i for i, a in enumerate(fake) if isinstance(a, Tensor) and a.requires_grad]

        def of_wanted(function: Callable) -> Callable[..., Tensor]:
            def call(*leaves: Tensor) -> Tensor:
                values = list(fake)
                for i, leaf in zip(wanted, leaves, strict=True):
                    values[i] = leaf
                return case.call(function, *values)

            return call

        _same_kinds(of_wanted(case.ours), of_wanted(case.theirs), [fake[i] for i in wanted])


def _unmarked(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _same_kinds(ours: Callable, theirs: Callable, leaves: list[Tensor]) -> None:
    def kinds(function: Callable) -> list[Any]:
        output = function(*leaves)
        pulled = torch.autograd.grad(output, leaves, torch.empty_like(output), allow_unused=True)
        return [None if t is None else (t.shape, t.dtype, t.device) for t in (output, *pulled)]

    try:
        expected = kinds(theirs)
    except Exception:
        return  # torch's asks for a value, or has no kernel for the meta device
    for mine, other in zip(kinds(ours), expected, strict=True):
        assert other is None or mine == other  # torch has none of a cost's weight there


def threads(case: Case) -> None:
    """Two threads at once, each between its forward and backward pass: no state is shared."""
    expected = [gradients(ours, leaves) for leaves, ours, _ in map(case.sides, range(2))]
    meet, drawing = Barrier(2, timeout=30), Lock() if case.random else nullcontext()

    def work(seed: int) -> tuple:
        leaves, ours, _ = case.sides(seed)
        with drawing:  # torch's random numbers are shared
            output = ours(*leaves)
        meet.wait()
        return torch.autograd.grad(output, leaves, random_like(output))

    with ThreadPoolExecutor(2) as pool:
        close(list(pool.map(work, range(2))), expected, rtol=0, atol=0)


def checkpointed(case: Case) -> None:
    """Activation checkpointing recomputes it and finds the same gradient."""
    leaves, ours, _ = case.sides()
    found = gradients(lambda *x: checkpoint(ours, *x, use_reentrant=False), leaves)
    close(found, gradients(ours, leaves), rtol=0, atol=0)


def explicit(case: Case) -> None:
    """Every node of the graph is a formula of ours under its own name, or only moves values."""
    leaves, ours, _ = case.sides()
    output = ours(*leaves)
    assert output.grad_fn or any(output is leaf for leaf in leaves)
    for node in nodes(output.grad_fn):
        if not is_structural(node):
            assert type(node).__name__ == f"{_formula(node).__name__}Backward"


def _formula(node: Any) -> type[manualbp.Formula]:
    """The formula behind a node of the graph."""
    formula = getattr(getattr(node, "_forward_cls", None), "formula", None)
    assert formula is not None, f"{type(node).__name__} is not a formula of ours"
    return formula


def taped(case: Case) -> None:
    """On a tape it gives autograd's gradients."""
    leaves, ours, _ = case.sides()
    expected = gradients(ours, leaves)
    with manualbp.Tape() as tape:
        output = ours(*leaves)
    if any(output is leaf for leaf in leaves):
        return  # nothing was computed
    tape.backprop(output, random_like(output))
    close([leaf.grad for leaf in leaves], list(expected), **SHARP)


def on_cuda(case: Case) -> None:
    """On a GPU: value and gradient are the twin's there, and nothing waits for the CPU."""
    for dtype, tolerance in ((torch.double, SHARP), (torch.float, {"rtol": 1e-5, "atol": 1e-5})):
        leaves, ours, theirs = case.sides(device="cuda", dtype=dtype)
        g = random_like(ours(*leaves))
        torch.cuda.set_sync_debug_mode("default" if case.random else "error")
        try:
            output, found = ours(*leaves), gradients(ours, leaves, g)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        close(output, theirs(*leaves), **tolerance)
        close(found, gradients(theirs, leaves, g), **tolerance)


PROPERTIES = (
    value,
    gradient,
    same_gradient,
    partial_gradients,
    special_values,
    precise,
    precision,
    saturated,
    second_order,
    same_second_order,
    forward_mode,
    per_example,
    jacobians,
    compiled,
    mapped,
    own_shapes,
    dtypes,
    complex_numbers,
    autocast,
    strides,
    written_over,
    inputs_unchanged,
    aliases,
    frozen,
    thrifty,
    freed,
    inference_mode,
    without_values,
    threads,
    checkpointed,
    explicit,
    taped,
    on_cuda,
)

#: 5 ms a case and more; what an error breaks besides, the others show first
SLOW = {
    precision,
    second_order,
    forward_mode,
    per_example,
    jacobians,
    compiled,
    mapped,
    dtypes,
    complex_numbers,
    autocast,
    strides,
    without_values,
    freed,
    threads,
    checkpointed,
    partial_gradients,
    written_over,
    inference_mode,
}
