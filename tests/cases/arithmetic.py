"""Entry by entry."""

import torch

from cases.table import *

INFINITE = {"saturated": "the slope itself is infinite there, as torch's"}


def unary(
    function: str,
    *special: float,
    low: float = -2.0,
    high: float = 2.0,
    without: dict[str, str] | None = None,
    **options: Any,
) -> Case:
    """A function of one number, between `low` and `high`, and at special points."""
    points = [(fixed([*special, INF, -INF, NAN]),)]
    return row(function, uniform(low, high, 2, 3), special=points, without=without, **options)


FLAT = {"second_order": "the gradient is 0 whatever arrives"}
POSITIVE = {"low": 0.1, "high": 3.0}
INSIDE = {"low": -0.9, "high": 0.9}
NEARLY_1 = (2**-20 - 1, 1 - 2**-20)
STEP = {"low": 0.1, "high": 0.4}  # nowhere near a whole number, nor half of one

UNARY = [
    unary("neg", 0.0),
    unary("abs", -1.0, -0.0, 0.0, 1.0, low=0.1),
    unary("square", -1e3, 0.0, 1e3),
    unary("sqrt", 1e-30, 1e30, **POSITIVE, without=INFINITE),
    unary("sqrt", -1.0, 0.0, **POSITIVE, note="bounds", without=INFINITE),
    unary("rsqrt", -1.0, 0.0, 1e-10, 1e10, **POSITIVE, without=INFINITE),
    unary("reciprocal", 0.0, 1e-10, 1e10, **POSITIVE, without=INFINITE),
    unary("exp", -1000.0, 0.0, 80.0, without=INFINITE),
    unary("exp2", -1000.0, 0.0, 80.0, without=INFINITE),
    unary("expm1", -1000.0, 0.0, 1e-10, 80.0, without=INFINITE),
    unary("log", -1.0, 0.0, 1e-30, 1e30, **POSITIVE, without=INFINITE),
    unary("log2", -1.0, 0.0, 1e-30, 1e30, **POSITIVE, without=INFINITE),
    unary("log10", -1.0, 0.0, 1e-30, 1e30, **POSITIVE, without=INFINITE),
    unary("log1p", -2.0, -1.0, 1e-30, 1e30, **POSITIVE, without=INFINITE),
    unary("sin", 0.0, 1e3),
    unary("cos", 0.0, 1e3),
    unary("tan", 0.0, 1.5, 1e3, **INSIDE),
    unary("asin", -2.0, -1.0, *NEARLY_1, 0.0, 1.0, **INSIDE, without=INFINITE),
    unary("acos", -2.0, -1.0, *NEARLY_1, 0.0, 1.0, **INSIDE, without=INFINITE),
    unary("atan", -1e10, 0.0, 1e10),
    unary("sinh", -80.0, 0.0, 80.0, without=INFINITE),
    unary("cosh", -80.0, 0.0, 80.0, without=INFINITE),
    unary("asinh", -1e10, 0.0, 1e10),
    unary("acosh", 0.5, 1.0, 1 + 2**-20, 1e10, low=1.5, high=3.0, without=INFINITE),
    unary("atanh", -2.0, -1.0, *NEARLY_1, 0.0, 1.0, **INSIDE, without=INFINITE),
    unary("erf", -30.0, 0.0, 30.0),
    unary("erfc", -30.0, 0.0, 30.0),
    unary("erfinv", -2.0, -1.0, 0.0, 1.0, **INSIDE, without=INFINITE),
    unary("frac", -1.5, 0.0, 1.5, **STEP),
    unary("sign", -1.5, -0.0, 0.0, 1.5, **STEP, without=FLAT),
    unary("sgn", -1.5, -0.0, 0.0, 1.5, **STEP, without=FLAT),
    unary("floor", -1.5, 0.0, 1.5, **STEP, without=FLAT),
    unary("ceil", -1.5, 0.0, 1.5, **STEP, without=FLAT),
    unary("trunc", -1.5, 0.0, 1.5, **STEP, without=FLAT),
    unary("round", -1.5, 0.0, 0.5, 1.5, **STEP, without=FLAT),
    unary("round", low=0.11, high=0.14, decimals=1, without=FLAT),
    unary("nan_to_num", 0.0),
    unary("nan_to_num", 0.0, nan=1.0, posinf=2.0, neginf=3.0),
    row("sqrt", uniform(0.5, 2.0, 0, 3), without=EMPTY),
]

TIES = (fixed([1.0, 1.0, 2.0, -0.0, INF, -INF, NAN, 1.0]),
        fixed([1.0, 2.0, 1.0, 0.0, INF, INF, 1.0, NAN]))  # fmt: skip
BOUNDS = (
    fixed([0.0, 0.5, 1.0, 2.0, -1.0, 0.0, 1.0, NAN, 3.0, 1.0, 1.0]),
    fixed([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 2.0, 0.0]),
    fixed([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, NAN]),
)
DIVISIONS = (fixed([0.0, 1.0, 0.0, INF, 1.0, 1e200, NAN]),
             fixed([0.0, 0.0, 1.0, INF, INF, 1e200, 1.0]))  # fmt: skip
