"""One thread a worker: two workers on two cores would otherwise fight over them."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)
pytest.register_assert_rewrite("properties")

# torch.manual_seed seeds every kind of device. For one that has not begun it notes the seed, and
# the whole stack beside it: 1 ms, and there are 100,000 of them.
for devices in (torch.cuda, torch.mtia, torch.xpu):
    if not devices.is_available():
        devices.manual_seed_all = lambda seed: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same numbers, alone or among the others."""
    torch.manual_seed(0)
