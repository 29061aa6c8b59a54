"""The mathematics of docstrings: a grammar, and what a line of it means on numbers.

Numbers are tensors whose axes have names, so that factors meet by name: in δᵀ a the examples n are
summed over, and δ a without the transposition has no meaning. An index names an axis: aₙⱼ. The
notation is in `docs/formulas.md`. Nothing here knows a formula, or runs one.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from itertools import pairwise

import torch
from lark import Lark, Token, Tree
from lark.exceptions import LarkError
from torch import Tensor

_PLAIN = str.maketrans("⁻⁺ᐟ⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᵏⁿᵖˣʸᶻᵝ", "−+/0123456789abknpxyzβ")
_INDEX = dict(zip("ᵢⱼₖₗₘₙₒₚₜ", "ijklmnopt", strict=True))
_SIGNS = {"−": -1.0, "+": 1.0}

#: a letter with a hat, primes, digits and signs, which make one name; then its indices
_NAME = r"(?:[A-Za-z](?![A-Za-z])|[α-ωΑ-Ω])\u0302?[′″]*[₀-₉₊₋±]*"
_SYMBOL = rf"{_NAME}(?:[{''.join(_INDEX)}]+(?:₋₁)?|_[a-z])?"

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log": torch.log,
    "log₂": torch.log2,
    "log₁₀": torch.log10,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "arcsin": torch.asin,
    "arccos": torch.acos,
    "arctan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "arsinh": torch.asinh,
    "arcosh": torch.acosh,
    "artanh": torch.atanh,
    "erf": torch.erf,
    "erf⁻¹": torch.erfinv,
    "sign": torch.sign,
    "trunc": torch.trunc,
    "σ": lambda x: 1 / (1 + torch.exp(-x)),
    "Φ": lambda x: (1 + torch.erf(x / math.sqrt(2))) / 2,
}
_FUNCTION = "|".join(sorted((*FUNCTIONS, "softmax", "mean"), key=len, reverse=True))

GRAMMAR = rf"""
?cases: sum
    | (sum "where" either ",")+ "else" sum -> cases
?either: both
    | either "or" both -> either
?both: holds
    | both "and" holds -> both
holds: sum (RELATION sum)*
    | sum "is" PREDICATE -> is

?sum: ratio
    | SIGN ratio -> signed
    | sum SIGN ratio -> sum
?ratio: entries
    | ratio OVER entries -> ratio
?entries: product
    | entries "⊙" product -> entries
?product: factors
    | big
    | factors big -> product
?factors: factor
    | factors factor -> product
big: BIG INDEX? entries
    | BIG "_{{" holds ("," holds)* "}}" entries -> big_where
?factor: power
    | FUNCTION EXPONENT? (factor | big) -> apply
?power: atom
    | power EXPONENT -> raised
    | power "^" atom -> power
    | power "ᵀ" -> transposed
?atom: NUMBER -> number
    | (SYMBOL | WORD | PARTIAL) -> symbol
    | "(" cases ")" -> group
    | "(" sum ("," sum)+ ")" -> parts
    | EXTREME "(" sum ("," sum)+ ")" -> extreme
    | OPEN_BAR sum CLOSE_BAR -> absolute
    | OPEN_NORM sum CLOSE_NORM -> norm
    | SLOPE sum "‖/∂" SYMBOL -> slope_of_norm
    | "⌊" sum "⌋" -> floor
    | "⌈" sum "⌉" -> ceil
    | "√" atom -> root
    | "[" either "]" -> bracket

