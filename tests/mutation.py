"""Wrong on purpose: formulas whose rules differ from the right ones in one place of their source.

A mutant is an edit of the syntax tree of one function: of a rule, of an intermediate that rules
name, or of a function of the package that rules call. ``forward`` keeps what it is, also where it
calls the same function. The formula with that edit is a subclass which states all its rules anew,
so no kernel hides it.
"""

from __future__ import annotations
import __future__ as future

import ast
import itertools
import linecache
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from manualbp import Formula, formulas
from manualbp.core.derivation import _PROTOCOL, lineage

Function = types.FunctionType
PACKAGE = "manualbp.formulas."


def all_formulas() -> list[type[Formula]]:
    """The formulas of the package, in the order of files and lines."""
    found = {
        value
        for value in vars(formulas).values()
        if isinstance(value, type) and issubclass(value, Formula)
    }
    return sorted(
        found, key=lambda f: (f.__module__, f.forward.__code__.co_firstlineno, f.__name__)
    )


# ------------------------------------------------------------------------------ functions of rules


def methods(formula: type[Formula]) -> dict[str, Function]:
    """The rules of a formula and the intermediates that they name; ``forward`` is not one."""
    stated: dict[str, Any] = {}
    for ancestor in reversed(lineage(formula, Formula)):
        stated |= vars(ancestor)
    return {
        name: value.__func__
        for name, value in stated.items()
        if isinstance(value, staticmethod) and name not in {"forward", *_PROTOCOL}
    }


def reached(function: Function) -> dict[Function, None]:
    """The function, and the package's own functions that it calls, directly or through others."""
    found: dict[Function, None] = {}
    waiting = [function]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found[current] = None
        for name in _names(current.__code__):
            value = current.__globals__.get(name)
            if not getattr(value, "__module__", "").startswith(PACKAGE):
                continue
            if isinstance(value, Function):
                waiting.append(value)
            elif isinstance(value, type) and not issubclass(value, (Formula, tuple)):
                waiting += [m for m in vars(value).values() if isinstance(m, Function)]
    return found


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def sites(of: Iterable[type[Formula]]) -> dict[Function, list[type[Formula]]]:
    """Each function that rules run, with the formulas whose rules do: its own file's first."""
    found: dict[Function, list[type[Formula]]] = {}
    for formula in of:
        for method in methods(formula).values():
            for function in reached(method):
                known = found.setdefault(function, [])
                if formula not in known:
                    known.append(formula)
    for function, known in found.items():
        known.sort(key=lambda f: f.__module__ != function.__module__)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(function: Function) -> tuple[str, int]:
    return function.__module__, function.__code__.co_firstlineno


@cache
def _tree(filename: str) -> dict[int, ast.FunctionDef]:
    """The functions of a file by the line on which they begin, decorators included."""
    tree = ast.parse("".join(linecache.getlines(filename)))
    return {
        min([node.lineno, *(d.lineno for d in node.decorator_list)]): node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


def syntax(function: Function) -> ast.FunctionDef:
    """The definition of a function, as it stands in its file."""
    return _tree(function.__code__.co_filename)[function.__code__.co_firstlineno]


# ---------------------------------------------------------------------------------------- mutants


@dataclass(frozen=True)
class Edit:
    """One place of a tree, and what to put there."""

    parent: ast.AST
    where: str
    #: the position, where the parent has a list there
    index: int | None
    new: ast.AST
    kind: str
    #: the expression around it that a name shows
    around: ast.AST

    @property
    def old(self) -> ast.AST:
        at = getattr(self.parent, self.where)
        return at if self.index is None else at[self.index]

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.where, node)
        else:
            getattr(self.parent, self.where)[self.index] = node


