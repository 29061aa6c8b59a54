"""Each ∂ line is true of its rule: parsed, evaluated without the code, and compared with it.

A line with ≙ is marked as beyond the grammar. `docs/formulas.md` states the notation, and which
symbol stands for which of torch's names: its table is read here.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mathematics import Beyond, Evaluator, Statement, Value, mistakes, number, parse, split
from torch import Tensor

from manualbp import Formula, formulas, kernels
from manualbp.core.derivation import lineage
from manualbp.core.docstrings import read_docstring

ROOT = Path(__file__).resolve().parents[1]

FORMULAS = {
    name: formula
    for name, formula in vars(formulas).items()
    if inspect.isclass(formula) and issubclass(formula, Formula)
}


def legend() -> dict[str, list[str]]:
    """The names in code of each symbol, as docs/formulas.md has them."""
    text = (ROOT / "docs/formulas.md").read_text(encoding="utf-8")
    table = text.partition("| symbol | what it is | in code |")[2].partition("\n\n")[0]
    found: dict[str, list[str]] = {}
    for row in table.splitlines()[2:]:
        symbols, _, code = (cell.strip() for cell in row.strip("|").split("|"))
        symbols, groups = symbols.split(", "), code.split("; ")
        for i, symbol in enumerate(symbols):
            of_it = groups[i] if len(groups) == len(symbols) else code
            found[symbol] = re.findall(r"`(\w+)`", of_it)
    return found


# ------------------------------------------------------------------------------- the arguments

#: how many numbers the axes have: no two of a formula alike
SIZES = {"n": 4, "i": 3, "j": 5, "k": 6, "o": 2, "m": 3, "q": 3, "b": 2, "d": 8, "v": 9}
SIZES |= {"c": 3, "G": 2, "j1": 3, "j2": 4}

KINDS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "normal": lambda shape: 1.5 * torch.randn(shape, dtype=torch.double),
    "positive": lambda shape: 0.2 + 2 * torch.rand(shape, dtype=torch.double),
    "unit": lambda shape: 0.05 + 0.9 * torch.rand(shape, dtype=torch.double),
    "above 1": lambda shape: 1.2 + torch.rand(shape, dtype=torch.double),
    "zero": lambda shape: torch.zeros(shape, dtype=torch.double),
    "few": lambda shape: torch.randint(-1, 2, shape).double(),
    "sign": lambda shape: 2.0 * torch.randint(0, 2, shape).double() - 1,
    "mask": lambda shape: torch.rand(shape) < 0.6,
    "distribution": lambda shape: torch.rand(shape, dtype=torch.double).softmax(-1),
}


@dataclass(frozen=True)
class Drawn:
    """A tensor to draw: its axes, in brackets those that are one in code; and its kind."""

    axes: str
    kind: str = "normal"
    #: what its first entries are, to try what a line says of them
    points: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\w+", self.axes))

    def draw(self) -> Tensor:
        grouped = [g.strip("()").split() for g in re.findall(r"\([^)]*\)|\w+", self.axes)]
        shape = tuple(math.prod(SIZES[a] for a in group) for group in grouped)
        kind, _, axis = self.kind.partition(" ")
        if kind in ("index", "class"):
            return torch.randint(SIZES[axis], shape)
        if kind == "labels":  # all but the last of a row are classes, and one twice
            found = torch.randint(SIZES[axis], shape)
            found[:, -1], found[0, 0] = -1, found[0, 1]
            return found
        if kind == "distinct":
            return torch.rand(*shape[:-1], SIZES[axis]).argsort(-1)[..., : shape[-1]]
        made = KINDS[self.kind](shape)
        points = torch.tensor(self.points, dtype=made.dtype)
        made.flatten()[: len(points)] = points
        return made

    def value(self, tensor: Tensor) -> Value:
        """It as mathematics: a class that stands for its unit vector has the axis of classes."""
        if self.kind.startswith("class"):
            axis = self.kind.split()[1]
            unit = (tensor.unsqueeze(-1) == torch.arange(SIZES[axis])).double()
            return Value(unit, (*self.names, axis))
        if tensor.dim() != len(self.names):
            tensor = tensor.reshape([SIZES[a] for a in self.names])
        return Value(tensor, self.names)


@dataclass(frozen=True)
class Frame:
    """Arguments of a formula, and what its docstring leaves to its words."""

    formula: type[Formula]
    arguments: dict[str, Any]
    #: the axes of each output; by default those of the first argument
    outputs: tuple[str, ...] = ()
    #: the axis of softmax, mean, classes, norms
    axis: str = "j"
    #: the axes of the numbers that n counts
    count: str = ""
    #: what else a symbol stands for, given the arguments
    given: dict[str, Callable[..., Value]] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [f"{k}={v}" for k, v in self.arguments.items() if isinstance(v, (str, bool))]
        return "-".join([self.formula.__name__, *said])


def t(axes: str = "n j", kind: str = "normal", *points: float) -> Drawn:
    return Drawn(axes, kind, points)


def frame(name: str, **stated: Any) -> Frame:
    formula = FORMULAS[name]
    known = formula.derivation.arguments
    options = {k: stated.pop(k) for k in [*stated] if k in ("outputs", "axis", "count", "given")}
    assert {*stated} == {*known}, f"{name}: {known}"
    if isinstance(options.get("outputs"), str):
        options["outputs"] = (options["outputs"],)
    return Frame(formula, {argument: stated[argument] for argument in known}, **options)


KINKS = (-6.0, -3.0, -1.0, -0.7, -0.5, 0.0, 0.5, 0.7, 1.0, 3.0, 6.0, 7.0)
Z = t("n j", "normal", *KINKS)
ANY, POSITIVE, UNIT = t(), t("n j", "positive"), t("n j", "unit")
FEW, ZERO, ROW = t("n j", "few"), t("n j", "zero"), t("j")

#: functions of one number that do not take any
UNARY = {
    **dict.fromkeys("Sqrt Rsqrt Reciprocal Log Log2 Log10 Log1p".split(), POSITIVE),
    **dict.fromkeys("Tan Asin Acos Atanh Erfinv".split(), UNIT),
    "Acosh": t("n j", "above 1"),
}

FRAMES = [
    *(frame(name, input=made) for name, made in UNARY.items()),
    frame("Round", input=Z, decimals=1),
    frame(
        "NanToNum",
        input=t("n j", "normal", math.inf, -math.inf, math.nan),
        nan=None,
        posinf=None,
        neginf=None,
    ),
    # activations with options
    frame("Threshold", input=Z, threshold=0.5, value=3.0),
    frame("Hardtanh", input=Z, min_val=-0.5, max_val=1.0),
    frame("PReLU", input=Z, weight=ROW),
    frame("RReLU", input=Z, lower=0.1, upper=0.4, outputs=("n j", "n j")),
    *(frame("ELU", input=Z, alpha=alpha) for alpha in (0.7, -0.7)),
    frame("GELU", input=Z, approximate="none"),
    frame("GLU", input=t("n j2"), dim=1, axis="j2", outputs="n j2"),
    *(frame(name, input=ANY, dim=1) for name in ("Softmax", "Softmin", "LogSoftmax")),
    frame("GumbelSoftmax", logits=ANY, tau=0.7, dim=1),
    frame("StraightThrough", input=ANY, dim=1),
    frame("Dropout", input=ANY, p=0.3, outputs=("n j", "n j")),
    frame("FeatureDropout", input=t("n c j"), p=0.3, axes=2, outputs=("n c j", "n c")),
    frame("AlphaDropout", input=ANY, p=0.3, axes=None, outputs=("n j", "n j")),
    # arithmetic: of arguments that are stretched, too
    frame("Add", input=ANY, other=ROW, alpha=0.7),
    frame("Sub", input=ANY, other=ROW, alpha=0.7),
    frame("Mul", input=ROW, other=ANY, outputs="n j"),
    frame("Div", input=ANY, other=t("j", "positive")),
    frame("RoundedDiv", input=ANY, other=POSITIVE, rounding_mode="floor"),
    frame("Fmod", input=ANY, other=POSITIVE),
    frame("Remainder", input=ANY, other=POSITIVE),
    frame(
        "Pow", input=t("n j", "positive", 0, 0, 0, 0), exponent=t("n j", "positive", 1.5, 0, 1, -1)
    ),
    frame(
        "Xlogy",
        input=t("n j", "positive", 0, 0, 1, 0, 0),
        other=t("n j", "positive", 0, -1, 0, 2, 3),
    ),
    frame("LogAddExp", input=ANY, other=ROW),
    frame("Hypot", input=ANY, other=ROW),
    frame("Atan2", input=ANY, other=ROW),
    frame("Maximum", input=FEW, other=t("j", "few")),
    frame("Minimum", input=FEW, other=t("j", "few")),
    frame("Where", condition=t("n j", "mask"), input=ANY, other=ROW),
    frame("MaskedFill", input=ANY, mask=t("n j", "mask"), value=t("")),
    frame("Clamp", input=Z, min=-0.5, max=1.0),
    frame("Clamp", input=Z, min=None, max=1.0),
    frame("Clamp", input=Z, min=-0.5, max=None),
    frame("ClampBetween", input=t("n j m", "few"), min=t("n j m", "few"), max=t("j m", "few")),
    frame("Lerp", input=ANY, end=ROW, weight=UNIT),
    frame("Addcmul", input=ROW, tensor1=ANY, tensor2=ROW, value=0.7, outputs="n j"),
    frame("Addcdiv", input=ROW, tensor1=ANY, tensor2=t("j", "positive"), value=0.7, outputs="n j"),
    # linear, matrices
    frame("Linear", input=t("n i"), weight=t("o i"), bias=t("o"), outputs="n o"),
    frame(
        "Bilinear", input1=t("n i"), input2=t("n j"), weight=t("o i j"), bias=t("o"), outputs="n o"
    ),
    frame("MatMul", input=t("n i"), other=t("i j"), outputs="n j"),
    frame("MatMul", input=t("b n i"), other=t("i j"), outputs="b n j"),
    frame("MatMul", input=t("n i"), other=t("b i j"), outputs="b n j"),
    frame("MatVec", input=t("n i"), vec=t("i"), outputs="n"),
    frame(
        "AddMatMul",
        input=t("n j"),
        left=t("n i"),
        right=t("i j"),
        beta=0.7,
        alpha=1.3,
        summed=False,
    ),
    frame(
        "AddMatMul",
        input=t("j"),
        left=t("n i"),
        right=t("i j"),
        beta=0.7,
        alpha=1.3,
        summed=False,
        outputs="n j",
    ),
    frame(
        "AddMatMul",
        input=t("b n j"),
        left=t("b n i"),
        right=t("b i j"),
        beta=0.7,
        alpha=1.3,
        summed=False,
    ),
    *(
        frame(
            "Attention",
            query=t("b q d"),
            key=t("b k d"),
            value=t("b k v"),
            attn_mask=mask,
            kept=kept,
            dropout_p=p,
            is_causal=False,
            scale=0.4,
            enable_gqa=False,
            axis="k",
            outputs="b q v",
        )
        for mask, kept, p in (
            (None, None, 0.0),
            (t("q k"), None, 0.0),
            (t("q k"), t("b q k", "mask"), 0.3),
        )
    ),
    # reductions
    *(
        frame(name, input=ANY, dim=1, keepdim=False, shape=torch.Size((4, 5)), outputs="n")
        for name in ("Sum", "Mean")
    ),
    frame("Sum", input=ANY, dim=None, keepdim=False, shape=torch.Size((4, 5)), outputs=""),
    frame("NanSum", input=t("n j", "normal", math.nan), dim=1, keepdim=False, outputs="n"),
    frame("LogSumExp", input=ANY, dim=1, keepdim=False, outputs="n"),
    frame("Cumsum", input=ANY, dim=1),
    frame("Cumprod", input=ANY, dim=1),
    frame("Prod", input=ANY, dim=1, keepdim=False, outputs="n"),
    frame("Var", input=ANY, dim=1, correction=1.0, keepdim=False, outputs="n"),
    frame(
        "Std",
        input=t("n j", "normal", 2, 2, 2, 2, 2),
        dim=1,
        correction=1.0,
        keepdim=False,
        outputs="n",
    ),
    *(
        frame(
            "Norm", input=t("n j", "normal", 0, 0, 0, 0, 0), p=p, dim=1, keepdim=False, outputs="n"
        )
        for p in (2.0, 3.0)
    ),
    *(
        frame("Dist", input=x, other=y, p=2.5, outputs="")
        for x, y in ((ANY, ROW), (ZERO, ROW), (ZERO, ZERO), (t("n j", "zero", 1.0), ZERO))
    ),
    frame("Amax", input=t("n j", "few"), dim=1, keepdim=False, outputs="n"),
    frame("Amin", input=t("n j", "few"), dim=1, keepdim=False, outputs="n"),
    frame("PickOne", input=t("j", "few"), which="max", outputs=""),
    # normalisation
    frame(
        "BatchNorm",
        input=t("j1 c j2"),
        weight=t("c"),
        bias=t("c"),
        running_mean=None,
        running_var=None,
        momentum=0.1,
        eps=0.1,
        outputs=("j1 c j2", "c", "c"),
        count="j1 j2",
    ),
    frame(
        "FixedBatchNorm",
        input=t("n c j"),
        weight=t("c"),
        bias=t("c"),
        running_mean=t("c"),
        running_var=t("c", "positive"),
        eps=0.1,
        outputs="n c j",
    ),
    frame(
        "GroupNorm",
        input=t("n (G j1) j2"),
        num_groups=2,
        weight=t("(G j1)"),
        bias=t("(G j1)"),
        eps=0.1,
        outputs=("n (G j1) j2", "n G", "n G"),
        count="j1 j2",
    ),
    frame(
        "LayerNorm",
        input=ANY,
        normalized_shape=(5,),
        weight=ROW,
        bias=ROW,
        eps=0.1,
        outputs=("n j", "n", "n"),
    ),
    frame("RMSNorm", input=ANY, normalized_shape=(5,), weight=ROW, eps=0.1),
    *(
        frame(
            "Normalize",
            input=t("n j", "normal", *(0.5, 0, 0, 0, 0), *5 * (0.1,), *5 * (0.215,)),
            p=p,
            dim=1,
            eps=0.5,
            outputs=("n j", "n"),
        )
        for p in (2.0, 3.0)
    ),
    # distances
    frame("PairwiseDistance", difference=ANY, p=3.0, eps=0.1, keepdim=False, outputs="n"),
    *(
        frame("CDist", x1=t("i m"), x2=t("j m"), p=p, compute_mode=mode, axis="m", outputs="i j")
        for p, mode in (
            (3.0, "use_mm_for_euclid_dist_if_necessary"),
            (2.0, "use_mm_for_euclid_dist"),
        )
    ),
    frame("CosineSimilarity", x1=ANY, x2=ANY, dim=1, eps=1e-8, outputs="n"),
    # indices
    frame("Tril", input=t("b i j"), diagonal=-1),
    frame("Triu", input=t("b i j"), diagonal=1),
    *(
        frame(name, input=ANY, dim=1, index=index, shape=torch.Size((4, 5)), outputs="n m")
        for name, index in (("IndexSelect", t("m", "index j")), ("Gather", t("n m", "index j")))
    ),
    frame("Scatter", input=ANY, dim=1, index=t("n m", "distinct j"), src=t("n m")),
    frame("ScatterAdd", input=ANY, dim=1, index=t("n m", "index j"), src=t("n m")),
    frame("IndexCopy", input=ANY, dim=1, index=t("m", "distinct j"), source=t("n m")),
    frame("IndexAdd", input=ANY, dim=1, index=t("m", "index j"), source=t("n m"), alpha=0.7),
    frame("IndexFill", input=ANY, dim=1, index=t("m", "index j"), value=t("")),
    frame("MaxUnpool", input=t("n i"), indices=t("n i", "index j"), shape=(5,), outputs="n j"),
    frame(
        "Embedding",
        input=t("n", "index k"),
        weight=t("k d"),
        rows=6,
        padding_idx=None,
        by_frequency=False,
        axis="k",
        outputs="n d",
    ),
]

# ----------------------------------------------------------------------------------------- costs

MEANS = ("mean", "sum", "none")


def labels(target: Tensor) -> Value:
    """How often each of five classes is in a target, which its first −1 ends."""
    counts = torch.zeros(target.shape[0], SIZES["j"], dtype=torch.double)
    for row, classes in zip(counts, target.tolist(), strict=True):
        for label in classes[: classes.index(-1)]:
            row[label] += 1
    return Value(counts, ("n", "j"))


def of_examples(name: str, weight: Drawn | None, **stated: Any) -> list[Frame]:
    """A cost of an example: each reduction."""
    return [
        frame(
            name,
            weight=weight,
            reduction=r,
            outputs="n" if r == "none" else "",
            count="n",
            **stated,
        )
        for r in MEANS
    ]


def of_entries(name: str, *weights: Drawn | None, **stated: Any) -> list[Frame]:
    """A cost of an entry: each reduction, with and without weights."""
    every = [{"weight": w} for w in weights] or [{}]
    return [
        frame(
            name, **stated, **weight, reduction=r, outputs="n j" if r == "none" else "", count="n j"
        )
        for r in MEANS
        for weight in every
    ]


COSTS = [
    frame("SquaredError", input=ANY, target=ANY, reduction="mean", outputs="", count="n"),
    frame(
        "SquaredError", input=ANY, target=t("n", "class j"), reduction="mean", outputs="", count="n"
    ),
    *(
        frame("MSE", input=ANY, target=ANY, weight=w, reduction="mean", outputs="")
        for w in (None, POSITIVE)
    ),
    *(frame("L1", error=ANY, weight=w, reduction="mean", outputs="") for w in (None, POSITIVE)),
    *of_entries("SmoothL1", input=ANY, target=ROW, beta=0.7),
    *of_entries("Huber", None, POSITIVE, input=ANY, target=ANY, threshold=0.7),
    *of_entries("GaussianNLL", error=ANY, var=POSITIVE, full=False, eps=0.1),
    *(
        made
        for log_input in (True, False)
        for name in ("PoissonNLL", "PoissonNLLFull")
        for made in of_entries(
            name, input=POSITIVE, target=t("n j", "positive", 1.0), log_input=log_input, eps=0.1
        )
    ),
    *of_entries("KLDiv", input=ANY, target=POSITIVE),
    *of_entries("LogKLDiv", input=ANY, target=ANY),
    *of_entries("BCE", None, POSITIVE, input=UNIT, target=t("n j", "unit")),
    *(
        made
        for positive in (None, t("j", "positive"))
        for made in of_entries(
            "BCEWithLogits", None, POSITIVE, input=ANY, target=UNIT, pos_weight=positive
        )
    ),
    *(
        made
        for weight in (None, t("k", "positive"))
        for target in (t("n k", "distribution"), t("n", "class k"))
        for smoothing in (0.0, 0.3)
        for made in of_examples(
            "CrossEntropy",
            weight,
            input=t("n k"),
            target=target,
            ignore_index=-100,
            label_smoothing=smoothing,
            axis="k",
        )
    ),
    *(
        made
        for weight in (None, t("k", "positive"))
        for made in of_examples(
            "NLL", weight, input=t("n k"), target=t("n", "index k"), ignore_index=-100, axis="k"
        )
    ),
    # margins
    *(
        made
        for weight in (None, t("j", "positive"))
        for made in of_examples("MultiLabelSoftMargin", weight, input=ANY, target=UNIT)
    ),
    *of_entries("SoftMargin", input=ANY, target=t("n j", "sign")),
    *(
        frame(
            "HingeEmbedding",
            input=Z,
            target=t("n j", "sign", *11 * (-1,)),
            margin=1.0,
            reduction=r,
            outputs=("n j", "n j") if r == "none" else ("", "n j"),
            count="n j",
        )
        for r in MEANS
    ),
    *of_entries("MarginRanking", difference=Z, target=t("n j", "sign"), margin=0.5),
    *of_entries("TripletMargin", positive=FEW, negative=FEW, swapped=FEW, margin=0.5),
    *of_entries("TripletMargin", positive=FEW, negative=FEW, swapped=None, margin=0.5),
    *(
        frame(
            "CosineEmbedding",
            input1=x,
            input2=y,
            target=t("n", "sign", -1),
            margin=margin,
            reduction=r,
            outputs="n" if r == "none" else "",
            count="n",
        )
        for r in MEANS
        for x, y, margin in (
            (ANY, ANY, 0.1),
            (t("n j", "positive", 1, 0, 0, 0, 0), t("n j", "positive", 0, 1, 0, 0, 0), 0.0),
        )
    ),
    *(
        made
        for p in (1, 2)
        for made in of_examples(
            "MultiMargin", t("j", "positive"), input=ANY, target=t("n", "index j"), p=p, margin=1.0
        )
    ),
    *(
        frame(
            "MultiLabelMargin",
            input=FEW,
            target=t("n j", "labels j"),
            reduction=r,
            outputs="n" if r == "none" else "",
            count="n",
            given={"c": labels},
        )
        for r in MEANS
    ),
]
FRAMES += COSTS

# --------------------------------------------------------------------- what a docstring states

#: what a ∂ line has in place of = if it is beyond the grammar
MARK = " ≙ "

#: the formulas whose value is stated in words, though their ∂ lines are not
IN_WORDS = {
    *("Round", "NanToNum", "RoundedDiv", "Atan2", "GumbelSoftmax", "StraightThrough", "PickOne"),
    *("Scatter", "ScatterAdd", "IndexCopy", "IndexAdd", "IndexFill", "MaxUnpool"),
}

#: what stands for an argument that is None
ABSENT = {"w": 1.0, "ρ": 1.0, "m": 1.0, "M": 0.0, "b": 0.0, "l": -math.inf, "h": math.inf}
ABSENT |= {"d±": math.inf}


@cache
def statements(formula: type[Formula]) -> dict[str, Statement]:
    """The equations of a formula, and of those that it derives from, by their left sides."""
    said = read_docstring(formula)
    lines = [(vars(cls).get("__doc__") or "").splitlines()[:1] for cls in lineage(formula, Formula)]
    values = [line for first in reversed(lines) for line in first]
    found: dict[str, Statement] = {}
    for line in (*values, said["output"], *said["rules"].values()):
        try:
            equations = parse(line)
        except Beyond:
            continue
        found |= {symbol: equation for equation in equations for symbol in equation.symbols}
    return found


class Numbers:
    """A formula on random numbers: what its rules give, and what its lines mean there."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.formula = frame, frame.formula
        said = read_docstring(self.formula)
        self.output, self.lines = said["output"], said["rules"]
        #: the symbol of each argument that has a line, and of the value
        self.symbols = {argument: split(s)[0] for argument, s in said["symbols"].items()}
        self.symbol = said["symbol"]
        self._run()
        self.of_output = self._of_output(0, self.outputs[0])
        self.given = self._given()
        try:
            self.value = self.value_of(self.output)
        except Beyond:  # its line is in words: the value is given, as it is given to the rules
            self.value = None
            self.given[self.symbol] = self.of_output

    def _run(self) -> None:
        torch.manual_seed(1)
        self.arguments = {
            name: value.draw() if isinstance(value, Drawn) else value
            for name, value in self.frame.arguments.items()
        }
        derivation = self.formula.derivation
        tensors = {a: self.arguments[a] for a in derivation.differentiable}
        self.leaves = {
            argument: tensor.requires_grad_()
            for argument, tensor in tensors.items()
            if isinstance(tensor, Tensor) and tensor.is_floating_point()
        }
        with kernels.enabled(False):
            outputs = self.formula.apply(*self.arguments.values())
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            live = zip(outputs, derivation.differentiable_outputs, strict=True)
            self.incoming = [torch.randn_like(o) if d else None for o, d in live]
            pairs = [(o, g) for o, g in zip(outputs, self.incoming, strict=True) if g is not None]
            values, arriving = zip(*pairs, strict=True)
            gradients = torch.autograd.grad(values, [*self.leaves.values()], arriving)
        self.gradients = dict(zip(self.leaves, gradients, strict=True))
        self.outputs = [output.detach() for output in outputs]
        for leaf in self.leaves.values():
            leaf.requires_grad_(False)

    def _of_output(self, index: int, tensor: Tensor) -> Value:
        if self.frame.outputs:
            return Drawn(self.frame.outputs[index]).value(tensor)
        drawn = next(v for v in self.frame.arguments.values() if isinstance(v, Drawn))
        return Drawn(drawn.axes).value(tensor)

    def _given(self) -> dict[str, Value]:
        """What the symbols stand for that no line defines."""
        stated, frame = statements(self.formula), self.frame
        in_code = {code: symbol for symbol, codes in legend().items() for code in codes}
        in_code |= self.symbols
        found: dict[str, Value] = {}
        values = {
            name: drawn.value(self.arguments[name])
            for name, drawn in frame.arguments.items()
            if isinstance(drawn, Drawn)
        }
        for name, argument in self.arguments.items():
            if isinstance(argument, (int, float)):
                values[name] = number(argument)
            elif argument is None and in_code.get(name) in ABSENT:
                values[name] = number(ABSENT[in_code[name]])
                if name == "weight":  # of each entry, because a mean divides by their sum
                    like = next(v for v in values.values() if v.axes)
                    values[name] = Value(torch.ones_like(like.tensor), like.axes)
        for i, name in enumerate(self.formula.outputs):
            if i:
                values[name] = self._of_output(i, self.outputs[i].double())
            if self.incoming[i] is not None:
                arriving = self._of_output(i, self.incoming[i])
                if not i:
                    found["g" if len(self.outputs) > 1 else "δ"] = found["g"] = arriving
                elif name in in_code:
                    found[f"∂C/∂{in_code[name]}"] = arriving
        for name, value in values.items():
            symbol = in_code.get(name, name)
            if name in self.symbols or symbol not in stated:
                found[symbol] = value
            if len(name) > 1:
                found[name] = value
        found.setdefault("K", number(SIZES[frame.axis]))
        if "n" not in stated:
            found["n"] = number(self._count())
        return found | {s: make(self.arguments["target"]) for s, make in frame.given.items()}

    def _count(self) -> float:
        """n: how many numbers a sum or mean is of."""
        reduction = self.arguments.get("reduction")
        if reduction not in (None, "mean"):
            return 1
        weight, target = self.arguments.get("weight"), self.frame.arguments.get("target")
        if reduction and weight is not None and target.kind in ("class k", "index k"):
            return weight[self.arguments["target"]].sum().item()
        return math.prod(SIZES[a] for a in self.frame.count.split() or [self.frame.axis])

    def _says(self, line: str, of: Value) -> Value:
        """The right side of a line, with its own definitions, and those of the other lines."""
        first, *own = parse(line)
        stated = statements(self.formula) | {
            s: equation for equation in own for s in equation.symbols
        }
        axes = {f"∂C/∂{s}": self.given[s].axes for s in self.symbols.values() if s in self.given}
        axes[self.symbol] = self.of_output.axes
        evaluator = Evaluator(self.given, stated, axes, self.frame.axis, dict(SIZES))
        return evaluator.equation(first, of.axes)

    def value_of(self, line: str) -> Tensor:
        """What the line of the value says, in the shape of the output.

        Raises:
            Beyond: it says nothing that has a meaning, or nothing in that shape.
        """
        found = self._says(line, self.of_output)
        if found.axes and not self.of_output.axes and "n" in self.given:
            # A cost of each, of which the sum or mean is asked for.
            return found.tensor.sum() / self.given["n"].tensor
        return _in_shape(found, self.of_output, self.outputs[0])

    def gradient_of(self, argument: str, line: str) -> Tensor:
        """What a ∂ line says, in the shape of its argument.

        Raises:
            Beyond: it says nothing that has a meaning, or nothing in that shape.
        """
        of_argument = self.given[self.symbols[argument]]
        found = self._says(line, of_argument)
        if self.formula.broadcasts:
            found = found.summed([a for a in found.axes if a not in of_argument.axes])
        return _in_shape(found, of_argument, self.leaves[argument])

    def agrees(self, argument: str, line: str) -> bool:
        """Whether a line says what the rule of an argument gives, or ``forward`` without one."""
        try:
            if not argument:
                return same(self.value_of(line), self.outputs[0])
            return same(self.gradient_of(argument, line), self.gradients[argument])
        except Beyond:
            return False


