"""One subject under examination: its gradients, the truth beside them, and what was found."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from manualbp.verification.diagnosis import Wrong, describe
from manualbp.verification.numbers import (
    NarrowDtypes,
    dense,
    distance,
    nudge,
    real,
    rounding_of,
    upstream_like,
    where_not_finite,
)
from manualbp.verification.points import of_batch
from manualbp.verification.report import Check, Finding
from manualbp.verification.subject import Point, Run, Subject, seed
from manualbp.verification.truth import TOLERANCES, Comparison, Truth, as_real, flat_upstream

#: seconds that the search for an explanation may take
EXPLAINING = 1.0
#: how much of the usual step is taken at exact zeros
FINE = 2.0**-26
#: two runs of the same formula differ by no more
SAME = 1e-10


class BackwardRaised(Exception):
    """The backward pass raised ``error``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Pulled:
    """Gradients: of each slot that wanted one, for ``upstream`` from above."""

    run: Run
    upstream: list[Tensor]
    grads: dict[int, Tensor | None]


def first_line(error: BaseException) -> str:
    """``ValueError: …``, the first line of it."""
    if isinstance(error, BackwardRaised):
        error = error.error
    text = " ".join(str(error).strip().split("\n")[:1])
    for part, short in SHORT.items():
        if part in text:
            return short
    return f"{type(error).__name__}: {text[:160]}".rstrip(": ")


#: what torch says in many words
SHORT = {
    "must implement the jvp": "it has no jvp",
    "must override the setup_context": "it has no setup_context",
    "marked with @once_differentiable": "backward is marked @once_differentiable",
    "generate_vmap_rule": "it has no vmap rule",
}


