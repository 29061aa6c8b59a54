"""A compiled step does what forward, backward and optimizer.step() do."""

from __future__ import annotations

import copy
import random
import warnings

import numpy
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.optimizer import register_optimizer_step_post_hook

import manualbp
from manualbp import compile_step, kernels, nn
from manualbp import functional as F
from manualbp.kernels.matmul import expand

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.01, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
}


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()


def batches(steps: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(steps, 4, 6, dtype=torch.double), torch.randint(3, (steps, 4))


def plainly(net, criterion, optimizer, xs, ys) -> Tensor:
    costs = []
    for x, y in zip(xs, ys, strict=True):
        optimizer.zero_grad()
        cost = criterion(net(x), y)
        cost.backward()
        optimizer.step()
        costs.append(cost.detach())
    return torch.stack(costs)


def same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    a, b = a.state_dict()["state"], b.state_dict()["state"]
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_optimizers_own_step(name):
    theirs, ours = network(), network()
    expected, optimizer = (OPTIMIZERS[name](n.parameters()) for n in (theirs, ours))
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    xs, ys = batches(8)
    costs = plainly(theirs, F.squared_error, expected, xs, ys)
    given = [step(x, y) for x, y in zip(xs[:3], ys[:3], strict=True)]
    given = torch.cat([torch.stack(given), step.many(xs[3:6], ys[3:6]), step.many(xs[6:], ys[6:])])
    torch.testing.assert_close(given, costs, rtol=1e-6, atol=1e-9)
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
    same_state(expected, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_compiled(name):
    theirs, ours = network(), network()
    expected, optimizer = (OPTIMIZERS[name](n.parameters()) for n in (theirs, ours))
    step = compile_step(ours, F.cross_entropy, optimizer)
    xs, ys = batches(6)
    costs = plainly(theirs, F.cross_entropy, expected, xs, ys)
    with warnings.catch_warnings():
        # Inductor's own, of the parts of torch that it calls.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        given = torch.cat([step(xs[0], ys[0])[None], step(xs[1], ys[1])[None]])
        given = torch.cat([given, step.many(xs[2:], ys[2:])])
    torch.testing.assert_close(given, costs, rtol=1e-6, atol=1e-9)
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
    same_state(expected, optimizer)


def test_the_learning_rate_may_change():
    theirs, ours = network(), network()
    expected, optimizer = (torch.optim.SGD(n.parameters(), lr=0.5) for n in (theirs, ours))
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)) for o in (expected, optimizer)
    ]
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    xs, ys = batches(4)
    for x, y in zip(xs, ys, strict=True):
        plainly(theirs, F.squared_error, expected, x[None], y[None])
        step(x, y)
        for scheduler in schedulers:
            scheduler.step()
    assert len(step._programs) == 1
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_groups_frozen_tied_and_unused_parameters():
    def make():
        torch.manual_seed(0)
        net = torch.nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
        net[2].weight = net[0].weight
        net[3].bias.requires_grad_(False)
        net.unused = torch.nn.Parameter(torch.ones(2))
        groups = [{"params": net[:3].parameters(), "lr": 0.2}, {"params": [*net[3].parameters()]}]
        groups[1]["params"].append(net.unused)
        return net.double(), torch.optim.SGD(groups, lr=0.05, momentum=0.9)

    (theirs, expected), (ours, optimizer) = make(), make()
    before = ours[3].bias.clone()
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    xs, ys = batches(4)
    plainly(theirs, F.squared_error, expected, xs, ys)
    for x, y in zip(xs, ys, strict=True):
        step(x, y)
    for (name, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9, msg=name)
    assert torch.equal(before, ours[3].bias)


