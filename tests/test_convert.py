"""convert and revert: a layer changes its class, or its forward, and nothing else."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, parametrize, prune
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


@pytest.fixture(params=[False, True], ids=["classes", "keep_types"])
def keep_types(request):
    """The two ways to convert."""
    return request.param


def everything(model):
    """All that must not change: objects by identity, and values."""
    return (
        {name: id(m) for name, m in model.named_modules()},
        {name: (id(p), p._version) for name, p in model.named_parameters(remove_duplicate=False)},
        {name: id(b) for name, b in model.named_buffers()},
        [m.training for m in model.modules()],
        [[k for k in m.__dict__ if k != "forward"] for m in model.modules()],
        repr(model),
    )


def types(model):
    return [type(m) for m in model.modules()]


def formulas(model, *inputs):
    """The names of the formulas in the graph behind what the model gives, and of torch's own."""
    found = manualbp.coverage(model(*inputs), model)
    return {s.name for s in found.explicit}, {s.name for s in found.foreign}


def test_nothing_changes_but_the_classes_or_forward(keep_types):
    model, x = Net(), torch.randn(5, 3)
    model.body[0].eval()
    before, kinds = everything(model), types(model)
    report = manualbp.convert(model, keep_types=keep_types)
    assert everything(model) == before
    assert set(report.converted) == {
        "first", "norm", "tied", "also_tied", "body.0", "body.1", "body.2"
    }  # fmt: skip
    assert not report.left
    for module, kind in zip(model.modules(), kinds, strict=True):
        assert isinstance(module, kind)
    assert isinstance(model.body[1], manualbp.nn.Linear) is not keep_types
    assert (types(model) == kinds) is keep_types
    assert formulas(model, x) == ({"Linear", "BatchNorm", "ReLU", "Dropout"}, set())
    assert manualbp.revert(model) is model
    assert everything(model) == before
    assert types(model) == kinds
    assert not any("forward" in vars(m) for m in model.modules())
    assert not formulas(model, x)[0]
    manualbp.revert(model)
    assert everything(model) == before


def test_converting_twice_is_converting_once(keep_types):
    model = Net()
    manualbp.convert(model, keep_types=keep_types)
    before = [(type(m), vars(m).get("forward")) for m in model.modules()]
    assert not manualbp.convert(model, keep_types=keep_types).converted
    assert [(type(m), vars(m).get("forward")) for m in model.modules()] == before


def test_one_way_to_convert_replaces_the_other(keep_types):
    model, x = Net(), torch.randn(5, 3)
    kinds = types(model)
    manualbp.convert(model, keep_types=not keep_types)
    assert len(manualbp.convert(model, keep_types=keep_types).converted) == 7
    assert (types(model) == kinds) is keep_types
    assert any("forward" in vars(m) for m in model.modules()) is keep_types
    assert not formulas(model, x)[1]
    manualbp.revert(model)
    assert types(model) == kinds


def test_a_part_of_a_model_is_converted_and_reverted_alone(keep_types):
    model = Net()
    assert set(manualbp.convert(model.body, keep_types=keep_types).converted) == {"0", "1", "2"}
    assert "Linear" in formulas(model, torch.randn(5, 3))[0]
    assert set(manualbp.convert(model, keep_types=keep_types).converted) == {
        "first", "norm", "tied", "also_tied"
    }  # fmt: skip
    manualbp.revert(model.body)
    assert formulas(model, torch.randn(5, 3)) == ({"Linear", "BatchNorm"}, {"Addmm", "Relu", "Mul"})


def test_a_shared_layer_is_converted_once(keep_types):
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ModuleList([layer])[0], nn.Tanh())
    report = manualbp.convert(model, keep_types=keep_types)
    assert report.converted == {"0": "Linear", "2": "Tanh"}
    assert model[0] is model[1] is layer
    assert formulas(model, torch.randn(2, 3)) == ({"Linear", "Tanh"}, set())


def test_a_single_layer_is_a_model():
    layer = nn.Linear(3, 4)
    report = manualbp.convert(layer)
    assert (type(layer), report.converted) == (manualbp.nn.Linear, {"": "Linear"})
    report = manualbp.convert(layer, keep_types=True)
    assert (type(layer), report.converted) == (nn.Linear, {"": "Linear"})


