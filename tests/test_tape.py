"""The tape gives what autograd gives, and says so where it cannot."""

from __future__ import annotations

import linecache
import threading

import pytest
import torch
from torch import Tensor

import manualbp
from manualbp import formulas, nn
from manualbp import functional as F
from manualbp.core import docstrings
from manualbp.core.derivation import variadic
from manualbp.tape import backward
from manualbp.tape.tape import Tape


def mlp(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        nn.Flatten(), nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    ).to(dtype)


class Residual(torch.nn.Module):
    """A value on several paths, a layer used twice, a weight tied to another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.block, self.leave = nn.Linear(12, 6), nn.Linear(6, 6), nn.Linear(6, 12)
        self.leave.weight = torch.nn.Parameter(self.enter.weight.detach().mT.clone())
        self.scale = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, input: Tensor) -> Tensor:
        a = F.tanh(self.enter(input.flatten(1)))
        a = a + F.silu(self.block(a))
        a = a + self.scale * F.gelu(self.block(a))
        return F.linear(a, self.enter.weight.t())[:, :3]


class Structure(torch.nn.Module):
    """torch's own structural operations between formulas."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, input: Tensor) -> Tensor:
        z = self.a(input)  # (n, 3, 6)
        left, right = z.split(3, dim=-1)
        joined = torch.cat([F.sigmoid(left), -right], -1).transpose(1, 2)
        stacked = torch.stack([joined, joined.roll(1, 1)], 0).sum(0) / 2 - z.mT
        return self.b(stacked.permute(0, 2, 1).contiguous().view(-1, 3, 6)[:, 0].reshape(-1, 6))


def dropped() -> torch.nn.Module:
    return torch.nn.Sequential(mlp(), nn.Dropout(0.4), nn.Linear(3, 3), nn.LogSoftmax(-1))


NETWORKS = {
    "mlp": (mlp, (7, 3, 4)),
    "residual": (Residual, (7, 3, 4)),
    "structure": (Structure, (7, 3, 4)),
    "dropout": (dropped, (7, 3, 4)),
    "softmax": (lambda: torch.nn.Sequential(mlp(), nn.Softmax(1)), (7, 3, 4)),
}
COSTS = {
    "squared_error": F.squared_error,
    "mse": lambda a, y: F.mse_loss(a, torch.nn.functional.one_hot(y, 3).to(a.dtype)),
    "cross_entropy": F.cross_entropy,
    "regularised": lambda a, y: 0.5 * F.cross_entropy(a, y) + F.squared_error(a, y) / 3,
}


def gradients(net: torch.nn.Module, input: Tensor) -> dict[str, Tensor | None]:
    return {"input": input.grad} | {name: p.grad for name, p in net.named_parameters()}


def by_autograd(make, shape, cost, times: int = 1):
    return _run(make, shape, cost, times, lambda c: c.backward())


def by_tape(make, shape, cost, times: int = 1, **options):
    def run(compute):
        with Tape(**options) as tape:
            c = compute()
        tape.backprop(c)
        return c

    return _run(make, shape, cost, times, None, run)


def _run(make, shape, cost, times, backward, run=None):
    net = make()
    torch.manual_seed(1)
    input = torch.randn(shape, requires_grad=True)
    target = torch.randint(3, shape[:1])
    for _ in range(times):
        if run is None:
            c = cost(net(input), target)
            backward(c)
        else:
            c = run(lambda: cost(net(input), target))
    return c.detach(), gradients(net, input)


@pytest.fixture(params=["walked", "written out"])
def way(request, monkeypatch):
    """Structures are walked, or their code is written at the first visit."""
    programs = backward.Programs()
    monkeypatch.setattr("manualbp.tape.tape.PROGRAMS", programs)
    monkeypatch.setattr(
        backward.Programs, "VISITS", 1 if request.param == "written out" else 1 << 20
    )
    yield
    assert (len(programs) > 0) == (request.param == "written out")


@pytest.mark.parametrize("times", [1, 2], ids=["once", "accumulated"])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("net", NETWORKS)
def test_to_the_last_bit(net, cost, times, way):
    value, expected = by_autograd(*NETWORKS[net], COSTS[cost], times)
    taped, given = by_tape(*NETWORKS[net], COSTS[cost], times)
    assert torch.equal(value, taped)
    for name in expected:
        torch.testing.assert_close(given[name], expected[name], rtol=0, atol=0, msg=name)


def test_autograd_records_nothing():
    net = mlp()
    with Tape() as tape:
        output = net(torch.randn(7, 3, 4))
    assert output.grad_fn is None
    assert [entry.name for entry in tape] == ["Linear", "Sigmoid", "Linear", "ReLU", "Linear"]


def test_what_is_frozen_gets_nothing_and_keeps_nothing():
    net = mlp()
    for layer in (net[1], net[3]):
        layer.requires_grad_(False)
    with Tape() as tape:
        cost = F.squared_error(net(torch.randn(7, 3, 4)), torch.randint(3, (7,)))
    assert [entry.name for entry in tape] == ["Linear", "SquaredError"]
    tape.backprop(cost)
    assert net[1].weight.grad is None and net[5].weight.grad is not None