PART = uniform(0.1, 0.9, 4, 3)
BELOW, ABOVE = uniform(-1.5, -0.5, 4, 3), uniform(0.5, 1.5, 4, 3)
BEYOND = {"gradient": "infinity cannot be nudged"}
BYTES = fixed([[2, 0, 1]], torch.uint8)
MASK = fixed([[True, False, True]], torch.bool)

BINARY = [
    row("add", real(4, 3), real(3), alpha=2.5),
    row("add", real(2, 1, 3), real(4, 1), note="both stretched"),
    row("add", real(4, 3), 2, note="number"),
    row("add", real(4, 3), classes(5, 4, 3), note="whole numbers"),
    row("add", transposed(real(4, 3)), real(), note="transposed"),
    row("add", real(0, 3), real(3)),
    row("sub", real(4, 3), real(3)),
    row("rsub", real(4, 3), 2, note="number"),
    row("mul", real(4, 3), real(4, 3), special=[TIES]),
    row("mul", real(2, 1, 3), real(4, 1), note="both stretched"),
    row("mul", real(4, 3), 2.5, note="number"),
    row("div", real(4, 3), uniform(0.5, 1.5, 4, 3), special=[DIVISIONS], without=INFINITE),
    row("div", real(4, 3), 2, note="number"),
    row("div", 2, uniform(0.5, 1.5, 4, 3), note="number"),
    row("div", PART, uniform(1, 1.5, 4, 3), rounding_mode="floor", without=FLAT),
    row("div", PART, 2.0, rounding_mode="trunc", without=FLAT),
    row("true_divide", real(4, 3), uniform(0.5, 1.5, 3)),
    row("fmod", uniform(-1.9, -1.1, 4, 3), uniform(0.95, 1.05, 3), special=[TIES],
        without=INFINITE),
    row("remainder", uniform(-1.9, -1.1, 4, 3), uniform(0.95, 1.05, 3), special=[TIES],
        without=INFINITE),
    row("remainder", 2, uniform(1.1, 1.9, 3), note="number",
        twin=lambda x, y: torch.remainder(torch.full_like(y, x), y)),
    row("pow", uniform(0.5, 1.5, 4, 3), real(3), special=[
        (fixed([0.0, 0.0, 0.0, 2.0, INF, 1.0, NAN]), fixed([0.0, 2.0, 1.0, 0.0, 2.0, INF, 1.0]))],
        without=INFINITE),
    row("pow", real(4, 3), 3, note="number", special=[(fixed([-2.0, 0.0, INF, NAN]), 3)],
        without=INFINITE),
    row("pow", real(4, 3), 0, special=[(fixed([-2.0, 0.0, INF, NAN]), 0)], without=FLAT),
    row("pow", 2, real(4, 3), note="number"),
    row("where", MASK, real(3), -INF, note="number", without=BEYOND),
    row("pow", 0.0, uniform(0.5, 1.5, 3), note="number", special=[(0.0, fixed([0.0, 1.0]))],
        without={"second_order": "nan in torch, of log 0"}),
    row("xlogy", real(4, 3), uniform(0.5, 1.5, 3), special=[(fixed([0.0, 0.0, 1.0, NAN, 0.0]),
        fixed([0.0, 1.0, 0.0, 1.0, NAN]))], without=INFINITE),
    row("xlogy", 2.0, uniform(0.5, 1.5, 3), note="number"),
    row("logaddexp", real(4, 3), real(3), special=[TIES]),
    row("hypot", real(4, 3), real(3), special=[TIES], without=INFINITE),
    row("atan2", real(4, 3), real(3), special=[TIES], without=INFINITE),
    row("maximum", real(4, 3), real(3), special=[TIES]),
    row("minimum", real(4, 3), real(3), special=[TIES]),
    row("where", MASK, real(4, 3), real(3)),
    row("where", MASK, real(4, 1), 2.5, note="number"),
    quietly("where", BYTES, real(4, 3), real(3), note="bytes", without=dict.fromkeys(
        ("compiled", "inference_mode"), "compiled and on the meta device torch takes no bytes")),
    row("masked_fill", real(4, 3), MASK, real()),
    row("clamp", real(4, 3), min=-0.5, max=0.7,
        special=[(fixed([-0.5, 0.7, 0.0, 1.0, INF, -INF, NAN]),)]),
    row("clamp", uniform(-2.5, 2.5, 4, 3), BELOW, ABOVE, special=[BOUNDS]),
    row("clamp", real(4, 3), real(3), special=[TIES]),
    row("clamp", real(4, 3), None, real(3), note="max", special=[(TIES[0], None, TIES[1])]),
    row("clamp_min", real(4, 3), 0.1),
    row("clamp_max", real(4, 3), real(3)),
    row("lerp", real(4, 3), real(3), 0.3, note="number"),
    row("lerp", real(4, 3), real(3), real(4, 1)),
    row("addcmul", real(3), real(4, 3), real(4, 1), value=2.5),
    row("addcdiv", real(3), real(4, 3), uniform(0.5, 1.5, 4, 1), value=2.5),
]  # fmt: skip

CASES = [*UNARY, *BINARY]
