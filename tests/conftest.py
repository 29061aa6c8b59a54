"""One thread a worker: two workers on two cores would otherwise fight over them."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Dynamo would collect garbage after every graph that it compiled: 20 ms of 200.
os.environ.setdefault("TORCH_DYNAMO_RUN_GC_AFTER_COMPILE", "0")

import pytest
import torch

torch.set_num_threads(1)
pytest.register_assert_rewrite("properties")

# torch.manual_seed seeds every kind of device. For one that has not begun it notes the seed, and
# the whole stack beside it: 1 ms, and there are 100,000 of them.
for devices in (torch.cuda, torch.mtia, torch.xpu):
    if not devices.is_available():
        devices.manual_seed_all = lambda seed: None

#: what `-m "not slow"` leaves out whole: torch's tables, and what holds every layer, option and
#: optimizer to torch's once more, after the tests of its own file
SLOW = {
    "test_autocast",
    "test_compile",
    "test_options",
    "test_step_table",
    "test_targets",
    "test_torch_tables",
    "test_twins",
    "test_zoo",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same numbers, alone or among the others."""
    torch.manual_seed(0)