def _in_shape(found: Value, like: Value, tensor: Tensor) -> Tensor:
    return found.to(like.axes).expand(like.tensor.shape).reshape(tensor.shape)


def same(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9, equal_nan=True)


_MEET = "the two cases meet there"
#: slips that say the same as the line, which is that of an argument or of the value → why
SAME = {
    ("CELU", "input", "≥ for >"): "at 0 the slope is 1 from both sides",
    **{(name, "", "≥ for >"): _MEET for name in ("CELU", "ELU", "SELU", "Softshrink")},
    **{(name, "", "≤ for <"): _MEET for name in ("Huber", "SmoothL1", "Softshrink")},
    ("CDist", "x1", "twice"): "the slope of a norm depends on the direction of d alone",
    ("Normalize", "input", "d for ε"): "d, the greater of ‖x‖ and ε, exceeds ‖x‖ where ε does",
    ("Norm", "input", "x for a"): "where x is 0, so is sign x; where a is 0, every x is",
}


@cache
def numbers(index: int) -> Numbers:
    return Numbers(FRAMES[index])


@cache
def frames_of(formula: type[Formula]) -> list[Numbers]:
    return [numbers(i) for i, frame in enumerate(FRAMES) if frame.formula is formula]


def lines_of(formula: type[Formula]) -> dict[str, str]:
    """The ∂ lines of a formula by argument; of one of any number of tensors, the one line."""
    if formula.derivation is None:
        return {"tensors": next(x.strip() for x in formula.__doc__.splitlines() if "∂" in x)}
    return read_docstring(formula)["rules"]


