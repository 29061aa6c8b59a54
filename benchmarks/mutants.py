"""How many wrong rules `manualbp.verify` finds, of all that one edit of their source makes.

python benchmarks/mutants.py                        all of them; writes the table in docs/verify.md
python benchmarks/mutants.py --jobs 2               in two processes
python benchmarks/mutants.py --resume               goes on where the last run was stopped
python benchmarks/mutants.py --again                the same, and judges anew what lived
python benchmarks/mutants.py --every 3              a third of them
python benchmarks/mutants.py --only Linear rnn      of these formulas or files alone; printed
python benchmarks/mutants.py --oracle differences   by central differences along four directions
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import mutation
import torch
from cases import CASES
from measure import machine, table
from torch import Tensor

import manualbp
from manualbp import Formula
from manualbp.verification import samples

Arguments = tuple[Any, ...]

#: name of a mutant that lives, without its line, as a regular expression → why it may
EQUIVALENT: dict[str, str] = {}

#: seeds of the arguments that are drawn for each formula, before those of the tests' rows
SEEDS, ROUNDED = 40, 8
#: at how many arguments a mutant is verified: where its gradient is another, where that is only so
#: at kinks, and where it is the same
TRIES, TRIES_AT_KINKS, BLIND_TRIES = 8, 1, 1
#: seconds after which a rule does not end
PATIENCE = 10.0

# -------------------------------------------------------------------------------------- arguments


@cache
def drawn(formula: type[Formula]) -> list[Arguments]:
    """Arguments of a formula: drawn, few numbers first; drawn and rounded; the tests'."""
    found, rounded = [], []
    for seed in range(SEEDS):
        arguments = samples.draw(formula, samples.Seeded(seed))
        places = samples.differentiable(formula, arguments)
        for made, change in ((found, torch.clone), (rounded, torch.round)):
            made.append(
                tuple(
                    change(a.detach()).requires_grad_() if i in places else a
                    for i, a in enumerate(arguments)
                )
            )
    # What is verified once for each of thousands is to be small.
    found.sort(key=lambda arguments: sum(a.numel() for a in arguments if isinstance(a, Tensor)))
    return found + rounded[:ROUNDED] + recorded().get(formula, [])


