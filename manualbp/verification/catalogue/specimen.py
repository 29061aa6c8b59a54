"""What a specimen is, how its arguments are drawn, and how it comes on the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Specimen:
    """A backward pass that is known to be wrong, or known to be right.

    Attributes:
        name: what is wrong with it, or in which style a right one is written.
        subject: makes what ``verify`` is given: a Function, a function or a module.
        inputs: makes the arguments, the same ones each time.
        met: a report where it was met, or in which style people write it.
        kinds: of a wrong one, the kinds of finding that are a right verdict.
        argument: the argument at fault; "" where it concerns all.
        says: a regular expression that the finding's ``how`` should match.
        options: keywords of ``verify``: ``surrogate``, ``reference``, ``cost``.
    """

    name: str
    subject: Callable[[], Any]
    inputs: Callable[[], tuple[Any, ...]]
    met: str
    kinds: frozenset[str] = frozenset()
    argument: str = ""
    says: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class Draw:
    """An argument that is drawn anew, from a seeded generator, whenever arguments are made."""

    make: Callable[[torch.Generator], Tensor]

    def then(self, change: Callable[[Tensor], Tensor]) -> Draw:
        """What ``change`` makes of it."""
        return Draw(lambda generator: change(self.make(generator)))

    def wanted(self) -> Draw:
        """It requires a gradient, so that those beside it which do not are left out."""
        return self.then(lambda tensor: tensor.requires_grad_())


def real(
    *shape: int, scale: float = 1.0, shift: float = 0.0, dtype: torch.dtype = torch.float64
) -> Draw:
    """Normal numbers."""
    return Draw(
        lambda generator: shift + scale * torch.randn(shape, generator=generator, dtype=dtype)
    )


def single(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Draw:
    """Normal numbers in single precision, which is what most people have."""
    return real(*shape, scale=scale, shift=shift, dtype=torch.float32)


def between(low: float, high: float, *shape: int, dtype: torch.dtype = torch.float64) -> Draw:
    """Evenly distributed numbers."""
    return Draw(
        lambda generator: low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)
    )


def integers(below: int, *shape: int) -> Draw:
    """Integers from 0, for indices."""
    return Draw(lambda generator: torch.randint(below, shape, generator=generator))


def fixed(numbers: Any, dtype: torch.dtype | None = torch.float64) -> Draw:
    """These numbers."""
    return Draw(lambda generator: torch.tensor(numbers, dtype=dtype))


_Thing = TypeVar("_Thing", bound=Callable[..., Any])


def into(specimens: list[Specimen], kinds: str = "") -> Callable[..., Callable[[_Thing], _Thing]]:
    """A decorator that adds a Function, a function or a module's class to ``specimens``.

    Its arguments are those of the call to be verified, and what else a ``Specimen`` says; further
    keywords are ``options``. The name is the first line of the docstring.
    """
    usual = kinds

    def decorator(
        *inputs: Any,
        met: str,
        kinds: str = usual,
        argument: str = "",
        says: str = "",
        **options: Any,
    ) -> Callable[[_Thing], _Thing]:
        def note(thing: _Thing) -> _Thing:
            specimens.append(
                Specimen(
                    name=cleandoc(thing.__doc__ or "").partition("\n")[0],
                    subject=_maker(thing),
                    inputs=lambda: _made(inputs),
                    met=met,
                    kinds=frozenset(kinds.split()),
                    argument=argument,
                    says=says,
                    options=options,
                )
            )
            return thing

        return note

    return decorator


def _maker(thing: Callable[..., Any]) -> Callable[[], Any]:
    """Makes what is verified: the Function or function itself, or a new module."""

    def module() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return thing()

    is_module = isinstance(thing, type) and issubclass(thing, nn.Module)
    return module if is_module else lambda: thing


def _made(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # Not 0, from which a verifier may draw the very same numbers as a gradient.
    generator = torch.Generator().manual_seed(271828)
    return tuple(x.make(generator) if isinstance(x, Draw) else x for x in inputs)
