"""A compiled step does what forward, backward and optimizer.step() do."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor

import manualbp
from manualbp import compile_step, nn
from manualbp import functional as F

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
