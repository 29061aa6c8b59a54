"""convert and revert: a layer changes its class, and nothing else."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close

import manualbp


class Shifted(nn.Linear):
    """Somebody's layer that computes as torch's does."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.shift = 1.0

    def extra_repr(self) -> str:
        return "shifted"


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class PaddedConv(nn.Conv2d):
    """Not forward, but what forward calls."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight, bias) + 1


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tied = nn.Linear(4, 4)
        self.also_tied = nn.Linear(4, 4)
        self.also_tied.weight = self.tied.weight
        self.body = nn.Sequential(nn.ReLU(inplace=True), Shifted(4, 4), nn.Dropout(0.5))

    def forward(self, x):
        return self.body(self.also_tied(self.tied(self.norm(self.first(x)))))


def everything(model):
    """All that must not change: objects by identity, and values."""
    return (
        {name: id(m) for name, m in model.named_modules()},
        {name: (id(p), p._version) for name, p in model.named_parameters(remove_duplicate=False)},
        {name: id(b) for name, b in model.named_buffers()},
        [m.training for m in model.modules()],
        [list(m.__dict__) for m in model.modules()],
        repr(model),
    )


def test_nothing_changes_but_the_classes():
    model = Net()
    model.body[0].eval()
    before, kinds = everything(model), [type(m) for m in model.modules()]
    report = manualbp.convert(model)
    assert everything(model) == before
    assert set(report.converted) == {
        "first", "norm", "tied", "also_tied", "body.0", "body.1", "body.2"
    }  # fmt: skip
    assert not report.left
    for module, kind in zip(model.modules(), kinds, strict=True):
        assert isinstance(module, kind)
    assert isinstance(model.body[1], manualbp.nn.Linear)
    assert manualbp.revert(model) is model
    assert everything(model) == before
    assert [type(m) for m in model.modules()] == kinds


def test_converting_twice_is_converting_once():
    model = Net()
    manualbp.convert(model)
    kinds = [type(m) for m in model.modules()]
    assert not manualbp.convert(model).converted
    assert [type(m) for m in model.modules()] == kinds


def test_a_single_layer_is_a_model():
    layer = nn.Linear(3, 4)
    report = manualbp.convert(layer)
    assert (type(layer), report.converted) == (manualbp.nn.Linear, {"": "Linear"})


def test_hooks_and_the_optimizer_go_on():
    model, called = Net(), []
    model.first.register_forward_hook(lambda *_: called.append("forward"))
    model.first.register_full_backward_hook(lambda *_: called.append("backward"))
    optimizer = torch.optim.Adam(model.parameters())
    manualbp.convert(model)
    before = model.first.weight.detach().clone()
    model(torch.randn(5, 3, requires_grad=True)).square().sum().backward()
    optimizer.step()
    assert called == ["forward", "backward"]
    assert not torch.equal(model.first.weight, before)


def test_files_and_copies():
    model = Net()
    manualbp.convert(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    x = torch.randn(5, 3)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
        assert_close(again.eval()(x), model.eval()(x))
        assert again.body[1].shift == 1.0
        manualbp.revert(again)
        assert type(again.body[1]) is Shifted
    Net().load_state_dict(model.state_dict())


def test_what_is_left_says_why():
    model = nn.ModuleDict(
        {
            "own_forward": Doubled(3, 3),
            "own_inside": PaddedConv(1, 1, 1),
            "parametrized": parametrizations.weight_norm(nn.Linear(3, 3)),
            "replaced": nn.Linear(3, 3),
        }
    )
    model["replaced"].forward = lambda input: input
    kinds = {name: type(m) for name, m in model.items()}
    report = manualbp.convert(model)
    assert {name: type(m) for name, m in model.items()} == kinds
    reasons = {name: why for name, (_, why) in report.left.items()}
    assert reasons["own_forward"] == "overrides forward"
    assert reasons["own_inside"] == "overrides _conv_forward"
    assert reasons["parametrized"].startswith("parametrized")
    assert reasons["replaced"] == "its forward was replaced"
    assert "own_forward" in str(report) and "overrides forward" in str(report)


def test_pruned_and_spectral_layers_are_converted():
    """They are hooks on an ordinary layer."""

    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.utils.spectral_norm(nn.Linear(3, 3)))
        prune.l1_unstructured(model[0], "weight", 0.5)
        return model

    model, twin, x = made(), made(), torch.randn(4, 3)
    assert not manualbp.convert(model).left
    assert_close(model(x), twin(x))


LAZY = {
    name: (1, 3, *[5] * (int(name[-2]) if name[-1] == "d" else 0))
    for name in vars(nn)
    if name.startswith("Lazy")
}


@pytest.mark.parametrize("made_by", ["convert", "manualbp.nn"])
@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_layer_becomes_ours(name, made_by):
    arguments = (4,) if "Linear" in name else (4, 2) if "Conv" in name else ()
    x, layers = torch.randn(4, *LAZY[name][1:]), []
    for library in (manualbp.nn, nn):
        layers.append(getattr(library if made_by != "convert" else nn, name)(*arguments))
    if made_by == "convert":
        assert not manualbp.convert(layers[0]).left
    for layer in layers:
        torch.manual_seed(0)
        first = layer(x)
    assert type(layers[0]) is getattr(manualbp.nn, name.removeprefix("Lazy"))
    assert_close(layers[0](x), layers[1](x))
    assert manualbp.coverage(layers[0](x)).fraction == 1.0 or not list(layers[0].parameters())
    assert first is not None
    assert type(manualbp.revert(layers[0])) is type(layers[1])


def test_in_place_activations_behave_as_torch_s_do():
    model, x = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), torch.randn(4, 3)
    manualbp.convert(model)
    output = model(x)
    assert output is x and (x >= 0).all()


def test_a_model_is_asked_for():
    for function in (manualbp.convert, manualbp.revert):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"):
            function(3)
