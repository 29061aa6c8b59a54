"""Thirty compiled steps against thirty of torch's own layers, autograd and optimizers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, lr_scheduler

import manualbp
from manualbp import compile_step

STEPS = 30

# ----------------------------------------------------------------------------------------- rows

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.1}),
    "sgd decay": (SGD, {"lr": 0.1, "weight_decay": 0.05}),
    "sgd maximize": (SGD, {"lr": 0.003, "maximize": True, "weight_decay": 0.05}),
    "sgd foreach": (SGD, {"lr": 0.1, "foreach": True}),
    "sgd fused": (SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "momentum": (SGD, {"lr": 0.03, "momentum": 0.9}),
    "momentum decay": (SGD, {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.05}),
    "dampening": (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (SGD, {"lr": 0.03, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02}),
    "adam": (Adam, {"lr": 0.02}),
    "adam decay": (Adam, {"lr": 0.02, "weight_decay": 0.1, "eps": 1e-3}),
    "adam betas": (Adam, {"lr": 0.02, "betas": (0.5, 0.7), "maximize": True}),
    "adam fused": (Adam, {"lr": 0.02, "fused": True}),
    "amsgrad": (Adam, {"lr": 0.05, "amsgrad": True, "betas": (0.5, 0.6)}),
    "adamw": (AdamW, {"lr": 0.02, "weight_decay": 0.2}),
    "adamw amsgrad": (AdamW, {"lr": 0.05, "amsgrad": True, "foreach": True}),
    "adam decoupled": (Adam, {"lr": 0.02, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    "tensor rate": (Adam, {"lr": torch.tensor(0.02, dtype=torch.double)}),
}

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "constant": lambda o: None,
    "step": lambda o: lr_scheduler.StepLR(o, 7, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(
        o,
        0.05,
        STEPS + 1,
        cycle_momentum="momentum" not in o.defaults or o.defaults["momentum"] > 0,
    ),
    "cyclic": lambda o: lr_scheduler.CyclicLR(
        o, 0.01, 0.1, 3, cycle_momentum=o.defaults.get("momentum", 0) > 0
    ),
    "warm": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)],
        [5],
    ),
}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.one(x)))


class Twice(nn.Module):
    """One module applied twice, one never, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out, self.never = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 6)
        self.spare = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(self.inner(x)))


class Averages(nn.Module):
    """A buffer that forward replaces."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        self.average = 0.9 * self.average + 0.1 * z.detach().mean(0)
        return z - self.average


class Hidden(nn.Module):
    """Layers in a plain list, an attribute that is a tensor, and a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
        self.layers = [self.first, self.second, self.third]
        self.scale = torch.tensor(1.5, dtype=torch.double)
        self.options = {"shift": 0.25, "sizes": [1, 2]}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale + self.options["shift"] * len(self.options["sizes"])


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3))


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 6))


def normed(momentum: float | None = 0.1) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 5, bias=False),  # whose gradient would be rounding alone, which Adam enlarges
        nn.BatchNorm1d(5, momentum=momentum),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def frozen() -> nn.Module:
    net = normed()
    net[0].weight.requires_grad_(False)
    net[1].bias.requires_grad_(False)
    return net


