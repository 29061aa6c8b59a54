"""One thread a worker: two workers on two cores would otherwise fight over them."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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

#: what `-m "not slow"` leaves out whole: torch's tables, what holds every layer, option and
#: optimizer to torch's once more, after the tests of its own file, and what trains by Lightning,
#: which takes 3 s of each worker to import
SLOW = {
    "test_autocast",
    "test_compile",
    "test_faults",
    "test_options",
    "test_step_table",
    "test_targets",
    "test_torch_tables",
    "test_training",
    "test_twins",
    "test_zoo",
}

#: of these tests of many things, `-m "not slow"` runs one in so many
ONE_IN = {
    "test_catalogue": {
        "test_a_right_one_agrees_with_central_differences": 4,
        "test_a_right_one_has_its_second_derivative_or_raises": 4,
        "test_a_right_one_runs_backward_and_changes_nothing": 4,
        "test_a_specimen_says_what_it_must_and_its_forward_runs": 4,
        "test_a_wrong_one_is_wrong": 4,
    },
    "test_command_line": {
        "test_the_page_shows_what_is_printed": 3,
        "test_what_cannot_be_run_is_one_line_and_status_2": 3,
        "test_what_is_right_is_called_right": 7,
    },
    "test_convert": {"test_a_lazy_layer_becomes_ours": 4},
    "test_fuzz": {"test_rules_take_gradients_in_every_layout": 6},
    "test_kernels": {"test_a_kernel_is_its_rule": 8},
    "test_mathematics": {
        "test_a_line_says_what_its_rule_gives": 2,
        "test_a_slip_in_a_line_is_found": 12,
        "test_a_value_is_what_its_line_says": 2,
    },
    "test_mutation": {"test_verify_kills_a_mutant_of_each_kind": 3},
    "test_nn": {
        "test_copies_and_files": 4,
        "test_ensembles": 4,
        "test_in_evaluation": 3,
        "test_it_is_a_torch_module": 3,
        "test_keyword_arguments_of_forward": 4,
        "test_no_more_is_kept_than_torch_keeps": 3,
        "test_state_dict_loads_both_ways": 3,
    },
    "test_per_example": {
        "test_clipped_gradients_are_the_sum_of_clipped_ones": 4,
        "test_gradients_equal_a_loop_over_the_examples": 2,
        "test_norms_are_those_of_the_gradients": 4,
    },
    "test_nudge": {"test_predictions_are_gradients_and_tangents_of_torch": 3},
    "test_samples": {
        "test_gradients_along_a_direction_are_those_of_central_differences": 6,
        "test_shapes_and_strides_differ": 6,
        "test_within_fifty_seeds_every_option_is_met": 6,
    },
    "test_seeing_commands": {"test_mistakes_are_one_line_and_status_2": 4},
    "test_step": {"test_it_is_the_optimizers_own_step": 4, "test_precision_of_the_update": 4},
    "test_tape": {"test_to_the_last_bit": 4},
    "test_verify": {"test_some_of_both": 5},
    "test_why": {"test_every_parameter_can_be_explained": 3, "test_the_chain_holds": 3},
}


def is_quick(config: pytest.Config) -> bool:
    """Whether the slow tests are left out, so that they need not even be made."""
    return config.option.markexpr == "not slow"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """The items and modules live to the end: collecting garbage need not look through them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if is_quick(config) and collection_path.stem in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    met: Counter[tuple[str, str]] = Counter()
    for item in items:
        file, test = item.path.stem, getattr(item, "originalname", item.name)
        many = ONE_IN.get(file, {}).get(test, 1)
        if file in SLOW or met[file, test] % many:
            item.add_marker(pytest.mark.slow)
        met[file, test] += 1
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same numbers, alone or among the others."""
    torch.manual_seed(0)