def plain(formula: type[Formula]) -> Frame | None:
    """Arguments that need no statement: tensors of any numbers, and numbers."""
    if all(MARK in line for line in lines_of(formula).values()):
        return None
    annotated = inspect.signature(formula.forward).parameters.values()
    made = {"Tensor": Z, "float": 0.7}
    if {p.annotation for p in annotated} <= {*made}:
        return frame(formula.__name__, **{p.name: made[p.annotation] for p in annotated})
    return None


STATED = {frame.formula for frame in FRAMES}
FRAMES += filter(None, (plain(f) for f in FORMULAS.values() if f not in STATED))


LINES = [(name, argument) for name, f in FORMULAS.items() for argument in lines_of(f)]
CHECKED = [(name, a) for name, a in LINES if MARK not in lines_of(FORMULAS[name])[a]]

# --------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize(("name", "argument"), CHECKED)
def test_a_line_says_what_its_rule_gives(name, argument):
    formula = FORMULAS[name]
    line = lines_of(formula)[argument]
    tried = [made for made in frames_of(formula) if argument in made.leaves]
    assert tried, f"{name}: {line}: give FRAMES its arguments, or write {MARK.strip()}"
    for made in tried:
        said, given = made.gradient_of(argument, line), made.gradients[argument]
        assert same(said, given), f"{made.frame}: {line}\nsays\n{said}\nthe rule gives\n{given}"