def one_memory() -> nn.Module:
    """Two parameters in the same memory."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    net[2].weight.data = net[0].weight.data
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": normed,
    "batch norm, mean of all": lambda: normed(None),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)),
    "frozen": frozen,
    "tied": Tied,
    "one memory": one_memory,
    "twice and never": Twice,
    "replaced buffer": Averages,
    "hidden": Hidden,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)
    ),
    "one number": lambda: nn.Sequential(nn.Linear(6, 3), nn.PReLU()),
}

# What may happen to a network and its optimizer between two steps, each at steps of its own.


def replace_weight(net: nn.Module, optimizer: Any) -> None:
    net[0].weight = nn.Parameter(net[0].weight.detach() * 0.5)  # which the optimizer has not


def replace_and_add(net: nn.Module, optimizer: Any) -> None:
    net[0].weight = nn.Parameter(net[0].weight.detach() * 0.5)
    optimizer.add_param_group({"params": [net[0].weight], "lr": 0.05})


def replace_everywhere(net: nn.Module, optimizer: Any) -> None:
    params = optimizer.param_groups[0]["params"]
    new = nn.Parameter(net[0].weight.detach() * 0.5)
    optimizer.state.pop(net[0].weight, None)
    params[[p is net[0].weight for p in params].index(True)] = net[0].weight = new


def replace_one_number(net: nn.Module, optimizer: Any) -> None:
    net[4].weight = nn.Parameter(net[4].weight.detach().clone())


def replace_data(net: nn.Module, optimizer: Any) -> None:
    net[0].weight.data = net[0].weight.data.clone() * 0.5


def turn_data(net: nn.Module, optimizer: Any) -> None:
    square = net[5].weight
    square.data = square.data.t()


def replace_buffer(net: nn.Module, optimizer: Any) -> None:
    net[1].running_mean = net[1].running_mean + 0.3


def replace_activation(net: nn.Module, optimizer: Any) -> None:
    net[2] = manualbp.nn.Tanh() if isinstance(net[0], manualbp.nn.Linear) else nn.Tanh()


def load(net: nn.Module, optimizer: Any) -> None:
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()})


def load_assign(net: nn.Module, optimizer: Any) -> None:
    net.load_state_dict({k: v * 1 for k, v in net.state_dict().items()}, assign=True)
    optimizer.param_groups[0]["params"] = [*net.parameters()]
    optimizer.state.clear()


def load_optimizer(net: nn.Module, optimizer: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def new_momentum(net: nn.Module, optimizer: Any) -> None:
    for state in optimizer.state.values():
        for name in ("momentum_buffer", "exp_avg"):
            if name in state:
                state[name] = state[name] * 0.5


def forget(net: nn.Module, optimizer: Any) -> None:
    optimizer.state.pop(net[0].weight, None)


def count_anew(net: nn.Module, optimizer: Any) -> None:
    if "step" in optimizer.state.get(net[3].bias, {}):
        optimizer.state[net[3].bias]["step"].fill_(1.0)


def toggle_gradient(net: nn.Module, optimizer: Any) -> None:
    net[0].weight.requires_grad_(not net[0].weight.requires_grad)


def toggle_mode(net: nn.Module, optimizer: Any) -> None:
    net.train(not net.training)


def toggle_one_mode(net: nn.Module, optimizer: Any) -> None:
    net[1].train(not net[1].training)


def attribute(net: nn.Module, optimizer: Any) -> None:
    net[1].eps *= 100
    net[1].momentum = 0.4
    net[6].negative_slope += 0.1


def options(net: nn.Module, optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.03 if not group["weight_decay"] else 0.0
        group["lr"] = group["lr"] * 0.7
        group["maximize"] = not group["maximize"]
        if group.get("momentum"):
            group["momentum"] = 0.7
        if "betas" in group:
            group["betas"] = (0.6, 0.9)


def add_hook(net: nn.Module, optimizer: Any) -> None:
    net[0].register_forward_hook(lambda module, inputs, output: output * 0.5)


def add_pre_hook(net: nn.Module, optimizer: Any) -> None:
    net[3].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


def own_steps(net: nn.Module, optimizer: Any) -> None:
    """Some of its steps without the program."""
    x, y = data(1, 5)[0]
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


EVENTS: dict[str, Callable[[nn.Module, Any], None]] = {
    name.replace("_", " "): globals()[name]
    for name in (
        "replace_weight replace_and_add replace_everywhere replace_one_number replace_data "
        "turn_data replace_buffer replace_activation load load_assign load_optimizer new_momentum "
        "forget count_anew toggle_gradient toggle_mode toggle_one_mode attribute options add_hook "
        "add_pre_hook own_steps"
    ).split()
}


def eventful() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.Sigmoid(),
        nn.Linear(5, 5),
        nn.PReLU(),
        nn.Linear(5, 5),
        nn.LeakyReLU(0.1),
        nn.Linear(5, 3),
    ).double()


# What x and y may be to one another: a program is made for one pair, and runs for the next.

x, y = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.double)
both, turned = torch.cat([x, y]), x.mT.contiguous().mT
INPUTS = {
    "one tensor, then two": [(x, x), (x, x), (x, y), (y, y), (y, x)],
    "two tensors, then one": [(x, y), (x, x), (y, x), (y, y)],
    "halves of one": [(both[:4], both[4:]), (both[4:], both[:4]), (both[4:], both[4:])],
    "parts that overlap": [(both[:4], both[1:5]), (both[:4], both[3:7]), (both[:4], x)],
    "a view of it": [(x, x.view(4, 6)), (x, y), (y.view(4, 6), y)],
    "other strides": [(x, y), (turned, y), (x, turned), (turned, turned), (turned, x)],
    "stretched": [(x, x[:1].expand(4, 6)), (x[:1].expand(4, 6), y), (x, y)],
}

# ------------------------------------------------------------------------------------- training


class Taught(NamedTuple):
    costs: Tensor
    net: nn.Module
    optimizer: torch.optim.Optimizer


def data(steps: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Batches of four, the last of every ten smaller."""
    g = torch.Generator().manual_seed(seed)
    sizes = [3 if i % 10 == 9 else 4 for i in range(steps)]
    return [
        (torch.randn(n, 6, generator=g, dtype=torch.double), torch.randint(3, (n,), generator=g))
        for n in sizes
    ]


