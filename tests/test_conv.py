"""Convolutions at sizes that the small rows of the table do not have."""

import pytest
import torch
from cases.conv import CASES
from properties import SHARP, gradients, random_like
from torch.testing import assert_close

from manualbp import functional as F
from manualbp.formulas import conv


@pytest.mark.parametrize("case", CASES, ids=str)
def test_some_examples_at_a_time(case, monkeypatch):
    """Where the windows of all examples together would be too many."""
    leaves, ours, _ = case.sides()
    expected = gradients(ours, leaves)
    monkeypatch.setattr(conv, "COLUMNS", 1)
    assert_close(gradients(ours, leaves), expected, **SHARP)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("image", "kernel", "options"),
    [
        ((8, 32, 16, 16), (32, 32, 3, 3), {"padding": 1}),
        ((8, 32, 16, 16), (64, 32, 1, 1), {"stride": 2}),
        ((4, 3, 32, 32), (64, 3, 8, 8), {"stride": 8}),
        ((4, 32, 16, 16), (32, 1, 7, 7), {"padding": 3, "groups": 32}),
        ((4, 32, 17, 16), (32, 1, 3, 3), {"padding": 1, "groups": 32, "stride": 2}),
        ((4, 32, 16, 16), (64, 8, 3, 3), {"padding": 2, "groups": 4, "dilation": 2}),
    ],
    ids=["3x3", "1x1", "patches", "depthwise", "depthwise strided", "grouped"],
)
def test_in_single_precision(image, kernel, options, layout):
    """As near the gradient in double precision as torch's is."""
    x = torch.randn(image).to(memory_format=layout).requires_grad_()
    w = torch.randn(kernel).to(memory_format=layout).requires_grad_()

    def found(function, *leaves):
        output = function(*leaves, **options)
        return torch.autograd.grad(output, leaves, random_like(output))

    exact = found(torch.nn.functional.conv2d, x.double(), w.double())
    for ours, true in zip(found(F.conv2d, x, w), exact, strict=True):
        assert_close(ours.double(), true, rtol=0, atol=1e-5 * true.abs().max().item())


def test_what_is_wrong_is_said():
    x, w = torch.randn(2, 3, 6), torch.randn(4, 3, 3)
    with pytest.raises(RuntimeError, match="'same', 'valid' or numbers; got 'full'"):
        F.conv1d(x, w, padding="full")
    with pytest.raises(RuntimeError, match="not supported for strided"):
        F.conv1d(x, w, padding="same", stride=2)
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2"):
        F.conv1d(x[:, :2], w)
    with pytest.raises(ValueError, match="doesn't take in value argument"):
        F.pad(x, [1, 1], "reflect", 1.0)