def test_values_are_let_go_unless_kept():
    for keep in (False, True):
        net = mlp()
        with Tape(keep=keep) as tape:
            cost = F.squared_error(net(torch.randn(7, 3, 4)), torch.randint(3, (7,)))
        assert tape[-1].bytes > 0
        tape.backprop(cost)
        first = net[1].weight.grad.clone()
        assert (tape[-1].saved is None) != keep
        if keep:
            tape.backprop(cost)
            assert torch.equal(net[1].weight.grad, 2 * first)
        else:
            with pytest.raises(RuntimeError, match=r"Tape\(keep=True\)"):
                tape.backprop(cost)


def test_two_costs_on_one_tape():
    net, input, target = mlp(), torch.randn(7, 3, 4), torch.randint(3, (7,))
    with Tape(keep=True) as tape:
        output = net(input)
        first, second = F.squared_error(output, target), F.cross_entropy(output, target)
    tape.backprop(first)
    tape.backprop(second)
    given = {n: p.grad.clone() for n, p in net.named_parameters()}
    net.zero_grad()
    output = net(input)
    F.squared_error(output, target).backward(retain_graph=True)
    F.cross_entropy(output, target).backward()
    for name, p in net.named_parameters():
        assert torch.equal(given[name], p.grad), name


def test_a_gradient_from_above():
    net, input, g = mlp(), torch.randn(7, 3, 4), torch.randn(7, 3)
    with Tape() as tape:
        output = net(input)
    with pytest.raises(RuntimeError, match=r"single number.*\(7, 3\).*gradient="):
        tape.backprop(output)
    with pytest.raises(RuntimeError, match=r"gradient: expected .*\(7, 3\), got \(3, 7\)"):
        tape.backprop(output, g.mT)
    tape.backprop(output, g)
    given = [p.grad for p in net.parameters()]
    for mine, theirs in zip(
        given, torch.autograd.grad(net(input), [*net.parameters()], g), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_each_entry_can_be_read():
    net, input = mlp(), torch.randn(7, 3, 4)
    with Tape(keep=True) as tape:
        cost = F.squared_error(net(input), torch.randint(3, (7,)))
    tape.backprop(cost)
    first, sigmoid = tape[0], tape[1]
    assert first.path == "1" and sigmoid.path == "2"
    assert first.inputs["weight"] is net[1].weight
    assert torch.equal(sigmoid.outputs[0], torch.sigmoid(first.outputs[0]))
    delta = first.grad_outputs[0]
    assert torch.equal(first.gradients["weight"], delta.mT @ input.flatten(1))
    assert torch.equal(first.gradients["bias"], delta.sum(0))
    assert torch.equal(sigmoid.gradients["input"], delta)


def test_the_table_reads_from_the_cost_down():
    net = mlp()
    with Tape(keep=True) as tape:
        cost = F.squared_error(net(torch.randn(7, 3, 4)), torch.randint(3, (7,)))
    before = str(tape)
    assert "C ← z³ ← a² ← z² ← a¹ ← z¹" in before
    assert "SquaredError" in before and "W¹" in before and "∂C/∂W = δᵀ a" in before
    tape.backprop(cost)
    assert "‖∂C/∂" in str(tape) or "‖δ‖" in str(tape)


STRANGERS = {
    "cos": lambda a: torch.cos(a),
    "max": lambda a: a.max(1).values,
    "linear": lambda a: torch.nn.functional.linear(a, torch.ones(3, 3)),
    "power": lambda a: a**2,
}


@pytest.mark.parametrize("where", ["formula", "cost"])
@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_never_silent(name, where):
    with Tape() as tape:
        a = STRANGERS[name](mlp()(torch.randn(7, 3, 4)))
        if where == "formula":
            with pytest.raises(RuntimeError, match=r"been through torch's own \w+.*detach\(\)"):
                F.sigmoid(a)
            return
        cost = a.sum()
    with pytest.raises(RuntimeError, match="the cost has been through torch's own"):
        tape.backprop(cost)


def test_a_function_written_by_hand_is_a_stranger():
    class ByHand(manualbp.Formula):
        @staticmethod
        def forward(ctx, input):
            return input * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    with Tape(), pytest.raises(RuntimeError, match="ByHand"):
        F.sigmoid(ByHand.apply(mlp()(torch.randn(7, 3, 4))))


def test_detached_values_and_no_grad_are_constants():
    net, input = mlp(), torch.randn(7, 3, 4)
    with Tape() as tape:
        with torch.no_grad():
            constant = net(input)
        cost = F.squared_error(net(input), F.sigmoid(net(input).cos().detach()) + constant)
    tape.backprop(cost)
    given = net[1].weight.grad.clone()
    net.zero_grad()
    F.squared_error(net(input), F.sigmoid(net(input).cos().detach()) + constant).backward()
    assert torch.equal(given, net[1].weight.grad)


@pytest.mark.parametrize("keep", [False, True])
def test_where_no_formula_ran_autograd_goes_on(keep):
    for compute in (lambda x: (x * 2).view(-1), lambda x: x.cos(), lambda x: x):
        for outside in (False, True):
            x = doubles(3)
            g = torch.randn(3, dtype=torch.double)
            before = compute(x)
            with Tape(keep=keep) as tape:
                value = before if outside else compute(x)
            tape.backprop(value, g)
            torch.testing.assert_close(x.grad, torch.autograd.grad(compute(x), x, g)[0])


def test_under_no_grad_the_tape_still_records():
    net, input, target = mlp(), torch.randn(7, 3, 4), torch.randint(3, (7,))
    with torch.no_grad():
        with Tape() as tape:
            cost = F.squared_error(net(input), target)
        assert not torch.is_grad_enabled()
        tape.backprop(cost)
    assert net[1].weight.grad.abs().sum() > 0


def test_a_history_from_before_the_tape_goes_on():
    before = torch.nn.Linear(4, 4)
    net, input, target = mlp(), torch.randn(7, 3, 4), torch.randint(3, (7,))
    F.squared_error(net(before(input).cos()), target).backward()
    expected = before.weight.grad.clone()
    before.zero_grad()
    input = before(input).cos()
    with Tape() as tape:
        cost = F.squared_error(net(input), target)
    tape.backprop(cost)
    assert torch.equal(before.weight.grad, expected)


def test_hooks_of_parameters_fire():
    net, seen = mlp(), []
    net[1].weight.register_hook(lambda g: 2 * g)
    net[1].bias.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    input, target = torch.randn(7, 3, 4), torch.randint(3, (7,))
    F.squared_error(net(input), target).backward()
    expected = net[1].weight.grad.clone()
    net.zero_grad()
    with Tape() as tape:
        cost = F.squared_error(net(input), target)
    tape.backprop(cost)
    assert torch.equal(net[1].weight.grad, expected)
    assert len(seen) == 2 and torch.equal(*seen)


def test_a_grad_belongs_to_its_leaf_alone():
    a, b = (torch.randn(3, requires_grad=True) for _ in range(2))
    g = torch.randn(3)
    with Tape() as tape:
        c = torch.flatten(a) + torch.flatten(b)
    tape.backprop(c, g)
    a.grad.mul_(0)
    assert torch.equal(b.grad, g) and g.abs().sum() > 0


def test_a_change_in_place_is_noticed():
    net = mlp()
    with Tape() as tape:
        cost = F.squared_error(net(torch.randn(7, 3, 4)), torch.randint(3, (7,)))
    with torch.no_grad():
        net[3].weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"shape \(4, 5\) that Linear saves.*changed in place"):
        tape.backprop(cost)


