"""One row a case: a function of ours, torch's twin, and the inputs on which the two must agree.

`tests/properties.py` says what must hold; `tests/test_formulas.py` is one table times the other.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas, functional

Make = Callable[[torch.Generator], Tensor]
"""How a tensor is made afresh, in float64, from a generator with a fixed seed."""


@dataclass(frozen=True)
class Case:
    """Two functions, their arguments and options; what is not a `Make` is passed as it is."""

    name: str
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    #: arguments at which value and gradient are compared with torch's, nan for nan
    special: Sequence[tuple[Any, ...]] = ()
    #: draws random numbers: the same seed is set before every call
    random: bool = False
    #: name of a property that does not apply → why
    without: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def inputs(self, seed: int = 0, *, grad: bool = True, **to: Any) -> list[Any]:
        """Fresh values: the same for the same seed; floating point ones ask for a gradient."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        stated = (*self.arguments, *self.options.values())
        made = [a(generator) if callable(a) else a for a in stated]
        return [_placed(a, grad, to) if isinstance(a, Tensor) else a for a in made]

    def sides(self, seed: int = 0, **to: Any) -> tuple[list[Tensor], Callable, Callable]:
        """The inputs that ask for a gradient; ours and theirs as functions of those alone."""
        inputs = self.inputs(seed, **to)
        wanted = [isinstance(a, Tensor) and a.requires_grad for a in inputs]

        def of_wanted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def call(*values: Tensor) -> Tensor:
                new = iter(values)
                arguments = [next(new) if w else a for a, w in zip(inputs, wanted, strict=True)]
                return self.call(function, *arguments)

            return call

        leaves = [a for a, w in zip(inputs, wanted, strict=True) if w]
        return leaves, of_wanted(self.ours), of_wanted(self.theirs)

    def call(self, function: Callable[..., Tensor], *values: Any) -> Tensor:
        """`function` of what `inputs` made: the arguments by position, the options by name."""
        if self.random:
            torch.manual_seed(0)
        count = len(self.arguments)
        return function(*values[:count], **dict(zip(self.options, values[count:], strict=True)))


def _placed(value: Tensor, grad: bool, to: dict[str, Any]) -> Tensor:
    if not value.is_floating_point():
        return value.to(to.get("device", "cpu"))
    return value.to(**to).detach().requires_grad_(grad and not getattr(value, "constant", False))


# ------------------------------------------------------------------------------------- arguments


def real(*shape: int) -> Make:
    """Normal numbers."""
    return lambda generator: torch.randn(shape, generator=generator, dtype=torch.double)


def away_from(kink: float, *shape: int, by: float = 0.05) -> Make:
    """Normal numbers, none nearer than `by` to where the derivative jumps."""

    def make(generator: torch.Generator) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.double)
        return kink + x + by * torch.where(x < 0, -1.0, 1.0)

    return make


def uniform(low: float, high: float, *shape: int) -> Make:
    return lambda generator: (
        low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.double)
    )


def probabilities(*shape: int) -> Make:
    """Soft targets: positive, summing to one along the class axis: 1, or 0 of a single example."""

    def make(generator: torch.Generator) -> Tensor:
        logits = torch.randn(shape, generator=generator, dtype=torch.double)
        return logits.softmax(min(1, len(shape) - 1))

    return make


def classes(count: int, *shape: int) -> Make:
    """Class indices."""
    return lambda generator: torch.randint(count, shape, generator=generator)


def constant(make: Make) -> Make:
    """The same numbers, asking for no gradient."""

    def made(generator: torch.Generator) -> Tensor:
        value = make(generator)
        value.constant = True  # type: ignore[attr-defined]
        return value

    return made


def transposed(make: Make) -> Make:
    """The same numbers in memory order reversed: not contiguous."""
    return lambda generator: make(generator).mT.contiguous().mT


def fixed(values: Any, dtype: torch.dtype = torch.double) -> Make:
    return lambda generator: torch.tensor(values, dtype=dtype)


# ------------------------------------------------------------------------------------------ rows


def row(
    function: str,
    *arguments: Any,
    twin: Callable[..., Tensor] | None = None,
    note: str = "",
    special: Sequence[tuple[Any, ...]] = (),
    random: bool = False,
    without: dict[str, str] | None = None,
    **options: Any,
) -> Case:
    """`manualbp.functional.<function>` beside `torch.nn.functional.<function>`."""
    shapes = [_shape(a) for a in arguments]
    said = [k if callable(v) else f"{k}={v}" for k, v in options.items()]
    return Case(
        name="-".join([function, ",".join(filter(None, shapes)), *said, *filter(None, [note])]),
        ours=getattr(functional, function),
        theirs=twin or getattr(torch.nn.functional, function),
        arguments=arguments,
        options=options,
        special=special,
        random=random,
        without=without or {},
    )


