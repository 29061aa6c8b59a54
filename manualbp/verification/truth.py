"""What the derivative is at a point, by finite differences, and how far a gradient is from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manualbp.verification.differences import sizes_of, slope
from manualbp.verification.subject import Point, Subject

#: more outputs times entries than this are not looked at entry by entry
LARGEST = 400_000
#: seconds that the entries of one tensor may take
ENTRY_BY_ENTRY = 0.12
#: random directions where there are too many entries
DIRECTIONS = 3
#: what a gradient may be off, by the precision in which the subject was run
TOLERANCES = {torch.double: 1e-8, torch.float: 2e-4, torch.half: 0.05, torch.bfloat16: 0.2}
#: how many times the estimated error of the differences is allowed
DOUBT = 20.0


@dataclass
class Comparison:
    """A gradient beside the truth.

    Attributes:
        error: the largest error by the largest entry; infinite where the gradient is not finite.
        right: whether it is within what the differences can tell.
        finite: whether the gradient is finite.
    """

    error: float
    right: bool
    finite: bool = True


class Probe:
    """Along which directions one slot was moved, and what the outputs did.

    Attributes:
        directions: (k, n): of the flat slot.
        slopes: (k, m): of all outputs together.
        errors: (k, m): the estimates of their errors.
        by_entry: whether the directions are those of the entries themselves.
        kept: the directions without a kink, by number.
        complete: whether these are all.
        tolerance: what a gradient may be off, relatively.
        scale: the largest output.
    """

    def __init__(
        self,
        directions: Tensor,
        slopes: Tensor,
        errors: Tensor,
        by_entry: bool,
        tolerance: float,
        scale: float,
        kept: Sequence[int] | None = None,
    ) -> None:
        self.complete = kept is None or len(kept) == len(directions)
        self.kept = list(range(len(directions)) if kept is None else kept)
        self.count = len(directions)
        self.sizes = directions.diagonal()[self.kept] if by_entry else None
        self.directions, self.slopes, self.errors = directions[self.kept], slopes, errors
        self.tolerance, self.scale = tolerance, scale

    def expected(self, g: Tensor) -> Tensor | None:
        """The flat gradient for ``g`` from above, nan at kinks; None unless entries were moved."""
        if self.sizes is None:
            return None
        entries = torch.full((self.count,), torch.nan, dtype=torch.double, device=g.device)
        entries[self.kept] = (self.slopes @ g) / self.sizes
        return entries

    def compare(
        self, found: Tensor | None, g: Tensor, tolerance: float | None = None
    ) -> Comparison:
        """A gradient beside what the differences give for ``g`` from above."""
        expected = self.slopes @ g
        if found is None:
            along = torch.zeros_like(expected)
        else:
            flat = found.detach().double().reshape(-1).to(g.device)
            if not bool(flat.isfinite().all()):
                return Comparison(float("inf"), False, finite=False)
            along = self.directions @ flat if self.sizes is None else self.sizes * flat[self.kept]
        size = self.slopes.abs() @ g.abs()
        if found is not None and self.sizes is None:
            size = torch.maximum(size, (self.directions * flat).norm(dim=1))
        allowed = DOUBT * (self.errors @ g.abs())
        off = (along - expected).abs()
        largest = float(size.max()) if size.numel() else 0.0
        arriving = float(g.abs().max()) if g.numel() else 0.0
        # Where the function is constant, rounding is all there is to a gradient.
        least = 1e-5 * arriving if largest <= 1e-10 * self.scale * arriving else 1e-3 * largest
        floor = torch.maximum(size, torch.full_like(size, least))
        excess = ((off - allowed).clamp(min=0) / floor.clamp(min=1e-300)).nan_to_num(0.0)
        top = float(expected.abs().max()) if expected.numel() else 0.0
        worst = float(off.max()) if off.numel() else 0.0
        # Where all of it cancels, what is summed up is the measure.
        measure = top if top > 1e-6 * largest else largest
        error = worst / (measure or 1.0) if worst else 0.0
        wrong = bool((excess > (self.tolerance if tolerance is None else tolerance)).any())
        return Comparison(error, not wrong)


class Truth:
    """The derivative of a subject at a point.

    Args:
        subject: what is verified.
        point: where.
        dtype: in which precision the differences are taken.
        f: another function of the same inputs, whose derivative is the truth instead.
        terms: how large the numbers may be whose difference each output is; None: as it is.
    """

    def __init__(
        self,
        subject: Subject,
        point: Point,
        dtype: torch.dtype | None,
        f: Callable[..., object] | None = None,
        terms: Tensor | None = None,
    ) -> None:
        self.subject, self.point, self.dtype, self.f = subject, point, dtype, f
        self.eps = torch.finfo(dtype or subject.dtype).eps
        self.tolerance = TOLERANCES[dtype or subject.dtype]
        start = time.perf_counter()
        self.middle = self._vector(point)
        self.seconds = time.perf_counter() - start
        self.noise = torch.zeros_like(self.middle)
        if terms is not None and terms.numel():
            self.noise += 4 * self.eps * (terms if len(terms) == len(self.noise) else terms.max())
        self.finite = bool(self.middle.isfinite().all())
        self._probes: dict[tuple[tuple[int, ...], bool, int, float], Probe | None] = {}

    def repeats(self) -> bool:
        """Whether a second run gives the same value."""
        again = self._vector(self.point)
        return torch.equal(again.nan_to_num(), self.middle.nan_to_num())

    def _vector(self, point: Point) -> Tensor:
        outputs = self.subject.value(point, self.dtype, self.f)
        return torch.cat([t.detach().double().reshape(-1) for t in outputs])

    def probe(
        self,
        slots: Sequence[int],
        entries: bool | None = None,
        number: int = 0,
        reach: float = 1.0,
    ) -> Probe | None:
        """How the outputs move with slots; None at a kink, or where they are not finite.

        Args:
            slots: which, by index; several move together.
            entries: whether each entry is moved by itself; None: where that is cheap.
            number: of the set of random directions.
            reach: how much of the usual step is the first one.
        """
        n, m = sum(self.point.values[i].numel() for i in slots), self.middle.numel()
        if entries is None:
            quick = n * 6 * self.seconds < ENTRY_BY_ENTRY or n <= DIRECTIONS
            entries = quick and n * m <= LARGEST
        key = tuple(slots), entries, number, reach
        if key not in self._probes:
            self._probes[key] = self._probed(slots, entries, number, reach)
        return self._probes[key]

    def is_linear(self, index: int, reach: float) -> bool:
        """Whether the slope along a direction is the sum of those of the entries.

        It is where there is a derivative; of a median of equals each entry alone has the slope 0.
        """
        entries = self.probe([index], True, reach=reach)
        along = self.probe([index], False, 1, reach)
        if entries is None or along is None or entries.sizes is None or not entries.complete:
            return False
        expected = along.directions @ (entries.slopes / entries.sizes[:, None])
        size = along.slopes.abs().max() if along.slopes.numel() else 0.0
        doubt = DOUBT * (along.errors + along.directions.abs() @ entries.errors)
        return bool(((along.slopes - expected).abs() <= 1e-3 * size + doubt).all())

    def _probed(
        self, slots: Sequence[int], entries: bool, number: int, reach: float
    ) -> Probe | None:
        originals = [self.point.values[i] for i in slots]
        xs = [as_real(v.detach()).contiguous() for v in originals]
        xs = [x.to(self.dtype or x.dtype) for x in xs]
        size = torch.cat([sizes_of(x).reshape(-1) for x in xs])
        if entries:
            directions = torch.diag(size)
        else:
            generator = torch.Generator().manual_seed(1000 * (1 + number) + slots[0])
            noise = torch.randn(DIRECTIONS, len(size), generator=generator, dtype=torch.double)
            directions = noise.to(size.device) * size
        slopes, errors, kept = [], [], []
        flat = torch.cat([x.double().reshape(-1) for x in xs])
        counts = [x.numel() for x in xs]
        for k, direction in enumerate(directions):

            def moved(t: float, v: Tensor = direction) -> Tensor:
                there = self.point
                for i, x, part in zip(slots, xs, torch.split(flat + t * v, counts), strict=True):
                    value = part.reshape(x.shape).to(x.dtype)
                    is_complex = self.point.values[i].is_complex()
                    there = there.at(i, torch.view_as_complex(value) if is_complex else value)
                return self._vector(there)

            try:
                found = slope(moved, self.middle, self.eps, self.noise, reach)
            except Exception:  # the function has no value there
                continue
            if found.kink or not found.finite:
                continue
            kept.append(k)
            slopes.append(found.value)
            errors.append(found.error)
        scale = float(self.middle.abs().max()) if self.middle.numel() else 0.0
        if len(directions) and not slopes:
            return None
        if not slopes:
            none = size.new_zeros((0, self.middle.numel()))
            return Probe(directions, none, none, True, self.tolerance, scale or 1.0)
        both = torch.stack(slopes), torch.stack(errors)
        return Probe(directions, *both, entries, self.tolerance, scale or 1.0, kept)


def as_real(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def flat_upstream(gs: Sequence[Tensor]) -> Tensor:
    """Gradients that arrive, as one vector of float64."""
    return torch.cat([g.detach().double().reshape(-1) for g in gs])
