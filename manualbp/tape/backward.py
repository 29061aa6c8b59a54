"""The backward pass over a tape: a loop, and straight-line code that must equal it."""

from __future__ import annotations

import itertools
import linecache
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.autograd.graph import GradientEdge

from manualbp.core.modes import any_autocast, as_in_forward
from manualbp.core.source import compiled

#: a value on a tape is known by a number: its entry's place times this, plus its place among the
#: outputs of that entry; a leaf by −1 minus its place among the leaves
MAX_OUTPUTS = 1 << 16

Gradients = list[Tensor | None]
Program = Callable[[Any, Tensor], Gradients]


def run_backward(tape: Any, start: int, gradient: Tensor) -> Gradients:
    """The gradient of each leaf of ``tape``, given that of the value numbered ``start``."""
    arrived: dict[int, Tensor | None] = {start: gradient}
    for i in range(start // MAX_OUTPUTS, -1, -1):
        formula, sources = tape._formulas[i], tape._sources[i]
        outputs, trusted = formula.derivation.differentiable_outputs, _trusted(formula)
        numbers = range(i * MAX_OUTPUTS, i * MAX_OUTPUTS + len(outputs))
        incoming = [arrived.pop(n, None) for n in numbers]
        if all(g is None for g in incoming):
            continue
        saved = tape._saved[i]
        if saved is None:
            tape._raise_freed(i)
        if formula.derivation.versions(saved) != tape._versions[i]:
            tape._raise_modified(i)
        dtypes = tape._dtypes[i]
        for slot, g in enumerate(incoming):
            if g is not None:
                incoming[slot] = match_metadata(g, dtypes[slot], g.shape)
        given = run_rules(formula, _needs(sources), incoming, saved, tape._autocasts[i])
        if tape.keep:
            tape._record_grads(i, tuple(incoming), given)
        else:
            tape._saved[i] = saved = None
        for at, source in _edges(formula, sources):
            part = given[at] if trusted else match_source(tape, source, given[at], gradient)
            arrived[source] = accumulate(arrived.get(source), part)
    return [arrived.get(-1 - n) for n in range(len(tape._leaves))]


def run_rules(
    formula: Any, needs: Any, incoming: Sequence[Any], saved: Any, autocast: torch.dtype | None
) -> tuple[Tensor | None, ...]:
    """What the rules of ``formula`` give."""
    gradients = formula.derivation.gradients
    if autocast is None and not any_autocast():
        return gradients(needs, *incoming, *saved)
    with as_in_forward(autocast, next(g for g in incoming if g is not None)):
        return gradients(needs, *incoming, *saved)


# -------------------------------------------------------------------------- straight-line code


def _straight_line_code(tape: Any, start: int) -> tuple[str, dict[str, Any]]:
    """:func:`run_backward` for the structure of ``tape``, without a loop or a lookup in it.

    A layer of the document's network works for a few microseconds, and the loop would
    take as long again.
    """
    space: dict[str, Any] = {"any_autocast": any_autocast, "run_rules": run_rules}
    space |= {
        "match_metadata": match_metadata,
        "match_source": match_source,
        "accumulate": accumulate,
    }
    given = {start}
    lines = ["K, V, T = tape._saved, tape._versions, tape._dtypes"]
    lines += [f"A, g{start}, exact = tape._autocasts, gradient, not any_autocast()"]
    for i in range(start // MAX_OUTPUTS, -1, -1):
        formula, sources = tape._formulas[i], tape._sources[i]
        outputs, trusted = formula.derivation.differentiable_outputs, _trusted(formula)
        arrived = [slot for slot in range(len(outputs)) if i * MAX_OUTPUTS + slot in given]
        if not arrived:
            continue
        space |= {f"formula{i}": formula, f"rules{i}": formula.derivation.gradients}
        space |= {f"needs{i}": _needs(sources), f"versions{i}": formula.derivation.versions}
        lines += [f"# {i}: {formula.__name__}", f"saved = K[{i}]"]
        lines += [f"if saved is None: tape._raise_freed({i})"]
        lines += [f"if versions{i}(saved) != V[{i}]: tape._raise_modified({i})"]
        incoming = []
        for slot in range(len(outputs)):
            g = f"g{i * MAX_OUTPUTS + slot}"
            if slot in arrived:
                test = f"{g}.dtype is not T[{i}][{slot}]"
                lines += [f"if {test}: {g} = match_metadata({g}, T[{i}][{slot}], {g}.shape)"]
                incoming.append(g)
            else:
                incoming.append("None")
        listed = ", ".join(incoming)
        lines += [f"if exact and A[{i}] is None:"]
        lines += [f"    d = rules{i}(needs{i}, {listed}, *saved)"]
        lines += [f"else: d = run_rules(formula{i}, needs{i}, ({listed},), saved, A[{i}])"]
        lines += [f"K[{i}] = saved = None"]
        for at, source in _edges(formula, sources):
            name, part = f"g{source}" if source >= 0 else f"l{-1 - source}", f"d[{at}]"
            if not trusted:
                part = f"match_source(tape, {source}, {part}, gradient)"
            lines += [
                f"{name} = accumulate({name}, {part})" if source in given else f"{name} = {part}"
            ]
            given.add(source)
    totals = [f"l{n}" if -1 - n in given else "None" for n in range(len(tape._leaves))]
    lines += [f"return [{', '.join(totals)}]"]
    return "def run_backward(tape, gradient):\n" + "".join(f"    {x}\n" for x in lines), space


class Programs:
    """The straight-line code for the structures met most recently.

    Code is written for a structure that comes back, because writing it takes as long as some
    hundred backward passes. What is remembered is bounded, because each length of a sequence
    is another structure.
    """

    VISITS = 3  # the visit at which code is written
    REMEMBERED = 4096  # structures whose visits are counted
    FORMULAS = 4096  # that all the code together calls, some 10 KiB each
    LONGEST = 1024  # that the code for one structure calls
    UNUSED = 1000  # backward passes after which code may be forgotten for other code

    def __init__(self) -> None:
        #: the code for a structure, how many formulas it calls, its name, and when it last ran
        self._programs: dict[Any, list[Any]] = {}
        self._runs = self._cleared = 0
        self._formulas = 0
        #: by the hash of a structure: two with one hash are but written earlier
        self._visits: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def program(self, tape: Any, start: int) -> Program | None:
        """The code for the structure of ``tape``, or None where the loop is to run."""
        if len(tape) > self.LONGEST:
            return None
        structure = (start, len(tape._leaves), tuple(tape._formulas), tuple(tape._sources))
        self._runs += 1  # another thread may count the same: it is but an age
        found = self._programs.get(structure)
        if found is not None:
            found[3] = self._runs
            return found[0]
        with self._lock:
            number = hash(structure)
            visits = self._visits.pop(number, 0) + 1
            if visits < self.VISITS or not self._room(len(tape)):
                self._visits[number] = visits
                if len(self._visits) > self.REMEMBERED:
                    self._visits.popitem(last=False)
                return None
            source, space = _straight_line_code(tape, start)
            name = f"<the backward pass over {len(tape)} formulas, {next(_NAMES)}>"
            compiled(source, name, space)
            program: Program = space["run_backward"]
            self._programs[structure] = [program, len(tape), name, self._runs]
            self._formulas += len(tape)
            return program

    def _room(self, formulas: int) -> bool:
        """Make room for code, now and then, by forgetting what has not been used for long.

        Otherwise more structures than fit would be written again and again.
        """
        if self._formulas + formulas > self.FORMULAS and self._runs - self._cleared >= self.UNUSED:
            self._cleared = self._runs
            for structure, (_, calls, name, ran) in list(self._programs.items()):
                if self._runs - ran >= self.UNUSED:
                    del self._programs[structure]
                    self._formulas -= calls
                    linecache.cache.pop(name, None)
        return self._formulas + formulas <= self.FORMULAS


_NAMES = itertools.count()
PROGRAMS = Programs()


# ------------------------------------------------------------------------------------ shared


def _trusted(formula: Any) -> bool:
    """Whether its rules are proved to return tensors in the shapes of their arguments."""
    module: str = getattr(formula, "__module__", "")
    return module.startswith("manualbp.formulas.")


def _needs(sources: tuple[int | None, ...]) -> tuple[bool, ...]:
    return tuple(source is not None for source in sources)


def _edges(formula: Any, sources: tuple[int | None, ...]) -> list[tuple[int, int]]:
    """The position and the source of each argument that requires a gradient and has a rule."""
    arguments, differentiable = formula.derivation.arguments, formula.derivation.differentiable
    return [
        (i, c) for i, c in enumerate(sources) if c is not None and arguments[i] in differentiable
    ]


def accumulate(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    # Never in place, because a rule may have returned one tensor for two arguments.
    return b if a is None else a if b is None else a + b


def match_source(tape: Any, source: int, part: Tensor | None, like: Tensor) -> Tensor | None:
    """The gradient of the value numbered ``source``, from rules whose shapes nobody has proved."""
    if source < 0:
        return part if part is None else match_metadata(part, *metadata(tape._leaves[-1 - source]))
    entry, slot = divmod(source, MAX_OUTPUTS)
    dtype, shape = tape._dtypes[entry][slot], tape._shapes[entry][slot]
    return (
        like.new_zeros(shape, dtype=dtype) if part is None else match_metadata(part, dtype, shape)
    )


def metadata(leaf: Tensor | GradientEdge) -> tuple[torch.dtype, Size]:
    """The dtype and shape of a leaf, or of a place in the graph of autograd."""
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.shape
    data: Any = leaf.node._input_metadata[leaf.output_nr]
    return data.dtype, Size(data.shape)


def match_metadata(g: Tensor, dtype: torch.dtype, shape: Size) -> Tensor:
    """The gradient in the dtype and shape that its value has, as autograd's engine casts it."""
    if g.shape != shape:
        g = g.sum_to_size(shape)
    if g.dtype is not dtype:
        g = (g.real if g.is_complex() and not dtype.is_complex else g).to(dtype)
    return g