def _shape(argument: Any) -> str:
    if not callable(argument):
        return str(argument)
    return "x".join(map(str, argument(torch.Generator()).shape)) or "scalar"


INF, NAN = float("inf"), float("nan")
FINITE = (-1000.0, -88.0, -30.0, -1e-30, -0.0, 0.0, 1e-30, 20.0, 20.5, 30.0, 88.0, 1000.0)
POINTS = (*FINITE, -15.0, -10.0, -5.0, -1.0, 1.0, 5.0, 10.0, 15.0, -INF, INF, NAN)

EMPTY = {
    "gradient": "no number to nudge",
    "second_order": "no number to nudge",
    "per_example": "no number to map over",
    "jacobians": "no number to differentiate",
}
EMPTY_MEAN = EMPTY | {"forward_mode": "the mean over nobody is nan"}


def activation(function: str, kink: float | None = None, **options: Any) -> list[Case]:
    """An entrywise function: the shapes, layouts and points that each must meet."""
    x = real if kink is None else lambda *shape: away_from(kink, *shape)
    return [
        row(function, x(4, 3), special=[(fixed(POINTS),)], **options),
        row(function, x(), **options),
        row(function, transposed(x(2, 4, 3)), note="transposed", **options),
        row(function, x(0, 3), without=EMPTY, **options),
    ]


def axiswise(function: str) -> list[Case]:
    """A function of whole rows."""
    rows = [
        [0.0, 0.0, 0.0],
        [1000.0, -1000.0, 0.0],
        [-1000.0, -1000.0, -1000.0],
        [-INF, 0.0, 1.0],
        [INF, 0.0, 1.0],
        [-INF, -INF, -INF],
        [NAN, 0.0, 1.0],
    ]
    return [
        row(function, real(4, 3), dim=-1, special=[(fixed(rows),)]),
        row(function, real(4, 3), dim=0),
        row(function, real(5), dim=0),
        row(function, real(), dim=0),
        row(function, transposed(real(2, 4, 3)), dim=1, note="transposed"),
        row(function, real(2, 3, 2, 2), dim=-2),
        row(function, real(0, 3), dim=1, without=EMPTY),
        row(function, real(4, 3), dim=1, dtype=torch.double),
    ]


ACTIVATIONS = [
    *activation("sigmoid"),
    *activation("tanh"),
    *activation("relu", kink=0),
    *activation("leaky_relu", kink=0),
    *activation("leaky_relu", kink=0, negative_slope=0.3)[:1],
    *activation("leaky_relu", kink=0, negative_slope=0.0)[:1],
    *activation("leaky_relu", kink=0, negative_slope=-0.3)[:1],
    *activation("elu", kink=0),
    *activation("elu", kink=0, alpha=0.3)[:1],
    *activation("gelu"),
    *activation("gelu", approximate="tanh"),
    *activation("silu"),
    *activation("softplus"),
    *activation("softplus", beta=2.5)[:1],
    *activation("softplus", kink=1.0, threshold=1.0)[:1],
    *axiswise("softmax"),
    *axiswise("log_softmax"),
]

ROW = dict.fromkeys(("explicit", "own_shapes"), "an axis is added before, and dropped after")

LINEAR = [
    row("linear", real(4, 3), real(5, 3), real(5)),
    row("linear", real(4, 3), real(5, 3), None),
    row("linear", real(4, 3), real(5, 3)),
    row("linear", real(3), real(5, 3), real(5)),
    row("linear", real(3), real(5, 3)),
    row("linear", real(2, 4, 3), real(5, 3), real(5)),
    row("linear", real(2, 2, 4, 3), real(5, 3), real(5)),
    row("linear", real(1, 3), real(1, 3), real(1)),
    row("linear", real(3), real(3), note="1-D weight", without=ROW),
    row("linear", real(4, 3), real(3), note="1-D weight", without=ROW),
    row("linear", transposed(real(4, 3)), transposed(real(5, 3)), real(5), note="transposed"),
    row("linear", real(0, 3), real(5, 3), real(5)),
    row("linear", real(2, 0, 3), real(5, 3), real(5)),
    row("linear", real(4, 0), real(5, 0), real(5)),
    row("linear", real(4, 3), real(0, 3), real(0), without=EMPTY),
    row("linear", real(4, 3), constant(real(5, 3)), real(5), note="frozen weight"),
    row("linear", constant(real(4, 3)), real(5, 3), real(5), note="data"),
]