@dataclass(frozen=True)
class Mutant:
    """One edit of one function, and the formulas whose rules run that function."""

    function: Function
    edit: Edit
    formulas: tuple[type[Formula], ...]
    #: says which, where a line has several alike
    nth: int = field(default=1, compare=False)

    @property
    def kind(self) -> str:
        return self.edit.kind

    @property
    def file(self) -> str:
        return self.function.__module__.rpartition(".")[2]

    @property
    def line(self) -> int:
        return self.edit.old.lineno  # type: ignore[attr-defined]

    @property
    def where(self) -> str:
        """The formula and its rule, or the file and its function."""
        name = self.function.__qualname__
        if name in vars(formulas):  # a rule below a decorator
            return f"{name}.grad_input"
        return name if "." in name else f"{self.file}.{name}"

    @cached_property
    def change(self) -> str:
        """What was there and what is there now; of a name or a number, the expression around it."""
        old, new, around = self.edit.old, self.edit.new, self.edit.around
        if around is old:
            return f"{_said(old)} → {_said(new)}"
        return f"{_said(around)} → {self._edited(lambda _: _said(around))}"

    @property
    def key(self) -> str:
        """The name without the line: what a change above it leaves as it is."""
        again = f" #{self.nth}" if self.nth > 1 else ""
        return f"{self.where}: {self.change}{again}"

    @property
    def name(self) -> str:
        """``Linear.grad_weight: delta.mT @ input → input @ delta.mT (line 41)``"""
        return f"{self.key} (line {self.line})"

    def __str__(self) -> str:
        return self.name

    @cached_property
    def source(self) -> str:
        """The function, with the edit in it."""
        return self._edited(ast.unparse)

    def _edited(self, use: Callable[[ast.FunctionDef], Any]) -> Any:
        old = self.edit.old
        self.edit.put(self.edit.new)
        try:
            return _undecorated(syntax(self.function), use)
        finally:
            self.edit.put(old)

    def build(self, formula: type[Formula] | None = None) -> type[Formula]:
        """The formula, or the first of them, with the edit.

        Raises:
            SyntaxError, TypeError: the mutant is stillborn.
        """
        code = self._edited(_compiled)
        return restated(formula or self.formulas[0], {self.function: code})


def _undecorated(definition: ast.FunctionDef, use: Callable[[ast.FunctionDef], Any]) -> Any:
    decorators, definition.decorator_list = definition.decorator_list, []
    try:
        return use(definition)
    finally:
        definition.decorator_list = decorators


def _said(node: ast.AST) -> str:
    if isinstance(node, ast.Pass):
        return "nothing"
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())


def _compiled(definition: ast.FunctionDef) -> types.CodeType:
    module = ast.Module([definition], [])
    ast.fix_missing_locations(module)
    flags, title = future.annotations.compiler_flag, f"<mutant of {definition.name}>"
    compiled = compile(module, title, "exec", flags, dont_inherit=True)
    return next(c for c in compiled.co_consts if isinstance(c, types.CodeType))


def restated(
    formula: type[Formula], changed: dict[Function, types.CodeType] | None = None
) -> type[Formula]:
    """A subclass that states every rule of ``formula`` anew, with some functions' code changed.

    Every function of the package's files is copied, so that the others do not see the change.
    """
    changed = changed or {}
    spaces: dict[str, dict[str, Any]] = {}
    copies: dict[Any, Any] = {}

    def space(module: str) -> dict[str, Any]:
        if module not in spaces:
            spaces[module] = dict(vars(sys.modules[module]))
            for name, value in [*spaces[module].items()]:
                if getattr(value, "__module__", "").startswith(PACKAGE):
                    spaces[module][name] = copy(value)
        return spaces[module]

    def copy(value: Any) -> Any:
        if value in copies:
            return copies[value]
        made = value
        if isinstance(value, Function):
            code = changed.get(value, value.__code__)
            made = Function(
                code, space(value.__module__), value.__name__, value.__defaults__, value.__closure__
            )
            made.__kwdefaults__, made.__annotations__ = value.__kwdefaults__, value.__annotations__
            made.__qualname__ = value.__qualname__
        elif isinstance(value, type) and not issubclass(value, (Formula, tuple)):
            body = {n: copy(m) if isinstance(m, Function) else m for n, m in vars(value).items()}
            for slot in ("__dict__", "__weakref__"):
                body.pop(slot, None)
            made = type(value.__name__, value.__bases__, body)
        copies[value] = made
        return made

    body = {name: staticmethod(copy(method)) for name, method in methods(formula).items()}
    # A name of the package's, because of others each call checks what its author can get wrong;
    # but none of its modules, whose formulas are the right ones.
    body |= {"__doc__": formula.__doc__, "__module__": "manualbp.mutants"}
    return types.new_class(formula.__name__, (formula,), exec_body=lambda b: b.update(body))