def test_it_goes_on_from_a_checkpoint_and_the_other_way_round():
    xs, ys = batches(6)
    theirs = network()
    expected = torch.optim.Adam(theirs.parameters(), lr=0.01)
    plainly(theirs, F.squared_error, expected, xs, ys)
    ours = network()
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.01)
    plainly(ours, F.squared_error, optimizer, xs[:2], ys[:2])
    again = network()
    again.load_state_dict(ours.state_dict())
    loaded = torch.optim.Adam(again.parameters(), lr=0.01)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    compile_step(again, F.squared_error, loaded, compiler=False).many(xs[2:4], ys[2:4])
    plainly(again, F.squared_error, loaded, xs[4:], ys[4:])
    for p, q in zip(theirs.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_tensors_that_were_replaced_are_found_again():
    xs, ys = batches(5)
    (theirs, ours), make = (network(), network()), OPTIMIZERS["momentum"]
    expected, optimizer = make(theirs.parameters()), make(ours.parameters())
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    plainly(theirs, F.squared_error, expected, xs, ys)
    step.many(xs[:3], ys[:3])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(xs[3], ys[3])
    ours[0].weight.data = ours[0].weight.data.clone()
    step(xs[4], ys[4])
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_modes_sizes_and_a_weighted_criterion():
    net = torch.nn.Sequential(network(), nn.Dropout(0.5))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    step = compile_step(net, criterion, optimizer, compiler=False)
    xs, ys = batches(1)
    drawn = {step(xs[0], ys[0]).item() for _ in range(4)}
    assert len(drawn) > 1  # a new mask each time
    net.eval()
    assert step(xs[0], ys[0]).item() == criterion(net(xs[0]), ys[0]).item()
    assert step(xs[0, :3], ys[0, :3]).item() == pytest.approx(
        criterion(net(xs[0, :3]), ys[0, :3]).item()
    )


def test_the_program_can_be_read():
    net = network()
    step = compile_step(net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1))
    before = [p.clone() for p in net.parameters()]
    code = step.trace(*(t[0] for t in batches(1))).code
    assert "sigmoid" in code and "sub_" in code and "backward" not in code
    assert all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize("rows, left", [(4, 0), (3000, 3)])
def test_small_products_are_summed(rows, left):
    def program(bias, x, weight, delta):
        return torch.addmm(bias, x, weight.t()), delta @ weight, delta.t() @ x

    shapes = (5,), (rows, 6), (5, 6), (rows, 5)
    inputs = [torch.randn(shape, dtype=torch.double) for shape in shapes]
    graph = make_fx(program, tracing_mode="fake")(*inputs)
    with kernels.enabled(True):
        expand(graph)
    assert sum("mm" in str(node.target) for node in graph.graph.nodes) == left
    for value, expected in zip(graph(*inputs), program(*inputs), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_without_a_compiler_it_says_so_and_goes_on(monkeypatch):
    def nothing(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch._inductor, "compile", nothing)
    net = network()
    step = compile_step(net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1))
    xs, ys = batches(2)
    with pytest.warns(UserWarning, match="no working compiler .*no compiler here.* uncompiled"):
        first = step(xs[0], ys[0])
    assert step(xs[0], ys[0]) < first


def test_what_it_cannot_do_it_says():
    net = network()
    with pytest.raises(TypeError, match=r"SGD, Adam or AdamW.*got RMSprop.*manualbp\.Tape"):
        compile_step(net, F.squared_error, torch.optim.RMSprop(net.parameters()))
    step = compile_step(net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1))
    xs, ys = batches(3)
    with pytest.raises(ValueError, match="3 and 2"):
        step.many(xs, ys[:2])
    foreign = torch.nn.Sequential(nn.Linear(6, 3), torch.nn.Hardswish()).double()
    step = compile_step(foreign, F.squared_error, torch.optim.SGD(foreign.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="torch's own Hardswish"):
        step(xs[0], ys[0])


def test_it_is_public():
    assert manualbp.compile_step is compile_step


# ------------------------------------------------------------------------- what it may not take
# for granted, each with the fault that it was


def taught(ours: bool, *calls, net=None, criterion=None, between=None):
    """Costs and weights after some steps, by a program or by autograd."""
    net = net() if net else network()
    criterion = criterion or F.squared_error
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = compile_step(net, criterion, optimizer, compiler=False)
    costs = []
    for i, (x, y) in enumerate(calls):
        if between:
            between(i, net, criterion)
        costs.append(step(x, y) if ours else plainly(net, criterion, optimizer, [x], [y])[0])
    return [*costs, *net.state_dict().values()]


def same_as_autograd(*calls, **settings):
    for a, b in zip(
        taught(False, *calls, **settings), taught(True, *calls, **settings), strict=True
    ):
        assert isinstance(b, Tensor)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def square() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6)).double()


def test_one_tensor_for_both_and_then_two():
    x, y = torch.randn(2, 4, 6, dtype=torch.double)
    same_as_autograd((x, x), (x, y), (y, x), net=square)