FLATTEN = [
    row("flatten", real(2, 3, 2), twin=torch.flatten, start_dim=1),
    row("flatten", real(2, 3, 2, 2), twin=torch.flatten, start_dim=1, end_dim=2),
    row("flatten", transposed(real(2, 3, 2)), twin=torch.flatten, note="transposed"),
    row("flatten", real(), twin=torch.flatten),
    row("flatten", real(0, 3, 2), twin=torch.flatten, start_dim=1, without=EMPTY),
]

DROPOUT = [
    row("dropout", real(40, 3), random=True, special=[(fixed([-INF, INF, NAN, 0.0, -1000.0]),)]),
    row("dropout", real(2, 3, 4), p=0.2, random=True),
    row("dropout", transposed(real(4, 3)), p=0.5, random=True, note="transposed",
        without=dict.fromkeys(("strides", "forward_mode", "per_example", "jacobians"),
                              "the mask is drawn in memory order, as torch's is")),
    row("dropout", real(4, 3), p=0.0, random=True),
    row("dropout", real(4, 3), p=1.0, random=True,
        without={"thrifty": "torch keeps one zero, we a byte an entry"}),
    row("dropout", real(4, 3), training=False),
    row("dropout", real(0, 3), random=True, without=EMPTY),
]  # fmt: skip


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost in torch's terms: Σⱼ (aⱼ − yⱼ)², averaged over the examples."""
    if not target.is_floating_point():
        classes = torch.arange(input.shape[-1], device=input.device)
        target = (classes == target[..., None]).to(input.dtype)
    squares = torch.nn.functional.mse_loss(input, target, reduction="none")
    each = squares.flatten(1).sum(1) if input.ndim > 1 else squares.sum()
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](each)