@pytest.mark.parametrize("index", range(len(FRAMES)), ids=lambda i: str(FRAMES[i]))
def test_a_value_is_what_its_line_says(index):
    made = numbers(index)
    assert (made.value is None) == (made.formula.__name__ in IN_WORDS), made.output
    if made.value is not None:
        assert same(made.value, made.outputs[0]), made.output


def symbols_of(formula: type[Formula]) -> set[str]:
    """What has a meaning in the lines of a formula, if its arguments are drawn."""
    derivation, said = formula.derivation, read_docstring(formula)
    names = {*derivation.arguments, *formula.outputs[1:]}
    found = {symbol for symbol, codes in legend().items() if {*codes} & names} | names
    found |= {split(symbol)[0] for symbol in said["symbols"].values()}
    found |= {said["symbol"], "g", "n", "K", "e", "π", *"ijkmo", *statements(formula)}
    return found | ({"δ"} if len(formula.outputs) == 1 else set())


@pytest.mark.parametrize(("name", "argument"), [line for line in LINES if line not in CHECKED])
def test_a_marked_line_is_beyond_the_grammar(name, argument):
    formula = FORMULAS[name]
    line = lines_of(formula)[argument].replace(MARK, " = ", 1)
    try:
        first, *_ = parse(line)
    except Beyond:
        return
    used = {
        str(t) for t in first.tree.scan_values(lambda t: t.type in ("SYMBOL", "WORD", "PARTIAL"))
    }
    assert {split(symbol)[0] for symbol in used} - symbols_of(formula), f"{name}: {line}: write ="