@pytest.mark.slow
def test_views_of_one_tensor_compiled():
    both = torch.randn(2, 4, 6, dtype=torch.double)
    theirs, ours = square(), square()
    expected, optimizer = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (theirs, ours))
    step = compile_step(ours, F.squared_error, optimizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        given = torch.stack(
            [step(both[0], both[1]), step(both[0], both[0]), step(both[1], both[0])]
        )
    xs, ys = both[[0, 0, 1]], both[[1, 0, 0]]
    torch.testing.assert_close(given, plainly(theirs, F.squared_error, expected, xs, ys))
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_inputs_of_any_strides_compiled():
    theirs, ours = network(), network()
    expected, optimizer = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (theirs, ours))
    step = compile_step(ours, F.squared_error, optimizer)
    xs, ys = torch.randn(4, 3, 6).double().transpose(0, 1), torch.randint(3, (4, 3)).mT
    apart, expanded = torch.randn(4, 12).double()[:, ::2], torch.randn(6).double().expand(4, 6)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        given = [*step.many(xs, ys), step(apart, ys[0]), step(expanded, ys[1])]
    alike = [*xs, apart, expanded], [*ys, ys[0], ys[1]]
    torch.testing.assert_close(
        torch.stack(given), plainly(theirs, F.squared_error, expected, *alike)
    )


def test_an_input_in_the_memory_of_a_weight():
    def lookup(ours):
        net = square()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        step = compile_step(net, F.squared_error, optimizer, compiler=False)
        for _ in range(3):
            x = net[0].weight.detach()[1:5]
            y = net[2].weight.detach()[:4]
            step(x, y) if ours else plainly(net, F.squared_error, optimizer, [x], [y])
        return list(net.parameters())

    torch.testing.assert_close(lookup(True), lookup(False), rtol=1e-9, atol=1e-9)


def test_attributes_of_the_criterion():
    xs, ys = batches(4)
    calls = list(zip(xs, ys, strict=True))

    def smooth(i, net, criterion):
        criterion.label_smoothing = 0.1 * i

    def reduce(i, net, criterion):
        criterion.reduction = ["mean", "sum"][i % 2]

    for between in (smooth, reduce):
        criterion = nn.CrossEntropyLoss()
        same_as_autograd(*calls, between=between, criterion=criterion)


SCALE = 1.0


@pytest.mark.slow
def test_what_a_function_reads_from_outside():
    global SCALE
    xs, ys = batches(5)
    factor, weight = 1.0, torch.ones(3, dtype=torch.double)
    options = {"shift": 1.0}

    class Holder:
        power = 1.0

        def cost(self, a, y):
            return F.cross_entropy(a, y) * self.power

    holder = Holder()

    def criterion(a, y):
        cost = F.cross_entropy(a, y, weight=weight) * factor * SCALE
        return cost * options["shift"] + holder.cost(a, y)

    def between(i, net, criterion):
        nonlocal factor, weight
        global SCALE
        factor, SCALE, options["shift"] = 1.0 + (i == 1), 1.0 + (i == 2), 1.0 + (i == 3)
        weight = torch.full((3,), 1.0, dtype=torch.double)
        weight[0] += i == 3
        holder.power = 1.0 + (i == 4)

    same_as_autograd(*zip(xs, ys, strict=True), criterion=criterion, between=between)
    same_as_autograd(
        *zip(xs, ys, strict=True),
        criterion=holder.cost,
        between=lambda i, *_: setattr(holder, "power", 1.0 + i),
    )


def scaled():
    scale = torch.nn.Parameter(torch.ones((), dtype=torch.double))
    return lambda a, y: F.cross_entropy(F.mul(a, scale), y), scale


