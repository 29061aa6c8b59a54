"""intercept: unmodified code by formula. coverage: whose derivative each step is."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import manualbp
from manualbp import coverage, functional, intercept
from manualbp.intercept import twins

x = torch.randn(4, 3, dtype=torch.double)
w = torch.randn(3, 3, dtype=torch.double)

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
        f for n, f in vars(functional).items() if callable(f) and hasattr(F, n) and n[0] != "_"
    } - {functional.squared_error}


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