#: the files whose every line is evaluated
WHOLE = (
    "activation",
    "arithmetic",
    "attention",
    "elementary",
    "linear",
    "loss",
    "margin",
    "matmul",
)


def test_what_is_within_the_grammar():
    files = {name: FORMULAS[name].__module__.rpartition(".")[2] for name, _ in LINES}
    marked = [line for line in LINES if line not in CHECKED]
    assert [line for line in marked if files[line[0]] in WHOLE] == []
    assert len(CHECKED) / len(LINES) > 0.79


@pytest.mark.parametrize("name", dict(CHECKED))
def test_a_slip_in_a_line_is_found(name):
    """One factor, term, sign, exponent, symbol … other than it is: no slip agrees with the code."""
    alike = set()
    lines = {a: line for a, line in lines_of(FORMULAS[name]).items() if (name, a) in CHECKED}
    if name not in IN_WORDS:
        lines[""] = read_docstring(FORMULAS[name])["output"]
    for argument, line in lines.items():
        tried = [m for m in frames_of(FORMULAS[name]) if not argument or argument in m.leaves]
        for what, slip in mistakes(line, tried[0].given):
            if all(made.agrees(argument, slip) for made in tried):
                alike.add((name, argument, what))
    assert alike == {known for known in SAME if known[0] == name}