def weighted_mse(input: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """torch's, in operations that have a second derivative with respect to the weight too."""
    squares = weight * (input - target).square()
    mean = squares.sum() / weight.sum()
    return {"mean": mean, "sum": squares.sum(), "none": squares}[reduction]


SQUARED = [
    *(row("squared_error", real(4, 3), real(4, 3), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    *(row("squared_error", real(4, 3), classes(3, 4), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    row("squared_error", real(4, 3), constant(real(4, 3)), twin=squared_error, note="data"),
    row("squared_error", real(4, 3, 2), real(4, 3, 2), twin=squared_error),
    row("squared_error", real(3), real(3), twin=squared_error),
    row("squared_error", real(3), classes(3), twin=squared_error),
    row("squared_error", transposed(real(4, 3)), real(4, 3), twin=squared_error, note="transposed"),
    row("squared_error", real(0, 3), real(0, 3), twin=squared_error, without=EMPTY_MEAN),
    *(row("mse_loss", real(4, 3), real(4, 3), reduction=r) for r in ("mean", "sum", "none")),
    row("mse_loss", real(4, 3), constant(real(4, 3)), note="data"),
    row("mse_loss", real(2, 4, 3), real(2, 4, 3)),
    row("mse_loss", transposed(real(4, 3)), real(4, 3), note="transposed"),
    row("mse_loss", real(), real()),
    Case(
        "mse-4x3,3-broadcast",  # the function warns, as torch's does; the formula does not
        ours=lambda input, target: formulas.MSE.apply(input, target, None, "mean"),
        theirs=lambda *both: torch.nn.functional.mse_loss(*torch.broadcast_tensors(*both)),
        arguments=(real(4, 3), real(3)),
    ),
    *(row("mse_loss", real(4, 3), real(4, 3), twin=weighted_mse, weight=uniform(0.5, 1.5, 4, 3),
          reduction=r, without={"thrifty": "the twin keeps its intermediates instead"})
      for r in ("mean", "sum", "none")),
    row("mse_loss", real(0, 3), real(0, 3), without=EMPTY_MEAN),
    row("mse_loss", real(0, 3), real(0, 3), reduction="sum", without=EMPTY),
    row("mse_loss", real(4, 3), real(4, 3), reduction="none", note="special",
        special=[(fixed([1000.0, INF, NAN, INF]), fixed([-1000.0, 0.0, 0.0, INF]))]),
]  # fmt: skip


def class_cost(function: str) -> list[Case]:
    """A cost with class indices: `nll_loss` and `cross_entropy` alike."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    nobody = fixed([-100] * 5, torch.long)
    hard = [
        [1000.0, -1000.0, 0.0],
        [-1000.0, 1000.0, 0.0],
        [-INF, 0.0, 1.0],
        [0.0, -INF, 1.0],
        [NAN, 0.0, 1.0],
    ]
    reductions = ("mean", "sum", "none")
    return [
        *(row(function, real(5, 3), classes(3, 5), reduction=r) for r in reductions),
        *(row(function, real(5, 3), classes(3, 5), weight=weight, reduction=r) for r in reductions),
        *(row(function, real(5, 3), ignored, reduction=r, note="ignored") for r in reductions),
        row(function, real(5, 3), ignored, weight=weight, note="ignored"),
        row(function, real(5, 3), fixed([0, 1, 2, 1, 1], torch.long), ignore_index=1),
        row(function, real(5, 3), nobody, note="all ignored",
            without=dict.fromkeys(("gradient", "second_order", "forward_mode"), "a mean of nan")),
        row(function, real(5, 3), nobody, reduction="sum", note="all ignored"),
        row(function, real(5, 3), nobody, reduction="none", note="all ignored"),
        row(function, real(3), classes(3)),
        row(function, real(2, 3, 4), classes(3, 2, 4)),
        row(function, real(2, 3, 4, 2), classes(3, 2, 4, 2), weight=weight, reduction="none"),
        row(function, transposed(real(5, 3)), classes(3, 5), note="transposed"),
        row(function, real(0, 3), classes(3, 0), without=EMPTY_MEAN),
        row(function, real(0, 3), classes(3, 0), reduction="sum", without=EMPTY),
        *(row(function, real(5, 3), classes(3, 5), reduction=r, note="special",
              special=[(fixed(hard), classes(3, 5))]) for r in reductions),
    ]  # fmt: skip


def soft_cost() -> list[Case]:
    """`cross_entropy` with label smoothing, and with a distribution as its target."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    hard, soft, name = classes(3, 5), probabilities(5, 3), "cross_entropy"
    both = {"thrifty": "torch keeps log p alone for a target's gradient; we both inputs, no copy"}
    reductions = ("mean", "sum", "none")
    return [
        *(row(name, real(5, 3), hard, label_smoothing=0.1, reduction=r) for r in reductions),
        row(name, real(5, 3), hard, label_smoothing=0.1, weight=weight),
        row(name, real(5, 3), ignored, label_smoothing=0.1, weight=weight, note="ignored"),
        row(name, real(5, 3), ignored, label_smoothing=0.1, reduction="none", note="ignored"),
        row(name, real(5, 3), hard, label_smoothing=1.0),
        row(name, real(2, 3, 4), classes(3, 2, 4), label_smoothing=0.1, weight=weight),
        *(row(name, real(5, 3), soft, reduction=r, without=both) for r in reductions),
        row(name, real(5, 3), constant(soft), note="data"),
        row(name, real(5, 3), soft, weight=weight, without=both),
        row(
            name,
            real(5, 3),
            soft,
            label_smoothing=0.1,
            weight=weight,
            reduction="sum",
            without=both,
        ),
        row(name, real(3), probabilities(3), without=both),
        row(name, real(2, 3, 4), probabilities(2, 3, 4), without=both),
        row(
            name,
            real(2, 3, 4),
            probabilities(2, 3, 4),
            weight=weight,
            reduction="none",
            without=both,
        ),
        row(name, real(0, 3), probabilities(0, 3), without=EMPTY_MEAN),
    ]


def bce_cost() -> list[Case]:
    name = "binary_cross_entropy_with_logits"
    x, y = real(4, 3), uniform(0, 1, 4, 3)
    weight, positive = constant(uniform(0.5, 1.5, 4, 3)), constant(fixed([0.5, 1.5, 2.0]))
    points = [1000.0, -1000.0, 1000.0, -1000.0, 30.0, 0.0, INF, -INF, NAN]
    truth = [1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0]
    return [
        *(row(name, x, y, reduction=r) for r in ("mean", "sum", "none")),
        row(name, x, constant(y), note="data"),
        row(name, x, y, weight=weight),
        row(name, x, y, weight=positive, reduction="none", note="row of weights"),
        row(name, x, y, pos_weight=positive),
        row(name, x, y, weight=weight, pos_weight=positive, reduction="sum"),
        row(name, transposed(x), y, note="transposed"),
        row(name, real(), uniform(0, 1)),
        row(name, real(0, 3), uniform(0, 1, 0, 3), without=EMPTY_MEAN),
        row(name, real(9), uniform(0, 1, 9), reduction="none", note="special",
            special=[(fixed(points), fixed(truth))]),
    ]  # fmt: skip


COSTS = [*SQUARED, *class_cost("nll_loss"), *class_cost("cross_entropy"), *soft_cost(), *bce_cost()]

CASES = [*ACTIVATIONS, *LINEAR, *FLATTEN, *DROPOUT, *COSTS]