def mutants(of: Iterable[type[Formula]] = ()) -> list[Mutant]:
    """All mutants of the rules of these formulas, or of all, in the order of the source."""
    asked = {*(of or all_formulas())}
    return [
        mutant
        for function, known in sites(all_formulas()).items()
        if asked & {*known}
        for mutant in _mutants(function, tuple(known))
    ]


@cache
def _mutants(function: Function, known: tuple[type[Formula], ...]) -> list[Mutant]:
    definition, made = syntax(function), []
    if definition.returns is not None and ast.unparse(definition.returns) == "bool":
        return []  # a test
    seen = {_undecorated(definition, ast.unparse)}
    names: dict[str, int] = {}
    for edit in edits(definition):
        mutant = Mutant(function, edit, known)
        if mutant.source in seen:
            continue
        seen.add(mutant.source)
        names[mutant.change] = names.get(mutant.change, 0) + 1
        made.append(Mutant(function, edit, known, names[mutant.change]))
    return made


# ------------------------------------------------------------------------------------------ edits


def edits(definition: ast.FunctionDef) -> Iterator[Edit]:
    """Every edit of the body of a function, in the order of the source."""
    context = _Context(definition)
    body = definition.body
    first = 1 if ast.get_docstring(definition) is not None else 0
    for index in range(first, len(body)):
        yield from _of_node(body[index], definition, "body", index, context)


class _Context:
    """What an edit has to know of the function around it."""

    def __init__(self, definition: ast.FunctionDef, outer: _Context | None = None) -> None:
        name, arguments = definition.name, definition.args
        self.rule = outer is None and (name.startswith("grad_") or name[0].isupper())
        self.returns = ast.unparse(definition.returns) if definition.returns else ""
        #: each parameter's annotation, those of the function around it included
        self.kinds: dict[str, str] = {} if outer is None else {**outer.kinds}
        for a in (*arguments.args, *filter(None, [arguments.vararg])):
            self.kinds[a.arg] = ast.unparse(a.annotation) if a.annotation else ""
        self.first = definition.args.args[0].arg if definition.args.args else ""
        self.assigned = {*self.kinds}

    def others(self, name: str) -> list[str]:
        """The next parameter of the same kind."""
        kind = self.kinds.get(name, "").removesuffix(" | None")
        if not kind:
            return []
        alike = [p for p, k in self.kinds.items() if k.removesuffix(" | None") == kind]
        at = alike.index(name)
        return [alike[(at + 1) % len(alike)]] if len(alike) > 1 else []


#: fields with no mathematics in them
_SKIPPED = {"annotation", "returns", "decorator_list", "args_annotations", "ctx", "op", "ops"}
#: keywords that say where and in what precision a tensor is, or that lengths are checked
_TECHNICAL = {"dtype", "device", "strict", "memory_format", "enabled"}


#: what a name shows whole if something in it is changed
_SHOWN = (ast.stmt, ast.BinOp, ast.BoolOp, ast.Compare, ast.Call, ast.Subscript, ast.IfExp)


