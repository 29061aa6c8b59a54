"""One table of cases × one list of properties."""

from itertools import product

import pytest
import torch
from cases import CASES, Case
from conftest import is_quick
from properties import (
    PROPERTIES,
    SLOW,
    gradient,
    on_cuda,
    precise,
    precision,
    same_gradient,
    same_second_order,
    saturated,
    special_values,
)

#: this sees most errors: every case meets it also in a run without the slow ones
SHARPEST = same_gradient

#: the cases of a function, by its name
OF_FUNCTION: dict[str, list[Case]] = {}
for each in CASES:
    OF_FUNCTION.setdefault(each.name.partition("-")[0], []).append(each)


def is_slow(case: Case, holds) -> bool:
    """Of all but the sharpest property, one case a function is quick: each time the next one."""
    if holds in SLOW or (holds is gradient and applies(case, same_gradient)):
        return True  # beside torch's an error is seen sooner, and 70 times as fast
    cases = OF_FUNCTION[case.name.partition("-")[0]]
    turns = [other for other in cases if applies(other, holds)]
    return holds is not SHARPEST and case is not turns[PROPERTIES.index(holds) % len(turns)]


def applies(case: Case, holds) -> bool:
    if holds in (special_values, precise, saturated) and not case.special:
        return False
    if holds is precision and case.random:
        return False  # in another dtype another draw
    if holds is same_second_order and "second_order" in case.without:
        return False
    return holds.__name__ not in case.without


def pytest_generate_tests(metafunc):
    quick, rows = is_quick(metafunc.config), []
    here = [p for p in PROPERTIES if not quick or p is not on_cuda or torch.cuda.is_available()]
    for case, holds in product(CASES, here):
        if applies(case, holds) and not ((slow := is_slow(case, holds)) and quick):
            marks = [pytest.mark.slow] * slow + [pytest.mark.cuda] * (holds is on_cuda)
            rows.append(pytest.param(case, holds, id=f"{holds.__name__}-{case}", marks=marks))
    metafunc.parametrize(("case", "holds"), rows)


def test_formula(case, holds):
    holds(case)
