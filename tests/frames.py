"""Arguments for the formulas, as mathematics sees them: each axis has a name.

A ``Frame`` is a row: a formula, its arguments, and what its docstring leaves to words.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from mathematics import Value
from torch import Tensor

from manualbp import Formula, formulas

if TYPE_CHECKING:
    from test_mathematics import Numbers

#: how many numbers the axes have
SIZES = {"n": 4, "i": 3, "j": 5, "k": 6, "o": 2, "m": 3, "q": 3, "b": 2, "d": 8, "v": 9}
SIZES |= {"c": 3, "G": 2, "j1": 3, "j2": 4, "1": 1}

KINDS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "normal": lambda shape: 1.5 * torch.randn(shape, dtype=torch.double),
    "positive": lambda shape: 0.2 + 2 * torch.rand(shape, dtype=torch.double),
    "unit": lambda shape: 0.05 + 0.9 * torch.rand(shape, dtype=torch.double),
    "above-1": lambda shape: 1.2 + torch.rand(shape, dtype=torch.double),
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
        return tuple(a for a in re.findall(r"\w+", self.axes) if a != "1")

    @property
    def into(self) -> str:
        return self.kind.partition(" ")[2]

    def draw(self, sizes: dict[str, int]) -> Tensor:
        grouped = [g.strip("()").split() for g in re.findall(r"\([^)]*\)|\w+", self.axes)]
        shape = tuple(math.prod(sizes[a] for a in group) for group in grouped)
        kind, axis = self.kind.partition(" ")[0], self.into
        if kind in ("index", "class"):
            return torch.randint(sizes[axis], shape)
        if kind == "starts":
            return torch.tensor([0, 3])
        if kind == "labels":  # all but the last of a row are classes, and one twice
            found = torch.randint(sizes[axis], shape)
            found[:, -1], found[0, 0] = -1, found[0, 1]
            return found
        if kind == "distinct":
            return torch.rand(*shape[:-1], sizes[axis]).argsort(-1)[..., : shape[-1]]
        made = KINDS[self.kind](shape)
        points = torch.tensor(self.points, dtype=made.dtype)
        made.flatten()[: len(points)] = points
        return made

    def value(self, tensor: Tensor, sizes: dict[str, int]) -> Value:
        """It as mathematics: a class that stands for its unit vector has the axis of classes."""
        if self.kind.startswith("class"):
            axis = self.kind.split()[1]
            unit = (tensor.unsqueeze(-1) == torch.arange(sizes[axis])).double()
            return Value(unit, (*self.names, axis))
        if tensor.dim() != len(self.names):
            tensor = tensor.reshape([sizes[a] for a in self.names])
        return Value(tensor, self.names, into="" if tensor.is_floating_point() else self.into)


@dataclass(frozen=True)
class Frame:
    """Arguments of a formula, and what its docstring leaves to its words."""

    formula: type[Formula]
    arguments: dict[str, Any]
    #: the axes of each output; by default those of the first argument
    outputs: tuple[str | Drawn, ...] = ()
    #: the axis of softmax, mean, classes, norms
    axis: str = "j"
    #: the axes of the numbers that n counts
    count: str = ""
    #: how many numbers an axis has, if other than in SIZES
    sizes: dict[str, int] = field(default_factory=dict)
    #: what a symbol stands for that words define
    given: Callable[["Numbers"], dict[str, Value]] = lambda numbers: {}

    def __str__(self) -> str:
        said = [f"{k}={v}" for k, v in self.arguments.items() if isinstance(v, (str, bool))]
        return "-".join([self.formula.__name__, *said])


def t(axes: str = "n j", kind: str = "normal", *points: float) -> Drawn:
    return Drawn(axes, kind, points)


OPTIONS = ("outputs", "axis", "count", "sizes", "given")


def frame(name: str, **stated: Any) -> Frame:
    formula = getattr(formulas, name)
    known = formula.derivation.arguments
    options = {k: stated.pop(k) for k in [*stated] if k in OPTIONS}
    assert {*stated} == {*known}, f"{name}: {known}"
    if isinstance(options.get("outputs"), (str, Drawn)):
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
    "Acosh": t("n j", "above-1"),
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


def labels(numbers: "Numbers") -> dict[str, Value]:
    """c: how often each class is in a target, which its first −1 ends."""
    target = numbers.arguments["target"]
    counts = torch.zeros(target.shape[0], SIZES["j"], dtype=torch.double)
    for row, classes in zip(counts, target.tolist(), strict=True):
        for label in classes[: classes.index(-1)]:
            row[label] += 1
    return {"c": Value(counts, ("n", "j"))}


def of_examples(name: str, weight: Drawn | None, count: str = "n", **stated: Any) -> list[Frame]:
    """A cost of an example: each reduction; a mean is over n, or by the weights of classes w_y."""
    return [
        frame(
            name,
            weight=weight,
            reduction=r,
            outputs="n" if r == "none" else "",
            count=count,
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
            count="w_y" if target.into else "n",
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
            "NLL",
            weight,
            count="w_y",
            input=t("n k"),
            target=t("n", "index k"),
            ignore_index=-100,
            axis="k",
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
            given=labels,
        )
        for r in MEANS
    ),
]
FRAMES += COSTS

# ----------------------------------------------------------------------------- windows, places

WINDOWS = {"stride": (2,), "padding": (0,), "dilation": (3,)}
FLAT = {"stride": (1, 2), "padding": (0, 0), "dilation": (1, 3), "kernel_size": (1, 2)}
#: with stride 2 and dilation 3, two weights at three positions see eight pixels
SEEN = {"i": 8, "k": 2, "p": 3}


def along(**maps: Callable[[Tensor], Tensor]) -> Callable[["Numbers"], dict[str, Value]]:
    """W₁ and W₂: the matrices of two linear functions, one for each axis of an image."""

    def given(numbers: "Numbers") -> dict[str, Value]:
        found = {}
        for symbol, rows, columns in (("W₁", "p", "i"), ("W₂", "q", "j")):
            unit = torch.eye(numbers.sizes[columns], dtype=torch.double)
            found[symbol] = Value(maps[columns](unit).mT, (rows, columns))
        return found

    return given


def pixels(numbers: "Numbers") -> dict[str, Value]:
    """p: (x, y, 1) of each of two by three pixels."""
    x, y = torch.tensor([-1.0, 0.0, 1.0] * 2), torch.tensor([-1.0] * 3 + [1.0] * 3)
    return {"p": Value(torch.stack([x, y, torch.ones(6)], 1).double(), ("k", "c"))}


def margins(numbers: "Numbers") -> dict[str, Value]:
    """m: the place that each number comes from, by padding these places themselves."""
    places = torch.arange(numbers.sizes["i"], dtype=torch.double)[None]
    padded = torch.nn.functional.pad(places, (2, 1), numbers.arguments["mode"])
    return {"m": Value(padded[0].long(), ("p",), into="i")}


def bags(numbers: "Numbers") -> dict[str, Value]:
    """b: the bag of each index, of two that begin at 0 and 3."""
    return {"b": Value(torch.tensor([0, 0, 0, 1]), ("n",), into="m")}


def recurrent(numbers: "Numbers") -> dict[str, Value]:
    """δ and δ′: the gradients of numbers added to x Wᵀ + b and to h W′ᵀ + b′ at every step."""
    a, kind = numbers.arguments, numbers.formula.__name__
    x, h, c = a["input"].reshape(3, 4, 3), a["hx"], a.get("cx")
    added = [torch.zeros(3, 4, len(a["bias_ih"]), dtype=torch.double) for _ in range(2)]
    steps: list[tuple[Tensor, ...]] = []
    with torch.enable_grad():
        for step, (e_z, e_m) in enumerate(zip(*(e.requires_grad_() for e in added), strict=True)):
            z = x[step] @ a["weight_ih"].mT + a["bias_ih"] + e_z
            m = h @ a["weight_hh"].mT + a["bias_hh"] + e_m
            if kind == "RNN":
                h = torch.tanh(z + m)
                steps.append((h,))
            elif kind == "LSTM":
                i, f, g, o = (z + m).chunk(4, 1)
                i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
                c = f * c + i * g
                h = o * torch.tanh(c)
                steps.append((h, torch.cat([i, f, g, o], 1), c))
            else:
                (z_r, z_u, z_n), (m_r, m_u, m_n) = z.chunk(3, 1), m.chunk(3, 1)
                u, r = torch.sigmoid(z_u + m_u), torch.sigmoid(z_r + m_r)
                n = torch.tanh(z_n + r * m_n)
                d = h - n
                h = n + u * d
                steps.append((h, torch.cat([r, u, n, m_n, d], 1)))
        output, *others = (torch.cat(each) for each in zip(*steps, strict=True))
        outputs = [output, h, *([c] if kind == "LSTM" else []), *others]
        total = sum((o * g).sum() for o, g in zip(outputs, numbers.incoming, strict=True))
    gradients = torch.autograd.grad(total, added)
    return {s: Value(g, ("t", "n", "k")) for s, g in zip(("δ", "δ′"), gradients, strict=True)}


functions = torch.nn.functional
POOLED = {"i": 6, "j": 8, "p": 3, "q": 4}
FRAMES += [
    frame(
        "Conv",
        **WINDOWS,
        input=t("n c i"),
        weight=t("o c k"),
        bias=t("o"),
        groups=1,
        size=(8,),
        outputs="n o p",
        sizes=SEEN,
    ),
    frame(
        "ConvTranspose",
        **WINDOWS,
        input=t("n c p"),
        weight=t("c o k"),
        bias=t("o"),
        output_padding=(0,),
        groups=1,
        size=(3,),
        outputs="n o i",
        sizes=SEEN,
    ),
    frame("Unfold", **FLAT, input=t("n c 1 i"), size=(1, 8), outputs="n (c k) p", sizes=SEEN),
    frame("Fold", **FLAT, input=t("n (c k) p"), output_size=(1, 8), outputs="n c i", sizes=SEEN),
    frame(
        "MaxPool",
        input=t("n j"),
        kernel_size=3,
        stride=2,
        padding=1,
        dilation=1,
        ceil_mode=False,
        shape=(8,),
        outputs=("n p", t("n p", "index j")),
        sizes={"j": 8, "p": 4},
    ),
    frame(
        "AdaptiveMaxPool",
        input=t("n j"),
        output_size=3,
        shape=(8,),
        outputs=("n p", t("n p", "index j")),
        sizes={"j": 8, "p": 3},
    ),
    frame(
        "FractionalMaxPool",
        input=t("1 n j1 j2"),
        kernel_size=2,
        output_size=2,
        samples=t("1 n o", "unit"),
        shape=(3, 4),
        outputs=("n p", t("n p", "index j")),
        sizes={"j": 12, "p": 4},
        given=lambda numbers: {"z": Value(numbers.arguments["input"].reshape(4, 12), ("n", "j"))},
    ),
    frame(
        "MaxUnpool",
        input=t("n p"),
        indices=t("n p", "distinct j"),
        shape=(8,),
        outputs="n j",
        sizes={"j": 8, "p": 3},
    ),
    frame(
        "AvgPool",
        input=t("n i j"),
        kernel_size=(2, 2),
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
        shape=(6, 8),
        outputs="n p q",
        sizes=POOLED,
        given=along(i=lambda x: functions.avg_pool1d(x, 2), j=lambda x: functions.avg_pool1d(x, 2)),
    ),
    frame(
        "AdaptiveAvgPool",
        input=t("n i j"),
        output_size=(4, 3),
        shape=(6, 8),
        outputs="n p q",
        sizes={"i": 6, "j": 8, "p": 4, "q": 3},
        given=along(
            i=lambda x: functions.adaptive_avg_pool1d(x, 4),
            j=lambda x: functions.adaptive_avg_pool1d(x, 3),
        ),
    ),
    frame(
        "Interpolate",
        input=t("1 n i j"),
        size=(3, 4),
        scale_factor=None,
        mode="bilinear",
        align_corners=True,
        recompute_scale_factor=None,
        antialias=False,
        shape=(6, 8),
        outputs="n p q",
        sizes=POOLED,
        given=along(
            i=lambda x: functions.interpolate(x[None], 3, mode="linear", align_corners=True)[0],
            j=lambda x: functions.interpolate(x[None], 4, mode="linear", align_corners=True)[0],
        ),
    ),
    frame(
        "AffineGrid",
        theta=t("n o c"),
        size=(4, 1, 2, 3),
        align_corners=True,
        outputs="n k o",
        given=pixels,
    ),
    *(
        frame(
            "PadFromWithin",
            input=t("n i"),
            pad=(2, 1),
            mode=mode,
            outputs="n p",
            given=margins,
            sizes={"p": 6},
        )
        for mode in ("reflect", "replicate", "circular")
    ),
    frame(
        "PickAlong",
        input=ANY,
        which="max",
        dim=1,
        keepdim=False,
        options={"keepdim": False},
        shape=(4, 5),
        outputs=("n", t("n", "index j")),
    ),
    *(
        frame(
            name,
            **stated,
            input=t("(t n) i"),
            hx=t("n o"),
            weight_ih=t("k i"),
            weight_hh=t("k o"),
            bias_ih=t("k"),
            bias_hh=t("k"),
            batch_sizes=(4, 4, 4),
            reverse=False,
            outputs=("(t n) o", "n o", *more),
            sizes={"t": 3, "k": gates, "m": 10},
            given=recurrent,
        )
        for name, gates, more, stated in (
            ("RNN", 2, (), {"nonlinearity": "tanh"}),
            ("LSTM", 8, ("n o", "(t n) k", "(t n) o"), {"cx": t("n o"), "weight_hr": None}),
            ("GRU", 6, ("(t n) m",), {}),
        )
    ),
    frame(
        "EmbeddingBag",
        input=t("n", "index k"),
        weight=t("k d"),
        per_sample_weights=t("n"),
        offsets=t("m", "starts"),
        rows=6,
        mode=0,
        padding_idx=None,
        by_frequency=False,
        outputs=("m d", "m"),
        sizes={"m": 2},
        given=bags,
    ),
]