def test_hooks_and_the_optimizer_go_on(keep_types):
    model, called = Net(), []
    model.first.register_forward_pre_hook(lambda *_: called.append("before"))
    optimizer = torch.optim.Adam(model.parameters())
    manualbp.convert(model, keep_types=keep_types)
    model.first.register_forward_hook(lambda *_: called.append("forward"))
    model.first.register_full_backward_hook(lambda *_: called.append("backward"))
    before = model.first.weight.detach().clone()
    model(torch.randn(5, 3, requires_grad=True)).square().sum().backward()
    optimizer.step()
    assert called == ["before", "forward", "backward"]
    assert not torch.equal(model.first.weight, before)


def test_files_and_copies(keep_types):
    model = Net()
    manualbp.convert(model, keep_types=keep_types)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    x = torch.randn(5, 3)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert types(again) == types(model)
        assert_close(again.eval()(x), model.eval()(x))
        with torch.no_grad():  # the copy runs with its own weights
            again.first.weight.zero_()
        assert not torch.equal(again(x), model(x))
        assert formulas(again, x) == formulas(model, x)
        assert again.body[1].shift == 1.0
        manualbp.revert(again)
        assert type(again.body[1]) is Shifted
        assert "forward" not in vars(again.first)
        assert formulas(again, x)[1] and not formulas(model, x)[1]
    Net().load_state_dict(model.state_dict())
    weights = Net().state_dict(keep_vars=True)
    model.load_state_dict(weights, assign=True)
    assert model.first.weight is weights["first.weight"]
    model(x).sum().backward()
    assert weights["first.weight"].grad is not None


@pytest.mark.parametrize("name", [n for n in manualbp.nn.__dict__ if hasattr(nn, n)])
def test_the_forward_of_every_layer_is_found_by_its_name(name):
    """So a layer that keeps its type can be pickled."""
    layer = getattr(manualbp.nn, name)
    if isinstance(layer, type):
        assert pickle.loads(pickle.dumps(layer.forward)) is layer.forward


@pytest.mark.filterwarnings("ignore:Please use quant_min", "ignore:torch.quantize_per_tensor")
def test_what_is_left_says_why(keep_types):
    model = nn.ModuleDict(
        {
            "own_forward": Doubled(3, 3),
            "own_inside": PaddedConv(1, 1, 1),
            "replaced": nn.Linear(3, 3),
            "quantized": torch.ao.nn.quantized.dynamic.Linear(3, 3),
            "for_quantization": torch.ao.nn.qat.Linear(
                3, 3, qconfig=torch.ao.quantization.get_default_qat_qconfig()
            ),
            "lacking": nn.CrossMapLRN2d(2),
            "sparse": nn.Embedding(3, 3, sparse=True),
            "sparse_bag": nn.EmbeddingBag(3, 3, sparse=True),
        }
    )
    model["replaced"].forward = lambda input: input
    kinds = types(model)
    report = manualbp.convert(model, keep_types=keep_types)
    assert types(model) == kinds
    sparse = "sparse=True asks for a sparse gradient, and the formulas state dense ones"
    assert {name: why for name, (_, why) in report.left.items()} == {
        "own_forward": "overrides forward",
        "own_inside": "overrides _conv_forward",
        "replaced": "its forward was replaced",
        "quantized": "quantized",
        "for_quantization": "quantized",
        "lacking": "manualbp has no CrossMapLRN2d",
        "sparse": sparse,
        "sparse_bag": sparse,
    }
    assert "own_forward" in str(report) and "overrides forward" in str(report)
    model["sparse"](torch.tensor([1])).sum().backward()
    assert model["sparse"].weight.grad.is_sparse


def test_the_report_says_whom_a_new_class_misleads():
    said = "looks up the exact class"
    assert said in str(manualbp.convert(nn.Tanh()))
    assert said not in str(manualbp.convert(nn.Tanh(), keep_types=True))
    assert said not in str(manualbp.convert(Doubled(1, 1)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_layers_are_in_the_report(keep_types):
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(3, 3))), nn.Tanh())
    report = manualbp.convert(model, keep_types=keep_types)
    assert report.left == {"0": ("Sequential", "scripted: convert the model that it was made of")}
    assert report.converted == {"1": "Tanh"}


