"""How many wrong rules `manualbp.verify` finds, of all that one edit of their source makes.

python benchmarks/mutants.py                        all of them; writes the table in docs/verify.md
python benchmarks/mutants.py --jobs 2               in two processes
python benchmarks/mutants.py --resume               goes on where the last run was stopped
python benchmarks/mutants.py --again                the same, and judges anew what lived
python benchmarks/mutants.py --every 4              a quarter of them
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
import zlib
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

#: why a mutant is the same function → those that are for that reason, by their names without the
#: line, in which "…" stands for anything
SAME: dict[str, tuple[str, ...]] = {
    "The same numbers in every case: a name or an axis that stands for the same shape.": (
        "Pow.grad_input: torch.zeros_like(g) → torch.zeros_like(input)",
        "attention._scores: product.shape[-2:] → …",
        "GaussianNLL.grad_var: _per_entry(g, ratio, reduction) → _per_entry(g, error, reduction)",
        "PoissonNLL.grad_input: _per_entry(g, input, reduction) → _per_entry(g, target, reduction)",
        "PoissonNLLFull.grad_target: _per_entry(g, input, … → _per_entry(g, target, …",
        "SoftMargin.grad_input: _per_entry(g, input, reduction) → _per_entry(g, target, reduction)",
        "MultiLabelMargin.grad_input: _label_pairs(input, target) → _label_pairs(target, target)",
        "MultiLabelMargin.grad_input: input[..., 0] → …",
        "FixedBatchNorm.grad_weight: per_channel(running_mean, g) → …, input)",
        "GroupNorm.normalized: _grouped(input, mean) → _grouped(input, rstd)",
        "EmbeddingBag.grad_weight: _counts(input, rows, g_output) → _counts(input, rows, input)",
        "PDist.grad_input: len(input) → len(output)",
        "CosineSimilarity.forward: … → torch.cosine_similarity(x2, x1, dim, eps)",
        "TripletMargin.grad_positive: … → torch.minimum(swapped, negative)",
        "ctc._alpha: torch.stack([a[:, 2:], a[:, 1:-1], skipped]) → torch.stack([…",
        "ctc._alpha: torch.zeros_like(emitted[0]) → torch.ones_like(emitted[0])",
        "ctc._alpha: emitted[0] → emitted[1]",
        "distance._times_slope: d.abs() → norm.abs() #2",
        "ctc._alpha: return (torch.stack(arriving), torch.stack(staying)) → …",
        "ClampBetween.grad_max: (input > max) & (min <= max) → input > max",
        "ClampBetween.grad_max: min <= max → max <= max",
        "normalization._slope_of_norm: torch.zeros_like(y) → torch.zeros_like(norm)",
        "normalization._slope_of_norm: y.sign() → y #2",
        "PadFromWithin.grad_input: return g.clone() → return g",
        "pooling.each_axis: value = tuple(value) → nothing",
        "Dist.grad_input: torch.linalg.vector_norm(difference, p) if math.isinf(p) else output → …",
        "Embedding.grad_weight: -1 if padding_idx is None … → -2 if padding_idx is None …",
    ),
    "Autograd sums a gradient over the axes that its input does not have.": (
        "Linear.grad_bias: …_rows(delta).sum(0) → …",
        "Bilinear.grad_bias: …_rows(delta).sum(0) → …",
        "_Recurrent.grad_bias_…",
        "LayerNorm.grad_weight: (g_output * normalized).sum_to_size(normalized_shape) → …",
        "LayerNorm.grad_bias: …",
        "RMSNorm.grad_weight: (g * normalized).sum_to_size(normalized_shape) → g * normalized",
        "IndexFill.grad_value: torch.where(at, g, 0).sum() → torch.where(at, g, 0)",
        "conv._by_convolution: ….sum(0) → …",
        "Bilinear.mixed: _rows(delta) → delta",
    ),
    "How far a search goes, or how much is done at once: more, or less but enough, is the same.": (
        "conv.by_products: math.prod(…",
        "conv.by_products: image.shape[-1] → …",
        "Interpolate.grad_input: 2 * math.ceil(n / max(out, 1))…",
        "Interpolate.grad_input: n / max(out, 1) → …",
        "Interpolate.grad_input: min(size, BLOCK + 8 * reach[axis]) → …",
        "Interpolate.grad_input: …8 * reach[axis]…",
        "Interpolate.grad_input: int((start - reach[axis]) * ratio) - 1 → …",
        "Interpolate.grad_input: (start - reach[axis]) * ratio → …",
        "Interpolate.grad_input: start - reach[axis] → …",
        "Interpolate.grad_input: int((stop + reach[axis]) * ratio) + 2 → …",
        "Interpolate.grad_input: (stop + reach[axis]) * ratio → …",
        "Interpolate.grad_input: stop + reach[axis] → …",
        "AdaptiveAvgPool.grad_input: start * out → start",
        "….back_in_time: …gates.chunk(…",
        "LSTM.thought: gates.chunk(4, 1) → gates.chunk(5, 1)",
        "GRU.before: gates.chunk(5, 1) → gates.chunk(6, 1)",
        "GridSample.grad_grid: F.pad(as_one_axis(input, axes), (0, 1)) → …",
    ),
    "What is changed is not used: an option that the rule does not look at, a slope times 0, "
    "numbers that a mask takes out.": (
        "AvgPool.grad_input: options = …",
        "reduction._slope_of_norm: torch.zeros_like(x) → torch.ones_like(x)",
        "reduction._masked_at_norm_0: torch.zeros_like(g) → …",
        "HingeEmbedding.grad_input: (….masked_fill(slope == 0, 0) → …",
        "pooling._avg_pool_transpose: _avg_pool_transpose(g, (1, *kernel), (1, *step), … → …",
        "pooling._avg_pool_transpose: options = …",
        "LPPool.grad_input: _avg_pool_transpose(… True, … → …",
        "loss._class_index: input.shape[axis] - 1 → …",
        "loss._per_example: target.where(counted, 0) → target.where(counted, 1)",
        "vision._grid_points: …",
        "vision._taps: torch.zeros_like(pixel) → torch.ones_like(pixel)",
        "vision._taps: (pixel >= 0) & (pixel < size) → pixel < size",
        "vision._taps: torch.where(there, pixel, -1) → torch.where(there, pixel, -2)",
        "CosineEmbedding.share: (y == -1) & (cosine > margin) → cosine > margin",
        "_SequenceState.__init__: start[:0] → start[:1]",
        "dropout.share_kept: 0.0 if p == 1 … → 1.0 if p == 1 …",
    ),
    "Two signs, or an even function: −1 twice is 1.": (
        "vision._cubic: t - 1 → 1 - t",
        "vision._padded: x - low → low - x",
        "reduction._product_before: return torch.ones_like(x) → return -torch.ones_like(x)",
        "reduction._shifted: return …",
    ),
}
#: likewise of those that are another function, where nothing can see it
UNSEEN: dict[str, tuple[str, ...]] = {
    "Where numbers are equal or a length is 0, the function has no derivative. The rule chooses "
    "one as torch does, the mutant another; nothing tells which is right.": (
        "ClampBetween.grad_min: …tie…",
        "ClampBetween.grad_max: …tie…",
        "Normalize.grad_input: _slope_of_norm(unit, norm, p) → …",
        "PickOne.grad_input: chosen.sum() → chosen",
        "reduction._in_equal_parts: g / chosen.sum(dim, keepdim=True) → …",
        "distance._times_slope: largest / largest.sum(-1, keepdim=True) → …",
        "reduction._slope_of_norm: x.sign() * largest / largest.sum(dim, keepdim=True) → …",
        "normalization._slope_of_norm: …largest…",
        "Atan2.inverse_square: …square == 0…",
        "distance._times_slope: …norm == 0…",
        "distance._times_slope: …nowhere…",
        "reduction._slope_of_norm: …a == 0…",
        "reduction._masked_at_norm_0: …",
        "Norm.grad_input: _masked_at_norm_0(…",
        "Dist.grad_input: _masked_at_norm_0(…",
        "normalization._slope_of_norm: …y == 0…",
        "Std.grad_input: …output == 0…",
        "LPPool.grad_input: …zero…",
        "Xlogy.grad_input: …input == 0…",
        "PickOne.grad_input: g / chosen.sum() → …",
    ),
    "At x = 0 a power has a slope from one side alone, because xʸ is no number for negative x.": (
        "Pow.grad_input: …exponent == 0…",
        "Pow.grad_exponent: …input == 0…",
        "Pow.grad_exponent: exponent >= 0 → …",
    ),
    "A bound that keeps rounding or overflow away; nothing that is drawn is beyond it.": (
        "ELU.grad_input: _at_most_0(input) → input",
        "SELU.grad_input: _at_most_0(input) → input",
        "Mish.grad_input: input.clamp(max=40) → …",
        "ctc._paths: both[0].clamp(min=_NEVER) → both[0]",
        "ctc._paths: _NEVER / 2 → …",
        "ctc._alpha: staying[-1].clamp(min=_NEVER) → staying[-1]",
        "reduction._shifted: min(places, x.shape[-1]) → places",
    ),
    "The value is nan or infinite: a variance of one number, a target that no path reads as.": (
        "NanToNum.grad_input: return g * input.isfinite() → return g",
        "reduction._deviation: share * math.inf → …",
        "ctc._paths: …input_lengths…",
        "ctc._paths: target_lengths > 0 → …",
    ),
    "The kink is moved by a thousandth, and nothing that is drawn lies between.": (
        "vision._padded: size - 1 → size - 1.001 #2",
        "MultiLabelMargin.grad_input: 1 - input.unsqueeze(-1) → 1.001 - input.unsqueeze(-1)",
    ),
    "It runs under autocast alone, where a number is rounded by more than a thousandth.": (
        "pooling.along_every_axis: return along_every_axis(g, weights, shape) → return 1.001 * …",
    ),
    "Not drawn: a sequence of one number for all axes; sequences of three lengths, backwards.": (
        "pooling.each_axis: value * axes → value",
        "_SequenceState.end: reversed(self.ended) → self.ended",
    ),
}
EQUIVALENT = SAME | UNSEEN

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
    # By their names, so that a new mutant does not choose anew among the others.
    return [m for m in of_those if zlib.crc32(m.key.encode()) % every == 0]


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


def explains(pattern: str, key: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace("…", ".*"), key) is not None


def reason(key: str) -> str:
    """Why a mutant may live; empty where nobody has said so."""
    for why, patterns in EQUIVALENT.items():
        if any(explains(pattern, key) for pattern in patterns):
            return why
    return ""


def report(entries: list[dict[str, Any]]) -> str:
    """The table: of each file of formulas, how many mutants there are, and what finds them."""
    entries = [e for e in entries if e["verdict"] not in ("stillborn", "endless")]
    rows = []
    for file in (*dict.fromkeys(e["file"] for e in entries), ""):
        of_file = [e for e in entries if file in ("", e["file"])]
        live = [e for e in of_file if e["verdict"] in LIVE]
        same = sum(reason(e["key"]) in SAME for e in live)
        total, killed = len(of_file), len(of_file) - len(live)
        raises = sum(e["verdict"] == "raises" for e in of_file)
        counts = [total, killed, raises, same, len(live) - same]
        shares = [f"{100 * killed / n:.1f} %" for n in (total, total - same)]
        rows.append([f"`{file}`" if file else "all", *map(str, counts), *shares])
    head = ["formulas", "mutants", "killed", "by raising", "same function", "other, live"]
    return table([*head, "killed of all", "of other functions"], rows)


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
    old = page.read_text(encoding="utf-8") if page.exists() else "# Is my backward right?\n"
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
    parser.add_argument("--every", type=int, default=1, help="one of so many")
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
    patterns = [pattern for patterns in EQUIVALENT.values() for pattern in patterns]
    idle = [p for p in patterns if not any(explains(p, key) for key in keys)]
    if options.only or options.oracle != "verify":
        return bool(unexplained)
    if options.every > 1:
        idle = []
    for pattern in idle:
        print(f"EQUIVALENT explains none that lives: {pattern}")
    if unexplained or idle:
        return 1
    command = (
        f"python benchmarks/mutants.py{f' --every {options.every}' if options.every > 1 else ''}"
    )
    publish(
        PAGE.format(
            command=command, machine=machine(), table=report(entries), lives=survivors(entries)
        )
    )
    return 0


PAGE = """
Written by `{command}`. {machine}.
A mutant is one edit of the source of one rule of a formula, or of a function that rules call: a
term or a factor dropped, a sign, an operator, a constant or an axis changed, operands, arguments or
results exchanged, a transpose, a mask, a branch, a step or a call left out. `manualbp.verify` runs
at arguments that are drawn for the formula, or with which the tests run it. It kills a mutant that
it finds wrong where it finds the right rule right.

{table}

### Those that live

{lives}
"""


if __name__ == "__main__":
    sys.exit(main())