Event = Callable[[nn.Module, Any], None] | None


def teach(
    make: Callable[[], nn.Module],
    kind: str,
    scheduler: str = "constant",
    event: Event = None,
    ours: bool = False,
    compiler: bool = False,
    together: int = 1,
    cost: str = "cross_entropy",
    batches: list[tuple[Tensor, Tensor]] | None = None,
) -> Taught:
    torch.manual_seed(0)
    net = make().double()
    if ours:
        manualbp.convert(net)
    cls, settings = OPTIMIZERS[kind]
    optimizer = cls(net.parameters(), **copy.deepcopy(settings))
    schedule = SCHEDULERS[scheduler](optimizer)
    criterion = getattr(manualbp.functional if ours else F, cost)
    step = compile_step(net, criterion, optimizer, compiler=compiler) if ours else None
    batches, costs, at = batches or data(STEPS), [], 0
    while at < len(batches):
        if event and at in (5, 16):
            event(net, optimizer)
        alike = [b for b in batches[at : at + together] if len(b[1]) == len(batches[at][1])]
        if step and len(alike) > 1:
            costs += step.many(*(torch.stack(batch) for batch in zip(*alike, strict=True)))
        else:
            alike = alike[:1]
            x, y = alike[0]
            if step:
                costs.append(step(x, y))
            else:
                optimizer.zero_grad()
                cost = criterion(net(x), y)
                cost.backward()
                optimizer.step()
                costs.append(cost.detach())
        at += len(alike)
        if schedule:
            schedule.step()
    optimizer.zero_grad()
    return Taught(torch.stack(costs), net, optimizer)


def same(a: Taught, b: Taught, rtol: float = 1e-9) -> None:
    close = {"rtol": rtol, "atol": rtol}
    torch.testing.assert_close(a.costs, b.costs, **close)
    torch.testing.assert_close(b.net.state_dict(), a.net.state_dict(), **close)
    one, two = a.optimizer.state_dict(), b.optimizer.state_dict()
    assert one["state"].keys() == two["state"].keys()
    for key, state in one["state"].items():
        assert state.keys() == two["state"][key].keys()
        torch.testing.assert_close(two["state"][key], state, **close)
    for p in b.net.parameters():
        assert p.grad is None


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers(kind):
    same(teach(plain, kind), teach(plain, kind, ours=True))


@pytest.mark.parametrize("kind", ["sgd decay", "nesterov", "amsgrad", "tensor rate"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(scheduler, kind):
    same(teach(plain, kind, scheduler), teach(plain, kind, scheduler, ours=True))


@pytest.mark.parametrize("kind", ["sgd decay", "momentum decay", "adamw"])
@pytest.mark.parametrize("net", NETS)
def test_networks(net, kind):
    same(teach(NETS[net], kind), teach(NETS[net], kind, ours=True))


@pytest.mark.parametrize("given", INPUTS)
def test_what_is_given_together(given):
    batches = 2 * INPUTS[given]
    made = [
        teach(encoder, "momentum", ours=ours, cost="mse_loss", batches=batches)
        for ours in (False, True)
    ]
    same(*made)


@pytest.mark.parametrize("kind", ["momentum decay", "adamw"])
@pytest.mark.parametrize("event", EVENTS)
def test_what_happens_between_two_steps(event, kind):
    same(
        teach(eventful, kind, event=EVENTS[event]),
        teach(eventful, kind, event=EVENTS[event], ours=True),
    )


@pytest.mark.parametrize("kind", ["momentum decay", "adamw"])
@pytest.mark.parametrize("net", ["batch norm, mean of all", "twice and never", "replaced buffer"])
def test_several_a_call(net, kind):
    same(teach(NETS[net], kind), teach(NETS[net], kind, ours=True, together=3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "net, kind, scheduler, event",
    [
        ("batch norm", "nesterov", "one cycle", None),
        ("batch norm, mean of all", "adamw", "cosine", None),
        ("one memory", "momentum decay", "constant", None),
        ("twice and never", "adam decay", "step", None),
        ("replaced buffer", "sgd decay", "constant", None),
    ],
)
def test_compiled(net, kind, scheduler, event):
    with warnings.catch_warnings():
        # Inductor's own, of the parts of torch that it calls.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        ours = teach(NETS[net], kind, scheduler, event, ours=True, compiler=True)
    same(teach(NETS[net], kind, scheduler, event), ours)