def test_wrappers_are_looked_into(keep_types):
    model = nn.DataParallel(torch.compile(nn.Sequential(nn.Linear(3, 3)), backend="eager"))
    report = manualbp.convert(model, keep_types=keep_types)
    assert set(report.converted) == {"module._orig_mod.0"}
    assert not report.left


def test_layers_that_keep_their_types_do_not_outlive_a_collection():
    layer = nn.Linear(3, 3)
    manualbp.convert(layer, keep_types=True)
    alive = weakref.ref(layer)
    del layer
    gc.collect()
    assert alive() is None


# ------------------------------------------------------- parametrizations, pruning, lazy layers


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight + weight.mT


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
    "of a subclass": lambda layer: parametrizations.weight_norm(layer),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", PARAMETRIZED)
def test_a_parametrized_layer(how, when, keep_types):
    """It is converted and reverted, and stays parametrized, whichever came first."""

    def made():
        torch.manual_seed(0)
        return nn.Sequential((Shifted if how == "of a subclass" else nn.Linear)(3, 3))

    twin, model, x = made(), made(), torch.randn(4, 3)
    PARAMETRIZED[how](twin[0])
    kind = type(model[0])
    if when == "after":
        manualbp.convert(model, keep_types=keep_types)
    PARAMETRIZED[how](model[0])
    if when == "before":
        report = manualbp.convert(model, keep_types=keep_types)
        assert report.converted == {"0": kind.__name__}
    assert type(model[0]).__name__ == f"Parametrized{kind.__name__}"
    assert_close(model.eval()(x), twin.eval()(x))
    assert "Linear" in formulas(model, x)[0]
    assert_close(copy.deepcopy(model)(x), twin(x))
    parametrize.register_parametrization(model[0], "bias", nn.Tanh())
    parametrize.remove_parametrizations(model[0], "bias", leave_parametrized=False)
    reverted = manualbp.revert(copy.deepcopy(model))
    assert "Linear" in formulas(model, x)[0]
    manualbp.revert(model)
    for again in (model, reverted):
        assert parametrize.is_parametrized(again[0], "weight")
        assert_close(again(x), twin(x))
        assert "Linear" not in formulas(again, x)[0]
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is kind
    assert "forward" not in vars(model[0])


def test_a_parametrization_may_go_before_the_conversion(keep_types):
    layer, x = parametrizations.weight_norm(nn.Linear(3, 3)), torch.randn(4, 3)
    manualbp.convert(layer, keep_types=keep_types)
    parametrize.remove_parametrizations(layer, "weight")
    assert formulas(layer, x) == ({"Linear"}, set())
    assert type(manualbp.revert(layer)) is nn.Linear
    assert not formulas(layer, x)[0]


def test_layers_copied_with_their_parametrization_are_converted_one_by_one(keep_types):
    """The copies have one class between them, which torch made."""
    layer = parametrizations.weight_norm(nn.Linear(3, 3))
    other, x = copy.deepcopy(layer), torch.randn(4, 3)
    manualbp.convert(layer, keep_types=keep_types)
    assert "Linear" in formulas(layer, x)[0]
    assert "Linear" not in formulas(other, x)[0]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("when", ["before", "after"])
def test_pruned_and_normalised_layers_are_converted(when, keep_types):
    """They are hooks on an ordinary layer."""

    def made(convert=False):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
        if convert and when == "after":
            manualbp.convert(model, keep_types=keep_types)
        prune.l1_unstructured(model[0], "weight", 0.5)
        nn.utils.spectral_norm(model[1])
        nn.utils.weight_norm(model[2])
        if convert and when == "before":
            assert not manualbp.convert(model, keep_types=keep_types).left
        return model

    model, twin, x = made(True), made(), torch.randn(4, 3)
    assert_close(model(x), twin(x))
    assert "Linear" in formulas(model, x)[0]
    prune.remove(model[0], "weight")
    nn.utils.remove_spectral_norm(model[1])
    nn.utils.remove_weight_norm(model[2])
    assert formulas(model, x) == ({"Linear"}, set())
    manualbp.revert(model)
    assert types(model) == types(twin)


def test_fused_layers_are_as_torch_fuses_them(keep_types):
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)).eval()
    x = torch.randn(1, 2, 4, 4)
    wanted = model(x)
    manualbp.convert(model, keep_types=keep_types)
    fused = fuse_conv_bn_eval(*model)
    assert_close(fused(x), wanted)
    assert formulas(fused, x) == ({"Conv"}, set())
    with torch.no_grad():
        model[0].weight.zero_()
    assert_close(fused(x), wanted)