class Examination:
    """Examines one subject.

    Args:
        subject: what is verified.
        path: of the module, for the findings.
        surrogate: a function whose autograd gradient the backward pass is held to.
        thorough: whether what only a hand-written backward pass gets wrong is tried too.
    """

    def __init__(
        self,
        subject: Subject,
        path: str = "",
        surrogate: Callable[..., Any] | None = None,
        thorough: bool = True,
    ) -> None:
        self.subject, self.path, self.surrogate, self.thorough = subject, path, surrogate, thorough
        self.findings: list[Finding] = []
        self.checks: dict[str, Check] = {}
        #: the slots whose gradient is not right, so that nothing else is said of them
        self.accused: set[int] = set()
        #: in which the differences are taken; None: that of what was given
        self.dtype: torch.dtype | None = torch.double
        #: a point where the function has a derivative
        self.base = subject.given
        #: whether nothing more can be said
        self.stopped = False
        self._truths: list[tuple[Point, Truth]] = []

    # ------------------------------------------------------------------------------- notes

    def find(
        self, kind: str, how: str, slot: int | None = None, error: float | None = None
    ) -> None:
        """Note a finding; one against a slot is the only one against it."""
        argument = "" if slot is None else self.subject.slots[slot].name
        finding = Finding(kind, self.path, argument, how, error)
        if finding.against and slot is not None:
            if slot in self.accused:
                return
            self.accused.add(slot)
        self.findings.append(finding)

    def note(self, kind: str, how: str, argument: str = "", error: float | None = None) -> None:
        """Note a finding that is not about the gradient of one slot."""
        self.findings.append(Finding(kind, self.path, argument, how, error))

    def like(self, subject: Subject) -> Examination:
        """An examination of another form of the subject."""
        made = Examination(subject, self.path, self.surrogate, self.thorough)
        made.dtype = self.dtype
        names = [slot.name for slot in subject.slots]
        own = [self.subject.slots[i].name for i in self.accused]
        made.accused = {i for i, name in enumerate(names) if name in own}
        return made

    def adopt(self, other: Examination) -> None:
        """Take over what another form was found to be."""
        names = [slot.name for slot in self.subject.slots]
        self.accused |= {names.index(other.subject.slots[i].name) for i in other.accused}
        self.findings += [f for f in other.findings if f.kind != "kink"]
        for name, check in other.checks.items():
            own = self.check(name)
            own.tried += check.tried
            own.error = max(filter(None, (own.error, check.error)), default=check.error)

    def check(self, name: str) -> Check:
        return self.checks.setdefault(name, Check(name, path=self.path))

    def skip(self, name: str, why: str) -> None:
        check = self.check(name)
        check.skipped = check.skipped or why

    @property
    def eps(self) -> float:
        """The precision in which the subject runs."""
        return torch.finfo(self.dtype or self.subject.dtype).eps

    @property
    def rounding(self) -> float:
        """What two equal runs may differ by."""
        return SAME if self.eps < 1e-12 else TOLERANCES[self.dtype or self.subject.dtype]

    def differs(self, error: float, pulled: Pulled, i: int) -> bool:
        """Whether ``error`` is more than rounding makes of the gradient of a slot."""
        return error > self.rounding and error > 300 * self.noise(self.base, pulled, i)

    @property
    def failed(self) -> bool:
        return any(finding.against for finding in self.findings)

    # ------------------------------------------------------------------------------- gradients

    def pull(
        self,
        point: Point,
        upstream: Callable[[Sequence[Tensor]], list[Tensor]] | None = None,
        *,
        wanted: Sequence[int] | None = None,
        dtype: torch.dtype | str | None = "own",
        between: Callable[[Run], None] | None = None,
        f: Callable[..., Any] | None = None,
        autocast: bool = False,
        outputs: Sequence[int] | None = None,
    ) -> Pulled:
        """A forward and a backward pass.

        Args:
            point: where.
            upstream: makes the gradients that arrive from the outputs; random ones without it.
            wanted: the slots that require a gradient; all without it.
            dtype: of the copies; the examination's own without it.
            between: what happens between the two passes.
            f: another function of the same inputs.
            autocast: whether it runs under autocast.
            outputs: those that are used; all without it.

        Raises:
            BackwardRaised: the backward pass raises; what the forward pass raises passes through.
        """
        wanted = range(len(self.subject.slots)) if wanted is None else wanted
        precision = self.dtype if dtype == "own" else dtype
        run = self.subject.run(point, precision, wanted, autocast, f)  # type: ignore[arg-type]
        gs = (upstream or upstream_like)(run.outputs)
        if between is not None:
            between(run)
        used = range(len(run.outputs)) if outputs is None else outputs
        pairs = [(run.outputs[k], gs[k]) for k in used if run.outputs[k].requires_grad]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        leaves = [run.leaves[i] for i in wanted]
        if pairs:
            ends, arriving = zip(*pairs, strict=True)
            try:
                found = torch.autograd.grad(ends, leaves, arriving, allow_unused=True)
            except Exception as raised:
                raise BackwardRaised(raised) from raised
        return Pulled(run, gs, dict(zip(wanted, map(dense, found), strict=True)))

    @functools.cached_property
    def random(self) -> bool:
        """Whether the value depends on the random state."""
        with torch.no_grad():
            one, two = (self._drawn(number) for number in (1, 2))
        return any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))

    def _drawn(self, number: int) -> list[Tensor]:
        outputs = self.subject.value(self.base, self.dtype, number=number)
        return [t.nan_to_num() for t in outputs]

    def truth(self, point: Point) -> Truth:
        """The derivative at a point, found once."""
        for known, truth in self._truths:
            if known is point:
                return truth
        made = Truth(self.subject, point, self.dtype, terms=self._terms(point))
        self._truths.append((point, made))
        return made

    def _terms(self, point: Point) -> Tensor | None:
        """How large the numbers may be whose difference an output is: as large as at the inputs.

        GELU's 1 + erf(z/√2) is 1e-15 of its terms at z = −8: there it is a staircase.
        """
        base = next((truth.middle for known, truth in self._truths if known is self.base), None)
        if base is None or point is self.base:
            return None
        pairs = zip(point.values, self.base.values, strict=False)
        sizes = [(v.abs().max(), b.abs().max()) for v, b in pairs if v.numel() and b.numel()]
        growth = max((float(v / b) for v, b in sizes if b > 0), default=1.0)
        return max(1.0, growth) * base.abs().nan_to_num(0.0, 0.0)

    # ------------------------------------------------------------------------------- judging

    def judge(
        self,
        point: Point,
        name: str,
        note: str = "",
        *,
        upstream: Callable[[Sequence[Tensor]], list[Tensor]] | None = None,
        outputs: Sequence[int] | None = None,
        entries: bool | None = None,
        together: bool = False,
    ) -> bool:
        """Hold the gradients at a point to the truth there.

        Args:
            point: where.
            name: of the check.
            note: put before what is found: where alone it is wrong.
            upstream, outputs: as of :meth:`pull`.
            entries: as of :meth:`Truth.probe`.
            together: whether all slots are moved at once, and each alone only if that fails.

        Returns:
            whether the differences could judge every slot.
        """
        pulled = self.pull(point, upstream, outputs=outputs)
        settled = True
        if together and self.surrogate is None and not self.accused:
            verdict = self._all_right(point, pulled, name)
            if verdict is not False:
                return bool(verdict)
        for i in pulled.grads:
            if i in self.accused:
                continue
            if self.surrogate is not None:
                self._beside_surrogate(point, pulled, i, name, note)
            else:
                settled &= self._beside_differences(point, pulled, i, name, note, outputs, entries)
        return settled

    def _all_right(self, point: Point, pulled: Pulled, name: str) -> bool | None:
        """Whether all gradients together are right; None where that cannot be seen."""
        truth = self.truth(point)
        probe = truth.probe(list(pulled.grads), False) if truth.finite else None
        if probe is None:
            return None
        grads = [
            torch.zeros(as_real(point.values[i]).numel()) if g is None else as_real(g).reshape(-1)
            for i, g in pulled.grads.items()
        ]
        found = torch.cat([g.detach().double() for g in grads])
        beside = probe.compare(found, flat_upstream(pulled.upstream))
        if beside.right:
            self.check(name).saw(beside.error)
        return beside.right

    def _beside_differences(
        self,
        point: Point,
        pulled: Pulled,
        i: int,
        name: str,
        note: str,
        outputs: Sequence[int] | None,
        entries: bool | None,
    ) -> bool:
        truth = self.truth(point)
        if not truth.finite:
            return False
        probe = truth.probe([i], entries)
        if probe is None:
            return False
        g, found = self.used(pulled, outputs), real(pulled.grads[i])
        beside = probe.compare(found, g)
        self.check(name).saw(beside.error)
        if beside.right:
            return probe.complete
        if not beside.finite:
            self.find("nan", note + where_not_finite(found, point.values[i]), i)
            return True
        noise = self.noise(point, pulled, i) if found is not None else 0.0
        if probe.compare(found, g, tolerance=probe.tolerance + 300 * noise).right:
            self.skip(name, "ill-conditioned: rounding of the input changes the gradient as much")
            return False
        self._accuse(point, pulled, i, truth, beside, note, outputs)
        return True

    def _beside_surrogate(self, point: Point, pulled: Pulled, i: int, name: str, note: str) -> None:
        expected = self.pull(point, lambda _: pulled.upstream, f=self.surrogate).grads[i]
        found = real(pulled.grads[i])
        shape = point.values[i].shape if found is None else found.shape
        expected = torch.zeros(shape) if expected is None else real(expected)
        error = distance(found, expected)
        self.check(name).saw(error)
        if error > 1e-8 + 300 * self.noise(point, pulled, i):
            wrong = self.wrong(point, pulled, i, found, expected, self.surrogate)
            told = f"{note}{describe(wrong)}, beside the surrogate's"
            self.find("wrong" if math.isfinite(error) else "nan", told, i, error)

    def noise(self, point: Point, pulled: Pulled, i: int) -> float:
        """How much the gradient of a slot changes when its inputs are rounded."""
        eps = 4 * self.eps
        found, largest = real(pulled.grads[i]), 0.0
        for number in range(2):
            near = [v + nudge(v, eps, number) for v in point.values]
            with contextlib.suppress(Exception):
                other = self.pull(replace(point, values=near), lambda _: pulled.upstream).grads[i]
                largest = max(largest, distance(real(other), found))
        return largest

    def _accuse(
        self,
        point: Point,
        pulled: Pulled,
        i: int,
        truth: Truth,
        beside: Comparison,
        note: str,
        outputs: Sequence[int] | None = None,
    ) -> None:
        found = real(pulled.grads[i])
        g = self.used(pulled, outputs)
        if note and any(bool((v == 0).any()) for v in point.values):
            # At 0 an ε of 1e-8 is another scale, which the usual steps do not see.
            near = truth.probe([i], None, reach=FINE)
            if near is None or near.compare(found, g).right or not truth.is_linear(i, FINE):
                return
        expected = self._entries(truth, i, g)
        if self._few_entries(truth, i):
            probe = truth.probe([i], True)
            if probe is None or probe.compare(found, g).right:
                return  # a direction misled: no entry by itself is seen to be wrong
        elif (again := truth.probe([i], False, 1)) is None or again.compare(found, g).right:
            return
        if expected is None:
            how = f"is off by {100 * beside.error:.3g} % along random directions"
            if found is None:
                how = "no gradient is returned (None), though the value depends on it"
            elif not bool(found.any()):
                how = "is zero, though the value depends on it"
            self.find("wrong", note + how, i, beside.error)
            return
        shape = point.values[i].shape if found is None else found.shape
        expected = expected.reshape(shape)
        unknown = expected.isnan()  # at kinks
        expected = torch.where(unknown, 0.0 if found is None else found.double(), expected)
        kind, how = "wrong", ""
        rounded = "" if found is None else rounding_of(found, expected)
        if not rounded and found is not None:
            rounded = self._computed_in(point, pulled, i, beside.error)
        if rounded and beside.error <= 16 * torch.finfo(self.subject.dtype).eps:
            return  # as precise as what was given
        if rounded:
            kind, how = "imprecise", f"is right to {beside.error:.0e} only, as if {rounded}"
        wrong = self.wrong(point, pulled, i, found, expected)
        how = note + (how or self._drawn_anew(point, pulled, i, truth) or describe(wrong))
        alone = "" if note or "1/n" in how else self.right_where(point, i)
        self.find(kind, how + alone, i, beside.error)

    def _drawn_anew(self, point: Point, pulled: Pulled, i: int, truth: Truth) -> str:
        """Whether the gradient is right from the random state that the forward pass had."""
        if not self.random:
            return ""
        again = self.pull(point, lambda _: pulled.upstream, between=lambda _: seed())
        probe, found = truth.probe([i]), real(again.grads[i])
        if probe is None or not probe.compare(found, flat_upstream(pulled.upstream)).right:
            return ""
        return "belongs to another random draw than the value: the backward pass draws its own"

    def right_where(self, point: Point, i: int) -> str:
        """Where a gradient that is wrong is right: that tells much."""
        with contextlib.suppress(Exception):
            count = len(self.pull(point).run.outputs)
            alone = [self._right(point, i, [k]) for k in range(count)]
            if count > 1 and all(alone):
                return ", only where two outputs are used"
            one = of_batch(self.subject, point, self.dtype, 1)
            if one is not None and self._right(one, i, None):
                return ", right for a batch of one"
        return ""

    def _right(self, point: Point, i: int, outputs: Sequence[int] | None) -> bool:
        """Whether the gradient of a slot is right at a point, where it is not zero."""
        pulled = self.pull(point, outputs=outputs)
        probe = Truth(self.subject, point, self.dtype).probe([i], False)
        found = real(pulled.grads[i])
        if probe is None or found is None or not bool(found.any()):
            return False
        return probe.compare(found, self.used(pulled, outputs)).right

    def used(self, pulled: Pulled, outputs: Sequence[int] | None) -> Tensor:
        """What arrived, zero for the outputs that are not used."""
        every = range(len(pulled.upstream)) if outputs is None else outputs
        gs = [g if k in every else torch.zeros_like(g) for k, g in enumerate(pulled.upstream)]
        return flat_upstream(gs)

    def _computed_in(self, point: Point, pulled: Pulled, i: int, error: float) -> str:
        """In which narrower dtype the backward pass computes, if that explains the error."""
        with NarrowDtypes(self.dtype or self.subject.dtype) as seen:
            run = self.subject.run(point, self.dtype)
            torch.autograd.grad(run.outputs, run.leaves, pulled.upstream, allow_unused=True)
        if not seen.found or error > 16 * torch.finfo(seen.found).eps:
            return ""
        return f"computed in {str(seen.found).removeprefix('torch.')}"

    def _entries(self, truth: Truth, i: int, g: Tensor) -> Tensor | None:
        """Every entry of the right gradient, where there are not too many."""
        probe = truth.probe([i], True) if self._few_entries(truth, i) else None
        return None if probe is None else probe.expected(g)

    def _few_entries(self, truth: Truth, i: int) -> bool:
        n = truth.point.values[i].numel()
        return n * truth.middle.numel() <= 16_000_000 and n * 6 * truth.seconds <= 1.0

    def wrong(
        self,
        point: Point,
        pulled: Pulled,
        i: int,
        found: Tensor | None,
        expected: Tensor,
        by: Callable[..., Any] | None = None,
    ) -> Wrong:
        """A gradient that is not right, with what is known around it.

        Args:
            point, pulled, i: where it was found, and of which slot.
            found, expected: the two gradients.
            by: the function whose autograd gradient is ``expected``; without it differences are.
        """
        truth = self.truth(point) if by is None else None

        def expected_for(gs: list[Tensor]) -> Tensor | None:
            if truth is None:
                other = self.pull(point, lambda _: gs, f=by).grads[i]
                return None if other is None else real(other)
            entries = self._entries(truth, i, flat_upstream(gs))
            return None if entries is None else entries.reshape(expected.shape).nan_to_num()

        deadline = time.monotonic() + EXPLAINING

        def expected_at(changes: dict[str, Tensor]) -> Tensor | None:
            if by is not None or time.monotonic() > deadline:
                return None
            named = [slot.name for slot in self.subject.slots]
            values = [
                changes[n].reshape(v.shape) if n in changes else v
                for n, v in zip(named, point.values, strict=True)
            ]
            try:
                there = Truth(self.subject, replace(point, values=values), self.dtype)
                entries = self._entries(there, i, flat_upstream(pulled.upstream))
            except Exception:
                return None
            return None if entries is None else entries.reshape(expected.shape).nan_to_num()

        others = {}
        if truth is not None:
            for j, slot in enumerate(self.subject.slots):
                if j != i and point.values[j].shape == point.values[i].shape:
                    entries = self._entries(truth, j, flat_upstream(pulled.upstream))
                    if entries is not None:
                        others[slot.name] = entries.reshape(expected.shape).nan_to_num()
        return Wrong(
            None if found is None else found.detach().double(),
            expected.detach().double(),
            real(point.values[i]).detach().double(),
            [g.detach().double() for g in pulled.upstream],
            [t.detach().double() for t in pulled.run.outputs],
            expected_for,
            expected_at,
            self.subject.slots[i].name,
            {
                slot.name: v.detach()
                for slot, v in zip(self.subject.slots, point.values, strict=True)
            },
            others,
            [tuple(v.shape) for v in point.others if isinstance(v, Tensor)],
            {
                name: v
                for name, v in zip(self.subject.names, point.others, strict=True)
                if isinstance(v, Tensor) and not v.is_floating_point() and not v.is_complex()
            },
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings: what is run says nothing of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