def test_a_criterion_with_parameters_of_its_own_trains_them():
    xs, ys = batches(4)
    trained = []
    for ours in (False, True):
        net, (criterion, scale) = network(), scaled()
        optimizer = torch.optim.Adam([*net.parameters(), scale], lr=0.1)
        step = compile_step(net, criterion, optimizer, compiler=False)
        for x, y in zip(xs, ys, strict=True):
            step(x, y) if ours else plainly(net, criterion, optimizer, [x], [y])
        trained.append(scale.detach())
    assert trained[0] != 1
    torch.testing.assert_close(*trained, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("compiler", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bad", [3, -1, 1 << 40])
def test_a_class_that_there_is_not(bad, compiler):
    net = torch.nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = compile_step(net, nn.CrossEntropyLoss(), optimizer, compiler=compiler)
    xs, ys = torch.randn(2, 300, 6, dtype=torch.double), torch.randint(3, (2, 300))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        step(xs[0], ys[0])
        ys[1, -1] = -100  # ignored
        assert step(xs[0], ys[1]).isfinite()
        before = copy.deepcopy(net.state_dict())
        ys[1, 0] = bad
        with pytest.raises(
            IndexError, match=f"y: expected numbers from 0 to 2, or -100; got {bad}"
        ):
            step(xs[1], ys[1])
        with pytest.raises(IndexError, match="y: expected"):
            step.many(xs, ys)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_word_that_there_is_not():
    net = torch.nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 4))
    step = compile_step(
        net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    x, y = torch.randint(7, (4, 2)), torch.randint(4, (4,))
    step(x, y)
    step(x.int(), y)  # of another type
    for bad in (7, -1):
        x[1, 1] = bad
        with pytest.raises(IndexError, match=f"x: expected numbers from 0 to 6; got {bad}"):
            step(x, y)


def test_one_program_through_all_of_one_cycle():
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    step = compile_step(net, F.squared_error, optimizer, compiler=False)
    for x, y in zip(*batches(10), strict=True):
        step(x, y)
        scheduler.step()
    assert len(step._programs) == 1


def test_one_program_for_any_number_of_steps():
    theirs, ours = network(), network()
    expected, optimizer = (torch.optim.Adam(n.parameters(), lr=0.001) for n in (theirs, ours))
    xs, ys = batches(150)
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    given = step.many(xs, ys)
    torch.testing.assert_close(given, plainly(theirs, F.squared_error, expected, xs, ys))
    same_state(expected, optimizer)
    step.many(xs[:3], ys[:3])
    step(xs[0], ys[0])
    assert len(step._programs) == 1  # of one step, for any number of them


def test_dropout_draws_anew_in_each_step_of_each_call():
    net = torch.nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).double()
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.0), compiler=False
    )
    x, y = (t[0] for t in batches(1))
    xs, ys = x.expand(8, *x.shape), y.expand(8, *y.shape)
    drawn = torch.cat([step.many(xs, ys), step.many(xs, ys)])
    assert len(set(drawn.tolist())) > 12
    net[1].p = 0.0  # noticed
    assert len(set(step.many(xs, ys).tolist())) == 1


def test_a_changed_program_is_found_again():
    net = torch.nn.Sequential(network(), nn.Dropout(0.5))
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    (x,), (y,) = batches(1)
    for _ in range(20):
        net.train()
        step(x, y)
        net.eval()
        step(x, y)
    assert sum(step._traced.values()) == 2


@pytest.mark.slow
def test_what_changes_at_each_step_is_told_once():
    net = network()
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    (x,), (y,) = batches(1)
    with pytest.warns(UserWarning, match=r"16 programs.*net\.seen was 14 and is 15"):
        for i in range(20):
            net.seen = i
            step(x, y)
    assert len(step._programs) == 1  # the program is the same


class Counting(torch.nn.Module):
    def __init__(self, once: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.once, self.cache = nn.Linear(6, 3), once, None

    def forward(self, x):
        if self.cache is None or not self.once:
            self.cache = torch.ones(3, dtype=x.dtype) * 2
        return manualbp.functional.mul(self.inner(x), self.cache)


def test_a_forward_pass_that_writes():
    (x,), (y,) = batches(1)
    same_as_autograd((x, y), (x, y), (x, y), net=lambda: Counting(True).double())
    net = Counting(False).double()
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    step(x, y)
    with pytest.raises(RuntimeError, match=r"writes to attributes at each step .*cache"):
        step(x, y)
    assert type(net.cache) is Tensor  # and none without numbers


class Strange(torch.nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = nn.Linear(6, 3), how

    def forward(self, x):
        return self.how(self.inner(x))


def by_value(z):
    return z * 2 if z.sum() > 0 else z


def by_python(z):
    return z * random.random()


def by_numpy(z):
    return z * float(numpy.random.rand())


@pytest.mark.parametrize(
    "how, said",
    [
        (by_value, "cannot depend in Python"),
        (by_python, "Python's or NumPy's random"),
        (by_numpy, "Python's or NumPy's random"),
    ],
)
def test_what_a_program_cannot_follow(how, said):
    net = Strange(how).double()
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    (x,), (y,) = batches(1)
    with pytest.raises(RuntimeError, match=said):
        step(x, y)


def test_inputs_that_it_refuses():
    net = network()
    step = compile_step(
        net, F.squared_error, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
    )
    (x,), (y,) = batches(1)
    with pytest.raises(RuntimeError, match=r"x: expected a tensor that requires no gradient"):
        step(x.clone().requires_grad_(), y)
    step(x, y)
    with pytest.raises(RuntimeError, match=r"x: expected a tensor that requires no gradient"):
        step(x.clone().requires_grad_(), y)
    with pytest.raises(TypeError, match="x, y: expected a tensor each, got list"):
        step([x], y)
    first = torch.nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)).double()
    step = compile_step(
        first, F.squared_error, torch.optim.SGD(first.parameters(), lr=0.1), compiler=False
    )
    with pytest.raises(RuntimeError, match="writes into its input"):
        step(x, y)