@cache
def recorded() -> dict[type[Formula], list[Arguments]]:
    """The arguments with which the rows of the tests run each formula, of each kind the first."""
    found: dict[type[Formula], list[Arguments]] = {}
    applied = {f: f.apply for f in mutation.all_formulas()}

    def noting(formula: type[Formula], apply: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            kept = tuple(_leaf(a) if isinstance(a, Tensor) else a for a in arguments)
            found.setdefault(formula, []).append(kept)
            return apply(*arguments)

        return call

    try:
        for formula, apply in applied.items():
            formula.apply = staticmethod(noting(formula, apply))  # type: ignore[method-assign]
        for case in CASES:
            try:
                for seed in range(2):
                    case.call(case.ours, *case.inputs(seed))
            except RuntimeError:
                continue  # a row that is there for its error
    finally:
        for formula, apply in applied.items():
            formula.apply = staticmethod(apply)  # type: ignore[method-assign]
    return found


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_(value.requires_grad)


# ---------------------------------------------------------------------------------------- oracles


def verified(formula: type[Formula], arguments: Arguments) -> str:
    """What `manualbp.verify` finds first, or nothing."""
    report = manualbp.verify(formula, *arguments, surrogate=samples.surrogate(formula))
    return "" if report.ok else report.findings[0].kind


class Differences:
    """The derivative of ``forward`` by central differences, beside what the rules say."""

    def __init__(self) -> None:
        self.known: dict[tuple[type[Formula], int], Any] = {}

    def __call__(self, formula: type[Formula], arguments: Arguments) -> str:
        stated = formula.__mro__[1]
        key = stated, id(arguments)
        if key not in self.known:
            self.known[key] = arguments, self.expected(stated, arguments)
        _, expected = self.known[key]
        leaves, g, directions, slopes = expected
        outputs = _outputs(formula.apply, arguments)
        found = torch.autograd.grad(
            [outputs[i] for i in g], leaves, list(g.values()), allow_unused=True
        )
        for gradient, leaf, along, slopes_along in zip(
            found, leaves, directions, slopes, strict=True
        ):
            if gradient is None:
                gradient = torch.zeros_like(leaf)
            if gradient.shape != leaf.shape:
                return "wrong"
            claimed = torch.stack([(gradient * d).sum() for d in along])
            scale = gradient.abs().sum() + slopes_along.abs().max()
            if not (claimed - slopes_along).abs().max() <= 1e-6 * scale + 1e-8:
                return "wrong"
        return ""

    def expected(self, formula: type[Formula], arguments: Arguments) -> Any:
        leaves = [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
        outputs = _outputs(formula.apply, arguments)
        wanted = [i for i, output in enumerate(outputs) if output.requires_grad]
        generator = torch.Generator().manual_seed(0)

        def random_like(t: Tensor) -> Tensor:
            return torch.randn(t.shape, generator=generator, dtype=t.dtype)

        g = {i: random_like(outputs[i]) for i in wanted}
        function = samples.surrogate(formula) or formula.forward

        def slope(leaf: Tensor, along: Tensor) -> Tensor:
            """By Richardson's extrapolation of central differences."""

            def value(step: float) -> Tensor:
                moved = tuple(a + step * along if a is leaf else a for a in arguments)
                found = _outputs(function, moved)
                return sum(((found[i] * w).sum() for i, w in g.items()), torch.zeros(()))

            def central(step: float) -> Tensor:
                return (value(step) - value(-step)) / (2 * step)

            with torch.no_grad():
                return (4 * central(5e-5) - central(1e-4)) / 3

        directions = [[random_like(leaf) for _ in range(4)] for leaf in leaves]
        slopes = [
            torch.stack([slope(leaf, d) for d in along])
            for leaf, along in zip(leaves, directions, strict=True)
        ]
        return leaves, g, directions, slopes


def _outputs(function: Callable[..., Any], arguments: Arguments) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    given = function(*arguments)
    return given if isinstance(given, tuple) else (given,)


#: verdicts of those that live: their gradients are the right ones, or the oracle does not see it
LIVE = ("lives", "differs")
ORACLES: dict[str, Callable[[type[Formula], Arguments], str]] = {
    "verify": verified,
    "differences": Differences(),
}


# ------------------------------------------------------------------------------------------- runs


class Endless(BaseException):
    """A rule has not ended in time."""


@contextmanager
def patience() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def said(oracle: str, formula: type[Formula], arguments: Arguments) -> str:
    """What the oracle says is wrong, or nothing."""
    try:
        return ORACLES[oracle](formula, arguments)
    except Exception as error:
        return f"failed: {error}" if oracle == "verify" else "raises"


@cache
def restated(formula: type[Formula]) -> type[Formula]:
    return mutation.restated(formula)


@cache
def usable(oracle: str, formula: type[Formula], place: int) -> bool:
    """Whether the oracle finds nothing wrong with the right rules at these arguments."""
    return not said(oracle, restated(formula), drawn(formula)[place])


def pulled(formula: type[Formula], arguments: Arguments) -> list[Tensor | None]:
    """The gradients of one random gradient from above."""
    leaves = [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
    outputs = [o for o in _outputs(formula.apply, arguments) if o.requires_grad]
    generator = torch.Generator().manual_seed(0)
    g = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    return [*torch.autograd.grad(outputs, leaves, g, allow_unused=True)]


@cache
def expected(formula: type[Formula], place: int) -> list[Tensor | None]:
    try:
        return pulled(restated(formula), drawn(formula)[place])
    except RuntimeError:  # no output, or no input, has a gradient
        return []


def differs(mutant: type[Formula], formula: type[Formula], place: int) -> bool:
    """Whether the mutant's gradient is another at these arguments, or raises."""
    right = expected(formula, place)
    if not right:
        return False
    try:
        with patience():
            found = pulled(mutant, drawn(formula)[place])
    except Exception:
        return True
    return not all(
        a is b
        or (a is not None and b is not None and torch.allclose(a, b, 1e-10, 1e-12, equal_nan=True))
        for a, b in zip(found, right, strict=True)
    )


def judged(oracle: str, mutant: mutation.Mutant) -> dict[str, Any]:
    """What becomes of a mutant: what is wrong with it, or that it lives, or that it is no class."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict = _judged(oracle, mutant)
    except (SyntaxError, TypeError):
        verdict = "stillborn"
    except Endless:
        verdict = "endless"
    return {
        "name": mutant.name,
        "key": mutant.key,
        "file": mutant.file,
        "kind": mutant.kind,
        "verdict": verdict,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _judged(oracle: str, mutant: mutation.Mutant) -> str:
    built = {formula: mutant.build(formula) for formula in mutant.formulas}
    same, other = [], 0
    for place in range(max(len(drawn(f)) for f in built)):
        for formula, wrong in built.items():
            tries = TRIES if place < SEEDS else TRIES_AT_KINKS
            if place >= len(drawn(formula)) or other >= tries:
                continue
            if not differs(wrong, formula, place):
                same.append((formula, place))
                continue
            # At drawn ones the tests verify every formula.
            judge = "differences" if place < SEEDS else oracle
            if place < SEEDS and not usable(judge, formula, place):
                continue
            found = said(oracle, wrong, drawn(formula)[place])
            if found and usable(judge, formula, place):
                return found
            other += not found
    if not other:  # its numbers are right: perhaps it is something else that is not
        for formula, place in same[:BLIND_TRIES]:
            found = said(oracle, built[formula], drawn(formula)[place])
            if found and usable(oracle, formula, place):
                return found
    return "differs" if other else "lives"


def chosen(only: list[str], every: int) -> list[mutation.Mutant]:
    of_those = [
        m
        for m in mutation.mutants()
        if not only or m.file in only or {f.__name__ for f in m.formulas} & {*only}
    ]
    return of_those[::every]


#: what a process works on
_WORK: dict[str, Any] = {}


def _begin(oracle: str, only: list[str], every: int) -> None:
    """In every process: the same mutants in the same order, so that a number says which."""
    torch.set_num_threads(1)
    _WORK.update(oracle=oracle, mutants=chosen(only, every))


def _judge(number: int) -> dict[str, Any]:
    return judged(_WORK["oracle"], _WORK["mutants"][number])


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Judge all mutants, and note each, so that a run can go on."""
    log = ROOT / "runs" / f"mutants-{options.oracle}.jsonl"
    log.parent.mkdir(exist_ok=True)
    known: dict[str, dict[str, Any]] = {}
    if (options.resume or options.again) and log.exists():
        known = {e["name"]: e for e in map(json.loads, log.read_text("utf-8").splitlines())}
    if options.again:
        known = {n: e for n, e in known.items() if e["verdict"] not in LIVE}
    work = chosen(options.only, options.every)
    waiting = [i for i, m in enumerate(work) if m.name not in known]
    begin = options.oracle, options.only, options.every
    with log.open("a" if known else "w", encoding="utf-8") as file:
        if options.jobs == 1:
            _begin(*begin)
            results: Iterable[dict[str, Any]] = map(_judge, waiting)
        else:
            pool = multiprocessing.get_context("spawn").Pool(options.jobs, _begin, begin)
            results = pool.imap_unordered(_judge, waiting, chunksize=8)
        for count, entry in enumerate(results, start=1):
            known[entry["name"]] = entry
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            if count % 20 == 0 or count == len(waiting):
                lives = sum(e["verdict"] in LIVE for e in known.values())
                end = "\n" if count == len(waiting) else ""
                print(f"\r{count} of {len(waiting)}, {lives} live ", end=end, file=sys.stderr)
    return [known[m.name] for m in work]


# ------------------------------------------------------------------------------------------- docs


def reason(key: str) -> str:
    """Why a mutant may live; empty where nobody has said so."""
    return next((why for k, why in EQUIVALENT.items() if re.fullmatch(k, key)), "")


def report(entries: list[dict[str, Any]]) -> str:
    """The table: of each file of formulas, how many mutants there are, and what finds them."""
    entries = [e for e in entries if e["verdict"] not in ("stillborn", "endless")]
    rows = []
    for file in (*dict.fromkeys(e["file"] for e in entries), ""):
        of_file = Counter(e["verdict"] for e in entries if file in ("", e["file"]))
        total, lives = of_file.total(), sum(of_file[v] for v in LIVE)
        raises = of_file["raises"]
        row = [f"`{file}`" if file else "all", total, total - lives, raises, lives]
        rows.append([*map(str, row), f"{100 * (1 - lives / total):.1f} %"])
    return table(["formulas", "mutants", "killed", "of them by raising", "live", "killed"], rows)


def survivors(entries: list[dict[str, Any]]) -> str:
    """Those that live, by reason."""
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        if entry["verdict"] in LIVE:
            by_reason.setdefault(reason(entry["key"]), []).append(entry["name"])
    return "\n\n".join(
        f"{why}\n\n" + "\n".join(f"- `{name}`" for name in names)
        for why, names in sorted(by_reason.items())
    )


def publish(text: str) -> None:
    """Put the text between the marks in docs/verify.md."""
    page = ROOT / "docs" / "verify.md"
    marks = "<!-- mutants:begin -->", "<!-- mutants:end -->"
    old = page.read_text(encoding="utf-8")
    if marks[0] not in old:
        old = f"{old.rstrip()}\n\n## Mutants\n\n{marks[0]}\n{marks[1]}\n"
    before, rest = old.split(marks[0])
    after = rest.split(marks[1])[1]
    page.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="names of formulas or of their files")
    parser.add_argument("--oracle", choices=ORACLES, default="verify")
    parser.add_argument("--every", type=int, default=1, help="of so many the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--resume", action="store_true", help="judge what was not judged before")
    parser.add_argument("--again", action="store_true", help="the same, and what lived before")
    options = parser.parse_args()
    start = time.perf_counter()
    entries = run(options)
    print(report(entries))
    found = sorted({e["verdict"] for e in entries})
    print({v: sum(e["verdict"] == v for e in entries) for v in found})
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    unexplained = [e["name"] for e in entries if e["verdict"] in LIVE and not reason(e["key"])]
    for name in unexplained:
        print(f"lives, and EQUIVALENT gives no reason: {name}")
    keys = [e["key"] for e in entries if e["verdict"] in LIVE]
    idle = [k for k in EQUIVALENT if not any(re.fullmatch(k, key) for key in keys)]
    if not options.only and options.oracle == "verify":
        for pattern in idle:
            print(f"EQUIVALENT explains none that lives: {pattern}")
        if not unexplained and not idle:
            publish(PAGE.format(table=report(entries), lives=survivors(entries), machine=machine()))
    return 1 if unexplained or (idle and not options.only) else 0


PAGE = """
Written by `python benchmarks/mutants.py`. {machine}.
A mutant is one edit of the source of one rule, or of a function that rules call: a term or a
factor dropped, a sign, an operator, a constant or an axis changed, operands, arguments or results
exchanged, a transpose, a mask, a branch or a call left out. `manualbp.verify` runs at arguments
that are drawn for the formula, until it finds something.

{table}

### Those that live

{lives}
"""


if __name__ == "__main__":
    sys.exit(main())