NUMBER.4: /\d+(\.\d+)?|½|∞/
SIGN: /[+−]/
OVER: "/"
RELATION: /[<>≤≥=≠]/
PREDICATE.6: /finite|a number/
EXPONENT: /[⁻⁺ᐟ⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᵏⁿᵖˣʸᶻᵝ]+/
FUNCTION.5: /({_FUNCTION})′*(?![A-Za-z_])/
EXTREME.5: /(max|min)(?=\()/
BIG.5: /[ΣΠ]|(max|min)(?=[{"".join(_INDEX)}])/
INDEX.4: /[{"".join(_INDEX)}]+/
SYMBOL.2: /{_SYMBOL}/
WORD.3: /(?!(where|else|or|and|is)\b)[A-Za-z][A-Za-z]+(_[a-z]+)*/
PARTIAL.7: /∂C\/∂(‖[^‖]*‖|{_SYMBOL})/
SLOPE.7: "∂‖"
OPEN_BAR: /(?<![^\s(\[−])\|(?=\S)/
CLOSE_BAR: /(?<=[^\s(\[−])\|/
OPEN_NORM: /(?<![^\s(\[−])‖(?=\S)/
CLOSE_NORM: /(?<=[^\s(\[−])‖/
%ignore " "
"""

_parser = Lark(GRAMMAR, parser="lalr", start=["cases", "sum"], propagate_positions=True)


class Beyond(Exception):
    """What a line says is not in the grammar, or has no meaning there."""


@dataclass(frozen=True)
class Statement:
    """One equation: what stands on its left, and its right side as a text and a tree."""

    left: str
    text: str
    tree: Tree

    @property
    def symbols(self) -> list[str]:
        """The symbols on the left, without indices; of a pair both."""
        return [split(symbol)[0] for symbol in re.findall(r"[^(), ]+", self.left)]


@cache
def parse(line: str) -> tuple[Statement, ...]:
    """The equations of a line, which two spaces after a comma part from one another.

    Only the first must be in the grammar. Others are definitions; what cannot be parsed is a remark
    in words.

    Raises:
        Beyond: the first is not in the grammar.
    """
    first, *rest = line.split(",  ")
    statements = [_equation(first)]
    for clause in rest:
        try:
            statements.append(_equation(clause))
        except Beyond:
            continue
    return tuple(statements)


def _equation(text: str) -> Statement:
    left, _, right = re.sub(" ≈ ", " = ", text, count=1).partition(" = ")
    if not re.fullmatch(rf"∂C/∂\S+|{_SYMBOL}|‖.‖|\(\w, \w\)", left):
        raise Beyond(f"no equation: {text}")
    try:
        return Statement(left, right, _parser.parse(right, start="cases"))
    except LarkError as error:
        raise Beyond(f"not in the grammar: {text}: {str(error).splitlines()[0]}") from None


def split(symbol: str) -> tuple[str, str]:
    """A symbol without its indices, and the indices; hₜ₋₁ is h₋₁ with the index t."""
    if symbol.startswith("∂C/∂"):
        name, indices = split(symbol[len("∂C/∂") :])
        return "∂C/∂" + name, indices
    if not re.fullmatch(_SYMBOL, symbol):
        return symbol, ""
    name = re.match(_NAME, symbol)[0]
    if symbol.endswith("₋₁") and symbol != name:
        return f"{name}₋₁", split(symbol[:-2])[1]
    return name, "".join(_INDEX.get(c, c) for c in symbol[len(name) :].lstrip("_"))


# ---------------------------------------------------------------------------- numbers with names


@dataclass(frozen=True)
class Value:
    """A tensor, a name for each axis, and which of them an index has named.

    A factor is a matrix if it is written as a capital letter, or transposed.
    """

    tensor: Tensor
    axes: tuple[str, ...] = ()
    indexed: frozenset[str] = frozenset()
    matrix: bool = False
    #: of whole numbers: the axis whose entries they name
    into: str = ""

    @property
    def free(self) -> tuple[str, ...]:
        """The axes that a product of matrices sees."""
        return tuple(a for a in self.axes if a not in self.indexed)

    def along(self, letter: str) -> list[str]:
        """The axes that an index stands for: j for j, and for j1 and j2."""
        return [a for a in self.axes if a.rstrip("0123456789") == letter]

    def to(self, axes: tuple[str, ...]) -> Tensor:
        """The tensor with these axes, those that it lacks being of size 1."""
        if missing := {*self.axes} - {*axes}:
            raise Beyond(f"it depends on {', '.join(sorted(missing))} too")
        order = [self.axes.index(a) for a in axes if a in self.axes]
        shape = [self.tensor.shape[self.axes.index(a)] if a in self.axes else 1 for a in axes]
        return self.tensor.permute(order).reshape(shape)

    def summed(self, axes: list[str], by: Callable[..., Tensor] = torch.sum) -> "Value":
        left = tuple(a for a in self.axes if a not in axes)
        tensor = self.tensor
        for axis in axes:
            kept = [a for a in self.axes if a not in axes[: axes.index(axis)]]
            tensor = by(tensor, kept.index(axis))
        return replace(self, tensor=tensor, axes=left, indexed=self.indexed - {*axes})

    def renamed(self, old: str, new: str) -> "Value":
        return replace(self, axes=tuple(new if a == old else a for a in self.axes))


#: the axis of a row that is a transposed column
_ONE = "1"


def number(value: float) -> Value:
    return Value(torch.tensor(value, dtype=torch.double))


def _together(function: Callable[..., Tensor], *values: Value) -> Value:
    """A function entry by entry, of values that meet by the names of their axes."""
    matrices = [v for v in values if v.matrix]
    axes = tuple(dict.fromkeys(a for v in (*matrices, *values) for a in v.axes))
    indexed = frozenset().union(*(v.indexed for v in values))
    for matrix in matrices:
        _same_order(matrix, matrices[0].free)
    tensor = function(*(v.to(axes) for v in values))
    return Value(tensor, axes, indexed, bool(matrices))


def _same_order(matrix: Value, axes: tuple[str, ...]) -> None:
    """That the rows of a matrix are rows there too."""
    common = [a for a in matrix.free[-2:] if a in axes]
    if matrix.matrix and common != [a for a in axes if a in common]:
        raise Beyond(f"a matrix of {', '.join(matrix.free)} where one of {', '.join(axes)} is due")


def _entry_by_entry(x: Value, y: Value) -> Value:
    if x.free and y.free and not {*x.free} & {*y.free}:
        raise Beyond(f"{x.free} times {y.free}, which have no axis in common")
    return _together(torch.mul, x, y)


def _product(x: Value, y: Value) -> Value:
    """Juxtaposition: of matrices if one of the two is a matrix and neither is a number."""
    if not (x.matrix or y.matrix) or not x.free or not y.free:
        return _entry_by_entry(x, y)
    left, right = x.free[-1], y.free[-2] if len(y.free) > 1 else y.free[-1]
    if right == _ONE and len(x.free) == 1:  # a column times a row
        left = _ONE
    if left != right:
        raise Beyond(f"a product over {left} on the left, {right} on the right")
    if ({*x.free[-2:]} & {*y.free[-2:]}) - {left}:
        raise Beyond("a product of two matrices with the same rows and columns")
    found = _together(torch.mul, x, y).summed([left])
    if found.free == (_ONE,):  # a row times a column
        found = found.summed([_ONE])
    rows, columns = x.free[-2:-1], y.free[-1:] if len(y.free) > 1 else ()
    axes = (*(a for a in found.axes if a not in rows + columns), *rows, *columns)
    axes = tuple(a for a in axes if a in found.axes)
    return replace(found, tensor=found.to(axes), axes=axes, matrix=len(found.free) > 1)


# ------------------------------------------------------------------------------------- functions

RELATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "<": torch.lt,
    ">": torch.gt,
    "≤": torch.le,
    "≥": torch.ge,
    "=": torch.eq,
    "≠": torch.ne,
}

NUMBERS = {"½": 0.5, "∞": math.inf}
CONSTANTS = {"e": math.e, "π": math.pi}
#: what Σ, Π, max and min make of an axis, and what they take for an entry left out
BIG = {
    "Σ": (torch.sum, 0.0),
    "Π": (torch.prod, 1.0),
    "max": (torch.amax, -math.inf),
    "min": (torch.amin, math.inf),
}


def _slope(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            return torch.autograd.grad(function(leaf).sum(), leaf)[0]

    return slope


# ------------------------------------------------------------------------------------- evaluation


@dataclass
class Evaluator:
    """What lines mean, given what their symbols stand for."""

    #: the values that are given
    given: Mapping[str, Value]
    #: equations by what stands on their left, without indices
    stated: Mapping[str, Statement]
    #: the axes of those of them that have more or fewer than their right side
    axes: Mapping[str, tuple[str, ...]]
    #: the axis of softmax, mean, ‖ ‖, classes, and of the halves of a pair
    axis: str = "j"
    #: how many numbers an axis has
    sizes: dict[str, int] = field(default_factory=dict)
    _found: dict[str, Value] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)
    #: the axes of the left side, over all but which a Σ without an index sums
    _left: tuple[str, ...] = ()

    def equation(self, statement: Statement, axes: tuple[str, ...] = ()) -> Value:
        """The right side of an equation whose left side, without indices, has these axes."""
        before, self._left = self._left, self._indexed(statement.left, axes)
        self._note_indices(statement.tree)
        try:
            found = self.value(statement.tree)
        except RuntimeError as error:
            raise Beyond(str(error).splitlines()[0]) from None
        finally:
            left, self._left = self._left, before
        if alone := found.indexed - {*left}:
            raise Beyond(f"nothing sums over {', '.join(sorted(alone))}")
        _same_order(found, left)
        for old, new in zip(left, axes, strict=True):
            found = found.renamed(old, new)
        return replace(found, indexed=frozenset())

    def _indexed(self, symbol: str, axes: tuple[str, ...]) -> tuple[str, ...]:
        """The axes of a symbol, those renamed that its indices name otherwise."""
        named = list(axes)
        indices = split(symbol)[1]
        for letter in indices:
            if any(a.rstrip("0123456789") == letter for a in named):
                continue
            others = [a for a in named if a not in indices and a != "n"]
            if not others:
                raise Beyond(f"{symbol} has no axis for the index {letter}")
            self.sizes[letter] = self.sizes[others[-1]]
            named[named.index(others[-1])] = letter
        return tuple(named)

    def _note_indices(self, tree: Tree) -> None:
        """How many numbers each index of a line counts."""
        for token in tree.scan_values(lambda t: isinstance(t, Token) and t.type == "SYMBOL"):
            name, indices = split(token)
            value = self._found.get(name) or self.given.get(name)
            if indices and value is not None and indices not in self.given:
                self._indexed(token, value.axes)

    def value(self, tree: Tree) -> Value:
        return getattr(self, f"_{tree.data}")(*tree.children)

    # symbols

    def symbol(self, symbol: str) -> Value:
        """What a symbol without indices stands for: given, stated by an equation, or a constant."""
        if symbol in self.given:
            return self.given[symbol]
        if symbol in self._found:
            return self._found[symbol]
        if symbol in self.stated:
            if symbol in self._pending:
                raise Beyond(f"{symbol} is defined by itself")
            self._pending.add(symbol)
            self._found[symbol] = self._defined(self.stated[symbol], symbol)
            return self._found[symbol]
        if symbol.endswith("₋₁"):
            return self._before(symbol[:-2])
        if symbol in CONSTANTS:
            return number(CONSTANTS[symbol])
        if symbol in _INDEX.values() and symbol in self.sizes:
            counted = torch.arange(self.sizes[symbol], dtype=torch.double)
            return Value(counted, (symbol,), frozenset((symbol,)))
        raise Beyond(f"nothing says what {symbol} is")

    def _before(self, symbol: str) -> Value:
        """hₜ₋₁: the h of the step before, from h₀ on."""
        after, start = self.symbol(symbol), self.symbol(f"{symbol}₀")
        axes = ("t", *start.axes)
        steps = torch.cat([start.tensor.unsqueeze(0), after.to(axes)[:-1]])
        return Value(steps, axes)

    def _defined(self, statement: Statement, symbol: str) -> Value:
        if statement.left.startswith("("):  # halves
            whole = self.equation(statement)
            parts = whole.tensor.chunk(2, whole.axes.index(self.axis))
            return replace(whole, tensor=parts[statement.symbols.index(symbol)])
        if symbol in self.axes:
            return self.equation(statement, self.axes[symbol])
        before, self._left = self._left, ()
        self._note_indices(statement.tree)
        found = self.value(statement.tree)
        self._left = before
        return replace(found, indexed=frozenset())

    def _symbol(self, token: Token) -> Value:
        name, indices = split(token)
        if indices in self.given and self.given[indices].into:
            return self._at(name, self.given[indices])
        value = self.symbol(name)
        axes = self._indexed(token, value.axes)
        capital = name[0].isupper() and name != "C"
        found = replace(value, axes=axes, matrix=value.matrix or capital)
        named = [a for letter in indices for a in found.along(letter)]
        found = replace(found, indexed=found.indexed | {*named})
        return replace(found, matrix=found.matrix and len(found.free) > 1)

    def _at(self, name: str, at: Value) -> Value:
        """a_y, the a of class y; and e_y, the unit vector of class y."""
        entries = Value(torch.arange(self.sizes[at.into]), (at.into,))
        unit = _together(lambda k, y: (k == y).double(), entries, at)
        if name == "e":
            return unit
        return _together(torch.mul, self.symbol(name), unit).summed([at.into])

    def _number(self, token: Token) -> Value:
        return number(NUMBERS[token] if token in NUMBERS else float(token))

    # sums and products

    def _signed(self, sign: Token, tree: Tree) -> Value:
        value = self.value(tree)
        return replace(value, tensor=_SIGNS[sign] * value.tensor)

    def _sum(self, left: Tree, sign: Token, right: Tree) -> Value:
        return _together(lambda x, y: x + _SIGNS[sign] * y, self.value(left), self.value(right))

    def _ratio(self, left: Tree, _: Token, right: Tree) -> Value:
        return _together(torch.div, self.value(left), self.value(right))

    def _entries(self, left: Tree, right: Tree) -> Value:
        return _entry_by_entry(self.value(left), self.value(right))

    def _product(self, left: Tree, right: Tree) -> Value:
        return _product(self.value(left), self.value(right))

    def _big(self, sign: Token, *rest: Token | Tree) -> Value:
        by, _ = BIG[sign]
        value = self.value(rest[-1])
        if len(rest) == 1:
            return value.summed([a for a in value.axes if a not in self._left], by)
        for letter in (_INDEX[c] for c in rest[0]):
            if not value.along(letter):
                raise Beyond(f"{sign} over {letter}, on which nothing depends")
            value = value.summed(value.along(letter), by)
        return value

    def _big_where(self, sign: Token, *rest: Tree) -> Value:
        *conditions, body = rest
        by, absent = BIG[sign]
        letter = str(next(conditions[0].scan_values(lambda t: True)))
        value = self.value(body)
        holds = reduce(lambda x, y: _together(torch.logical_and, x, y), map(self.value, conditions))
        value = _together(lambda h, v: torch.where(h, v, absent), holds, value)
        return value.summed(value.along(letter), by)

    # functions

    def _group(self, tree: Tree) -> Value:
        return self.value(tree)

    def _raised(self, tree: Tree, token: Token) -> Value:
        return self._to_the(self.value(tree), token)

    def _to_the(self, value: Value, token: Token) -> Value:
        exponent = self.value(_parser.parse(token.translate(_PLAIN), start="sum"))
        return _together(torch.pow, value, exponent)

    def _power(self, tree: Tree, exponent: Tree) -> Value:
        return _together(torch.pow, self.value(tree), self.value(exponent))

    def _root(self, tree: Tree) -> Value:
        return _together(torch.sqrt, self.value(tree))

    def _absolute(self, _: Token, tree: Tree, __: Token) -> Value:
        return _together(torch.abs, self.value(tree))

    def _floor(self, tree: Tree) -> Value:
        return _together(torch.floor, self.value(tree))

    def _ceil(self, tree: Tree) -> Value:
        return _together(torch.ceil, self.value(tree))

    def _transposed(self, tree: Tree) -> Value:
        value = self.value(tree)
        if not value.free:
            raise Beyond("a number has no transpose")
        if len(value.free) == 1:
            tensor, axes = value.tensor.unsqueeze(0), (_ONE, *value.axes)
        else:
            i, j = (value.axes.index(a) for a in value.free[-2:])
            tensor, swapped = value.tensor.transpose(i, j), list(value.axes)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            axes = tuple(swapped)
        return replace(value, tensor=tensor, axes=axes, matrix=True)

    def _apply(self, name: Token, *rest: Token | Tree) -> Value:
        value = self.value(rest[-1])
        plain = name.rstrip("′")
        if plain == "mean":
            found = value.summed(value.along(self.axis), torch.mean)
        elif plain == "softmax":
            powers = _together(torch.exp, value)
            total = powers.summed(value.along(self.axis))
            found = _together(torch.div, powers, total)
        else:
            function = FUNCTIONS[plain]
            for _ in name[len(plain) :]:
                function = _slope(function)
            found = _together(function, value)
        return self._to_the(found, rest[0]) if len(rest) > 1 else found

    def _extreme(self, name: Token, *trees: Tree) -> Value:
        by = torch.maximum if name == "max" else torch.minimum
        return reduce(lambda x, y: _together(by, x, y), map(self.value, trees))

    def _parts(self, *trees: Tree) -> Value:
        values = [self.value(tree) for tree in trees]
        axes = values[0].axes
        joined = torch.cat([v.to(axes) for v in values], axes.index(self.axis))
        return replace(values[0], tensor=joined)

    def _norm(self, _: Token, tree: Tree, __: Token) -> Value:
        value, p = self.value(tree), 2.0
        if "p" in self.given:
            p = self.given["p"].tensor.item()
        axes = value.along(self.axis)
        if math.isinf(p):
            return _together(torch.abs, value).summed(axes, torch.amax)
        powers = _together(lambda x: x.abs() ** p, value).summed(axes)
        return _together(lambda x: x ** (1 / p), powers)

    def _slope_of_norm(self, _: Token, tree: Tree, symbol: Token) -> Value:
        name = split(symbol)[0]
        held = self.symbol(name)
        leaf = held.tensor.detach().clone().requires_grad_()
        inner = replace(
            self, given={**self.given, name: replace(held, tensor=leaf)}, _found={}, _pending=set()
        )
        with torch.enable_grad():
            total = inner._norm(_, tree, _).tensor.sum()
        return replace(held, tensor=torch.autograd.grad(total, leaf)[0])

    # conditions

    def _cases(self, *trees: Tree) -> Value:
        *cases, otherwise = trees
        found = self.value(otherwise)
        for value, holds in reversed([*zip(cases[::2], cases[1::2], strict=True)]):
            found = _together(torch.where, self.value(holds), self.value(value), found)
        return found

    def _bracket(self, tree: Tree) -> Value:
        return _together(Tensor.double, self.value(tree))

    def _either(self, left: Tree, right: Tree) -> Value:
        return _together(torch.logical_or, self.value(left), self.value(right))

    def _both(self, left: Tree, right: Tree) -> Value:
        return _together(torch.logical_and, self.value(left), self.value(right))

    def _holds(self, *trees: Tree | Token) -> Value:
        values = [self.value(tree) for tree in trees[::2]]
        if len(values) == 1:
            return _together(Tensor.bool, values[0])
        held = [
            _together(RELATIONS[relation], *pair)
            for relation, pair in zip(trees[1::2], pairwise(values), strict=True)
        ]
        return reduce(lambda x, y: _together(torch.logical_and, x, y), held)

    def _is(self, tree: Tree, what: Token) -> Value:
        holds = torch.isfinite if what == "finite" else lambda x: ~torch.isnan(x)
        return _together(holds, self.value(tree))


# ---------------------------------------------------------------------------------- mistakes


def mistakes(line: str, given: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """The line with one slip in one of its equations, each with what the slip is.

    What defines a symbol that is ``given`` is left as it is, because nobody needs it.
    """
    seen = {line}
    first, *definitions = parse(line)
    for statement in (first, *(d for d in definitions if not {*d.symbols} & {*given})):
        start = line.index(statement.text, line.index(f"{statement.left} "))
        before, after = line[:start], line[start + len(statement.text) :]
        for what, first, last, text in _slips(statement):
            slipped = f"{before}{statement.text[:first]}{text}{statement.text[last:]}{after}"
            if slipped not in seen:
                seen.add(slipped)
                yield what, slipped


def _slips(statement: Statement) -> Iterator[tuple[str, int, int, str]]:
    """What replaces which part of the right side."""
    right = statement.text

    def span(node: Tree | Token) -> tuple[int, int]:
        where = node.meta if isinstance(node, Tree) else node
        return where.start_pos, where.end_pos

    if right != "0":
        yield "sign", 0, len(right), f"−({right})"
        yield "twice", 0, len(right), f"2 ({right})"
    tokens = [t for t in statement.tree.scan_values(lambda t: isinstance(t, Token))]
    symbols = [token for token in tokens if token.type == "SYMBOL"]
    for token in symbols:
        for other in sorted({*map(str, symbols)}):
            if split(other)[0] != split(token)[0] or (split(other)[1] and split(token)[1]):
                yield f"{other} for {token}", *span(token), other
    for node in statement.tree.iter_subtrees_topdown():
        start, end = span(node)
        children = node.children
        text = [right[slice(*span(c))] for c in children]
        if node.data in ("product", "entries"):
            yield f"without {text[1]}", start, end, text[0]
            yield f"without {text[0]}", start, end, text[1]
        elif node.data == "ratio":
            yield f"without {text[1]} {text[2]}", start, end, text[0]
            yield f"times {text[2]}", start, end, f"({text[0]}) ({text[2]})"
        elif node.data == "sum":
            yield f"without {text[1]} {text[2]}", start, end, text[0]
            yield f"without {text[0]}", start, end, f"({text[1]} {text[2]})"
            yield "sign of a term", *span(children[1]), "+" if text[1] == "−" else "−"
        elif node.data == "signed":
            yield "sign of a term", start, end, text[1]
        elif node.data in ("raised", "power"):
            yield f"without its exponent {text[1]}", start, end, text[0]
        elif node.data == "transposed":
            yield "not transposed", start, end, text[0]
        elif node.data == "number" and text[0].isdigit():
            yield f"{text[0]} + 1", start, end, str(int(text[0]) + 1)
        elif node.data == "apply":
            yield f"without {text[0]}", start, end, text[-1]
            if "′" in text[0]:
                yield "without ′", *span(children[0]), text[0].rstrip("′")
            elif other := _ANOTHER.get(text[0]):
                yield f"{other} for {text[0]}", *span(children[0]), f"{other} "
            if len(text) == 3:
                yield f"without its exponent {text[1]}", *span(children[1]), ""
        elif node.data in ("absolute", "root"):
            yield f"without {node.data}", start, end, f"({text[len(text) // 2]})"
        elif node.data in ("big", "big_where"):
            yield f"without {text[0]}", start, end, text[-1]
            yield f"{_ANOTHER[text[0]]} for {text[0]}", *span(children[0]), _ANOTHER[text[0]]
        elif node.data == "extreme":
            yield f"{_ANOTHER[text[0]]} for {text[0]}", *span(children[0]), _ANOTHER[text[0]]
        elif node.data == "bracket":
            yield "without [ ]", start, end, "1"
        elif node.data == "holds" and len(children) > 1:
            for relation in children[1::2]:
                for other in _OTHER[relation]:
                    yield f"{other} for {relation}", *span(relation), other
        elif node.data == "cases":
            for case in children[::2]:
                yield f"0 for {right[slice(*span(case))]}", *span(case), "0"


#: what may be written by mistake
_ANOTHER = {"sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh", "tanh": "σ", "σ": "tanh"}
_ANOTHER |= {"log": "tanh", "mean": "softmax", "Σ": "Π", "Π": "Σ", "max": "min", "min": "max"}
_OTHER = {"<": "≤>", ">": "≥<", "≤": "<≥", "≥": ">≤", "=": "≠", "≠": "="}