@pytest.mark.slow
def test_hooks_that_it_would_not_call():
    (x,), (y,) = batches(1)
    for before in (True, False):
        for register in (
            lambda net, o: o.register_step_pre_hook(lambda *_: None),
            lambda net, o: o.register_step_post_hook(lambda *_: None),
            lambda net, o: register_optimizer_step_post_hook(lambda *_: None),
            lambda net, o: net[0].weight.register_hook(lambda g: g * 2),
            lambda net, o: net[0].weight.register_post_accumulate_grad_hook(lambda p: None),
        ):
            net = network()
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            step = compile_step(net, F.squared_error, optimizer, compiler=False)
            if not before:
                step(x, y)
            handle = register(net, optimizer)
            with pytest.raises(RuntimeError, match="does not call the hooks"):
                step(x, y)
            handle.remove()
            step(x, y)
    optimizer.param_groups[0]["differentiable"] = True
    with pytest.raises(TypeError, match="differentiable=True"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        step(x, y)


def test_two_programs_of_one_optimizer_count_together():
    theirs, ours = network(), network()
    expected, optimizer = (torch.optim.Adam(n.parameters(), lr=0.1) for n in (theirs, ours))
    one = compile_step(ours, F.squared_error, optimizer, compiler=False)
    two = compile_step(ours, F.cross_entropy, optimizer, compiler=False)
    for x, y in zip(*batches(4), strict=True):
        for step, criterion in ((one, F.squared_error), (two, F.cross_entropy)):
            step(x, y)
            plainly(theirs, criterion, expected, [x], [y])
    same_state(expected, optimizer)


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("momentum", torch.float16),
        ("momentum", torch.bfloat16),
        ("adamw", torch.bfloat16),
        ("adamw", torch.float32),
    ],
)
def test_precision_of_the_update(name, dtype):
    theirs, ours = network().to(dtype), network().to(dtype)
    expected, optimizer = (OPTIMIZERS[name](n.parameters()) for n in (theirs, ours))
    step = compile_step(ours, F.squared_error, optimizer, compiler=False)
    xs, ys = batches(6)
    plainly(theirs, F.squared_error, expected, xs.to(dtype), ys)
    for x, y in zip(xs.to(dtype), ys, strict=True):
        step(x, y)
    rtol = 8 * torch.finfo(dtype).eps
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=rtol)


def test_under_autocast_and_within_no_grad():
    for context in (torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)):
        net = network().float()
        step = compile_step(
            net, F.cross_entropy, torch.optim.SGD(net.parameters(), lr=0.1), compiler=False
        )
        (x,), (y,) = batches(1)
        before = net[0].weight.clone()
        with context():
            first = step(x.float(), y)
            assert step(x.float(), y) < first
        assert step(x.float(), y) < first
        assert not torch.equal(before, net[0].weight)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_on_cuda_it_is_a_graph_that_is_replayed(name):
    theirs, ours = network().cuda(), network().cuda()
    expected, optimizer = (OPTIMIZERS[name](n.parameters()) for n in (theirs, ours))
    step = compile_step(ours, F.squared_error, optimizer)
    xs, ys = (t.cuda() for t in batches(6))
    costs = plainly(theirs, F.squared_error, expected, xs, ys)
    given = [step(x, y) for x, y in zip(xs[:4], ys[:4], strict=True)]
    given = torch.cat([torch.stack(given), step.many(xs[4:], ys[4:])])
    torch.testing.assert_close(given, costs, rtol=1e-6, atol=1e-9)
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
