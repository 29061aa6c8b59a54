"""intercept: unmodified code by formula. coverage: whose derivative each step is."""

import inspect
import operator
import threading
import warnings
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from twins import called, difference, foreign

import manualbp
from manualbp import coverage, functional, intercept
from manualbp.functional._override import twins

x = torch.randn(4, 3, dtype=torch.double)
w = torch.randn(3, 3, dtype=torch.double)
y = torch.randn(4, 3, dtype=torch.double)

#: expressions of two leaves, x (4, 3) and w (3, 3)
EXPRESSIONS = {
    "operators": lambda x, w: (2 - x @ w) / (1 + x.abs()) ** 2 - 3 / (x * x + 1) + (-x) * 2.0,
    "powers": lambda x, w: x.abs() ** 1.5 + 2**x + (x**2).pow(0.5),
    "methods": lambda x, w: x.sigmoid().mul(w.mean(0)).sub(x.sum(1, keepdim=True)).tanh(),
    "reductions": lambda x, w: x.var(1) + x.std(dim=1) + x.amax(1) + x.norm(dim=1) + x.max(1)[0],
    "of torch": lambda x, w: torch.cat([torch.exp(x), torch.sin(w)]).clamp(-1, 1),
    "stacked": lambda x, w: torch.stack([x, x + 1], dim=1).flatten(),
    "functions": lambda x, w: F.layer_norm(F.gelu(F.linear(x, w)), (3,)).softmax(-1),
    "indexing": lambda x, w: x[1:, None] + x[torch.tensor([0, 2])][0] + x[x > 0].mean(),
    "einsum": lambda x, w: torch.einsum("ij,jk->ik", x, w),
    "in place": lambda x, w: (x * 1).add_(w[0]).mul_(2).clamp_(max=1.0).relu_(),
    "augmented": lambda x, w: augmented(x, w),
    "where": lambda x, w: torch.where(x > 0, x, 0.1 * x).masked_fill(x > 1, 0.0),
    "attention": lambda x, w: F.multi_head_attention_forward(
        x[:, None], x[:, None], x[:, None], 3, 1, w.repeat(3, 1), None, None, None, False, 0.0, w,
        None,
    )[0],
    "orders of parameters": lambda x, w: (
        x.softmax(-1, torch.double) + torch.log_softmax(x, -1, torch.double)
        + x.where(x > 0, 2 * x) + torch.max(x, w[:1]) + x.min(w[:1]) + x.var(False)
        + x.unfold(1, 2, 1).sum(1)[:, :1] + x.mean((0, 1)) + torch.maximum(x, 2 * x)
        + x.sum(-1, True) + torch.pow(2, x) + x.clamp(0) + x.std(1, keepdim=True, unbiased=False)
    ),
    "splitting": lambda x, w: sum(part.exp() for part in x.split(1, dim=1)) + x.chunk(3, 1)[0],
    "normalize": lambda x, w: F.normalize(x, dim=1).T @ F.softmax(x, dim=0),
}  # fmt: skip


