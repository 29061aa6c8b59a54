"""One table of cases × one list of properties."""

import pytest
from cases import CASES, Case
from properties import PROPERTIES, on_cuda, precise, precision, saturated, special_values


def applies(case: Case, holds) -> bool:
    if holds in (special_values, precise, saturated) and not case.special:
        return False
    if holds is precision and case.random:
        return False  # in another dtype another draw
    return holds.__name__ not in case.without


@pytest.mark.parametrize(
    ("case", "holds"),
    [
        pytest.param(
            case,
            holds,
            id=f"{holds.__name__}-{case}",
            marks=[pytest.mark.cuda] if holds is on_cuda else [],
        )
        for case in CASES
        for holds in PROPERTIES
        if applies(case, holds)
    ],
)
def test_formula(case, holds):
    holds(case)
