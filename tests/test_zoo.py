"""Models as they are: converted, run by formula, they do what they did, and every step is ours."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
import zoo
from torch import nn
from torch.utils._pytree import tree_leaves

import manualbp

LARGE = {
    "maxvit_t",
    "vit_b_16",
    "wide_resnet50_2",
    "densenet121",
    "inception_v3",
    "googlenet",
    "efficientnet_v2_s",
    "swin_v2_t",
    "swin_t",
    "resnext50_32x4d",
    "vgg11_bn",
    "alexnet",
}


def run(model: nn.Module, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The outputs, and one number made of all of them, with random weights."""
    torch.manual_seed(1)
    given = model(x)
    if not isinstance(given, torch.Tensor | tuple):
        given = dict(given)  # a library's record of its outputs
    outputs = [t for t in tree_leaves(given) if isinstance(t, torch.Tensor) and t.requires_grad]
    generator = torch.Generator().manual_seed(2)
    return outputs, sum(
        (torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs
    )


def exact_hardsigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """torch's backward pass of it rounds 1/6 to single precision, an error of 3e-8 in float64."""
    return torch.nn.functional.relu6(input + 3) / 6


def check(model: nn.Module, x: torch.Tensor) -> None:
    model = model.double().train()
    start = copy.deepcopy(model.state_dict())
    classes = [type(m) for m in model.modules()]
    with mock.patch.object(torch.nn.functional, "hardsigmoid", exact_hardsigmoid):
        outputs, cost = run(model, x)
        cost.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    scale = max(g.abs().max().item() for g in expected.values() if g is not None)
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    model.zero_grad()
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    report = manualbp.convert(model)
    # Somebody's own way to compute: its functions are intercepted.
    assert all(why.startswith("overrides") for _, why in report.left.values()), report
    with manualbp.intercept():
        found, cost = run(model, x)
    coverage = manualbp.coverage(cost, model)
    assert not coverage.foreign, coverage
    assert coverage.uses_explicit
    assert len(found) == len(outputs)
    for ours, theirs in zip(found, outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    del outputs, found
    cost.backward()
    for name, parameter in model.named_parameters():
        same_gradient(name, parameter.grad, expected[name], scale)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-10, atol=1e-10)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if expected[name] is not None:
            made = (start[name] - parameter.detach()) / 0.1
            same_gradient(name, made, expected[name], 1e4 * scale)

    manualbp.revert(model)
    assert [type(m) for m in model.modules()] == classes


def same_gradient(
    name: str, ours: torch.Tensor | None, theirs: torch.Tensor | None, scale: float
) -> None:
    """Equal to 1e-8 of its largest entry; one that is nought but for rounding, to 1e-12 of all."""
    assert (ours is None) == (theirs is None), name
    if ours is not None:
        allowed = max(1e-8 * theirs.abs().max().item(), 1e-12 * scale)
        torch.testing.assert_close(
            ours, theirs, rtol=1e-8, atol=allowed, msg=lambda said: f"{name}: {said}"
        )


@pytest.mark.parametrize("name", zoo.OURS)
def test_model(name):
    torch.manual_seed(0)
    check(*zoo.OURS[name]())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in zoo.VISION]
)
def test_torchvision(name):
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    check(*zoo.VISION[name]())


def test_every_family_of_torchvision_is_there():
    models = pytest.importorskip("torchvision").models
    families = {models.get_model_builder(n).__module__ for n in models.list_models(module=models)}
    assert families == {models.get_model_builder(n).__module__ for n in zoo.VISION}


@pytest.mark.parametrize("name", zoo.LIBRARIES)
def test_library(name):
    package, make = zoo.LIBRARIES[name]
    pytest.importorskip(package)
    torch.manual_seed(0)
    check(*make())