def test_misuse_is_named():
    with Tape() as first:
        a = mlp()(torch.randn(7, 3, 4))
    with Tape(), pytest.raises(RuntimeError, match="another Tape"):
        F.sigmoid(a)
    with Tape(), pytest.raises(RuntimeError, match="do not nest"), Tape():
        pass
    with pytest.raises(RuntimeError, match="computed by formulas on this tape"):
        first.backprop(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="another Tape"):
        Tape().backprop(a.requires_grad_(), torch.ones_like(a))


def test_threads_have_tapes_of_their_own():
    results, barrier = {}, threading.Barrier(2)

    def work(name: int) -> None:
        torch.manual_seed(name)
        net, input = mlp(torch.float64), torch.full((7, 3, 4), float(name), dtype=torch.float64)
        with Tape() as tape:
            barrier.wait()
            cost = F.squared_error(net(input), torch.zeros(7, dtype=torch.long))
            barrier.wait()
        tape.backprop(cost)
        given = net[1].weight.grad.clone()
        net.zero_grad()
        F.squared_error(net(input), torch.zeros(7, dtype=torch.long)).backward()
        results[name] = torch.equal(given, net[1].weight.grad) and len(tape) == 6

    threads = [threading.Thread(target=work, args=(i,)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {1: True, 2: True}


def test_autocast():
    net, input, target = mlp(), torch.randn(7, 3, 4), torch.randint(3, (7,))
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(net(input), target)
    expected.backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with Tape() as tape, torch.autocast("cpu", torch.bfloat16):
        cost = F.cross_entropy(net(input), target)
    tape.backprop(cost)
    assert torch.equal(cost, expected)
    for p, grad in zip(net.parameters(), grads, strict=True):
        assert p.grad.dtype == torch.float32 and torch.equal(p.grad, grad)


@pytest.mark.parametrize("module", [nn.ReLU, nn.ELU, nn.SiLU])
def test_in_place_activations(module):
    def make():
        torch.manual_seed(0)
        return torch.nn.Sequential(nn.Linear(4, 3), module(inplace=True), nn.Linear(3, 3))

    _, expected = by_autograd(make, (7, 4), F.squared_error)
    _, given = by_tape(make, (7, 4), F.squared_error)
    for name in expected:
        assert torch.equal(given[name], expected[name]), name


@pytest.mark.cuda
def test_on_cuda():
    net = mlp().cuda()
    input, target = torch.randn(7, 3, 4, device="cuda"), torch.randint(3, (7,), device="cuda")
    F.squared_error(net(input), target).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with Tape() as tape:
        cost = F.squared_error(net(input), target)
    tape.backprop(cost)
    for p, grad in zip(net.parameters(), expected, strict=True):
        assert torch.equal(p.grad, grad)


def test_a_value_written_over_after_its_use():
    """What was used is what it was then, as in autograd."""
    x = torch.randn(3, dtype=torch.double, requires_grad=True)

    def cost():
        y = torch.zeros(3, dtype=torch.double)
        y.copy_(F.exp(x))
        y.copy_(F.add(y, F.sin(x)))
        return F.mul(y, y).sum()

    with Tape() as tape:
        output = cost()
    tape.backprop(output)
    torch.testing.assert_close(x.grad, torch.autograd.grad(cost(), x)[0])


# ------------------------------------------------------------------- whose tensor a value is


class Reversal(manualbp.Formula):
    """a = z,  ∂C/∂z = −g"""

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return -g


class ReversedView(Reversal):
    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.view_as(input)


class ReversedAlias(Reversal):
    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.detach()


class ReversedAndSine(manualbp.Formula):
    outputs = ("same", "sine")

    @staticmethod
    def forward(input: Tensor) -> tuple[Tensor, Tensor]:
        return input, input.sin()

    @staticmethod
    def grad_input(g_same: Tensor, g_sine: Tensor, input: Tensor) -> Tensor:
        return g_sine * input.cos() - g_same


PASSED_ON = {
    "itself": Reversal.apply,
    "a view": ReversedView.apply,
    "its memory": ReversedAlias.apply,
    "the first of two": lambda x: ReversedAndSine.apply(x)[0],
    "both of two": lambda x: F.mul(*ReversedAndSine.apply(x)),
}


def matches_autograd(compute, *leaves: Tensor, **options) -> None:
    """``compute(*leaves)`` on a tape gives the leaves what it gives them by autograd."""
    expected = compute(*leaves)
    g = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, leaves, g, allow_unused=True)
    with Tape(**options) as tape:
        value = compute(*leaves)
    assert torch.equal(value, expected)
    tape.backprop(value, g)
    for leaf, grad in zip(leaves, wanted, strict=True):
        assert (leaf.grad is None) == (grad is None)
        if grad is not None:
            torch.testing.assert_close(leaf.grad, grad, rtol=1e-12, atol=0)
        leaf.grad = None


def doubles(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("name", PASSED_ON)
def test_a_formula_may_return_its_argument(name, way):
    passed = PASSED_ON[name]
    for _ in range(2):  # a mark left on a leaf would be of another tape by then
        x, y = doubles(3), doubles(3)
        matches_autograd(lambda x, y: F.mul(passed(F.sin(x)), F.sin(y)), x, y)
        matches_autograd(lambda x, y: F.mul(passed(x), F.add(x, y)), x, y)
        matches_autograd(lambda x, y: F.mul(F.sin(passed(F.mul(x, y))), x), x, y)


def test_a_flattening_that_does_nothing_leaves_no_mark():
    x = doubles(4, 3)
    for _ in range(3):
        matches_autograd(lambda x: F.sin(torch.flatten(x, 1)), x)
        assert not hasattr(x, "_taped") and x._backward_hooks is None


def test_what_is_written_into_a_flattened_value_is_written_into_its_source():
    def compute(flatten, silu, x):
        a = F.sin(x)
        silu(flatten(a), inplace=True)
        return F.mul(a, a)

    x = doubles(3, 4)
    expected = compute(torch.flatten, torch.nn.functional.silu, x)
    with Tape() as tape:
        value = compute(torch.flatten, F.silu, x)
    assert torch.equal(value, expected)
    g = torch.randn(3, 4, dtype=torch.double)
    tape.backprop(value, g)
    torch.testing.assert_close(x.grad, torch.autograd.grad(expected, x, g)[0])
    with torch.no_grad():
        torch.flatten(x)[0] = 7
    assert x[0, 0] == 7


@pytest.mark.parametrize("keep", [False, True])
def test_torch_writes_into_values_inside_intercept(keep):
    def compute(x):
        a = torch.sin(x)
        before = a * 2
        a[0] = 3
        a.view(-1)[5:].zero_()
        a[1, 1:] = x[0, 1:]
        return torch.tanh(a) * before

    x = doubles(3, 4)
    expected = compute(x)
    with Tape(keep=keep) as tape, manualbp.intercept():
        value = compute(x)
    torch.testing.assert_close(value, expected)
    g = torch.randn(3, 4, dtype=torch.double)
    tape.backprop(value, g)
    torch.testing.assert_close(x.grad, torch.autograd.grad(expected, x, g)[0])


def test_a_value_that_belongs_to_somebody_else_stays_theirs():
    theirs = doubles(3)

    class Constant(manualbp.Formula):
        @staticmethod
        def forward(input: Tensor) -> Tensor:
            return theirs

        @staticmethod
        def grad_input(g: Tensor) -> Tensor:
            return 2 * g

    x = doubles(3)
    with Tape() as tape:
        cost = F.mul(F.mul(Constant.apply(x), Constant.apply(x)), theirs).sum()
    tape.backprop(cost)
    value = theirs.detach()
    torch.testing.assert_close(x.grad, 4 * value**2)
    torch.testing.assert_close(theirs.grad, value**2)
    assert not hasattr(theirs, "_taped")


def test_memory_that_an_argument_shares_is_not_written_to():
    x = doubles(3)
    with Tape():
        value = Reversal.apply(F.sin(x))
        with pytest.raises(RuntimeError, match=r"shares its memory .* change a copy"):
            F.relu_(value)
        with pytest.raises(RuntimeError, match=r"no_grad mode|leaf"):
            value.mul_(2)
    with Tape():
        before = F.sin(x)
        value = Reversal.apply(before)
        F.relu_(before)
        with pytest.raises(RuntimeError, match=r"shares its memory .* changed in place since"):
            F.sin(value)


def test_what_was_made_of_a_value_outlasts_it():
    def compute(x):
        a = F.sin(x)
        before, view = a * 2, a.view(-1)
        F.relu_(F.sub(a, 1))
        F.silu(a, inplace=True)
        F.silu(view, inplace=True)
        return F.mul(before, F.mul(a, view.view(3)))

    matches_autograd(compute, doubles(3))
    matches_autograd(compute, doubles(3), keep=True)


# ------------------------------------------------------- what autograd is asked of a tape's value


ASKED = {
    "backward": lambda value, x: value.sum().backward(),
    "backward of a value": lambda value, x: value.backward(torch.ones_like(value)),
    "backward of a sum": lambda value, x: torch.autograd.backward((value * 2).sum()),
    "grad": lambda value, x: torch.autograd.grad((value * 2).sum(), value),
    "register_hook": lambda value, x: value.register_hook(print),
    "retain_grad": lambda value, x: value.retain_grad(),
}


@pytest.mark.parametrize("formula", ["sin", "reversal"])
@pytest.mark.parametrize("name", ASKED)
def test_autograd_says_that_it_does_not_know_a_value(name, formula):
    x = doubles(3)
    with Tape():
        value = F.sin(x) if formula == "sin" else Reversal.apply(x)
    with pytest.raises(RuntimeError, match=r"manualbp\.Tape.*(tape\.backprop|tape's entry)"):
        ASKED[name](value, x)
    assert x.grad is None and value.grad is None
    with pytest.raises(RuntimeError):
        torch.autograd.grad(value, x, torch.ones(3))


def test_hooks_between_formulas_get_the_whole_gradient_once(way):
    """A value that goes several ways, and a hook that is not linear."""

    def run(backprop):
        seen = []
        x = torch.linspace(-1, 1, 5, dtype=torch.double, requires_grad=True)

        def clip(g):
            seen.append(g.clone())
            return g.clamp(-0.5, 0.5)

        def compute():
            a = F.exp(x) * 2
            a.register_hook(clip)
            a.retain_grad()
            b = a + 1
            return a, (F.sin(a) + F.mul(b, a)).sum() + a.sum()

        return x, seen, *backprop(compute)

    def by_autograd(compute):
        a, cost = compute()
        cost.backward()
        return a, cost

    def on_tape(compute):
        with Tape() as tape:
            a, cost = compute()
        tape.backprop(cost)
        return a, cost

    x, seen, a, cost = run(by_autograd)
    other, saw, b, value = run(on_tape)
    assert torch.equal(cost, value) and len(seen) == len(saw) == 1
    torch.testing.assert_close(saw[0], seen[0])
    torch.testing.assert_close(b.grad, a.grad)
    torch.testing.assert_close(other.grad, x.grad)


def test_a_value_that_was_written_to_is_known_to_autograd():
    """It is what torch wrote, so that hooks and retained gradients are torch's."""

    def compute(x):
        a = F.sin(x)
        a.view(4).mul_(2)
        a.retain_grad()
        a.register_hook(lambda g: 2 * g)
        return a, F.mul(a, x)

    x = doubles(2, 2)
    y = x.detach().clone().requires_grad_()
    value, cost = compute(x)
    upstream = torch.randn_like(cost)
    cost.backward(upstream)
    with Tape() as tape, manualbp.intercept():
        other, cost = compute(y)
    tape.backprop(cost, upstream)
    torch.testing.assert_close(other.grad, value.grad)
    torch.testing.assert_close(y.grad, x.grad)


def test_a_view_of_a_leaf_made_under_no_grad_gets_nothing():
    """It says that it wants a gradient, and autograd has no way to it."""

    def compute(x, before):
        with torch.no_grad():
            view = x.view(4)
        return view, F.mul(view, before.view(4)) + F.sin(view)

    x = doubles(2, 2)
    y = x.detach().clone().requires_grad_()
    view, cost = compute(x, x.exp())
    upstream = torch.randn_like(cost)
    cost.backward(upstream)
    before = y.exp()
    with Tape() as tape:
        other, cost = compute(y, before)
    tape.backprop(cost, upstream)
    assert view.grad is other.grad is None
    torch.testing.assert_close(y.grad, x.grad)
    with Tape() as tape:
        other, cost = compute(y.grad.requires_grad_(), doubles(2, 2))
    tape.backprop(cost, upstream)
    assert other.grad is None


@pytest.mark.parametrize("detach", [Tensor.detach_, torch.detach_], ids=["method", "function"])
@pytest.mark.parametrize("seen", [True, False], ids=["view", "value"])
def test_a_value_detached_in_place_may_not_be_a_leaf_of_the_same_tape(detach, seen):
    x = doubles(4)
    with Tape() as tape, manualbp.intercept():
        a = F.sin(x)
        view = a.view(2, 2)
        detach(a)
        if seen:
            tape.backprop(F.exp(view), torch.ones(2, 2, dtype=torch.double))
            torch.testing.assert_close(x.grad, (x.sin().exp() * x.cos()).detach())
        a.requires_grad_()
        with pytest.raises(manualbp.tape.TapeError, match=r"value\.detach\(\)\.requires_grad_"):
            F.exp(view if seen else a)
        F.exp(a.detach().requires_grad_())


def test_a_value_of_another_shape_than_was_noted():
    x = doubles(2, 2)
    with Tape() as tape:
        a = F.sum(F.exp(x), 1)
        with torch.no_grad():
            a.mul_(1).unsqueeze_(0)
        with pytest.raises(manualbp.tape.TapeError, match=r"shape \(2,\).*shape \(1, 2\) in place"):
            F.sin(a)
    with pytest.raises(manualbp.tape.TapeError, match="the cost was of shape"):
        tape.backprop(a, torch.randn_like(a))


@pytest.mark.parametrize("between", [lambda x: x, lambda x: x * 3], ids=["formula", "structure"])
def test_hooks_of_leaves_fire_once(between):
    x, seen = doubles(3), []
    x.register_hook(lambda g: seen.append(g) or 2 * g)
    with Tape() as tape:
        cost = (F.sin(between(x)) + between(x)).sum()
    tape.backprop(cost)
    assert len(seen) == 1
    given, x.grad = x.grad, None
    (F.sin(between(x)) + between(x)).sum().backward()
    torch.testing.assert_close(given, x.grad)


def test_a_rule_that_leaves_its_shape_to_autograd(way):
    """What it gives is summed before it is added to what came another way."""

    class Scale(manualbp.Formula):
        @staticmethod
        def forward(input: Tensor, factor: Tensor) -> Tensor:
            return input * factor

        @staticmethod
        def grad_input(g: Tensor, factor: Tensor) -> Tensor:
            return g * factor

        @staticmethod
        def grad_factor(g: Tensor, input: Tensor) -> Tensor:
            return g * input

    def compute(x, w):
        return F.mul(Scale.apply(x, F.sin(w)), Scale.apply(F.sin(x), w)).sum(0) * F.sin(w) + w

    matches_autograd(compute, doubles(4, 3), doubles(3))


# ------------------------------------------------------------------------ deep, long and many


def test_a_deep_structure_and_a_long_history():
    x, w = doubles(3), doubles(3)

    def long(x):
        for _ in range(3_000):
            x = x * 1.0001
        return x

    def compute(x, w):
        return F.mul(F.sin(long(F.sin(w))), F.sin(x))

    matches_autograd(compute, x, w)
    history = long(x)  # from before
    with Tape() as tape:
        value = history
        for _ in range(100):
            value = F.sin(value + history)
    tape.backprop(value.sum())
    given, x.grad = x.grad, None
    value = history = long(x)
    for _ in range(100):
        value = F.sin(value + history)
    value.sum().backward()
    torch.testing.assert_close(given, x.grad)


def test_a_history_is_walked_once(monkeypatch):
    visited = []
    monkeypatch.setattr("manualbp.tape.tape.name_of", lambda node: visited.append(node) or "Add")
    x = doubles(3)
    with Tape():
        value = F.sin(x)
        for _ in range(200):
            value = value + 1
            F.sin(value)
    assert len({*visited}) == 200 and len(visited) == 400  # its name is asked for twice


@pytest.mark.slow
def test_what_is_remembered_of_structures_is_bounded(monkeypatch):
    monkeypatch.setattr(backward.Programs, "VISITS", 2)
    monkeypatch.setattr(backward.Programs, "FORMULAS", 300)
    monkeypatch.setattr(backward.Programs, "REMEMBERED", 50)
    monkeypatch.setattr(backward.Programs, "UNUSED", 20)
    programs = backward.Programs()
    monkeypatch.setattr("manualbp.tape.tape.PROGRAMS", programs)
    x = doubles(3)

    def step(length: int) -> None:
        with Tape() as tape:
            value = x
            for i in range(length):
                value = F.sin(value) if i % 3 else F.tanh(value)
        tape.backprop(value, torch.ones(3))

    def lines() -> int:
        return sum(name.startswith("<the backward pass over") for name in linecache.cache)

    before = lines()
    for length in range(1, 200):
        for _ in range(2):
            step(length)
        assert programs._formulas <= 300 and len(programs._visits) <= 50
        assert lines() - before == len(programs) <= 300
    assert programs._programs and max(entry[1] for entry in programs._programs.values()) > 150
    # More structures than there is room for do not take turns in being written.
    written = [entry[2] for entry in programs._programs.values()]
    for _ in range(4):
        for length in range(30, 45):
            step(length)
    kept = [entry[2] for entry in programs._programs.values()]
    for _ in range(4):
        for length in range(30, 45):
            step(length)
    assert len(kept) > 5 and kept != written
    assert kept == [entry[2] for entry in programs._programs.values()]
    # Each length is one more structure, and so is each order of formulas.
    for i in range(2_000):
        with Tape() as tape:
            value = x
            for bit in range(11):
                value = F.sin(value) if i >> bit & 1 else F.tanh(value)
        tape.backprop(value, torch.ones(3))
    assert len(programs._visits) <= 50


def test_a_structure_that_comes_back_finds_its_code(monkeypatch):
    programs = backward.Programs()
    monkeypatch.setattr("manualbp.tape.tape.PROGRAMS", programs)
    net, input, target = mlp(), torch.randn(7, 3, 4), torch.randint(3, (7,))
    found = []
    for _ in range(6):
        with Tape() as tape:
            cost = F.squared_error(net(input), target)
        tape.backprop(cost)
        found.append(next((p for p, *_ in programs._programs.values()), None))
    assert found[: programs.VISITS - 1] == [None] * (programs.VISITS - 1)
    assert len({*found[programs.VISITS - 1 :]}) == len(programs) == 1
    assert found[-1] is not None


# --------------------------------------------------------------------------------- and the rest


@pytest.mark.parametrize("reduce", [Tensor.sum, Tensor.mean, lambda a: a.sum() + a.mean()])
def test_a_kept_tape_is_walked_back_from_a_sum(reduce):
    net, input = mlp(), torch.randn(7, 3, 4)
    with Tape(keep=True) as tape:
        cost = reduce(net(input))
    for _ in range(2):
        tape.backprop(cost)
    assert len(str(tape).splitlines()) > 10 and tape[-1].name in ("Sum", "Mean", "Add")
    given = net[1].weight.grad.clone()
    net.zero_grad()
    reduce(net(input)).backward()
    torch.testing.assert_close(given, 2 * net[1].weight.grad)


@pytest.mark.parametrize("cost", ["hinge_embedding_loss", "cosine_embedding_loss"])
def test_a_target_computed_on_the_tape(cost, way):
    """To which the cost passes nothing back."""
    x, y, t = doubles(4, 3), doubles(4, 3), doubles(4)

    def compute(function, x, y, t):
        sign = F.add(F.mul(t.detach().sign(), 1.0), F.mul(t, 0.0))
        if cost == "hinge_embedding_loss":
            return function(x, sign[:, None].expand(4, 3)) + y.sum()
        return function(x, y, sign)

    with Tape() as tape:
        value = compute(getattr(F, cost), x, y, t)
    tape.backprop(value)
    expected = compute(getattr(torch.nn.functional, cost), x, y, t)
    torch.testing.assert_close(value, expected)
    for leaf, grad in zip((x, y), torch.autograd.grad(expected, (x, y)), strict=True):
        torch.testing.assert_close(leaf.grad, grad)
    assert t.grad is None or not t.grad.any()


def test_an_exception_ends_the_tape():
    x = doubles(3)
    with torch.no_grad(), pytest.raises(RuntimeError), Tape(keep=True):
        F.matmul(x, doubles(4))
    assert torch.is_grad_enabled()
    matches_autograd(F.sin, x)


def test_inside_a_backward_pass_of_autograd():
    class Inner(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.sin(x * 2)

        @staticmethod
        def backward(ctx, g):
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with Tape() as tape:
                value = F.sin(x * 2)
            tape.backprop(value, g)
            return x.grad

    x = doubles(3)
    given = torch.autograd.grad(Inner.apply(x * 3).sum(), x)[0]
    torch.testing.assert_close(given, 6 * torch.cos(6 * x.detach()))


def test_hooks_that_cannot_be_seen_fire_where_processes_share_gradients(monkeypatch):
    x, seen = doubles(3), []
    accumulator = x.view_as(x).grad_fn.next_functions[0][0]
    accumulator.register_hook(lambda *_: seen.append(x.grad.clone()))
    monkeypatch.setattr("manualbp.tape.tape._distributed", lambda: True)
    matches_autograd(lambda x: F.mul(F.sin(x), x), x)
    assert len(seen) == 1


def test_gradients_from_before_of_another_kind():
    x = torch.eye(3, dtype=torch.double, requires_grad=True)
    x.grad = torch.eye(3, dtype=torch.double).to_sparse()
    with Tape() as tape:
        cost = F.sin(x).sum()
    tape.backprop(cost)
    torch.testing.assert_close(x.grad, torch.eye(3, dtype=torch.double) + x.detach().cos())


# ----------------------------------------------------------------------------- what is printed

FORMULAS = {
    name: formula
    for name, formula in vars(formulas).items()
    if isinstance(formula, type) and issubclass(formula, manualbp.Formula)
}
#: what mathematics calls an argument; any other is the value that the formula is a function of
SYMBOLS = {
    "weight": "wWαkθβ",
    "bias": "b",
    "other": "yB",
    "target": "y",
    "hx": "h",
    "cx": "c",
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_line_belongs_to_the_rule_that_it_states(name):
    formula = FORMULAS[name]
    if variadic(formula.forward) and formula.arity is None:
        pytest.skip("stated for each number of tensors")
    rules = docstrings.read_docstring(formula)["rules"]
    assert {*rules} == {*formula.derivation.differentiable}, (
        "a line for each rule, and a rule for each"
    )
    symbols = docstrings.read_docstring(formula)["symbols"]
    assert len({*symbols.values()}) == len(symbols)
    for argument, symbol in symbols.items():
        for part, letters in SYMBOLS.items():
            if argument == part or argument.startswith(f"{part}_"):
                assert symbol[0] in letters, (argument, symbol)
        if argument[-1] in "12" and "₁" in "".join(symbols.values()):
            assert symbol[-1] == "₁₂"[int(argument[-1]) - 1]


class Halved(formulas.Linear):
    @staticmethod
    def grad_weight(delta: Tensor, input: Tensor) -> Tensor:
        return delta.mT @ input / 2


class Frozen(Halved):
    """z = a Wᵀ + b, W as it is

    ∂C/∂b = Σ δ / 2
    """

    grad_weight = None

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return delta.sum(0) / 2


class Restated(Frozen):
    """z = a Wᵀ + b

    ∂C/∂a = δ W / 2
    ∂C/∂b = Σ δ / 2
    """

    @staticmethod
    def grad_input(delta: Tensor, weight: Tensor) -> Tensor:
        return delta @ weight / 2


class Unclear(formulas.Linear):
    """z = a Wᵀ + b

    ∂C/∂a = 0
    ∂C/∂W = 0
    """

    @staticmethod
    def grad_input(delta: Tensor, weight: Tensor) -> Tensor:
        return delta @ weight * 0


@pytest.mark.parametrize(
    ("formula", "value", "lines"),
    [
        (Halved, "z = a Wᵀ + b", ["δ W", "δᵀ a", "Σₙ δₙ"]),
        (Frozen, "z = a Wᵀ + b, W as it is", ["δ W", None, "Σ δ / 2"]),
        (Restated, "z = a Wᵀ + b", ["δ W / 2", None, "Σ δ / 2"]),
        (Unclear, "z = a Wᵀ + b", [None, None, None]),
    ],
)
def test_lines_are_inherited_along_the_classes(formula, value, lines):
    said = docstrings.read_docstring(formula)
    assert said["output"] == value
    found = [said["rules"].get(a) for a in ("input", "weight", "bias")]
    assert [line and line.partition(" = ")[2] for line in found] == lines


def test_the_table_of_a_recurrent_layer():
    net, input = nn.LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    with Tape(keep=True) as tape:
        output, _ = net(input)
        cost = F.mse_loss(output, torch.zeros_like(output))
    tape.backprop(cost)
    rows = str(tape).splitlines()
    entry = next(e for e in tape if e.name == "LSTM")
    for line, argument, symbol in (
        ("∂C/∂x = δ W", "input", "x"),
        ("∂C/∂W = Σₜ δₜᵀ xₜ", "weight_ih", "W"),
        ("∂C/∂W′ = Σₜ δ′ₜᵀ hₜ₋₁", "weight_hh", "W′"),
        ("∂C/∂b′ = Σₙₜ δ′ₙₜ", "bias_hh", "b′"),
    ):
        norm = f"{entry.gradients[argument].norm().item():.2e}"
        assert any(f"{line}  " in row and f"∂C/∂{symbol}" in row and norm in row for row in rows)


def test_the_rules_of_any_number_of_tensors_are_stated():
    a, b = doubles(3), doubles(3)
    with Tape(keep=True) as tape:
        cost = F.cat([a, b]).sum()
    tape.backprop(cost)
    assert len(docstrings.read_docstring(tape[0].formula)["rules"]) == 2
    assert str(tape).count("∂C/∂") >= 2


def test_layers_in_place_by_formula_inside_intercept() -> None:
    def net() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 3), torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 2)]
        return torch.nn.Sequential(*layers).double()

    ours, theirs, x = net(), net(), torch.randn(5, 4).double()
    manualbp.convert(ours)
    with Tape(keep=True) as tape, manualbp.intercept():
        cost = F.mse_loss(ours(x), torch.zeros(5, 2).double())
    tape.backprop(cost)
    torch.nn.functional.mse_loss(theirs(x), torch.zeros(5, 2).double()).backward()
    torch.testing.assert_close(
        [p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()]
    )
    # What was written over is kept as it was.
    torch.testing.assert_close(tape[0].outputs[0].detach(), theirs[0](x).detach())
