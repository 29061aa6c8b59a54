"""How every function that interception runs by formula may be called: arguments drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.functional._override import twins

#: where a name is looked for, and how a program writes it
NAMESPACES = {
    "torch": torch,
    "F": F,
    "Tensor": Tensor,
    "torch.special": torch.special,
    "torch.linalg": torch.linalg,
    "torch._C._nn": torch._C._nn,
}

Recipe = Callable[[Any], "list[str] | None"]
RECIPES: dict[str, Recipe] = {}


def recipe(*names: str) -> Callable[[Recipe], Recipe]:
    def add(function: Recipe) -> Recipe:
        RECIPES.update(dict.fromkeys(names, function))
        return function

    return add


def spellings() -> dict[str, Recipe]:
    """``torch.add``, ``Tensor.add_``, … → how its arguments are drawn: the table of interception.

    Raises:
        KeyError: a function of the table has no recipe: write one here.
    """
    paths: dict[int, list[str]] = {}
    for where, namespace in NAMESPACES.items():
        for name in dir(namespace):
            if not name.startswith("_") or name == "__getitem__":
                paths.setdefault(id(getattr(namespace, name)), []).append(f"{where}.{name}")
    found = {}
    for key in twins():
        for path in paths[id(key)]:
            name = path.rpartition(".")[2]
            plain = OTHER_NAMES.get(name) or (name if name == "__getitem__" else name.rstrip("_"))
            found[path] = RECIPES.get(path) or RECIPES[plain]
    return found


OTHER_NAMES = {
    "absolute": "abs", "absolute_": "abs", "arccos": "acos", "arccos_": "acos", "arccosh": "acos",
    "arccosh_": "acos", "arcsin": "acos", "arcsin_": "acos", "arcsinh": "acos", "arcsinh_": "acos",
    "arctan": "acos", "arctan_": "acos", "arctanh": "acos", "arctanh_": "acos", "arctan2": "atan2",
    "arctan2_": "atan2", "clip": "clamp", "clip_": "clamp", "divide": "div", "divide_": "div",
    "multiply": "mul", "multiply_": "mul", "negative": "neg", "negative_": "neg",
    "subtract": "sub", "subtract_": "sub", "expit": "sigmoid", "log_sigmoid": "sigmoid",
    "fix": "trunc", "fix_": "trunc", "concat": "cat", "concatenate": "cat", "row_stack": "vstack",
    "column_stack": "hstack", "true_divide_": "div", "moveaxis": "movedim", "ger": "outer",
}  # fmt: skip


#: what brings any number to where a function has a value
DOMAINS = dict.fromkeys(("acos", "asin", "atanh", "erfinv"), "{}.tanh()")
DOMAINS |= dict.fromkeys(("log", "log2", "log10", "log1p", "sqrt", "rsqrt"), "{}.abs()")
DOMAINS |= {"acosh": "(1 + {} ** 2)", "reciprocal": "({} + 3)", "exp": "{}.sin()"}


# ------------------------------------------------------------------------------- of each number


@recipe(
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "erf", "erfc",
    "erfinv", "exp", "exp2", "expm1", "floor", "frac", "log", "log1p", "log2", "log10", "neg",
    "reciprocal", "rsqrt", "sgn", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh",
    "trunc", "hardsigmoid", "hardswish", "logsigmoid", "mish", "relu", "relu6", "selu", "silu",
    "softsign", "tanhshrink", "deg2rad", "sinc", "logit", "digamma", "positive",
)  # fmt: skip
def unary(p: Any) -> list[str]:
    return [p.within(p.real()), *p.in_place()]


@recipe("round")
def rounded(p: Any) -> list[str]:
    return [p.real(), *p.option(0.4, f"decimals={p.one(0, 1, -1, 2)}")]


@recipe("celu", "elu", "leaky_relu", "hardshrink", "softshrink")
def with_number(p: Any) -> list[str]:
    return [p.real(), *p.option(0.5, p.one("0.5", "1.5", "0.1", "1")), *p.in_place()]


@recipe("gelu")
def gelu(p: Any) -> list[str]:
    return [p.real(), *p.option(0.5, p.one("approximate='tanh'", "approximate='none'"))]


@recipe("hardtanh")
def hardtanh(p: Any) -> list[str]:
    return [p.real(), *p.option(0.5, p.one("-0.5, 0.7", "-2, 2", "0., 1.", "min_val=-0.2"))]


@recipe("softplus")
def softplus(p: Any) -> list[str]:
    return [p.real(), *p.option(0.5, p.one("2", "0.5, 1", "beta=3", "threshold=1.5"))]


@recipe("threshold")
def threshold(p: Any) -> list[str]:
    return [p.real(), p.number(), p.number(), *p.in_place()]


@recipe("rrelu")
def rrelu(p: Any) -> list[str]:
    return [p.real(), *p.option(0.3, "0.1, 0.4"), *p.option(0.6, "training=True")]


@recipe("prelu")
def prelu(p: Any) -> list[str]:
    x = p.real()
    shape = p.shape(x)
    return [x, p.shaped((shape[1],) if len(shape) > 1 and p.coin(0.5) else (1,), x)]


@recipe("glu")
def glu(p: Any) -> list[str] | None:
    x = p.real(lambda t: any(n % 2 == 0 for n in t.shape))
    even = [d for d, n in enumerate(p.shape(x)) if n % 2 == 0]
    return [x, *p.option(0.8, str(p.one(*even)))] if even else None


@recipe("softmax", "log_softmax")
def softmax(p: Any) -> list[str]:
    x = p.real()
    kind = p.one("torch.double", "torch.float")
    return [x, p.named(0.2, "dim", p.dim(x)), *p.option(0.2, p.one(kind, f"dtype={kind}"))]


@recipe("softmin")
def softmin(p: Any) -> list[str]:
    x = p.real()
    return [x, p.named(0.5, "dim", p.dim(x))]


@recipe("gumbel_softmax")
def gumbel_softmax(p: Any) -> list[str]:
    x = p.real()
    return [x, *p.option(0.3, "tau=0.7"), *p.option(0.3, "hard=True"), f"dim={p.dim(x)}"]


@recipe("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d")
def dropout(p: Any) -> list[str]:
    return [p.real(), p.one("0.5", "0.3", "0.", "1."), p.one("True", "True", "False")]


@recipe("nan_to_num")
def nan_to_num(p: Any) -> list[str]:
    return [p.real(), *p.option(0.5, p.one("0.5", "nan=2.", "0., 3., -3.", "posinf=1."))]


# ----------------------------------------------------------------------------------- arithmetic


@recipe(
    "atan2", "hypot", "logaddexp", "maximum", "minimum", "xlogy", "true_divide", "remainder",
    "fmod",
    "mul",
)  # fmt: skip
def binary(p: Any) -> list[str]:
    x = p.real()
    pair = [x, p.named(0.1, "other", p.other(x))]
    return pair if p.coin(0.9) or "=" in pair[1] else pair[::-1]


@recipe("add", "sub", "rsub")
def weighted_sum(p: Any) -> list[str]:
    return binary(p) + p.option(0.25, f"alpha={p.number()}")


@recipe("div")
def div(p: Any) -> list[str]:
    return binary(p) + p.option(0.25, f"rounding_mode={p.one(None, repr('floor'), repr('trunc'))}")


@recipe("pow")
def power(p: Any) -> list[str]:
    x = p.real()
    return p.one([x, p.one("2", "3", "0.5", "-1", "1.5", "0", "1", "-2.", "2.0")], [x, p.other(x)],
                 [p.one("2", "0.5", "1"), x])  # fmt: skip


@recipe("lerp")
def lerp(p: Any) -> list[str]:
    x = p.real()
    return [x, p.alike(x), p.one(p.alike(x), p.number(), "0.3", "0.7")]


@recipe("addcmul", "addcdiv")
def addc(p: Any) -> list[str]:
    x = p.real()
    return [x, p.alike(x), p.alike(x), *p.option(0.5, f"value={p.number()}")]


@recipe("clamp")
def clamp(p: Any) -> list[str]:
    x = p.real()
    low = p.one("-0.5", "0", "None", p.alike(x))
    high = p.one("0.5", "1", "None", p.alike(x)) if low[0] not in "vx" else p.alike(x)
    return p.one([x, low, high], [x, f"min={low}"], [x, f"max={high}"], [x, low])


@recipe("clamp_max", "clamp_min")
def clamp_one(p: Any) -> list[str]:
    x = p.real()
    return [x, p.one("0.3", "0", "-0.5", p.alike(x))]


@recipe("where")
def where(p: Any) -> list[str]:
    x = p.real()
    return [p.mask(x), *p.one([x, p.other(x)], [p.other(x), x], [x, p.one("0.5", "0.", "1")])]


@recipe("Tensor.where")
def where_method(p: Any) -> list[str]:
    condition, *rest = where(p)
    return [rest[0], condition, rest[1]]


@recipe("masked_fill")
def masked_fill(p: Any) -> list[str]:
    x = p.real()
    return [x, p.mask(x), p.one(p.number(), p.number(), p.shaped((), x))]


# ----------------------------------------------------------------------------------- reductions


@recipe("sum", "mean", "nansum")
def total(p: Any) -> list[str]:
    x = p.real()
    return [x, *p.axes(x), *p.option(0.1, "dtype=torch.double")]


@recipe("amax", "amin")
def extremes(p: Any) -> list[str]:
    x = p.real()
    return [x, *p.axes(x)]


@recipe("prod", "median", "nanmedian", "max", "min", "aminmax")
def one_axis(p: Any) -> list[str] | None:
    x = p.real()
    if "median" in p.name and 0 in p.value(x).stride():
        return None  # torch gives whatever memory held
    return p.one([x], [x, *p.axis(x)], [x, *p.axis(x)])


@recipe("Tensor.max", "Tensor.min", "torch.max", "torch.min")
def extreme(p: Any) -> list[str]:
    x = p.real()
    return p.one([x], [x, *p.axis(x)], [x, p.alike(x)])


@recipe("var", "std", "var_mean", "std_mean")
def variance(p: Any) -> list[str]:
    x = p.real()
    kind = p.option(0.5, p.one("unbiased=False", "unbiased=True", "correction=0", "correction=2"))
    return p.one(
        [x, *p.axes(x), *kind], [x, p.one("False", "True")], [x, p.dim(x), "False", "True"]
    )


@recipe("logsumexp")
def logsumexp(p: Any) -> list[str]:
    x = p.real()
    return [x, p.one(p.dim(x), p.dims(x)), *p.option(0.3, "keepdim=True")]


@recipe("cumsum", "cumprod")
def cumulative(p: Any) -> list[str]:
    x = p.real()
    return [x, p.named(0.2, "dim", p.dim(x)), *p.option(0.1, "dtype=torch.double")]


@recipe("dist")
def dist(p: Any) -> list[str]:
    x = p.real()
    return [x, p.alike(x), *p.option(0.6, p.one("1", "2", "3", "0.5", "float('inf')", "0"))]


@recipe("kthvalue")
def kthvalue(p: Any) -> list[str]:
    x = p.real()
    return [x, p.one("1", "2", "1"), *p.axis(x)]


@recipe("topk")
def topk(p: Any) -> list[str]:
    x = p.real()
    return [x, p.one("1", "2"), *p.option(0.6, p.dim(x)), *p.option(0.3, "largest=False")]


@recipe("sort")
def sort(p: Any) -> list[str]:
    x = p.real()
    return [x, *p.option(0.7, p.dim(x)), *p.option(0.3, "descending=True"),
            *p.option(0.2, "stable=True")]  # fmt: skip


ORDERS = ("1", "2", "2.", "3", "0.5", "float('inf')", "float('-inf')", "0", "-1")


@recipe("torch.norm", "Tensor.norm")
def norm(p: Any) -> list[str]:
    x = p.real()
    order = p.one(*ORDERS, "'fro'", "'nuc'", "None")
    return p.one([x], [x, order], [x, order, *p.axes(x, always=True)], [x, *p.named_axes(x)])


@recipe("vector_norm", "norm")
def vector_norm(p: Any) -> list[str]:
    x = p.real()
    return p.one([x], [x, p.one(*ORDERS)], [x, p.one(*ORDERS), *p.axes(x, always=True)])


@recipe("torch.linalg.norm")
def linalg_norm(p: Any) -> list[str]:
    x = p.real()
    order = p.one(*ORDERS, "'fro'", "'nuc'", "None", "-2")
    return p.one([x], [x, order], [x, f"ord={order}", *p.named_axes(x)], [x, order, p.dims(x)])


# ------------------------------------------------------------------------------------- products


@recipe("matmul")
def matmul(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    *batch, k = p.shape(x) or (1,)
    m = p.size()
    shapes: list[tuple[int, ...]] = [(k,), (k, m), (k, m)]
    if len(batch) > 1:
        shapes += [(*batch[:-1], k, m), (*(1 for _ in batch[:-1]), k, m)]
    return [x, p.shaped(p.one(*shapes), x)]


@recipe("mm")
def mm(p: Any) -> list[str]:
    x = p.of(2)
    return [x, p.shaped((p.shape(x)[1], p.size()), x)]


@recipe("bmm")
def bmm(p: Any) -> list[str]:
    x = p.of(3)
    b, _, k = p.shape(x)
    return [x, p.shaped((b, k, p.size()), x)]


@recipe("mv")
def mv(p: Any) -> list[str]:
    x = p.of(2)
    return [x, p.shaped((p.shape(x)[1],), x)]


@recipe("dot")
def dot(p: Any) -> list[str]:
    x = p.of(1)
    return [x, p.shaped(p.shape(x), x)]


@recipe("inner")
def inner(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    last = p.shape(x)[-1:]
    return [x, p.shaped(p.one(last, (p.size(), *last)), x)]


@recipe("outer")
def outer(p: Any) -> list[str]:
    x = p.of(1)
    return [x, p.like(x, 1)]


@recipe("addmm", "addmv", "addbmm", "baddbmm")
def add_product(p: Any, name: str = "addmm") -> list[str]:
    n, k, m, b = p.size(), p.size(), p.size(), p.size()
    shapes = {
        "addmm": ((n, m), (n, k), (k, m)),
        "addmv": ((n,), (n, k), (k,)),
        "addbmm": ((n, m), (b, n, k), (b, k, m)),
        "baddbmm": ((b, n, m), (b, n, k), (b, k, m)),
    }[p.name.rstrip("_")]
    x = p.shaped(shapes[0] if p.coin(0.7) else shapes[0][-1:] if p.coin(0.5) else ())
    return [x, p.shaped(shapes[1], x), p.shaped(shapes[2], x),
            *p.option(0.3, f"beta={p.number()}"),
            *p.option(0.3, f"alpha={p.number()}")]  # fmt: skip


@recipe("einsum")
def einsum(p: Any) -> list[str]:
    n, m, k = p.size(), p.size(), p.size()
    equation, *shapes = p.one(
        ("ij,jk->ik", (n, m), (m, k)), ("ij,ij->i", (n, m), (n, m)), ("ij->ji", (n, m)),
        ("bij,bjk->bik", (n, m, k), (n, k, m)), ("i,j->ij", (n,), (m,)), ("ii->i", (n, n)),
        ("ij->", (n, m)), ("...ij,...jk", (n, m, k), (k, m)), ("ij,j,jk->k", (n, m), (m,), (m, k)),
        ("ii", (n, n)), ("ij,ij", (n, m), (n, m)),
    )  # fmt: skip
    first = p.shaped(shapes[0])
    return [repr(equation), first, *(p.shaped(s, first) for s in shapes[1:])]


@recipe("tensordot")
def tensordot(p: Any) -> list[str]:
    n, m, k = p.size(), p.size(), p.size()
    x = p.shaped((n, m, k))
    other, dims = p.one(((k, n), "1"), ((m, k, n), "2"), ((k, m), "([1, 2], [1, 0])"), ((n,), "0"))
    return [x, p.shaped(other, x), p.named(0.3, "dims", dims)]


@recipe("linear")
def linear(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    m, k = p.size(), (p.shape(x) or (1,))[-1]
    bias = p.option(0.6, p.shaped((m,), x)) or p.option(0.1, p.shaped((), x))
    return [x, p.shaped(p.one((m, k), (m, k), (m, k), (k,)), x), *bias]


@recipe("bilinear")
def bilinear(p: Any) -> list[str]:
    n, i, j, o = p.size(), p.size(), p.size(), p.size()
    x = p.shaped(p.one((n, i), (i,), (2, n, i)))
    return [x, p.shaped((*p.shape(x)[:-1], j), x), p.shaped((o, i, j), x),
            *p.option(0.5, p.shaped((o,), x))]  # fmt: skip


@recipe("cdist")
def cdist(p: Any) -> list[str]:
    n, m, d, b = p.size(), p.size(), p.size(), p.size()
    x = p.shaped(p.one((n, d), (b, n, d)))
    mode = p.one(*("use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"))
    return [x, p.shaped((*p.shape(x)[:-2], m, d), x),
            *p.option(0.6, f"p={p.one('1', '2', '3', '0.5', '1.5')}"),
            *p.option(0.2, f"compute_mode={mode!r}")]  # fmt: skip


@recipe("pdist")
def pdist(p: Any) -> list[str] | None:
    x = p.of(2)
    if not p.numel(x):
        return None  # torch's backward pass divides by 0 there, and takes the process with it
    return [x, *p.option(0.6, p.one("1", "2", "3", "0.5"))]


@recipe("cosine_similarity")
def cosine_similarity(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    return [x, p.alike(x), f"dim={p.dim(x)}"]


@recipe("pairwise_distance")
def pairwise_distance(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    return [x, p.alike(x), *p.option(0.5, p.one("1", "2", "3")), *p.option(0.3, "keepdim=True")]


# ---------------------------------------------------------------------------------------- costs


def reduction(p: Any) -> list[str]:
    kind = p.one("mean", "sum", "none") if "_C" not in p.path else p.one(0, 1, 2)
    return p.option(0.8, f"reduction={kind!r}")


@recipe("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "kl_div",
        "hinge_embedding_loss", "poisson_nll_loss", "binary_cross_entropy_with_logits",
        "multilabel_soft_margin_loss", "binary_cross_entropy")  # fmt: skip
def elementwise_cost(p: Any) -> list[str]:
    x = p.real(lambda t: p.name != "multilabel_soft_margin_loss" or t.dim() > 0)
    shape = p.shape(x)
    if p.name == "binary_cross_entropy" and p.coin(0.8):
        x = f"{x}.sigmoid()"
    target = p.one(
        p.shaped(shape, x.partition(".")[0]), p.frozen(shape, x.partition(".")[0], "sign"),
        p.frozen(shape, x.partition(".")[0], "unit"), p.frozen(shape, x.partition(".")[0], "unit"),
    )  # fmt: skip
    more = {
        "smooth_l1_loss": p.option(0.4, p.one("beta=0.5", "beta=2.")),
        "huber_loss": p.option(0.4, p.one("delta=0.5", "delta=2.")),
        "hinge_embedding_loss": p.option(0.4, "margin=0.5"),
        "poisson_nll_loss": p.option(0.3, "log_input=False") + p.option(0.3, "full=True"),
        "kl_div": p.option(0.3, "log_target=True"),
        "binary_cross_entropy_with_logits": p.option(
            0.3, f"pos_weight={p.frozen(shape[-1:], x, 'unit')}"
        ),
    }.get(p.name, [])
    return [x, target, *more, *reduction(p)]


@recipe("gaussian_nll_loss")
def gaussian_nll_loss(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    shape = p.shape(x)
    var = p.one(p.frozen(shape, x, "unit"), f"{p.shaped(shape, x)}.exp()", "0.5",
                f"{p.shaped((*shape[:-1], 1), x)}.exp()")  # fmt: skip
    return [x, p.shaped(shape, x), var, *p.option(0.3, "full=True"), *reduction(p)]


@recipe("margin_ranking_loss")
def margin_ranking_loss(p: Any) -> list[str]:
    x = p.real()
    shape = p.shape(x)
    return [x, p.shaped(shape, x), p.frozen(shape, x, "sign"), *p.option(0.4, "margin=0.3"),
            *reduction(p)]  # fmt: skip


@recipe("cosine_embedding_loss")
def cosine_embedding_loss(p: Any) -> list[str]:
    x = p.of(2) if p.coin(0.8) else p.of(1)
    shape = p.shape(x)
    return [x, p.shaped(shape, x), p.frozen(shape[:-1], x, "sign"), *p.option(0.4, "margin=0.3"),
            *reduction(p)]  # fmt: skip


@recipe("triplet_margin_loss", "triplet_margin_with_distance_loss")
def triplet(p: Any) -> list[str]:
    x = p.of(2) if p.coin(0.8) else p.of(1)
    shape = p.shape(x)
    own = p.name != "triplet_margin_loss"
    more = p.option(0.4, "distance_function=F.l1_loss") if own else p.option(0.3, "p=1")
    return [x, p.shaped(shape, x), p.shaped(shape, x), *p.option(0.3, "margin=2."), *more,
            *p.option(0.3, "swap=True"), *reduction(p)]  # fmt: skip


def logits(p: Any) -> tuple[str, int, tuple[int, ...]]:
    """Scores, how many classes, and the shape of the classes asked for."""
    x = p.of(p.one(2, 2, 2, 1, 3))
    shape = p.shape(x)
    return (x, shape[0], ()) if len(shape) == 1 else (x, shape[1], (shape[0], *shape[2:]))


@recipe("cross_entropy", "nll_loss")
def cross_entropy(p: Any) -> list[str]:
    x, classes, shape = logits(p)
    target = p.integers(shape, classes)
    if p.name == "cross_entropy" and p.coin(0.25):
        target = f"{p.shaped(p.shape(x), x)}.softmax({0 if len(p.shape(x)) == 1 else 1})"
    return [x, target, *p.option(0.3, f"weight={p.frozen((classes,), x, 'unit')}"),
            *p.option(0.2, "ignore_index=0"),
            *(p.option(0.3, "label_smoothing=0.2") if p.name == "cross_entropy" else []),
            *reduction(p)]  # fmt: skip


@recipe("linear_cross_entropy")
def linear_cross_entropy(p: Any) -> list[str]:
    x = p.of(2)
    n, d = p.shape(x)
    k = p.size()
    return [x, p.shaped((k, d), x), p.integers((n,), k),
            *p.option(0.3, f"linear_bias={p.shaped((k,), x)}"),
            *p.option(0.3, "label_smoothing=0.2"), *reduction(p)]  # fmt: skip


@recipe("multi_margin_loss")
def multi_margin_loss(p: Any) -> list[str] | None:
    x = p.of(2) if p.coin(0.8) else p.of(1)
    *n, k = p.shape(x)
    if not p.numel(x):
        return None  # of nothing torch returns whatever memory held
    return [x, p.integers(tuple(n), k), *p.option(0.3, "p=2"), *p.option(0.3, "margin=0.5"),
            *p.option(0.3, f"weight={p.frozen((k,), x, 'unit')}"), *reduction(p)]  # fmt: skip


@recipe("multilabel_margin_loss")
def multilabel_margin_loss(p: Any) -> list[str] | None:
    x = p.of(2) if p.coin(0.8) else p.of(1)
    shape = p.shape(x)
    if not p.numel(x):
        return None  # of nothing torch returns whatever memory held
    row = [p.rng.randrange(max(shape[-1], 1)), *[-1] * (shape[-1] - 1)][: shape[-1]]
    target = f"torch.tensor({row})" + (f".expand({shape[0]}, -1)" if len(shape) > 1 else "")
    return [x, target, *reduction(p)]


@recipe("ctc_loss")
def ctc_loss(p: Any) -> list[str]:
    t, n, c, s = p.one(4, 5, 6), p.one(1, 2, 3), p.one(2, 3, 4), p.one(1, 2)
    x = f"{p.shaped((t, n, c))}.log_softmax(-1)"
    lengths = [p.one(t, t - 1) for _ in range(n)]
    stated = [p.one(s, s, 0, 1) for _ in range(n)]
    given = p.one(f"{lengths}, {stated}", f"torch.tensor({lengths}), torch.tensor({stated})")
    return [x, f"{p.integers((n, s), c - 1)} + 1", *given.split(", t"), *reduction(p)] if (
        "tensor" not in given
    ) else [x, f"{p.integers((n, s), c - 1)} + 1", f"torch.tensor({lengths})",
            f"torch.tensor({stated})", *p.option(0.3, "zero_infinity=True")]  # fmt: skip


# --------------------------------------------------------------------------------- rearranging


@recipe("cat", "torch.cat")
def cat(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    shape = p.shape(x)
    d = p.rng.randrange(len(shape)) if shape else 0
    parts = [x] + [p.shaped((*shape[:d], p.size(), *shape[d + 1 :]), x, 0.15)
                   for _ in range(p.one(1, 1, 2))]  # fmt: skip
    p.rng.shuffle(parts)
    return [p.sequence(parts), p.one(str(d), f"dim={d - len(shape)}") if d or p.coin(0.5) else "0"]


@recipe("stack")
def stack(p: Any) -> list[str]:
    x = p.real()
    shape = p.shape(x)
    parts = [x] + [p.shaped(shape, x, 0.15) for _ in range(p.one(0, 1, 1, 2))]
    return [p.sequence(parts), *p.option(0.7, str(p.rng.randint(-len(shape) - 1, len(shape))))]


@recipe("hstack", "vstack", "dstack")
def stacked(p: Any) -> list[str]:
    x = p.real()
    return [p.sequence([x] + [p.shaped(p.shape(x), x, 0.15) for _ in range(p.one(0, 1, 2))])]


@recipe("diag")
def diag(p: Any) -> list[str]:
    return [p.of(p.one(1, 2)), *p.option(0.5, p.one("0", "1", "-1"))]


@recipe("trace")
def trace(p: Any) -> list[str]:
    return [p.of(2)]


@recipe("diag_embed")
def diag_embed(p: Any) -> list[str]:
    x = p.real(lambda t: 0 < t.dim() < 4)
    return [x, *p.option(0.5, p.one("0", "1", "-1", "0, 0, 1", "offset=1, dim1=-1, dim2=0"))]


@recipe("flatten")
def flatten(p: Any) -> list[str]:
    return [p.real(), *p.option(0.6, p.one("0", "1", "0, 1", "-2", "start_dim=1", "1, -1"))]


@recipe("flip")
def flip(p: Any) -> list[str]:
    x = p.real()
    return [x, p.one(p.dims(x), f"[{p.dim(x)}]", p.dim(x))]


@recipe("gather", "take_along_dim")
def gather(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0 and t.numel() > 0)
    shape = p.shape(x) or (1,)
    d = p.rng.randrange(len(shape))
    index = p.integers((*shape[:d], p.size(), *shape[d + 1 :]), shape[d])
    if p.name == "gather":
        return [x, str(d), index]
    return p.one([x, index, str(d)], [x, index, f"dim={d}"],
                 [x, p.integers((p.size(),), max(p.numel(x), 1))])  # fmt: skip


@recipe("index_select")
def index_select(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    d = p.rng.randrange(max(len(p.shape(x)), 1))
    return [x, str(d), p.integers((p.size(),), (p.shape(x) or (1,))[d])]


@recipe("index_add", "index_copy")
def index_add(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    shape = p.shape(x) or (1,)
    d = p.rng.randrange(len(shape))
    n = min(p.size(), shape[d])
    index = p.integers((n,), shape[d], unique=p.name.startswith("index_copy"))
    return [x, str(d), index, p.shaped((*shape[:d], n, *shape[d + 1 :]), x),
            *(p.option(0.3, "alpha=0.5") if p.name.startswith("index_add") else [])]  # fmt: skip


@recipe("index_fill")
def index_fill(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    d = p.rng.randrange(max(len(p.shape(x)), 1))
    n = (p.shape(x) or (1,))[d]
    return [x, str(d), p.integers((p.one(1, 2),), n), p.one(p.number(), p.shaped((), x))]


@recipe("scatter", "scatter_add")
def scatter(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0 and t.numel() > 0)
    shape = p.shape(x) or (1,)
    d = p.rng.randrange(len(shape))
    count = p.rng.randint(1, shape[d]) if shape[d] else 0
    smaller = tuple(p.rng.randint(1, n) if n else 0 for n in shape)
    smaller = (*smaller[:d], count, *smaller[d + 1 :])
    # Where two sources have one place, which of them wins is not defined.
    index = p.integers(smaller, shape[d], unique=d if p.name.startswith("scatter") else None)
    source = p.shaped(p.one(smaller, shape), x)
    more = p.option(0.15, p.one("reduce='add'", "reduce='multiply'"))
    if p.name.startswith("scatter_add"):
        return [x, str(d), index, source]
    return p.one([x, str(d), index, source], [x, str(d), index, source, *more],
                 [x, str(d), index, p.number()],
                 [x, str(d), index, f"value={p.number()}"])  # fmt: skip


@recipe("masked_select")
def masked_select(p: Any) -> list[str]:
    x = p.real()
    return [x, p.mask(x)]


@recipe("repeat", "tile")
def repeat(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() < 4)
    times = [p.one(1, 1, 2, 3) for _ in p.shape(x)]
    times = [*([p.one(1, 2)] if p.coin(0.3) else []), *times] or [1]
    return [x, p.one(str(tuple(times)), ", ".join(map(str, times)))]


@recipe("repeat_interleave")
def repeat_interleave(p: Any) -> list[str]:
    x = p.real()
    d = p.dim(x)
    n = p.shape(x)[int(d)] if p.shape(x) else 1
    counts = f"torch.tensor({[p.one(1, 2, 0) for _ in range(n)]})"
    return p.one([x, p.one("1", "2", "3")], [x, p.one("1", "2", "3"), d],
                 [x, p.one("1", "2"), f"dim={d}"], [x, counts, d])  # fmt: skip


@recipe("roll")
def roll(p: Any) -> list[str]:
    x = p.real()
    return p.one([x, p.one("1", "-1", "2")], [x, p.one("1", "-1", "2"), p.dim(x)],
                 [x, "(1, 2)", "(0, 1)"])  # fmt: skip


@recipe("rot90")
def rot90(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 1)
    return [x, *p.option(0.7, p.one("1", "2", "3", "0", "-1")), *p.option(0.3, "dims=(1, 0)")]


@recipe("tril", "triu")
def triangle(p: Any) -> list[str]:
    return [p.real(lambda t: t.dim() > 1), *p.option(0.5, p.one("0", "1", "-1"))]


@recipe("Tensor.index")
def functorch_index(p: Any) -> list[str] | None:
    return None  # of functorch's first-class dimensions, which no program here has


@recipe("__getitem__")
def getitem(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    return [x, p.subscript(x)]


# -------------------------------------------------------------------------------- convolutions


def each(p: Any, n: int, *options: int) -> str:
    """One number, or one for each of n axes."""
    if p.coin(0.6):
        return str(p.one(*options))
    return str(tuple(p.one(*options) for _ in range(n)))


@recipe("conv1d", "conv2d", "conv3d")
def conv(p: Any) -> list[str]:
    n = int(p.name[4])
    groups = p.one(1, 1, 1, 2)
    c, out = groups * p.one(1, 2), groups * p.one(1, 2, 3)
    kernel = tuple(p.one(1, 2, 3) for _ in range(n))
    spatial = tuple(p.one(k, k + 1, k + 2) for k in kernel)
    x = p.shaped((*([p.one(1, 2)] if p.coin(0.85) else []), c, *spatial))
    w = p.shaped((out, c // groups, *kernel), x)
    padding = p.one("0", "1", "'same'", "'valid'", each(p, n, 0, 1))
    return [x, w, *p.option(0.5, f"bias={p.shaped((out,), x)}"),
            *p.option(0.4, f"stride={each(p, n, 1, 2)}"), *p.option(0.4, f"padding={padding}"),
            *p.option(0.2, "dilation=2"),
            *([f"groups={groups}"] if groups > 1 else [])]  # fmt: skip


@recipe("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(p: Any) -> list[str]:
    n = int(p.name[14])
    groups = p.one(1, 1, 1, 2)
    c, out = groups * p.one(1, 2), p.one(1, 2, 3)
    kernel = tuple(p.one(1, 2, 3) for _ in range(n))
    x = p.shaped((*([p.one(1, 2)] if p.coin(0.85) else []), c, *(p.one(1, 2, 3) for _ in range(n))))
    return [x, p.shaped((c, out, *kernel), x),
            *p.option(0.5, f"bias={p.shaped((out * groups,), x)}"),
            *p.option(0.4, f"stride={each(p, n, 1, 2)}"),
            *p.option(0.3, f"padding={each(p, n, 0, 1)}"),
            *p.option(0.2, "stride=2, output_padding=1"), *p.option(0.2, "dilation=2"),
            *([f"groups={groups}"] if groups > 1 else [])]  # fmt: skip


@recipe("conv_tbc")
def conv_tbc(p: Any) -> list[str]:
    t, b, c, o, k = p.one(3, 4), p.one(1, 2), p.one(1, 2), p.one(1, 2), p.one(1, 2, 3)
    x = p.shaped((t, b, c))
    return [x, p.shaped((k, c, o), x), p.shaped((o,), x), *p.option(0.5, "1")]


@recipe("unfold")
def unfold(p: Any) -> list[str]:
    x = p.shaped((p.one(1, 2), p.one(1, 2), p.one(2, 3, 4), p.one(2, 3, 4)))
    return [x, each(p, 2, 1, 2), *p.option(0.3, f"padding={each(p, 2, 0, 1)}"),
            *p.option(0.3, f"stride={each(p, 2, 1, 2)}"), *p.option(0.2, "dilation=2")]  # fmt: skip


@recipe("fold")
def fold(p: Any) -> list[str]:
    h, w, k, c = p.one(2, 3, 4), p.one(2, 3, 4), p.one(1, 2), p.one(1, 2)
    blocks = (h - k + 1) * (w - k + 1)
    x = p.shaped((*([p.one(1, 2)] if p.coin(0.8) else []), c * k * k, blocks))
    return [x, f"({h}, {w})", str(k)]


# ------------------------------------------------------------------------------- normalization


@recipe("batch_norm", "instance_norm")
def batch_norm(p: Any) -> list[str]:
    n, c = p.one(2, 3), p.one(1, 2, 3)
    spatial = tuple(p.one(1, 2, 3) for _ in range(p.one(0, 1, 2, 2, 3)))
    if p.name == "instance_norm":
        spatial = spatial or (3,)
    x = p.shaped((n, c, *spatial))
    kept = p.coin(0.6)
    mean, var = (p.state((c,), x, 0.0), p.state((c,), x, 1.0)) if kept else ("None", "None")
    batch = p.one("True", "True", "False") if kept else "True"
    return [x, mean, var, p.one("None", p.shaped((c,), x), p.shaped((c,), x)),
            p.one("None", p.shaped((c,), x), p.shaped((c,), x)), batch,
            *p.option(0.3, "0.3"), *p.option(0.2, "eps=0.01")]  # fmt: skip


@recipe("group_norm")
def group_norm(p: Any) -> list[str]:
    groups = p.one(1, 2, 3)
    c = groups * p.one(1, 2)
    x = p.shaped((p.one(1, 2), c, *(p.one(1, 2, 3) for _ in range(p.one(0, 1, 2)))))
    return [x, str(groups), *p.option(0.5, f"weight={p.shaped((c,), x)}"),
            *p.option(0.5, f"bias={p.shaped((c,), x)}"), *p.option(0.3, "eps=0.01")]  # fmt: skip


@recipe("layer_norm", "rms_norm")
def layer_norm(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    shape = p.shape(x)[-p.one(1, 1, 2) :] or (1,)
    bias = p.option(0.4, f"bias={p.shaped(shape, x)}") if p.name == "layer_norm" else []
    return [x, p.one(str(shape), str(list(shape))), *p.option(0.6, f"weight={p.shaped(shape, x)}"),
            *bias, *p.option(0.3, "eps=0.01")]  # fmt: skip


@recipe("local_response_norm")
def local_response_norm(p: Any) -> list[str]:
    return [p.of(p.one(3, 4)), p.one("1", "2", "3"), *p.option(0.3, "alpha=0.5, beta=0.6")]


@recipe("normalize")
def normalize(p: Any) -> list[str]:
    x = p.real(lambda t: t.dim() > 0)
    return [x, *p.option(0.4, f"p={p.one('1', '2.', '3')}"), f"dim={p.one(p.dim(x), p.dims(x))}"]


# ------------------------------------------------------------------------------------- pooling


def image(p: Any, n: int, *sizes: int) -> str:
    batch = [p.one(1, 2)] if p.coin(0.85) else []
    return p.shaped((*batch, p.one(1, 2), *(p.one(*sizes) for _ in range(n))))


@recipe("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(p: Any) -> list[str]:
    n = int(p.name[8])
    more = p.option(0.2, "divisor_override=3") if n > 1 else []
    return [image(p, n, 2, 3, 4), each(p, n, 1, 2), *p.option(0.4, f"stride={each(p, n, 1, 2)}"),
            *p.option(0.3, "padding=1"), *p.option(0.2, "ceil_mode=True"),
            *p.option(0.2, "count_include_pad=False"), *more]  # fmt: skip


@recipe("lp_pool1d", "lp_pool2d", "lp_pool3d")
def lp_pool(p: Any) -> list[str]:
    n = int(p.name[7])
    return [image(p, n, 2, 3, 4), p.one("2", "3", "1.5", "1"), each(p, n, 1, 2),
            *p.option(0.4, f"stride={each(p, n, 1, 2)}"),
            *p.option(0.2, "ceil_mode=True")]  # fmt: skip


@recipe(*(f"max_pool{n}d{more}" for n in (1, 2, 3) for more in ("", "_with_indices")))
def max_pool(p: Any) -> list[str]:
    n = int(p.name[8])
    more = p.option(0.3, "return_indices=True")
    return [image(p, n, 2, 3, 4), each(p, n, 1, 2), *p.option(0.4, f"stride={each(p, n, 1, 2)}"),
            *p.option(0.2, "padding=1"), *p.option(0.2, "dilation=2"),
            *p.option(0.2, "ceil_mode=True"), *more]  # fmt: skip


@recipe(*(f"adaptive_{kind}_pool{n}d{more}" for kind in ("avg", "max") for n in (1, 2, 3)
          for more in ("", "_with_indices")))  # fmt: skip
def adaptive_pool(p: Any) -> list[str]:
    n = int(p.name[17])
    more = p.option(0.3, "return_indices=True") if "max" in p.name else []
    return [image(p, n, 1, 2, 3, 4), each(p, n, 1, 2, 3), *more]


@recipe(*(f"fractional_max_pool{n}d{more}" for n in (2, 3) for more in ("", "_with_indices")))
def fractional_max_pool(p: Any) -> list[str]:
    n = int(p.name[19])
    more = p.option(0.3, "return_indices=True")
    return [image(p, n, 4, 5), each(p, n, 1, 2), p.one("output_size=2", "output_ratio=0.5"), *more]


@recipe("max_unpool1d", "max_unpool2d", "max_unpool3d")
def max_unpool(p: Any) -> list[str]:
    n = int(p.name[10])
    places = tuple(p.one(1, 2) for _ in range(n))
    total = 1
    for m in places:
        total *= 2 * m
    c = p.one(1, 2)
    x = p.shaped((p.one(1, 2), c, *places))
    count = 1
    for m in places:
        count *= m
    order = p.rng.sample(range(total), count)
    return [x, f"torch.tensor({order}).view({(1, 1, *places)}).expand_as({x})", "2"]


# ---------------------------------------------------------------------------- shapes of images


@recipe("pad")
def pad(p: Any) -> list[str]:
    mode = p.one("constant", "constant", "reflect", "replicate", "circular")
    if mode == "constant":
        x = p.real(lambda t: t.dim() > 0)
        widths = tuple(p.one(0, 1, 2, -1) for _ in range(2 * p.one(1, 1, 2)))
        return [x, str(widths), *p.option(0.4, p.one("value=0.5", "'constant', 1.5"))]
    n = p.one(1, 1, 2, 3)
    return [image(p, n, 2, 3, 4), str(tuple(p.one(0, 1) for _ in range(2 * n))), repr(mode)]


@recipe("pixel_shuffle")
def pixel_shuffle(p: Any) -> list[str]:
    return [p.shaped((p.one(1, 2), 4 * p.one(1, 2), p.one(1, 2), p.one(1, 3))), "2"]


@recipe("pixel_unshuffle")
def pixel_unshuffle(p: Any) -> list[str]:
    return [p.shaped((p.one(1, 2), p.one(1, 2), 2 * p.one(1, 2), 4)), "2"]


@recipe("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(p: Any) -> list[str]:
    return [
        p.shaped((p.one(1, 2), 4, *(p.one(1, 2) for _ in range(p.one(1, 2))))),
        p.one("2", "4", "1"),
    ]


@recipe("affine_grid")
def affine_grid(p: Any) -> list[str]:
    n, size = p.one(1, 2), [p.one(2, 3) for _ in range(p.one(2, 2, 3))]
    x = p.shaped((n, len(size), len(size) + 1))
    return [x, str([n, p.one(1, 2), *size]), f"align_corners={p.coin(0.5)}"]


@recipe("grid_sample")
def grid_sample(p: Any) -> list[str]:
    n, d = p.one(1, 2), p.one(2, 2, 3)
    x = p.shaped((n, p.one(1, 2), *(p.one(2, 3) for _ in range(d))))
    grid = p.shaped((n, *(p.one(1, 2, 3) for _ in range(d)), d), x)
    modes = ("bilinear", "nearest", "bicubic") if d == 2 else ("bilinear", "nearest")
    return [x, grid, f"mode={p.one(*modes)!r}",
            f"padding_mode={p.one('zeros', 'border', 'reflection')!r}",
            f"align_corners={p.coin(0.5)}"]  # fmt: skip


@recipe("interpolate", "upsample")
def interpolate(p: Any) -> list[str]:
    n = p.one(1, 2, 2, 3)
    x = p.shaped((p.one(1, 2), p.one(1, 2), *(p.one(2, 3) for _ in range(n))))
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[n]
    mode = p.one("nearest", "area", "nearest-exact", *modes, *modes)
    corners = [f"align_corners={p.coin(0.5)}"] if mode in modes else []
    to = p.one(f"size={each(p, n, 2, 3, 4, 5)}", "scale_factor=2", "scale_factor=1.5")
    more = p.option(0.2, "antialias=True") if mode in modes and n == 2 else []
    return [x, to, f"mode={mode!r}", *corners, *more]


@recipe("upsample_bilinear", "upsample_nearest")
def upsample(p: Any) -> list[str]:
    return [p.shaped((p.one(1, 2), p.one(1, 2), p.one(2, 3), p.one(2, 3))),
            p.one("size=(3, 4)", "scale_factor=2")]  # fmt: skip


# ----------------------------------------------------------------------------- words, attention


@recipe("embedding")
def embedding(p: Any) -> list[str]:
    w = p.of(2)
    v = p.shape(w)[0]
    return [p.integers(p.one((3,), (2, 3), ()), v), w, *p.option(0.2, "padding_idx=0"),
            *p.option(0.15, "scale_grad_by_freq=True")]  # fmt: skip


@recipe("embedding_bag")
def embedding_bag(p: Any) -> list[str]:
    w = p.of(2)
    v, n = p.shape(w)[0], p.one(2, 3, 4)
    mode = p.one("sum", "mean", "max")
    flat = p.coin(0.5)
    shape = (n,) if flat else (2, n)
    more = ["offsets=torch.tensor([0, 1])"] if flat else []
    if mode == "sum":
        more += p.option(0.5, f"per_sample_weights={p.shaped(shape, w)}")
    return [p.integers(shape, v), w, *more, f"mode={mode!r}", *p.option(0.2, "padding_idx=0")]


@recipe("scaled_dot_product_attention")
def attention(p: Any) -> list[str]:
    batch = p.one((), (2,), (2, 2), (1, 2))
    length, source, d, e = p.one(1, 2, 3), p.one(1, 2, 3), p.one(1, 2, 4), p.one(1, 2, 4)
    q = p.shaped((*batch, length, d))
    more = p.one(
        [], ["is_causal=True"], [f"attn_mask={p.shaped((length, source), q)}"],
        [f"attn_mask=torch.ones({length}, {source}, dtype=torch.bool).tril()"], ["scale=0.5"],
    )  # fmt: skip
    return [q, p.shaped((*batch, source, d), q), p.shaped((*batch, source, e), q), *more]


@recipe("multi_head_attention_forward")
def heads(p: Any) -> list[str]:
    h = p.one(1, 2)
    e, t, s, n = h * p.one(1, 2), p.one(1, 2, 3), p.one(1, 2, 3), p.one(1, 2)
    q = p.shaped((t, n, e))
    kv = p.shaped((s, n, e), q)
    mask = p.option(0.3, f"attn_mask={p.shaped((t, s), q)}")
    return [q, kv, kv, str(e), str(h), p.shaped((3 * e, e), q),
            p.one("None", p.shaped((3 * e,), q)), "None", "None", str(p.coin(0.2)), "0.0",
            p.shaped((e, e), q), p.one("None", p.shaped((e,), q)), *mask,
            *p.option(0.3, "need_weights=False"),
            *p.option(0.3, "average_attn_weights=False")]  # fmt: skip


# ------------------------------------------------------------------------------------ recurrent

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@recipe(*(f"{kind}_cell" for kind in GATES))
def cell(p: Any) -> list[str]:
    kind = p.name.removesuffix("_cell")
    n, i, h = p.one(1, 2), p.one(1, 2, 3), p.one(1, 2, 3)
    gates = GATES[kind] * h
    x = p.shaped((n, i))
    state = p.shaped((n, h), x)
    if kind == "lstm":
        state = f"({state}, {p.shaped((n, h), x)})"
    biases = [p.shaped((gates,), x), p.shaped((gates,), x)] if p.coin(0.7) else []
    return [x, state, p.shaped((gates, i), x), p.shaped((gates, h), x), *biases]


@recipe(*GATES)
def recurrent(p: Any) -> list[str]:
    t, n, i, h = p.one(1, 2, 3), p.one(1, 2), p.one(1, 2), p.one(1, 2)
    layers, both, biases = p.one(1, 1, 2), p.coin(0.3), p.coin(0.6)
    gates, ways, first = GATES[p.name] * h, 1 + both, p.coin(0.3)
    x = p.shaped((n, t, i) if first else (t, n, i))
    parameters = []
    for layer in range(layers):
        for _ in range(ways):
            width = i if layer == 0 else h * ways
            parameters += [p.shaped((gates, width), x), p.shaped((gates, h), x)]
            parameters += [p.shaped((gates,), x), p.shaped((gates,), x)] if biases else []
    state = p.shaped((layers * ways, n, h), x)
    if p.name == "lstm":
        state = f"({state}, {p.shaped((layers * ways, n, h), x)})"
    return [x, state, f"[{', '.join(parameters)}]", str(biases), str(layers), "0.0", "True",
            str(both), str(first)]  # fmt: skip


# ------------------------------------- torch's own: what stands between, or has no formula at all


def structural(p: Any) -> str | None:
    """A view, a copy, a mask, or a function of torch that has no formula."""
    x = p.real(lambda t: True, 0.05)
    shape = p.shape(x)
    n = len(shape)
    a, b = p.dim(x), p.dim(x)
    cut = p.rng.randrange(shape[int(a)]) if n and shape[int(a)] else 0
    left = max(shape[int(a)] - cut, 0) if n else 0
    grown = [s if s != 1 else p.size() for s in shape]
    return p.one(
        f"{x}.transpose({a}, {b})", f"{x}.T" if n == 2 else f"{x}.mT", f"{x}.movedim({a}, {b})",
        f"{x}.permute({', '.join(map(str, p.rng.sample(range(n), n)))})" if n else f"{x}.clone()",
        f"{x}.unsqueeze({p.rng.randint(-n - 1, n)})", f"{x}.squeeze()", f"{x}.squeeze({a})",
        f"{x}.reshape(-1)", f"{x}.view(-1)", f"{x}.view({tuple(shape)})",
        f"{x}.reshape({p.reshaped(x)})",
        f"{x}.view({p.reshaped(x)})", f"{x}.unflatten(0, ({shape[0]}, 1))" if n else f"{x}[None]",
        f"{x}.expand({grown})", f"{x}.expand(2, {str(grown)[1:-1]})" if n else f"{x}.expand(3)",
        f"{x}.narrow({a}, {cut}, {left})", f"{x}.select({a}, {cut})", f"{x}.diagonal()",
        f"{x}.split(1, {a})", f"{x}.chunk(2, {a})", f"{x}.unbind({a})", f"{x}.contiguous()",
        f"torch.split({x}, {p.size()}, {a})", f"{x}.unfold({a}, 1, 1)", f"{x}.tensor_split(2, {a})",
        f"{x}.clone()", f"{x}.detach()", f"{x}.to(torch.double)", f"{x}.float()",
        f"{x}.to({x}.dtype)",
        f"{x}.type_as({p.real()})", f"{x} > {p.other(x)}", f"{x} <= {p.number()}",
        f"{x}.ne({p.other(x)})",
        f"torch.broadcast_tensors({x}, {p.alike(x)})", f"{x}.swapaxes({a}, {b})", f"{x}.ravel()",
        f"torch.atleast_2d({x})", f"{x}.view_as({x})", f"{x}.new_zeros({shape})",
        f"torch.zeros_like({x})",
        f"{x}.isnan()", f"{x}.argmax()", f"{x}.sinc()", f"{x}.logit(0.1)", f"{x}.cummax({a})",
        f"{x}.logcumsumexp({a})", f"torch.ones_like({x})", f"{x}.squeeze().unsqueeze(0)",
        f"{x}.expm1()", f"torch.relu({x})", f"torch.dstack([{x}, {x}])", f"{x}.numel() * {x}",
        f"{x}.bool()", f"reverse({x})", f"reverse({x})", f"{x}.where({p.mask(x)}, {p.alike(x)})",
    )  # fmt: skip


OPERATORS = ("+", "-", "*", "/", "**", "//", "%", "@")


def operator(p: Any) -> str:
    x = p.real()
    kind = p.one(*OPERATORS[:5], *OPERATORS)
    if kind == "@":
        left, right = matmul(p)
        return f"{left} @ {right}"
    other = p.other(x)
    if kind == "**" and p.coin(0.8):
        other = p.one("2", "3", "0.5", "-1")
    return p.one(
        f"{x} {kind} {other}", f"{other} {kind} {x}", f"-{x}", f"abs({x})", f"{x} {kind} {other}"
    )


def writing(p: Any) -> str:
    """A statement that writes into a value, or into a view of one."""
    x = p.real(lambda t: not (t.is_leaf and t.requires_grad), 0.1)
    view = p.one(x, x, f"{x}[{p.subscript(x)}]", f"{x}[{p.subscript(x, plain=True)}]",
                             f"{x}.view(-1)",
                 f"{x}.flatten()", f"{x}.t()", f"{x}.reshape(-1)", f"{x}.unsqueeze(0)",
                 f"{x}.detach()",
                 f"{x}.diagonal()", f"{x}.narrow(0, 0, 1)", f"{x}.squeeze()", f"{x}.contiguous()",
                 f"{x}.split(1)[0]", f"{x}.unbind()[0]", f"{x}.expand_as({x})")  # fmt: skip
    other = p.one(p.other(x), p.number(), p.shaped((), x))
    plain = p.subscript(x, plain=True)
    return p.one(
        f"{view}.{p.one('add_', 'sub_', 'mul_', 'div_', 'copy_', 'fill_', 'pow_')}({other})",
        f"{view}.{p.one('exp_', 'sin_', 'relu_', 'neg_', 'zero_', 'tanh_', 'sigmoid_', 'abs_')}()",
        f"{view}.clamp_({p.one('min=0', '-0.5, 0.5', 'max=0.2')})",
        f"{x}[{p.subscript(x)}] = {other}",
        f"{x}[{plain}] = {other}", f"{x}[{p.mask(x)}] = {p.number()}", f"{x}[{plain}] *= {other}",
        f"{x}[{p.subscript(x)}] += {other}", f"{x} {p.one('+=', '-=', '*=', '/=')} {other}",
        f"{x}.copy_({p.alike(x)})", f"{x}.masked_fill_({p.mask(x)}, {p.number()})",
        f"{x}.t_()", f"{x}.unsqueeze_(0)", f"{x}.squeeze_()", f"{x}.detach_()",
        f"{x}.index_put_((torch.tensor([0]),), {p.shaped((), x)})",
    )  # fmt: skip


def hook(p: Any) -> str:
    # A cell's h and c come of one formula, and of many steps of torch's, which c is on the way of.
    cells = {name for line in p.body if "lstm_cell" in line.source for name in line.defines}
    for _ in range(4):
        x = p.real(lambda t: t.requires_grad, 0)
        if x not in cells:
            break
    return p.one(f"{x}.register_hook(lambda g: 2 * g)", f"{x}.retain_grad()")


def by_numpy(arguments: list[str]) -> list[str]:
    """The same arguments in numpy's spelling, which torch takes where it takes it."""
    swaps = (("dim=", "axis="), ("keepdim=", "keepdims="), ("other=", "x2="))
    return [next((new + a[len(old) :] for old, new in swaps if a.startswith(old)), a)
            for a in arguments]  # fmt: skip


def by_keyword(arguments: list[str], names: Iterator[str]) -> list[str]:
    """The same arguments by name."""
    return [a if "=" in a else f"{name}={a}" for a, name in zip(arguments, names, strict=False)]
