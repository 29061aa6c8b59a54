"""Strategies for hypothesis: tensors of any strides, shapes that broadcast, a formula's arguments.

They serve the tests of anybody's own ``torch.autograd.Function``::

    @given(tensors(shapes(2, 3), requires_grad=True), st.data())
    def test_my_function(x, data):
        y = MyFunction.apply(x)
        found = torch.autograd.grad(y, x, data.draw(upstream(y)))
        ...

What fails is shrunk to small shapes, plain strides and short numbers. All tensors are made anew for
each example, and no two numbers of a tensor are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor

from manualbp.core.formula import Formula
from manualbp.verification import samples

try:
    from hypothesis import HealthCheck, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "manualbp.verification.strategies needs hypothesis, which is not installed: "
        "pip install manualbp[test]"
    ) from error

__all__ = ["arguments", "broadcastable", "classes", "shapes", "simplest", "tensors", "upstream"]

_Value = TypeVar("_Value")

Shape = tuple[int, ...]


class _Drawn(samples.Source):
    """Draws whole numbers by hypothesis, which shrinks them towards 0."""

    def __init__(
        self, draw: st.DrawFn, dtype: torch.dtype = torch.float64, *, empty: bool = False
    ) -> None:
        super().__init__(dtype, empty=empty)
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


def _value(draw: st.DrawFn, given: _Value | st.SearchStrategy[_Value]) -> _Value:
    """What was given, or one of what the strategy gives."""
    return draw(given) if isinstance(given, st.SearchStrategy) else given


@st.composite
def shapes(draw: st.DrawFn, low: int = 0, high: int = 3, *, empty: bool = False) -> Shape:
    """Shapes of ``low`` to ``high`` axes, each of length 1 to 4.

    Args:
        low: the least number of axes.
        high: the greatest.
        empty: the first axis, that of the examples, may have length 0.
    """
    return _Drawn(draw, empty=empty).shape(low, high)


@st.composite
def broadcastable(
    draw: st.DrawFn, count: int, high: int = 3, *, empty: bool = False
) -> tuple[Shape, ...]:
    """So many shapes that broadcast against one another: axes of length 1, and fewer of them.

    Args:
        count: how many shapes.
        high: the greatest number of axes.
        empty: the first axis of the longest may have length 0.
    """
    return tuple(_Drawn(draw, empty=empty).broadcastable(count, high))


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float64,
    *,
    low: float = -2.0,
    high: float = 2.0,
    strided: bool = True,
    requires_grad: bool = False,
) -> Tensor:
    """Real numbers from ``low`` to ``high``, no two of them equal.

    Args:
        shape: a shape, or a strategy for one; by default ``shapes()``.
        dtype: floating point, or a strategy for such a dtype.
        low: no number is smaller. Stay away from where the function is not defined.
        high: no number is larger.
        strided: half of the tensors are not contiguous: transposed, with their channels last in
            memory, with nan between one number and the next, or the end of a longer tensor.
        requires_grad: they are leaves that require a gradient.
    """
    at = _value(draw, shapes() if shape is None else shape)
    source = _Drawn(draw, _value(draw, dtype))
    found = source.tensor(*at, low=low, high=high, strided=strided)
    return found.requires_grad_(requires_grad)


@st.composite
def classes(
    draw: st.DrawFn,
    count: int | st.SearchStrategy[int],
    shape: Shape | st.SearchStrategy[Shape] = (),
) -> Tensor:
    """Whole numbers from 0 to ``count`` − 1, as int64: the targets of a cost, or an index.

    Args:
        count: how many classes there are, or a strategy for that.
        shape: of the tensor, or a strategy for it.
    """
    return _Drawn(draw).classes(_value(draw, count), *_value(draw, shape))


@st.composite
def upstream(draw: st.DrawFn, output: Tensor | tuple[Any, ...], *, partial: bool = False) -> Any:
    """A gradient that may arrive for an output: of its shape and dtype, with any strides.

    Beside plain ones there are those that come from a sum, which are expanded, from a transpose,
    and from a slice. None of their numbers is 0.

    Args:
        output: what a function returned; of a tuple there is a gradient for each, and None for
            what is no tensor of real numbers.
        partial: of a tuple, the gradients of some are None, as where an output is not used; never
            of all.
    """
    source = _Drawn(draw)
    if isinstance(output, Tensor):
        return source.upstream(output)
    real = [i for i, t in enumerate(output) if isinstance(t, Tensor) and t.is_floating_point()]
    used = [i for i in real if not (partial and source.boolean())] or real[:1]
    return tuple(source.upstream(t) if i in used else None for i, t in enumerate(output))


@st.composite
def arguments(
    draw: st.DrawFn,
    formula: type[Formula] | str,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float64,
    *,
    empty: bool = False,
) -> tuple[Any, ...]:
    """The arguments of ``formula.apply``, by position: shapes, strides, options, None.

    Args:
        formula: one of :mod:`manualbp.formulas`, its name, or a subclass that changes a rule.
        dtype: of the tensors of real numbers, or a strategy for it.
        empty: an axis of examples may have length 0.

    Raises:
        ValueError: a name that no formula has.
        LookupError: it is no formula of manualbp, nor a subclass of one.
    """
    return samples.draw(formula, _Drawn(draw, _value(draw, dtype), empty=empty))


def simplest(
    strategy: st.SearchStrategy[_Value],
    holds: Callable[[_Value], bool],
    *,
    examples: int = 100,
    random: Random | None = None,
) -> _Value | None:
    """The simplest example for which something holds, or None if it holds for none.

    Args:
        strategy: gives the examples.
        holds: what is looked for. It is asked again of ever simpler examples.
        examples: how many are tried before it is given up.
        random: the same one finds the same.
    """
    quiet = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        return find(strategy, holds, settings=quiet, random=random)
    except NoSuchExample:
        return None