def _of_node(
    node: ast.AST,
    parent: ast.AST,
    where: str,
    index: int | None,
    context: _Context,
    around: ast.AST | None = None,
) -> Iterator[Edit]:
    """The edits of a node, then those of what is in it."""
    if around is None or isinstance(node, _SHOWN):
        around = node
    if isinstance(node, ast.FunctionDef):
        context = _Context(node, context)
    if isinstance(node, ast.keyword) and node.arg in _TECHNICAL:
        return
    if isinstance(node, (ast.JoinedStr, ast.Raise, ast.arguments)) or _aside(node):
        return
    if isinstance(node, ast.expr) and (_of_nan(node) or _is_tie(node, context)):
        return
    if _guards(node) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "where":
            yield from _of_node(node.args[2], node, "args", 2, context, around)
        else:
            yield from _of_node(node.func.value, node.func, "value", None, context, around)
        return
    if isinstance(node, ast.Call) and node.args and _is_tie(node.args[0], context):
        # What it is where they are equal is a choice. (The third is what it is elsewhere.)
        yield from _of_node(node.args[2], node, "args", 2, context, around)
        return
    for kind, new in _changes(node, parent, where, context):
        for n in ast.walk(new):
            if not hasattr(n, "lineno"):
                ast.copy_location(n, node)
        shown = node if isinstance(node, ast.stmt) else around
        yield Edit(parent, where, index, new, kind, shown)
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED:
            continue
        if name == "test" and isinstance(node, (ast.If, ast.IfExp)):
            continue  # it was negated; many another test chooses a way to the same numbers
        if isinstance(value, list):
            for i, child in enumerate(value):
                if isinstance(child, ast.AST):
                    yield from _of_node(child, node, name, i, context, around)
        elif isinstance(value, ast.AST):
            yield from _of_node(value, node, name, None, context, around)


def _aside(node: ast.AST) -> bool:
    """Whether a branch is for complex numbers, or for tensors without entries.

    Gradients of the latter have no entries either, and the former are not what is verified.
    """
    if not isinstance(node, ast.If):
        return False
    test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
    parts = test.values if isinstance(test, ast.BoolOp) else [test]
    return all(
        isinstance(p, ast.Call) and getattr(p.func, "attr", "") in ("numel", "is_complex")
        for p in parts
    )


def _of_nan(node: ast.expr) -> bool:
    """Whether a condition is for what is no number, or infinite, and so has no derivative."""
    if isinstance(node, ast.BinOp):
        return _of_nan(node.left) and _of_nan(node.right)
    if isinstance(node, ast.UnaryOp):
        return _of_nan(node.operand)
    name = getattr(node.func, "attr", "") if isinstance(node, ast.Call) else ""
    return name in ("isnan", "isfinite", "isinf") and not _is_module(node.func.value)


def _is_tie(node: ast.AST, context: _Context) -> bool:
    """Whether a condition holds only where two tensors are equal, and the function has a kink."""
    match node:
        case ast.Compare(ast.Name(a), [ast.Eq()], [ast.Name(b)]):
            return context.kinds.get(a) == context.kinds.get(b) == "Tensor"
        case ast.BinOp(left, ast.BitAnd(), right):
            return _is_tie(left, context) or _is_tie(right, context)
        case ast.BinOp(left, ast.BitOr(), right):
            return _is_tie(left, context) and _is_tie(right, context)
    return False


def _is_zero(node: ast.AST) -> bool:
    """Whether a condition holds only where something is 0."""
    match node:
        case ast.Compare(_, [ast.Eq()], [ast.Constant(0)]):
            return True
        case ast.BinOp(left, ast.BitAnd(), right):
            return _is_zero(left) or _is_zero(right)
    return False


def _guards(node: ast.AST) -> bool:
    """Whether a call is ``max(n, 1)``, ``t.masked_fill(t == 0, 1)``, ``t.clamp(min=eps)`` or alike.

    They avoid a division by 0 or its logarithm, of tensors without entries or of length 0.
    """
    match node:
        case ast.Call(ast.Name("max" | "min"), arguments):
            return any(isinstance(a, ast.Constant) for a in arguments)
        case ast.Call(ast.Attribute(attr="masked_fill"), [mask, fill]):
            found = isinstance(mask, ast.Name) or _is_zero(mask)
            return found and ast.unparse(fill) in ("1", "math.inf")
        case ast.Call(ast.Attribute(attr="where"), [mask, ast.Constant(1), _]):
            return _is_zero(mask)
        case ast.Call(ast.Attribute(attr="clamp"), [], [ast.keyword("min", bound)]):
            return ast.unparse(bound) in ("1", "eps") or _is_tiny(bound)
    return False