@pytest.mark.parametrize(
    ("name", "argument", "line"),
    [
        ("Linear", "weight", "∂C/∂W = δ a"),
        ("Linear", "weight", "∂C/∂W = aᵀ δ"),
        ("Linear", "input", "∂C/∂a = δ Wᵀ"),
        ("Linear", "input", "∂C/∂a = W δ"),
        ("Linear", "bias", "∂C/∂b = δ"),
        ("Sigmoid", "input", "∂C/∂z = g ⊙ a (1 + a)"),
        ("Sigmoid", "input", "∂C/∂z = g ⊙ z (1 − z)"),
        ("Tanh", "input", "∂C/∂z = g ⊙ (1 − a)"),
        ("GELU", "input", "∂C/∂z = g ⊙ (Φ(z) + z Φ(z))"),
        ("Softmax", "input", "∂C/∂z = a ⊙ g"),
        ("SquaredError", "input", "∂C/∂a = (a − y) g / n"),
        ("SquaredError", "input", "∂C/∂a = 2 (a − y) g"),
        ("CrossEntropy", "input", "∂C/∂z = g (p Σₖ qₖ − q)"),
        ("Bilinear", "weight", "∂C/∂Wₒ = Σₙ δₙₒ a′ₙ aₙᵀ"),
        ("LayerNorm", "input", "∂C/∂x = r (g w − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n"),
        ("Attention", "query", "∂C/∂Q = ∂C/∂S K"),
        ("CDist", "x1", "∂C/∂xᵢ = gᵢⱼ ∂‖d‖/∂d"),
        ("Mul", "input", "∂C/∂x = g ⊙ q"),
        ("Mul", "input", "∂C/∂x = g ⊙ ∂C/∂x"),
    ],
)
def test_a_wrong_line_is_found(name, argument, line):
    assert not all(made.agrees(argument, line) for made in frames_of(FORMULAS[name]))


