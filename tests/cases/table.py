"""One row a case: a function of ours, torch's twin, and the inputs on which the two must agree.

`tests/properties.py` says what must hold; `tests/test_formulas.py` is one table times the other.
The rows are in the other files of this folder, one a file of `manualbp/formulas/`.
"""

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from manualbp import functional

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
        return self.of(self.inputs(seed, **to))

    def of(self, inputs: list[Any]) -> tuple[list[Tensor], Callable, Callable]:
        """`sides` of these inputs."""
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
    dtype = to.get("dtype")
    if dtype is not None and dtype.is_complex:
        value = torch.complex(value, value.flatten().roll(1).reshape(value.shape) / 2)
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


def of_torch(function: str) -> Callable[..., Any] | None:
    """torch's function of that name; None where torch lacks it and a row has to give a twin."""
    spaces = (torch.nn.functional, torch, torch.linalg, torch._C.TensorBase)
    return next((getattr(space, function) for space in spaces if hasattr(space, function)), None)


def row(
    function: str,
    *arguments: Any,
    twin: Callable[..., Tensor] | None = None,
    note: str = "",
    pick: int | None = None,
    special: Sequence[tuple[Any, ...]] = (),
    random: bool = False,
    without: dict[str, str] | None = None,
    **options: Any,
) -> Case:
    """`manualbp.functional.<function>` beside torch's function of that name, or beside `twin`.

    `pick` says which of several outputs is compared.
    """
    ours, theirs = getattr(functional, function), twin or of_torch(function)
    if theirs is None:
        raise LookupError(
            f"torch has no function '{function}': give its row a twin, which computes the same in "
            f"torch's operations: row('{function}', …, twin=…)"
        )
    if pick is not None:
        note += f"[{pick}]"
        ours, theirs = _picked(ours, pick), _picked(theirs, pick)
    shapes = [_shape(a) for a in arguments]
    said = [k if callable(v) else f"{k}={v}" for k, v in options.items()]
    return Case(
        name="-".join([function, ",".join(filter(None, shapes)), *said, *filter(None, [note])]),
        ours=ours,
        theirs=theirs,
        arguments=arguments,
        options=options,
        special=special,
        random=random,
        without=without or {},
    )


def quiet(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without the warning that torch's function and ours both give."""

    def call(*arguments: Any, **options: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return function(*arguments, **options)

    call.__name__ = function.__name__
    return call


def quietly(*arguments: Any, **options: Any) -> Case:
    """A row whose function warns."""
    made = row(*arguments, **options)
    return replace(made, ours=quiet(made.ours), theirs=quiet(made.theirs))


def _picked(function: Callable[..., Any], pick: int) -> Callable[..., Tensor]:
    def picked(*arguments: Any, **options: Any) -> Tensor:
        return function(*arguments, **options)[pick]

    picked.__name__ = function.__name__
    return picked


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


# --------------------------------------------------------------------------------------- modules


@dataclass(frozen=True)
class Module:
    """A module of ours and its twin, which is torch's or a row's own; and what goes in."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    inputs: tuple[Any, ...]
    #: the class to compare with, of the same arguments
    twin: type[torch.nn.Module]
    #: what the check of it leaves out → why
    without: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [*map(str, self.arguments), *(f"{k}={v}" for k, v in self.options.items())]
        return f"{self.name}({', '.join(said)})"

    def build(self, library: Any, seed: int = 0) -> Any:
        """In float64: that of `manualbp.nn`, or for `torch.nn` its twin."""
        torch.manual_seed(seed)
        made = self.twin if library is torch.nn else getattr(library, self.name)
        return made(*self.arguments, **self.options).double()

    def make(self, seed: int = 0) -> list[Any]:
        """The inputs afresh; floating point ones ask for a gradient unless they are constant."""
        generator = torch.Generator().manual_seed(seed)
        made = [make(generator) if callable(make) else make for make in self.inputs]
        return [_placed(m, True, {}) if isinstance(m, Tensor) else m for m in made]


def module(
    name: str,
    *arguments: Any,
    inputs: tuple[Any, ...],
    twin: type[torch.nn.Module] | Callable[..., Tensor] | None = None,
    without: dict[str, str] | None = None,
    **options: Any,
) -> Module:
    """`manualbp.nn.<name>` beside `torch.nn.<name>`, or beside `twin`, built with the same.

    A twin is a class, or for a module without parameters a function of inputs and arguments.
    """
    theirs = twin or getattr(torch.nn, name, None)
    if theirs is None:
        raise LookupError(
            f"torch has no module '{name}': give its row a twin, which computes the same in "
            f"torch's operations: module('{name}', …, twin=…)"
        )
    theirs = theirs if isinstance(theirs, type) else _layer(theirs)
    return Module(name, arguments, options, inputs, theirs, without or {})


def _layer(function: Callable[..., Tensor]) -> type[torch.nn.Module]:
    """The module of a function: its arguments are what the function takes after the inputs."""

    class Layer(torch.nn.Module):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__()
            self.arguments, self.options = arguments, options

        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs, *self.arguments, **self.options)

    return Layer
