"""The way back over a tape, written out as straight-line code for each structure of network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor

from manualbp.derivation import Derivation, compiled
from manualbp.formula import any_autocast, as_in_forward

Program = Callable[..., list[Tensor | None]]

#: a value on a tape is known by a number: its entry's place times this, plus its place among the
#: outputs of that entry; a leaf by −1 minus its place among the leaves
OUTPUTS = 1 << 16


class Node:
    """What has been called so far, and on what: a place in a tree of such histories.

    A network that runs as it ran before comes to the same node, and finds there the program that
    walks back: so a step looks up one dictionary a formula, and decides nothing anew.
    """

    __slots__ = ("after", "before", "codes", "derivation", "formula", "index", "needs", "programs")

    def __init__(self, before: Node | None, formula: Any, codes: tuple[int | None, ...]) -> None:
        self.before = before
        self.formula = formula
        self.index: int = -1 if before is None else before.index + 1
        #: for each argument, the number of the value that it was, if that wants a gradient
        self.codes = codes
        self.needs = tuple(code is not None for code in codes)
        self.derivation: Derivation | None = getattr(formula, "derivation", None)
        self.after: dict[Any, Node] = {}
        self.programs: dict[Any, Program] = {}

    def then(self, formula: Any, codes: tuple[int | None, ...]) -> Node:
        """Where ``formula`` leads that is called on the values numbered ``codes``."""
        key = (formula, codes)
        node = self.after.get(key)
        if node is None:
            node = self.after[key] = Node(self, formula, codes)
        return node

    def program(self, start: int, leaves: int, keep: bool) -> Program:
        """The way back from the value numbered ``start``, keeping what is on the tape or not."""
        key = (start, leaves, keep)
        program = self.programs.get(key)
        if program is None:
            program = self.programs[key] = _write(self, start, leaves, keep)
        return program


def _write(last: Node, start: int, leaves: int, keep: bool) -> Program:
    path: list[Node] = []
    node: Node | None = last
    while node is not None and node.before is not None:
        path.append(node)
        node = node.before
    path.reverse()
    namespace: dict[str, Any] = {
        "any_autocast": any_autocast,
        "as_in_forward": as_in_forward,
        "versions": versions,
        "fit": _fit,
        "zeros": _zeros,
        "add": _add,
    }
    given = {start}
    lines = [f"g{start} = gradient"]
    for node in path[start // OUTPUTS :: -1]:
        i = node.index
        assert node.derivation is not None
        outputs = [i * OUTPUTS + slot for slot in range(len(node.derivation.asked))]
        arrived = [o for o in outputs if o in given]
        if not arrived:
            continue
        namespace |= {f"rules{i}": node.derivation.gradients, f"needs{i}": node.needs}
        lines += [f"# {i}: {node.formula.__name__}", f"kept = K[{i}]"]
        lines += [f"if kept is None: tape.freed({i})"]
        if node.derivation.source:  # of structural operations torch watches over what they saved
            lines += [f"if versions(kept) != V[{i}]: tape.changed({i})"]
        trusted = node.formula.__module__.startswith("manualbp.")
        for o in arrived:
            test = f"g{o}.dtype is not T[{i}][{o % OUTPUTS}]"
            # That its rules return the shapes of their arguments is proved of each formula here.
            test += "" if trusted else f" or g{o}.shape != S[{i}][{o % OUTPUTS}]"
            lines += [f"if {test}: g{o} = fit(g{o}, T[{i}][{o % OUTPUTS}], S[{i}][{o % OUTPUTS}])"]
        incoming = []
        for o, asked in zip(outputs, node.derivation.asked, strict=True):
            if o in arrived:
                incoming.append(f"g{o}")
            elif asked and sum(node.derivation.asked) > 1:
                slot = o % OUTPUTS
                incoming.append(f"zeros(g{arrived[0]}, T[{i}][{slot}], S[{i}][{slot}])")
            else:
                incoming.append("None")
        call = f"rules{i}(needs{i}, {', '.join(incoming)}, *kept)"
        lines += [
            f"if A[{i}] is None and not any_autocast(): d = {call}",
            "else:",
            f"    with as_in_forward(A[{i}], g{arrived[0]}): d = {call}",
        ]
        if keep:
            lines += [f"tape.note({i}, ({', '.join(incoming)},), d)"]
        else:
            lines += [f"K[{i}] = kept = None"]
        for at, code in enumerate(node.codes):
            if code is None:
                continue
            name, part = f"g{code}" if code >= 0 else f"l{-1 - code}", f"d[{at}]"
            if not trusted and code >= 0:  # a rule may give None for nothing
                before, slot = divmod(code, OUTPUTS)
                nothing = f"zeros(gradient, T[{before}][{slot}], S[{before}][{slot}])"
                part = f"({nothing} if {part} is None else {part})"
            # Never in place: a rule may have given the same tensor to somebody else.
            lines += [f"{name} = add({name}, {part})" if code in given else f"{name} = {part}"]
            given.add(code)
    totals = [f"l{n}" if -1 - n in given else "None" for n in range(leaves)]
    lines += [f"return [{', '.join(totals)}]"]
    source = "def walk(tape, gradient, K, V, T, S, A):\n" + "".join(f"    {x}\n" for x in lines)
    compiled(source, f"<the way back over {len(path)} formulas, {id(last):x}-{start}>", namespace)
    return namespace["walk"]


def versions(kept: tuple[Any, ...]) -> list[int]:
    """How often each tensor has been changed in place."""
    return [v._version for v in kept if isinstance(v, Tensor)]


def _fit(g: Tensor, dtype: torch.dtype, shape: Size) -> Tensor:
    """What autograd's engine does to a gradient between two nodes."""
    g = g.sum_to_size(shape)
    return (g.real if g.is_complex() and not dtype.is_complex else g).to(dtype)


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _zeros(like: Tensor, dtype: torch.dtype, shape: Size) -> Tensor:
    return like.new_zeros(shape, dtype=dtype)