LAZY = {
    name: (1, 3, *[5] * (int(name[-2]) if name[-1] == "d" else 0))
    for name in vars(nn)
    if name.startswith("Lazy")
}


@pytest.mark.parametrize("made_by", ["convert", "keep_types", "manualbp.nn"])
@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_layer_becomes_ours(name, made_by):
    arguments = (4,) if "Linear" in name else (4, 2) if "Conv" in name else ()
    x, layers = torch.randn(4, *LAZY[name][1:]), []
    for library in (manualbp.nn, nn):
        layers.append(getattr(library if made_by == "manualbp.nn" else nn, name)(*arguments))
    if made_by != "manualbp.nn":
        report = manualbp.convert(layers[0], keep_types=made_by == "keep_types")
        assert report.converted and not report.left
    for layer in layers:
        torch.manual_seed(0)
        first = layer(x)
    library = nn if made_by == "keep_types" else manualbp.nn
    assert type(layers[0]) is getattr(library, name.removeprefix("Lazy"))
    assert_close(layers[0](x), layers[1](x))
    assert manualbp.coverage(layers[0](x)).fraction == 1.0 or not list(layers[0].parameters())
    assert first is not None
    assert type(manualbp.revert(layers[0])) is type(layers[1])


def test_in_place_activations_behave_as_torch_s_do(keep_types):
    model, x = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), torch.randn(4, 3)
    manualbp.convert(model, keep_types=keep_types)
    output = model(x)
    assert output is x and (x >= 0).all()


def test_a_model_is_asked_for():
    for function in (manualbp.convert, manualbp.revert):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"):
            function(3)


# ------------------------------------------------------------------- tracers, compilers, wrappers


def images():
    """A model with layers of each kind, and what goes in; no layer has a state but the norm."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(5, 1, 4, 4)


FOUND = {"Conv", "BatchNorm", "ReLU", "Linear"}


def test_fx_leaves_converted_layers_whole(keep_types):
    """In either order; the graph has the layers themselves, which it may train and evaluate."""
    model, x = images()
    manualbp.convert(model, keep_types=keep_types)
    graph = torch.fx.symbolic_trace(model)
    assert [n.op for n in graph.graph.nodes] == ["placeholder", *["call_module"] * 6, "output"]
    assert graph.get_submodule("1") is model[1]
    later = torch.fx.symbolic_trace(images()[0])
    manualbp.convert(later, keep_types=keep_types)
    copies = copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), torch.fx.symbolic_trace(graph)
    for traced in (graph, later, *copies):
        assert formulas(traced.train(), x) == (FOUND | {"Dropout"}, set())
        fixed = {"FixedBatchNorm"} | FOUND - {"BatchNorm"}
        assert formulas(traced.eval(), x) == (fixed, set())
        assert_close(traced(x), model.eval()(x))
    ours = torch.fx.symbolic_trace(nn.Sequential(manualbp.nn.LSTMCell(3, 3)))
    assert [n.op for n in ours.graph.nodes] == ["placeholder", "call_module", "output"]


@pytest.mark.parametrize("recording", [True, False])
def test_fx_records_a_function_of_ours_as_one_call(recording):
    class Own(nn.Module):
        def forward(self, x):
            return manualbp.functional.layer_norm(manualbp.functional.gelu(x), (3,))

    x = torch.randn(2, 3, requires_grad=True)
    with torch.set_grad_enabled(recording):
        graph = torch.fx.symbolic_trace(Own())
    called = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert called == [manualbp.functional.gelu, manualbp.functional.layer_norm]
    for each in (graph, pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert formulas(each, x) == ({"GELU", "LayerNorm"}, set())
        assert_close(each(x), Own()(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torchscript_is_refused_with_what_to_do(keep_types):
    model, x = images()
    manualbp.convert(model, keep_types=keep_types)
    with pytest.raises((TypeError, AttributeError), match=r"script manualbp\.revert\(model\)"):
        torch.jit.script(model)
    assert_close(torch.jit.script(manualbp.revert(model).eval())(x), model(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.(trace|trace_method|save|load)` is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes that Python compares
def test_a_traced_program_is_torch_s_and_says_so(keep_types):
    """TorchScript holds no Python: the program can be saved, and has torch's own derivatives."""
    model, x = images()
    model.append(nn.ReLU(inplace=True)).eval()
    manualbp.convert(model, keep_types=keep_types)
    with pytest.warns(UserWarning, match="the derivatives of the traced program are torch's own"):
        traced = torch.jit.trace(model, x)
    assert_close(traced(x), model(x))
    assert not {s.name for s in manualbp.coverage(traced(x)).explicit}
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    others = torch.randn(2, 1, 4, 4)
    assert_close(torch.jit.load(file)(others), model(others))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiling_and_exporting_trace_the_layers_whole(keep_types):
    """And converting a compiled model is noticed."""
    model, x = images()
    wanted = model.eval()(x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), wanted)
    manualbp.convert(model, keep_types=keep_types)
    compiled(x).square().sum().backward()
    found = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    model(x).square().sum().backward()
    assert_close(found, [p.grad for p in model.parameters()])
    exported = torch.export.export(model, (x,))
    assert_close(exported.module()(x), wanted)