def augmented(x, w):
    y = x + 0
    y += w[0]
    y *= 2
    y -= x
    y /= 3
    y[0] = x[1]
    return y


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_it_is_the_same_and_explicit(name):
    function = EXPRESSIONS[name]
    results = []
    for context in (intercept(), torch.enable_grad()):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        with context:
            output = function(*leaves)
        g = torch.linspace(-1, 1, output.numel(), dtype=torch.double).reshape(output.shape)
        if isinstance(context, intercept):
            found = coverage(output)
            assert not found.foreign, found
            assert found.explicit and found.fraction == 1.0 and found.uses_explicit
        results.append((output, torch.autograd.grad(output, leaves, g, allow_unused=True)))
    (ours, given), (theirs, expected) = results
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(given, expected, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_the_table_is_made_from_names():
    table = twins()
    assert table[F.linear] is functional.linear
    assert table[torch.Tensor.matmul] is functional.matmul
    assert table[torch.relu] is table[torch.Tensor.relu] is functional.relu
    assert torch.Tensor.unfold not in table and torch.embedding not in table
    assert set(table.values()) >= {
        inspect.unwrap(f)
        for n, f in vars(functional).items()
        if callable(f) and hasattr(F, n) and n[0] != "_"
    } - {inspect.unwrap(functional.triplet_margin_with_distance_loss)}


def test_a_name_that_means_something_else_is_no_twin():
    table = twins()
    for other in (torch.linalg.norm, torch.Tensor.index, torch.Tensor.unfold, torch.ctc_loss):
        assert other not in table
    for ord in (None, 2, 1, "fro", "nuc", float("inf")):
        leaf = w.clone().requires_grad_()
        with intercept():
            found = torch.linalg.norm(leaf, ord)
        assert_close(found, torch.linalg.norm(w, ord))


def test_what_wants_no_gradient_is_torch_s():
    with intercept():
        assert (x + 1).grad_fn is None
        with torch.no_grad():
            assert (x.clone().requires_grad_() * 2).grad_fn is None
        assert torch.add(x, 1, out=torch.empty_like(x)).grad_fn is None
        assert torch.arange(3)[1] + 1 == 2


def test_complex_numbers_are_left_to_torch():
    z = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    with intercept():
        cost = (z * z.conj()).real.sum()
    assert coverage(cost).foreign
    cost.backward()


def test_it_ends_with_the_block_and_is_entered_once():
    leaf = x.clone().requires_grad_()
    with intercept(), intercept():
        inside = leaf * 2
    after = leaf * 2
    assert coverage(inside).fraction == 1.0
    assert coverage(after).fraction == 0.0
    with pytest.raises(ZeroDivisionError), intercept():
        leaf / (1 // 0)
    assert coverage(leaf * 2).fraction == 0.0


def test_it_belongs_to_its_thread():
    leaf, names = x.clone().requires_grad_(), []

    def work():
        names.append((leaf * 2).grad_fn.name())

    with intercept():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert names == ["MulBackward0"]


def test_the_transforms_of_torch_func():
    def cost(w, row):
        return ((row @ w).relu() * 2).sum()

    with intercept():
        each = torch.func.vmap(torch.func.grad(cost), (None, 0))(w, x)
        _, pushed = torch.func.jvp(lambda w: cost(w, x), (w,), (w,))
        second = torch.func.hessian(lambda row: (row @ w).sigmoid().sum())(x[0])
    assert_close(each, torch.func.vmap(torch.func.grad(cost), (None, 0))(w, x))
    assert_close(pushed, torch.func.jvp(lambda w: cost(w, x), (w,), (w,))[1])
    assert_close(second, torch.func.hessian(lambda row: (row @ w).sigmoid().sum())(x[0]))


def test_on_a_tape():
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()

    def cost(t):
        return ((t @ w).relu() + t.exp()).square().mean()

    with manualbp.Tape() as tape, intercept():
        recorded = cost(leaf)
    tape.backprop(recorded)
    cost(twin).backward()
    assert_close(leaf.grad, twin.grad)


def test_recomputation_with_a_context_of_its_own():
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()

    def block(t):
        return (t @ w).sigmoid() * t

    with intercept():
        output = checkpoint(
            block, leaf, use_reentrant=False, context_fn=lambda: (intercept(), intercept())
        )
    output.sum().backward()
    block(twin).sum().backward()
    assert_close(leaf.grad, twin.grad)


# -------------------------------------------------------------------------------------- coverage


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x):
        return (self.second(self.first(x)) + self.first.bias).logsumexp(1)


def test_torch_s_own_model_is_foreign():
    found = coverage(Net()(x.float()).sum())
    assert found.fraction == 0.0
    assert {s.name for s in found.foreign} >= {"Addmm", "Relu", "Add", "Sum"}
    assert not found.uses_explicit


def test_converted_it_is_explicit_but_for_operators():
    net = Net()
    manualbp.convert(net)
    found = coverage(net(x.float()), net)
    assert {s.name for s in found.explicit} == {"Linear", "ReLU"}
    assert {s.name for s in found.foreign} == {"Add", "Logsumexp"}
    uses = {use.name: use for use in found.parameters}
    assert uses["first.bias"].explicit and uses["first.bias"].foreign
    assert uses["second.0.weight"].explicit == ("Linear",)
    assert not found.uses_explicit
    assert 0 < found.fraction < 1
    assert "first.bias" in str(found) and "Logsumexp" in str(found)


def test_the_module_is_named():
    net = Net()
    with intercept():
        cost = net(x.float()).sum()
    found = coverage(cost, net)
    paths = {(s.name, s.path) for s in found.explicit}
    assert {("Linear", "first"), ("Linear", "second.0"), ("ReLU", "second.1")} <= paths
    assert ("Add", "Net") in paths
    assert found.fraction == 1.0


def test_anybody_s_function_is_explicit_and_a_hidden_derivative_is_not():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            return 2 * input

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    leaf = x.clone().requires_grad_()
    assert coverage(Double.apply(leaf)).fraction == 1.0
    reentrant = checkpoint(torch.sin, leaf, use_reentrant=True)
    assert coverage(reentrant).foreign
    compiled = torch.compile(torch.sin, backend="aot_eager")(leaf)
    assert coverage(compiled).foreign


def test_a_history_is_asked_for():
    with pytest.raises(ValueError, match="loss: expected a tensor with a history"):
        coverage(x)
    with pytest.raises(ValueError, match="got float"):
        coverage(1.0)


# --------------------------------------------------------------------- what a call may look like


def agrees(function, *arguments, by_formula: bool | None = True, leaf: bool = True):
    """Outside and inside: values, strides, aliasing, what is written to, errors, gradients."""
    theirs, ours = (called(function, arguments, {}, inside, leaf) for inside in (False, True))
    assert not (differs := difference(theirs, ours)), differs
    if by_formula is not None and not theirs.error:
        assert (foreign(ours) == []) == by_formula, foreign(ours)


#: x of 4 by 3, w of 3 by 3, y like x
SPELLINGS = {
    "axis": lambda x, w, y: x.sum(axis=1) + x.mean(axis=1) + torch.amax(x, axis=1),
    "keepdims": lambda x, w, y: x.sum(1, keepdims=True) + torch.mean(input=x, dim=1, keepdims=True),
    "axis and keepdims": lambda x, w, y: x.max(axis=1, keepdims=True)[0] + x.norm(dim=1)[:, None],
    "x2": lambda x, w, y: torch.mul(x, x2=y) + torch.add(x1=x, x2=y) + torch.sum(a=x),
    "x": lambda x, w, y: torch.exp(x=x) + torch.cumsum(x=x, axis=0) + torch.softmax(x, axis=1),
    "axes": lambda x, w, y: x.var(axis=(0, 1)) + x.std(axis=[0]) + torch.logsumexp(x, axis=0),
    "of several": lambda x, w, y: torch.cat([x, y], axis=1) + torch.stack([x, y], axis=2).sum(),
    "no axes": lambda x, w, y: x.sum(dim=()) + x.mean(dim=[]) + x.amax(dim=()) + x.norm(dim=()),
    "numbers on the left": lambda x, w, y: (2 - x) + 3 * x + 1 / (2 + x * x) + 2**x + True * x,
    "numbers of numpy": lambda x, w, y: np.float64(2) * x + x * np.int64(3) + x / np.float32(2),
    "axes of numpy": lambda x, w, y: (
        x.max(np.int64(1))[0] + x.sum(np.int64(1)) + x.amax(np.int64(1))
    ),
    "a number of numpy among numbers": lambda x, w, y: torch.xlogy(x, np.float64(1.5)),
    "an axis in a tensor": lambda x, w, y: (
        x.max(dim=torch.tensor(1))[0] + x.median(torch.tensor(1))[0] + x.prod(axis=torch.tensor(1))
    ),
    "a power of whole numbers": lambda x, w, y: torch.tensor([2, 3, 5]) ** y,
    "tensors of one number": lambda x, w, y: x * torch.tensor(2) + torch.tensor(2.0).double() ** x,
    "of other dtypes": lambda x, w, y: x * (y > 0) + x * torch.arange(3) + x.float() * y,
    "the matrix product": lambda x, w, y: (x @ w).T @ x + torch.linalg.matmul(x, w).sum(),
    "in place of itself": lambda x, w, y: (x * 1).mul_(y).add_(y, alpha=2).sub_(1).neg_(),
    "augmented": lambda x, w, y: operator.ipow(operator.itruediv(operator.imul(x + 0, y), 2), 2),
    "compared": lambda x, w, y: torch.where(x > y, x, 0) + x.where(y > 0, 0.5) + x.maximum(y),
    "a mask without axes": lambda x, w, y: x[torch.tensor(True)] * x[True] + x[None, True].sum(),
    "nothing chosen": lambda x, w, y: x[[]].sum() + x[torch.tensor([], dtype=torch.long)].sum(),
    "an index and a bool": lambda x, w, y: x[torch.tensor([0, 2]), True].sum(1),
    "an index and views": lambda x, w, y: x[..., torch.tensor([0, 2])][None, 1:, [1, 0]],
    "negative places": lambda x, w, y: x.take_along_dim(torch.tensor([[-1], [0]] * 2), 1),
    "a distance of one's own": lambda x, w, y: F.triplet_margin_with_distance_loss(
        x, y, w[:1], distance_function=lambda a, b: (a - b).abs().sum(-1)
    ),
    "weights of costs": lambda x, w, y: F.l1_loss(x, y, weight=w[:1].abs().expand(4, 3).clone()),
}
#: calls that torch's own functions run, whole or in part
TORCH_S_OWN = {
    "a deprecated order": lambda x, w, y: torch.add(x, 2, y),
    "deprecated products": lambda x, w, y: torch.addmm(2, x, 3, x, w),
    "one argument": lambda x, w, y: torch.where(x)[0],
    "scattered products": lambda x, w, y: x.scatter(
        1, torch.zeros(4, 1, dtype=torch.long), 2.0, reduce="multiply"
    ),
    "five tensors": lambda x, w, y: x.reshape(2, 2, 3, 1, 1)[(torch.tensor([0]),) * 5],
    "a list of lists": lambda x, w, y: x[[[0, 1], [1, 0]]],
    "singular values": lambda x, w, y: x.norm("nuc") + torch.linalg.norm(x, 2),
    "views": lambda x, w, y: (x * 1).flatten(),
    "complex numbers": lambda x, w, y: (x + 1j) * (2j - y) + x.sum(dtype=torch.cdouble),
}  # fmt: skip
REFUSED = {
    "shapes": lambda x, w, y: x + w,
    "an axis": lambda x, w, y: x.sum(5),
    "axes twice": lambda x, w, y: x.sum((0, 0)),
    "a dtype": lambda x, w, y: x.to(torch.int) @ w,
    "inner sizes": lambda x, w, y: x @ x,
    "a string": lambda x, w, y: F.mse_loss(x, y, reduction="median"),
    "a number out of range": lambda x, w, y: F.dropout(x, 2.0),
    "a name": lambda x, w, y: x.sum(axes=1),
    "an index": lambda x, w, y: x[torch.tensor([7])],
    "whole numbers with a gradient": lambda x, w, y: x.sum(dtype=torch.int),
    "a narrower norm": lambda x, w, y: torch.norm(x, dtype=torch.float),
    "less than no copies": lambda x, w, y: x.repeat_interleave(-1),
    "an index of floats": lambda x, w, y: x[torch.tensor([1.0])],
    "indices of other shapes": lambda x, w, y: x[torch.tensor([0, 1, 2]), torch.tensor([0, 1])],
    "a mask of another shape": lambda x, w, y: x[torch.ones(3, dtype=torch.bool)],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_call(name):
    agrees(SPELLINGS[name], x.clone().requires_grad_(), w.clone().requires_grad_(), y)


@pytest.mark.parametrize("name", TORCH_S_OWN)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_formula_runs_as_torch_s_own(name):
    agrees(TORCH_S_OWN[name], x.clone().requires_grad_(), w, y, by_formula=None)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_by_torch(name):
    arguments = x.clone().requires_grad_(), w, y
    theirs, ours = (called(REFUSED[name], arguments, {}, inside) for inside in (False, True))
    assert theirs.error is not None
    assert (type(theirs.error), str(theirs.error)) == (type(ours.error), str(ours.error))


def test_the_error_of_a_hook_is_not_taken_for_a_wrong_argument():
    class Stop(Exception):
        pass

    seen = []

    def pack(tensor):
        seen.append(tensor)
        raise Stop

    with pytest.raises(Stop), intercept():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            x.clone().requires_grad_().exp()
    assert len(seen) == 1


def test_a_tape_names_what_it_has_no_formula_of():
    leaf = x.clone().requires_grad_()
    with manualbp.Tape(), intercept(), pytest.raises(RuntimeError, match="torch's own Renorm"):
        (leaf * 2).renorm(2, 0, 1.0).relu()


# -------------------------------------------------------------------------------------- in place


def of_h(write):
    """A function of a leaf: something is done to h = 2 x in place, and all of h is returned."""

    def function(x, w, y):
        h = x * 2
        given = write(h, w, y)
        return h, given

    return function


FIRST = torch.tensor([0, 0])
WRITES = {
    "a row": lambda h, w, y: h[0].add_(1),
    "a row by another": lambda h, w, y: h[0].mul_(h[1] * 1),
    "a flat view": lambda h, w, y: h.view(-1).mul_(2),
    "flattened": lambda h, w, y: h.flatten().mul_(3),
    "a number of what is flattened": lambda h, w, y: operator.setitem(h.flatten(), 0, 0.0),
    "reshaped": lambda h, w, y: h.reshape(3, 4).exp_(),
    "transposed": lambda h, w, y: h.T.relu_(),
    "turned, not flat": lambda h, w, y: h.T.flatten().relu_(),
    "a slice": lambda h, w, y: h[:, 1:].clamp_(-1, 1),
    "squeezed": lambda h, w, y: h[None].squeeze(0).sigmoid_(),
    "narrowed": lambda h, w, y: h.narrow(1, 0, 2).tanh_(),
    "moved": lambda h, w, y: h.movedim(0, 1).pow_(2),
    "a diagonal": lambda h, w, y: h[:3].diagonal().sub_(w[0]),
    "of the same dtype": lambda h, w, y: h.to(torch.double).div_(3),
    "contiguous": lambda h, w, y: h.contiguous().neg_(),
    "of another dtype": lambda h, w, y: h.float().neg_(),
    "one of several": lambda h, w, y: h.split(2)[0].abs().add_(1),
    "by itself": lambda h, w, y: h.mul_(h),
    "by what depends on it": lambda h, w, y: h.mul_(h.sum(0)).addcmul_(h * 1, y, value=2),
    "by a leaf": lambda h, w, y: h.addmm_(y, w, beta=2),
    "by float32": lambda h, w, y: h.add_(y.float()),
    "into float32": lambda h, w, y: h.float().add_(y),
    "where a mask is set": lambda h, w, y: h.masked_fill_(y > 0, 1.0),
    "at places": lambda h, w, y: h.index_add_(0, FIRST, y[:2]).index_fill_(1, FIRST, 2.0),
    "scattered": lambda h, w, y: h.scatter_(1, torch.zeros(4, 1, dtype=torch.long), y),
    "nothing dropped": lambda h, w, y: torch.dropout_(h, 0.5, False),
    "dropped": lambda h, w, y: torch.dropout_(h, 0.5, True),
    "functions": lambda h, w, y: F.relu_(F.elu_(h) * 1),
    "inplace=True": lambda h, w, y: F.leaky_relu(F.relu(h, inplace=True) + y, 0.1, inplace=True),
    "in another dtype": lambda h, w, y: h.cumsum_(0, dtype=torch.float),
    "a view, inplace=True": lambda h, w, y: F.relu(h.view(-1), inplace=True),
    "a view dropped": lambda h, w, y: F.dropout(h.flatten(), 0.5, inplace=True),
    "triangles": lambda h, w, y: h.tril_().cumsum_(0),
    "rounded": lambda h, w, y: h.round_().fmod_(2.5),
    "augmented": lambda h, w, y: operator.iadd(h[1:], w),
    "an item": lambda h, w, y: operator.setitem(h, (slice(None), 0), y[:, 0]),
    "of indices": lambda h, w, y: h[torch.tensor([0, 0, 2])].mul_(2),
    "another of its rows": lambda h, w, y: h[0].add_(h[1]),
    "aliases of it": lambda h, w, y: h.view(-1).add_(h.view(-1)),
    "a copy of a stretched one": lambda h, w, y: h[:1].expand(4, 3).clone().add_(1),
    "dropped by torch's views": lambda h, w, y: h.view(2, 6).chunk(2, 1)[0].t().exp(),
}  # fmt: skip
NOT_WRITTEN = {
    "a leaf": lambda x, w, y: x.add_(1),
    "a view of a leaf": lambda x, w, y: x[0].mul_(2),
    "a leaf, by relu": lambda x, w, y: F.relu_(x),
    "a leaf, inplace=True": lambda x, w, y: F.relu(x, inplace=True),
    "a smaller one": lambda x, w, y: (x[0] * 1).add_(x),
    "a number": lambda x, w, y: torch.tensor(1.0).mul_(x),
    "integers": lambda x, w, y: torch.ones(4, 3, dtype=torch.int).add_(x),
    "truth values": lambda x, w, y: (y > 0).mul_(x),
    "a stretched one": lambda x, w, y: (x * 1)[:1].expand(4, 3).add_(1),
    "a stretched one, by relu": lambda x, w, y: F.relu_((x * 1)[:1].expand(4, 3)),
    "one of several": lambda x, w, y: (x * 1).unbind(0)[0].add_(1),
    "one of several, by relu": lambda x, w, y: F.relu_((x * 1).unbind(0)[0]),
    "what overlaps": lambda x, w, y: (h := x * 1)[1:].add_(h[:-1]),
    "what is turned": lambda x, w, y: (h := x[:3] * 1).add_(h.T),
    "by complex numbers": lambda x, w, y: (x * 1).mul_(1j),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_in_place(name):
    """Through every view, as torch does it: values, versions, aliasing and gradients."""
    arguments = (t.clone().requires_grad_() for t in (x, w, y))
    agrees(of_h(WRITES[name]), *arguments, by_formula=None)


@pytest.mark.parametrize("name", NOT_WRITTEN)
def test_what_torch_does_not_write_to(name):
    arguments = [t.clone().requires_grad_() for t in (x, w, y)]
    theirs, ours = (called(NOT_WRITTEN[name], arguments, {}, inside) for inside in (False, True))
    assert theirs.error is not None
    assert (type(theirs.error), str(theirs.error)) == (type(ours.error), str(ours.error))
    for given, before in zip(ours.given, arguments, strict=True):
        assert torch.equal(given, before)


def test_a_value_overwritten_after_it_was_saved():
    leaf = x.clone().requires_grad_()
    with intercept():
        output = (h := leaf.exp()) * 2
        h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# ------------------------------------------------------------------------------- other tensors


class Tagged(torch.Tensor):
    """A class of its own, which does what torch's functions do."""


class Logged(torch.Tensor):
    """One that has its own way with torch's functions."""

    names: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.names.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_subclasses_keep_their_ways():
    tagged = x.clone().as_subclass(Tagged).requires_grad_()
    with intercept():
        output = (tagged * 2).relu().sum(1)
    assert type(output) is Tagged
    assert coverage(output).fraction == 1.0
    logged = x.clone().as_subclass(Logged).requires_grad_()
    Logged.names.clear()
    with intercept():
        (logged * 2).relu()
    assert Logged.names == ["mul", "relu"]


def test_sparse_and_nested_tensors_are_torch_s():
    values = w.clone().requires_grad_()
    sparse = w.to_sparse().requires_grad_()
    results = []
    for inside in (False, True):
        with intercept() if inside else nullcontext():
            product = sparse @ values
        results.append(torch.autograd.grad(product.sum(), (sparse, values)))
    assert_close(*results)
    rows = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    with intercept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layout in (torch.strided, torch.jagged):
            nested = torch.nested.as_nested_tensor(rows, layout=layout)
            cost = torch.nested.to_padded_tensor(nested.relu() * 2, 0.0).sum()
            for row, g in zip(rows, torch.autograd.grad(cost, rows), strict=True):
                assert_close(g, 2.0 * (row > 0).double())


# ------------------------------------------------------------------------------------- the context


def test_it_decorates_a_function():
    @intercept()
    def cost(leaf: torch.Tensor, power: int = 2) -> torch.Tensor:
        """Its own words."""
        return (leaf**power).sum() if power < 3 else cost(leaf, power=power - 1)

    leaf = x.clone().requires_grad_()
    assert cost.__name__ == "cost" and cost.__doc__ == "Its own words."
    for found in (cost(leaf), cost(leaf, power=5)):
        assert coverage(found).fraction == 1.0
    assert coverage((leaf * 2).sum()).fraction == 0.0
    with pytest.raises(ZeroDivisionError):
        intercept()(lambda: 1 // 0)()
    assert coverage((leaf * 2).sum()).fraction == 0.0


def test_what_it_gives_is_itself():
    with intercept() as outer, intercept() as inner:
        assert isinstance(outer, intercept) and isinstance(inner, intercept)


def test_autocast_changes_no_dtype_in_place():
    for dtype in (torch.float, torch.bfloat16):
        function = of_h(lambda h, w, y: h.sin_().addmm_(y, w).pow_(2))
        leaves = [t.to(dtype).requires_grad_() for t in (x, w, y)]
        results = []
        for inside in (False, True):
            with torch.autocast("cpu"), intercept() if inside else nullcontext():
                h, _ = function(*leaves)
            results.append((h, *torch.autograd.grad(h, leaves, torch.ones_like(h))))
        for theirs, ours in zip(*results, strict=True):
            assert_close(ours, theirs)
