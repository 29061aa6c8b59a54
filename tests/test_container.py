"""A chain as one node: the same gradients, and no difference where somebody looks in between."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from manualbp import Tape, nn
from manualbp import functional as F


def layers() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Flatten(), nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)
    ]  # fmt: skip


def both() -> tuple[nn.Sequential, torch.nn.Sequential]:
    """The chain, and the same layers one by one."""
    chain = nn.Sequential(*layers())
    return chain, torch.nn.Sequential(*copy.deepcopy(chain))


def gradients(net: torch.nn.Module, input: Tensor, g: Tensor, **options) -> tuple[Tensor, ...]:
    wanted = [t for t in (input, *net.parameters()) if t.requires_grad]
    return torch.autograd.grad(net(input), wanted, g, **options)


@pytest.mark.parametrize("wants", [True, False], ids=["input wanted", "input given"])
def test_same_gradients_to_the_last_bit(wants):
    chain, single = both()
    input, g = torch.randn(7, 3, 4, requires_grad=wants), torch.randn(7, 3)
    assert torch.equal(chain(input), single(input))
    for ours, theirs in zip(gradients(chain, input, g), gradients(single, input, g), strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_one_node():
    chain, _ = both()
    node = chain(torch.randn(7, 3, 4)).grad_fn
    assert type(node).__name__ == "ChainBackward"
    assert all(hasattr(before, "variable") for before, _ in node.next_functions if before)


def test_frozen_layers():
    chain, single = both()
    input, g = torch.randn(7, 3, 4), torch.randn(7, 3)
    for net in (chain, single):
        net[1].requires_grad_(False)
        net[3].bias.requires_grad_(False)
    for ours, theirs in zip(gradients(chain, input, g), gradients(single, input, g), strict=True):
        assert torch.equal(ours, theirs)


def test_a_weight_in_two_layers():
    def make(kind):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        return kind(layer, nn.Tanh(), layer, nn.Tanh(), layer)

    chain, single = make(nn.Sequential).double(), make(torch.nn.Sequential).double()
    input = torch.randn(7, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(7, 4, dtype=torch.double)
    for ours, theirs in zip(gradients(chain, input, g), gradients(single, input, g), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)  # added in another order


def test_foreign_layers_and_costs_in_between():
    def make(kind):
        torch.manual_seed(0)
        return kind(*layers(), torch.nn.LayerNorm(3), nn.Sequential(nn.ReLU(), nn.Linear(3, 3)))

    chain, single = make(nn.Sequential), make(torch.nn.Sequential)
    input, target = torch.randn(7, 3, 4), torch.randint(3, (7,))
    for net in (chain, single):
        F.cross_entropy(net(input), target).backward()
    for ours, theirs in zip(chain.parameters(), single.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_gradient_of_a_gradient():
    chain, single = both()
    for net in (chain, single):
        net.double()
    input = torch.randn(7, 3, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(7, 3, dtype=torch.double, requires_grad=True)
    second = []
    for net in (chain, single):
        first = gradients(net, input, g, create_graph=True)
        second.append(torch.autograd.grad(sum(t.square().sum() for t in first), [input, g]))
    for ours, theirs in zip(*second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_hooks_of_a_layer_fire():
    chain, single = both()
    seen: dict[torch.nn.Module, list] = {chain: [], single: []}
    input = torch.randn(7, 3, 4)
    for net, notes in seen.items():
        net[2].register_forward_hook(lambda m, i, o, notes=notes: notes.append(o.detach()))
        net[3].register_full_backward_hook(lambda m, gi, go, notes=notes: notes.append(go[0]))
        net(input).square().sum().backward()
    for ours, theirs in zip(*seen.values(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(seen[chain]) == 2


def test_what_looks_in_between_sees_the_layers():
    chain, _ = both()
    input = torch.randn(7, 3, 4)
    for keep, names in (
        (True, ["Linear", "Sigmoid", "Linear", "GELU", "Linear"]),
        (False, ["Linear Sigmoid Linear GELU Linear"]),
    ):
        with Tape(keep=keep) as tape:
            output = chain(input)
        assert [entry.name for entry in tape] == names
        tape.backprop(output, torch.ones_like(output))
        assert str(tape).startswith("z³ ← a² ← z² ← a¹ ← z¹" if keep else "a")
    params = dict(chain.named_parameters())
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(chain, p, (input,)))(params)
    assert jacobian["1.weight"].shape == (7, 3, 5, 12)
    compiled = torch.compile(chain, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(input), chain(input))


def test_no_gradient_no_graph():
    chain, _ = both()
    with torch.no_grad():
        assert chain(torch.randn(7, 3, 4)).grad_fn is None
    chain.requires_grad_(False)
    assert not chain(torch.randn(7, 3, 4)).requires_grad


def test_it_saves_what_its_layers_save():
    chain, single = both()
    input = torch.randn(7, 3, 4)

    def saved(net: torch.nn.Module) -> int:
        seen: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with saved_tensors_hooks(pack, lambda t: t):
            net(input)
        return sum(seen.values())

    # The parameters themselves are there anyway.
    own = sum(p.nbytes for p in chain.parameters())
    assert saved(chain) - own <= saved(single)


def test_once_unless_retained():
    chain, _ = both()
    output = chain(torch.randn(7, 3, 4))
    output.sum().backward(retain_graph=True)
    output.sum().backward()
    with pytest.raises(RuntimeError, match="a second time"):
        output.sum().backward()


def test_a_change_in_place_is_noticed():
    chain, _ = both()
    output = chain(torch.randn(7, 3, 4))
    with torch.no_grad():
        chain[3].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_in_place_layers_and_in_place_after():
    def make(kind):
        torch.manual_seed(0)
        return kind(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))

    results = []
    for kind in (nn.Sequential, torch.nn.Sequential):
        net, input = make(kind), torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
        net(input).mul_(3).square().sum().backward()
        results.append([input.grad, *(p.grad for p in net.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_autocast_and_state_dict():
    chain, single = both()
    input, g = torch.randn(7, 3, 4), torch.randn(7, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [net(input) for net in (chain, single)]
    for output in outputs:
        assert output.dtype == torch.bfloat16
        output.backward(g)
    for ours, theirs in zip(chain.parameters(), single.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    torch.nn.Sequential(*layers()).load_state_dict(chain.state_dict())
    assert isinstance(chain[1:3], nn.Sequential) and repr(chain) == repr(single)


def test_dropout_is_left_to_autograd():
    """Its mask could not be drawn again for a gradient of a gradient."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.ReLU())
    names, node = [], net(torch.randn(3, 4)).grad_fn
    while node is not None and not hasattr(node, "variable"):
        names.append(type(node).__name__)
        node = node.next_functions[0][0]
    assert names == ["ChainBackward", "DropoutBackward", "LinearBackward"]
