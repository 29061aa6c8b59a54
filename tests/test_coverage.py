"""coverage: whose derivative each step of a backward pass is."""

import pytest
import torch
from torchvision import ops

import manualbp

BOXES = torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]])

#: torchvision's kernels, whose derivatives are C++ → a call of each
KERNELS = {
    "roi_align": lambda x: ops.roi_align(x, BOXES, 2),
    "roi_pool": lambda x: ops.roi_pool(x, BOXES, 2),
    "ps_roi_align": lambda x: ops.ps_roi_align(x, BOXES, 1),
    "ps_roi_pool": lambda x: ops.ps_roi_pool(x, BOXES, 1),
    "deform_conv2d": lambda x: ops.deform_conv2d(
        x, torch.ones(1, 18, 6, 6), torch.ones(2, 2, 3, 3)
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_torchvision_s_own_kernels_are_foreign(name):
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with manualbp.intercept():
        found = manualbp.coverage(KERNELS[name](x).mean())
    assert [s.name for s in found.foreign] == [f"torchvision_{name}"]
    assert {s.name for s in found.explicit} <= {"Mean"}
    assert not found.uses_explicit
