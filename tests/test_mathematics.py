"""Each ∂ line is true of its rule: parsed, evaluated without the code, and compared with it.

A line with ≙ is marked as beyond the grammar. `docs/formulas.md` states the notation, and which
symbol stands for which of torch's names: its table is read here.
"""

import inspect
import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from frames import FRAMES, SIZES, Drawn, Frame, Z, frame
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


@cache
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


# --------------------------------------------------------------------- what a docstring states

#: what a ∂ line has in place of = if it is beyond the grammar
MARK = " ≙ "

#: the formulas whose value is stated in words, though their ∂ lines are not
IN_WORDS = {
    *("Round", "NanToNum", "RoundedDiv", "Atan2", "GumbelSoftmax", "StraightThrough", "PickOne"),
    *("Scatter", "ScatterAdd", "IndexCopy", "IndexAdd", "IndexFill", "EmbeddingBag"),
    *("RNN", "LSTM", "GRU"),
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
        self.sizes = SIZES | frame.sizes
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
            name: value.draw(self.sizes) if isinstance(value, Drawn) else value
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
        drawn = next(v for v in self.frame.arguments.values() if isinstance(v, Drawn)).axes
        if self.frame.outputs:
            drawn = self.frame.outputs[index]
        drawn = Drawn(drawn) if isinstance(drawn, str) else drawn
        return drawn.value(tensor if drawn.into else tensor.double(), self.sizes)

    def _given(self) -> dict[str, Value]:
        """What the symbols stand for that no line defines."""
        stated, frame = statements(self.formula), self.frame
        in_code = {code: symbol for symbol, codes in legend().items() for code in codes}
        in_code |= self.symbols
        found: dict[str, Value] = {}
        values = {
            name: drawn.value(self.arguments[name], self.sizes)
            for name, drawn in frame.arguments.items()
            if isinstance(drawn, Drawn)
        }
        for name, argument in self.arguments.items():
            if isinstance(argument, tuple):  # of several axes, the last alone has windows
                argument = argument[-1]
            if isinstance(argument, (int, float)):
                values[name] = number(argument)
            elif argument is None and in_code.get(name) in ABSENT:
                values[name] = number(ABSENT[in_code[name]])
                if name == "weight":  # of each entry, because a mean divides by their sum
                    like = next(v for v in values.values() if v.axes)
                    values[name] = Value(torch.ones_like(like.tensor), like.axes)
        for i, name in enumerate(self.formula.outputs):
            if i:
                values[name] = self._of_output(i, self.outputs[i])
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
        found.setdefault("K", number(self.sizes[frame.axis]))
        if "n" not in stated:
            found["n"] = number(self._count())
        return found | frame.given(self)

    def _count(self) -> float:
        """n: how many numbers a sum or mean is of."""
        reduction = self.arguments.get("reduction")
        if reduction not in (None, "mean"):
            return 1
        weight = self.arguments.get("weight")
        if reduction and weight is not None and self.frame.count == "w_y":
            return weight[self.arguments["target"]].sum().item()
        return math.prod(
            self.sizes[a] for a in self.frame.count.replace("w_y", "n").split() or [self.frame.axis]
        )

    def _says(self, line: str, of: Value) -> Value:
        """The right side of a line, with its own definitions, and those of the other lines."""
        first, *own = parse(line)
        stated = statements(self.formula) | {
            s: equation for equation in own for s in equation.symbols
        }
        axes = {f"∂C/∂{s}": self.given[s].axes for s in self.symbols.values() if s in self.given}
        axes[self.symbol] = self.of_output.axes
        evaluator = Evaluator(self.given, stated, axes, self.frame.axis, dict(self.sizes))
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


def is_beyond(formula: type[Formula], line: str) -> bool:
    """Whether a line is not in the grammar, or has a symbol that stands for nothing."""
    try:
        first, *_ = parse(line.replace(MARK, " = ", 1))
    except Beyond:
        return True
    used = first.tree.scan_values(lambda t: t.type in ("SYMBOL", "WORD", "PARTIAL"))
    return not {split(symbol)[0] for symbol in used} <= symbols_of(formula)


@pytest.mark.parametrize(("name", "argument"), [line for line in LINES if line not in CHECKED])
def test_a_marked_line_is_beyond_the_grammar(name, argument):
    line = lines_of(FORMULAS[name])[argument]
    assert is_beyond(FORMULAS[name], line), f"{name}: {line}: write ="


def test_a_mark_without_a_reason_is_found():
    assert not is_beyond(formulas.Sigmoid, "∂C/∂z ≙ g ⊙ a (1 − a)")
    assert not is_beyond(formulas.MaxPool, "∂C/∂zⱼ ≙ Σₚ gₚ [mₚ = j]")
    assert is_beyond(formulas.Sigmoid, "∂C/∂z ≙ g ⊙ s (1 − s)")
    assert is_beyond(formulas.MaxPool, "∂C/∂z ≙ g, put at its place")


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
    assert len(CHECKED) / len(LINES) > 0.9


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