@pytest.mark.parametrize(
    "line", ["∂C/∂x", "∂C/∂x = ", "∂C/∂x = g ⊙", "∂C/∂x = (g", "∂C/∂x = g, y", "x + y = 2"]
)
def test_what_is_no_equation_is_refused(line):
    with pytest.raises(Beyond):
        parse(line)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 / 2 x", 2.0),
        ("2 x² − x", 15.0),
        ("−x² + 1", -8.0),
        ("(1 where x < 3, 2 where x = 3, else 4)", 2.0),
        ("[2 < x ≤ 3] + [x ≠ 3]", 1.0),
        ("log e x", 3.0),
        ("|−x| ‖v‖", 15.0),
        ("Σⱼ vⱼ / x − 1", 4 / 3),
        ("Σⱼ vⱼ vⱼ", 25.0),
        ("vᵀ v", 25.0),
        ("Σ_{j ≥ 1} vⱼ", 4.0),
        ("maxⱼ vⱼ ½", 2.0),
        ("max(x, 7)", 7.0),
        ("⌊x / 2⌋ + ⌈x / 2⌉", 3.0),
        ("tanh² 0 + σ′(0)", 0.25),
        ("x⁻¹ x^(x − 2)", 1.0),
        ("√(x x) e^0", 3.0),
    ],
)
def test_how_a_line_is_read(text, value):
    v = Value(torch.tensor([3.0, 4.0], dtype=torch.double), ("j",))
    evaluator = Evaluator({"x": number(3.0), "v": v}, {}, {}, "j", {"j": 2})
    found = evaluator.equation(parse(f"y = {text}")[0])
    assert found.axes == () and math.isclose(found.tensor.item(), value)
