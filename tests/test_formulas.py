"""One table of cases × one list of properties."""

import pytest
from cases import CASES, Case
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

MARKS = {on_cuda: pytest.mark.cuda} | dict.fromkeys(SLOW, pytest.mark.slow)


def marks(case: Case, holds):
    if holds is gradient and applies(case, same_gradient):
        return pytest.mark.slow  # beside torch's an error is seen sooner, and 70 times as fast
    return MARKS.get(holds, ())


def applies(case: Case, holds) -> bool:
    if holds in (special_values, precise, saturated) and not case.special:
        return False
    if holds is precision and case.random:
        return False  # in another dtype another draw
    if holds is same_second_order and "second_order" in case.without:
        return False
    return holds.__name__ not in case.without


@pytest.mark.parametrize(
    ("case", "holds"),
    [
        pytest.param(
            case,
            holds,
            id=f"{holds.__name__}-{case}",
            marks=marks(case, holds),
        )
        for case in CASES
        for holds in PROPERTIES
        if applies(case, holds)
    ],
)
def test_formula(case, holds):
    holds(case)