def _changes(
    node: ast.AST, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    for types_of, changes in _OPERATORS:
        if isinstance(node, types_of):
            yield from changes(node, parent, where, context)


def _binary(node: ast.BinOp, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    left, right = node.left, node.right
    if any(isinstance(side, (ast.List, ast.Tuple)) for n in (left, right) for side in ast.walk(n)):
        return  # lists, not numbers
    if _of_nan(left) or _of_nan(right) or _is_tiny(right):
        return

    def of(op: ast.operator, a: ast.expr = left, b: ast.expr = right) -> ast.BinOp:
        return ast.BinOp(a, op, b)

    match node.op:
        case ast.Add():
            yield "sign", of(ast.Sub())
            yield "drop a term", left
            yield "drop a term", right
        case ast.Sub():
            yield "sign", of(ast.Add())
            yield "swap", of(ast.Sub(), right, left)
            yield "drop a term", left
            yield "drop a term", ast.UnaryOp(ast.USub(), right)
        case ast.Mult():
            yield "operator", of(ast.Div())
            yield "drop a factor", left
            yield "drop a factor", right
        case ast.Div():
            yield "operator", of(ast.Mult())
            yield "swap", of(ast.Div(), right, left)
            yield "drop a factor", left
        case ast.MatMult():
            yield "swap", of(ast.MatMult(), right, left)
            for side in ("left", "right"):
                operand = getattr(node, side)
                if not _is_transpose(operand):
                    turned = ast.Attribute(operand, "mT", ast.Load())
                    yield "transpose", of(ast.MatMult(), **{"ab"[side == "right"]: turned})
        case ast.Pow() | ast.FloorDiv() | ast.Mod():
            yield "drop a factor", left
        case ast.BitAnd() | ast.BitOr():
            other = ast.BitOr() if isinstance(node.op, ast.BitAnd) else ast.BitAnd()
            yield "condition", of(other)
            yield "condition", left
            yield "condition", right
        case ast.BitXor():
            yield "condition", left
            yield "condition", right


def _is_tiny(node: ast.AST) -> bool:
    """Whether a number is there against a division by 0, and nothing else."""
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, float) and 0 < node.value < 1e-6
    )


