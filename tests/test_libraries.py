"""Libraries that ask for a layer's exact class: what each sees of a converted model.

`pip install -e ".[zoo]"` installs them.
"""

import pytest
import torch
from torch import nn

import manualbp

# The libraries' own: parts of torch that are on their way out, hooks on the outermost module.
pytestmark = pytest.mark.filterwarnings("ignore")


def made():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def images():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def deep_lift(model):
    captum = pytest.importorskip("captum.attr")
    return captum.DeepLift(model).attribute(images(), torch.zeros(4, 1, 8, 8), target=1)


def lrp(model):
    captum = pytest.importorskip("captum.attr")
    return captum.LRP(model[5:]).attribute(model[:5](images()).detach(), target=1)


def opacus_validator(model):
    opacus = pytest.importorskip("opacus.validators")
    return opacus.ModuleValidator.is_valid(model.train())


def opacus_fix(model):
    opacus = pytest.importorskip("opacus.validators")
    return [m.__class__.__name__ for m in opacus.ModuleValidator.fix(model)]


def opacus_samplers(model):
    """Per-example gradients, and for which layers it has no sampler of its own."""
    opacus = pytest.importorskip("opacus")
    model[1] = nn.Identity()
    opacus.GradSampleModule(model.train())(images()).square().sum().backward()
    gradients = torch.cat([p.grad_sample.flatten(1) for p in model.parameters()], 1)
    return [hasattr(m, "ft_compute_sample_grad") for m in model], gradients


def dynamic_quantization(model):
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return [type(m).__module__.rsplit(".", 3)[1] for m in quantized if "Linear" in repr(m)]


def thop(model):
    return pytest.importorskip("thop").profile(model, (images(),), verbose=False)


def same(found, wanted):
    if isinstance(wanted, torch.Tensor):
        return torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    if isinstance(wanted, tuple | list):
        return all(map(same, found, wanted))
    return found == wanted


ASK_FOR_THE_CLASS = [
    deep_lift, lrp, opacus_validator, opacus_fix, opacus_samplers, dynamic_quantization, thop
]  # fmt: skip


@pytest.mark.parametrize("library", ASK_FOR_THE_CLASS)
def test_types_that_are_kept_and_interception_are_torch_s_to_it(library):
    wanted = library(made())
    model = made()
    assert len(manualbp.convert(model, keep_types=True).converted) == 8
    assert same(library(model), wanted)
    with manualbp.intercept():
        assert same(library(made()), wanted)


@pytest.mark.parametrize("library", ASK_FOR_THE_CLASS)
def test_new_classes_are_not(library):
    """What README.md says; a library that has learnt to ask isinstance may be taken off there."""
    wanted = library(made())
    model = made()
    manualbp.convert(model)
    try:
        found = library(model)
    except TypeError as error:  # LRP's: there is no rule for a class that it does not know
        assert "manualbp.nn" in str(error)
    else:
        assert not same(found, wanted)
    model = made()
    manualbp.convert(model)
    assert same(library(manualbp.revert(model)), wanted)


def test_fvcore_counts_what_it_traces():
    """torch.jit.trace records torch's operations in place of formulas."""
    fvcore = pytest.importorskip("fvcore.nn")
    wanted = fvcore.FlopCountAnalysis(made(), images())
    for keep_types in (False, True):
        model = made()
        manualbp.convert(model, keep_types=keep_types)
        found = fvcore.FlopCountAnalysis(model, images())
        assert (found.total(), found.by_module()) == (wanted.total(), wanted.by_module())


def pruned(model):
    """What is left of it when the first channel of its first layer goes."""
    library = pytest.importorskip("torch_pruning")
    graph = library.DependencyGraph().build_dependency(model, example_inputs=images())
    graph.get_pruning_group(model[0], library.prune_conv_out_channels, idxs=[0]).prune()
    return [tuple(p.shape) for p in model.parameters()]


def test_torch_pruning_follows_torch_s_own_nodes():
    """It reads the names in autograd's graph: a model is to be reverted before, in any case."""
    wanted = pruned(made())
    for keep_types in (False, True):
        model = made()
        manualbp.convert(model, keep_types=keep_types)
        assert pruned(manualbp.revert(model)) == wanted
        assert not manualbp.convert(model, keep_types=keep_types).left
        assert model(images()).shape == (4, 3)