def test_other_weights_and_ensembles(keep_types):
    """torch.func puts weights into a layer, and takes them out again."""
    models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(3)]
    x = torch.randn(5, 3)
    wanted = torch.stack([model(x) for model in models])
    for model in models:
        manualbp.convert(model, keep_types=keep_types)
    one = torch.func.functional_call(models[0], dict(models[1].named_parameters()), (x,))
    assert_close(one, wanted[1])
    assert manualbp.coverage(one).fraction == 1.0
    base = copy.deepcopy(models[0]).to("meta")
    weights, buffers = torch.func.stack_module_state(models)
    found = torch.vmap(lambda *w: torch.func.functional_call(base, w, (x,)))(weights, buffers)
    assert_close(found, wanted)
    g = torch.randn_like(wanted)
    gradients = torch.autograd.grad(found, [*weights.values()], g)
    for i, model in enumerate(models):
        model(x).backward(g[i])
        assert_close([w[i] for w in gradients], [p.grad for p in model.parameters()])


def test_recurrent_and_transformer_layers_keep_their_types_too():
    """Their forward is torch's Python, run by formula."""
    model = nn.ModuleList([nn.LSTM(4, 4, proj_size=2), nn.TransformerEncoderLayer(4, 2)])
    x = torch.randn(3, 2, 4)
    manualbp.convert(model, keep_types=True)
    again = pickle.loads(pickle.dumps(model))
    for each in (model, again):
        output, (h, c) = each[0](x)
        assert manualbp.coverage(output.sum() + h.sum() + c.sum()).uses_explicit
        assert manualbp.coverage(each[1](x)).fraction == 1.0


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("wrapper", ["DataParallel", "DDP", "fully_shard"])
def test_wrapped_models(wrapper, when, keep_types, one_process):
    def wrapped(model):
        if wrapper == "fully_shard":
            mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
            torch.distributed.fsdp.fully_shard(model[5], mesh=mesh)
            return torch.distributed.fsdp.fully_shard(model, mesh=mesh)
        kinds = {"DataParallel": nn.DataParallel, "DDP": nn.parallel.DistributedDataParallel}
        return kinds[wrapper](model)

    (model, x), (twin, _) = images(), images()
    kinds = types(wrapped(images()[0]))
    model[4].p = twin[4].p = 0.0
    if when == "after":
        model = wrapped(model)
    report = manualbp.convert(model, keep_types=keep_types)
    assert len(report.converted) == 6 and not report.left
    if when == "before":
        model = wrapped(model)
    twin(x).square().sum().backward()
    output = model(x)
    found = {s.name for s in manualbp.coverage(output.sum()).explicit}
    assert found >= FOUND
    output.square().sum().backward()
    local = [getattr(p.grad, "_local_tensor", p.grad) for p in model.parameters()]
    assert_close(local, [p.grad for p in twin.parameters()])
    manualbp.revert(model)
    assert [k.__name__ for k in types(model)] == [k.__name__ for k in kinds]
    assert not any(issubclass(k, manualbp.nn.Linear) for k in types(model))
    assert not {s.name for s in manualbp.coverage(model(x).sum()).explicit} & FOUND