def _is_transpose(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("mT", "T")


def _unary(node: ast.UnaryOp, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    axis = isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
    if not axis:  # −1 is the last: another constant makes another axis of it
        yield ("sign" if isinstance(node.op, ast.USub) else "condition"), node.operand


def _constant(
    node: ast.Constant, parent: ast.AST, where: str, _: _Context
) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if _guards(parent) or _is_tiny(node):
        return
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, (int, float)):
        counts = isinstance(parent, ast.BinOp) and not isinstance(parent.op, ast.FloorDiv)
        if (isinstance(value, float) or counts) and value:
            yield "constant", ast.Constant(float(f"{value * 1.001:.12g}"))
        yield "constant", ast.Constant(value + 1)
        if value:
            yield "constant", ast.Constant(type(value)(0))


#: the opposite, or the same from the other side. Not > for >=, which differ at a tie alone: at a
#: kink, where no derivative is right or wrong
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def _compare(node: ast.Compare, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    for i, op in enumerate(node.ops):
        ops = [*node.ops[:i], _COMPARISONS[type(op)](), *node.ops[i + 1 :]]
        yield "comparison", ast.Compare(node.left, ops, node.comparators)


def _boolean(node: ast.BoolOp, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield "condition", ast.BoolOp(other, node.values)
    for i in range(len(node.values)):
        rest = node.values[:i] + node.values[i + 1 :]
        yield "condition", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _choice(node: ast.IfExp, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    yield "branch", ast.IfExp(node.test, node.orelse, node.body)


def _branch(node: ast.If, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    yield "branch", ast.If(_negated(node.test), node.body, node.orelse)


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _return(
    node: ast.Return, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if value is None or (context.returns and context.returns != "Tensor"):
        return
    nothing = any(getattr(n, "attr", "") in ("zeros_like", "new_zeros") for n in _heads(value))
    zeros = ast.Call(
        ast.Attribute(ast.Name("torch", ast.Load()), "zeros_like", ast.Load()), [value], []
    )
    if not nothing:
        yield "zeros", ast.Return(zeros)
        yield "sign", ast.Return(ast.UnaryOp(ast.USub(), value))
        yield "constant", ast.Return(ast.BinOp(ast.Constant(1.001), ast.Mult(), value))
    if context.rule and context.first.startswith(("g", "delta")):
        yield "g alone", ast.Return(ast.Name(context.first, ast.Load()))


def _heads(node: ast.AST) -> Iterator[ast.AST]:
    """What is called last, and what on: of ``f(x).g(y)`` the nodes of g and f."""
    while isinstance(node, (ast.Call, ast.Attribute)):
        node = node.func if isinstance(node, ast.Call) else node.value
        yield node


def _assign(
    node: ast.Assign, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    stored = any(isinstance(t, ast.Attribute) for t in node.targets)
    if stored or names <= context.assigned:
        yield "drop a step", ast.Pass()
    context.assigned |= names


def _augmented(node: ast.AugAssign, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    yield "drop a step", ast.Pass()
    other = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
    if type(node.op) in other:
        yield "operator", ast.AugAssign(node.target, other[type(node.op)](), node.value)


#: methods and functions that can be left out, their first operand standing for the value
_DROPPED = {
    *("sum", "mean", "sum_to_size", "cumsum", "cumprod", "amax", "logsumexp", "softmax"),
    *("log_softmax", "abs", "exp", "log", "log1p", "sign", "square", "sqrt", "rsqrt", "pow"),
    *("reciprocal", "sigmoid", "tanh", "softplus", "erf", "erfinv", "sin", "cos", "sinh", "cosh"),
    *("clamp", "clamp_min", "masked_fill", "where", "round", "flip", "roll", "tril", "triu"),
    *("t", "transpose", "movedim", "unsqueeze", "squeeze", "reversed", "sorted", "index_add"),
    *("scatter", "scatter_add", "index_fill", "gather", "narrow", "pad"),
}
#: what stands for another function
_REPLACED = {
    **{"sum": "mean", "mean": "sum", "sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh"},
    **{"amax": "amin", "rsqrt": "sqrt", "sqrt": "rsqrt", "log": "log1p", "log1p": "log"},
    **{"exp": "expm1", "sigmoid": "tanh", "tanh": "sigmoid", "tril": "triu", "triu": "tril"},
    **{"softmax": "log_softmax", "zeros_like": "ones_like", "max": "min", "min": "max"},
    **{"floor": "ceil", "logical_or": "logical_and", "isnan": "isinf", "isfinite": "isnan"},
    **{"scatter_add": "scatter", "all": "any", "any": "all", "fold": "unfold"},
    **{"pixel_shuffle": "pixel_unshuffle", "pixel_unshuffle": "pixel_shuffle"},
}


def _call(
    node: ast.Call, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    function, arguments = node.func, node.args
    attribute = isinstance(function, ast.Attribute)
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    module = isinstance(function, ast.Attribute) and _is_module(function.value)
    operand = function.value if attribute and not module else (arguments or [None])[0]

    def called(new: list[ast.expr]) -> ast.Call:
        return ast.Call(function, new, node.keywords)

    if isinstance(operand, ast.expr):
        if name == "where" and module:
            condition, yes, no = arguments
            yield "mask", yes
            yield "mask", no
            yield "mask", called([condition, no, yes])
        elif name in _DROPPED:
            yield ("mask" if name in ("masked_fill", "where") else "drop a call"), operand
        elif not attribute and name.lstrip("_")[:1].islower() and name.startswith("_"):
            yield "drop a call", operand  # a function of the file
        elif name in ("max", "min") and len(arguments) == 2 and not _guards(node):
            yield "drop a call", arguments[0]
            yield "drop a call", arguments[1]
    if _guards(node):
        return
    if name in _REPLACED and not (name in ("softmax", "sum", "mean") and module):
        other = _REPLACED[name]
        changed = (
            ast.Attribute(function.value, other, ast.Load())
            if isinstance(function, ast.Attribute)
            else ast.Name(other, ast.Load())
        )
        kind = "reduction" if name in ("sum", "mean", "amax", "any", "all") else "function"
        if not (name in ("log", "sqrt", "exp") and module and _is_module(function.value, "math")):  # type: ignore[attr-defined]
            yield kind, ast.Call(changed, arguments, node.keywords)
    for i, (a, b) in enumerate(itertools.pairwise(arguments)):
        if isinstance(a, ast.Name) and isinstance(b, ast.Name) and _alike(a, b, context):
            yield "swap", called([*arguments[:i], b, a, *arguments[i + 2 :]])


def _alike(a: ast.Name, b: ast.Name, context: _Context) -> bool:
    kinds = [context.kinds.get(n.id, "").removesuffix(" | None") for n in (a, b)]
    return kinds[0] == kinds[1] != ""


def _is_module(node: ast.AST, *names: str) -> bool:
    text = ast.unparse(node)
    return text in (names or ("torch", "math", "F", "torch.nn.functional", "torch.ops.aten"))


def _attribute(node: ast.Attribute, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    if _is_transpose(node):
        yield "transpose", node.value


_AXES = {"dim", "axis"}
#: attributes that say what kind of tensor it is, not which numbers are in it
_KINDS = {"dtype", "device", "shape", "dim", "numel", "is_complex", "is_floating_point"} | {
    *("new_zeros", "new_full"),
}


def _name(
    node: ast.Name, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.ctx, ast.Store) or where == "func":
        return
    if isinstance(parent, ast.Attribute) and parent.attr in _KINDS:
        return
    for other in context.others(node.id):
        yield "another argument", ast.Name(other, ast.Load())
    if node.id in _AXES and isinstance(parent, (ast.Call, ast.keyword)):
        yield "axis", ast.BinOp(node, ast.Sub(), ast.Constant(1))


def _sequence(
    node: ast.Tuple | ast.List, parent: ast.AST, where: str, context: _Context
) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.ctx, ast.Store):
        return
    if not isinstance(parent, (ast.Return, ast.Call, ast.Assign)):
        return
    if isinstance(parent, ast.Call) and getattr(parent.func, "attr", "") == "sum":
        return  # axes, in any order
    for i, (a, b) in enumerate(itertools.pairwise(node.elts)):
        if ast.unparse(a) != ast.unparse(b):
            elements = [*node.elts[:i], b, a, *node.elts[i + 2 :]]
            yield "swap", type(node)(elements, ast.Load())


def _subscript(node: ast.Subscript, *_: Any) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Slice):
        yield "drop a call", node.value


_OPERATORS: tuple[tuple[Any, Any], ...] = (
    (ast.BinOp, _binary),
    (ast.UnaryOp, _unary),
    (ast.Constant, _constant),
    (ast.Compare, _compare),
    (ast.BoolOp, _boolean),
    (ast.IfExp, _choice),
    (ast.If, _branch),
    (ast.Return, _return),
    (ast.Assign, _assign),
    (ast.AugAssign, _augmented),
    (ast.Call, _call),
    (ast.Attribute, _attribute),
    (ast.Name, _name),
    ((ast.Tuple, ast.List), _sequence),
    (ast.Subscript, _subscript),
)
