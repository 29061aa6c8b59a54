"""Random programs over every function that interception runs by formula, held to plain torch.

A program is a few lines of Python: leaves, then 3 to 12 calls on them and on one another, with
views, writes in place, masks, islands of ``no_grad``, and one cost or two. It is drawn by asking
torch: a call that torch refuses is drawn again. It then runs three times, by torch, inside
``manualbp.intercept()`` and on a ``manualbp.Tape`` with interception inside, and everything that
can be seen of it must be the same: values, dtypes, gradients, what shares memory with what, what
raises. What differs is shrunk to the fewest lines that still differ, and printed as a program.

    python tests/random_programs.py --minutes 10 --seed 1
    python tests/random_programs.py --seed 1 --only 1234      # one program, printed and compared
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from inspect import signature
from typing import Any

import random_calls
import torch
from documented import Documented
from torch import Tensor
from torch.nn import functional as F

import manualbp
from manualbp.functional._override import twins
from manualbp.kernels import matmul as products

NAME = re.compile(r"\b[vx]\d+\b")
AUGMENTS = re.compile(r"[vx]\d+ [-+*/]= ")
WRITES = re.compile(r"_\(|inplace=True|\] [-+*/]?= |hook")
ASSIGNS = re.compile(r" [-+*/]?= ")
SEED = 1 << 20


# ----------------------------------------------------------------------- what a program may call


def randn(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.double) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.double).to(dtype)


def rand(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.double) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.double).to(dtype)


PREAMBLE = """\
import torch, manualbp
from torch.nn import functional as F

def randn(seed, shape, dtype=torch.double, draw=torch.randn):
    generator = torch.Generator().manual_seed(seed)
    return draw(shape, generator=generator, dtype=torch.double).to(dtype)

def rand(seed, shape, dtype=torch.double):
    return randn(seed, shape, dtype, torch.rand)
"""

REVERSE = """\
class Reverse(manualbp.Formula):
    @staticmethod
    def forward(input):
        return input

    @staticmethod
    def grad_input(g):
        return -g

reverse = Reverse.apply
"""


class Reverse(manualbp.Formula):
    """A formula of somebody else's, whose forward pass returns its input: gradient reversal."""

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return -g


class TorchReverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        return input

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


SPACE: dict[str, Any] = {
    "torch": torch,
    "F": F,
    "randn": randn,
    "rand": rand,
    "reverse": TorchReverse.apply,
}


@cache
def calls() -> dict[str, random_calls.Recipe]:
    return random_calls.spellings()


@cache
def parameters(path: str) -> tuple[str, ...]:
    """The names of a function's parameters, by which a program may give them."""
    where, _, name = path.rpartition(".")
    key = getattr(random_calls.NAMESPACES[where], name)
    try:
        return tuple(signature(twins()[key]).parameters)
    except ValueError:
        return ()


# ------------------------------------------------------------------------------------ a program


@dataclass(frozen=True)
class Line:
    source: str
    #: the names that it gives a value to
    defines: tuple[str, ...] = ()
    #: what it calls, for the count
    call: str = ""
    leaf: bool = False

    @property
    def uses(self) -> set[str]:
        return set(NAME.findall(self.source))

    @property
    def code(self) -> Any:
        return _compiled(self.source)


def _compiled(source: str) -> Any:
    code = _codes.get(source)
    if code is None:
        if len(_codes) > 5000:
            _codes.clear()
        code = _codes[source] = compile(source, source, "exec")
    return code


_codes: dict[str, Any] = {}


@dataclass(frozen=True)
class Program:
    lines: tuple[Line, ...]
    #: what is differentiated, and the seeds of the gradients that arrive from above
    costs: tuple[str, ...] = ()
    #: walk back twice
    retain: bool = False
    #: the leaves have a .grad before
    accumulate: bool = False
    #: differentiate the gradients again
    second: bool = False
    #: both costs at once
    joint: bool = False
    #: the calls run twice over the same leaves, on two tapes, and the second is walked back
    twice: bool = False
    #: oneDNN computes every product that it can, as where it is faster than MKL it does large ones
    onednn: bool = False

    @property
    def leaves(self) -> list[str]:
        return [name for line in self.lines if line.leaf for name in line.defines]

    def text(self, way: str) -> str:
        """The program as a person runs it."""
        body = [line.source for line in self.lines if not line.leaf] or ["pass"]
        opened = {
            "torch": "if True:",
            "intercept": "with manualbp.intercept():",
            "tape": f"with manualbp.Tape(keep={self.keep}) as tape, manualbp.intercept():",
        }[way]
        wanted = [line.defines[0] for line in self.lines if "requires_grad_" in line.source]
        lines = [PREAMBLE, REVERSE] if any("reverse(" in source for source in body) else [PREAMBLE]
        if self.onednn and way != "torch":
            lines += [
                "from manualbp.kernels import matmul as products",
                "products.LARGE, products._mkl_is_slow = 1, lambda: True",
            ]
        lines += ["torch.manual_seed(0)"]
        lines += [line.source for line in self.lines if line.leaf]
        if self.accumulate and not self.second:
            lines += [
                f"{x}.grad = randn({i}, {x}.shape).to({x}.dtype)" for i, x in enumerate(wanted)
            ]
        block = [opened, *(f"    {source}" for source in body)]
        if self.twice:
            block = ["for _ in range(2):", *(f"    {source}" for source in block)]
        lines += block
        g = [f"randn({SEED + i}, {c}.shape, {c}.dtype)" for i, c in enumerate(self.costs)]
        costs = ", ".join(self.costs)
        if self.second:
            leaves = ", ".join(wanted)
            lines += [
                f"first = torch.autograd.grad([{costs}], [{leaves}], [{', '.join(g)}], "
                f"create_graph=True, allow_unused=True)",
                "print(first)",
                f"again = [(g, randn({2 * SEED} + i, g.shape, g.dtype)) for i, g in "
                f"enumerate(first) if g is not None and g.requires_grad]",
                "outputs, above = zip(*again)",
                f"print(torch.autograd.grad(outputs, [{leaves}], above, allow_unused=True))",
            ]
        elif way == "tape":
            lines += [f"tape.backprop({c}, {u})" for c, u in zip(self.costs, g, strict=True)] * (
                1 + self.retain
            )
        elif self.joint:
            lines += [f"torch.autograd.backward([{costs}], [{', '.join(g)}])"]
        else:
            lines += [
                f"{c}.backward({u}, retain_graph={self.keep})"
                for c, u in zip(self.costs, g, strict=True)
            ] * (1 + self.retain)
        if self.costs and not self.second:
            lines += [f"print({', '.join(f'{x}.grad' for x in wanted)})"]
        return "\n".join(lines)

    @property
    def keep(self) -> bool:
        return self.retain or (len(self.costs) > 1 and not self.joint)


# ------------------------------------------------------------------------------------- drawing


class Refused(Exception):
    """torch does not run the call that was drawn."""


class Builder:
    """Draws one program; random_calls asks it for arguments."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.leaves: list[Line] = []
        self.body: list[Line] = []
        self.space: dict[str, Any] = dict(SPACE)
        self.pool: list[str] = []
        self.apart: set[str] = set()
        self.name = self.path = self.target = ""
        self.count = 0
        self.dtype = rng.choices(
            (torch.double, torch.float, torch.half, torch.bfloat16, None), (74, 12, 5, 4, 5)
        )[0]
        self.empty = rng.random() < 0.05
        self.sizes = [rng.randint(1, 4) for _ in range(3)]

    # ------------------------------------------------------------------------- plain choices

    def coin(self, chance: float) -> bool:
        return self.rng.random() < chance

    def one(self, *options: Any) -> Any:
        return options[int(self.rng.random() * len(options))]

    def option(self, chance: float, text: str) -> list[str]:
        return [text] if self.coin(chance) else []

    def named(self, chance: float, name: str, value: str) -> str:
        return f"{name}={value}" if self.coin(chance) else value

    def number(self) -> str:
        return self.one("0.5", "-1.5", "2", "3", "1", "0", "-0.7", "2.0", "-1", "0.3", "True")

    def size(self) -> int:
        if self.empty and self.coin(0.15):
            return 0
        return self.one(*self.sizes)

    # ------------------------------------------------------------------------------- tensors

    def value(self, x: str) -> Tensor:
        found = self.space.get(x)
        return found if found is not None else eval(x, self.space)

    def shape(self, x: str) -> tuple[int, ...]:
        return tuple(self.value(x).shape)

    def numel(self, x: str) -> int:
        return self.value(x).numel()

    def real(self, wanted: Callable[[Tensor], bool] | None = None, odd: float = 0.04) -> str:
        """Any tensor of real numbers; now and then one of integers or truth values."""
        pool, space = self.pool, self.space
        for _ in range(8):
            if not pool or self.coin(0.08):
                break
            # What came last is taken more often, so that programs grow long rather than broad.
            x = pool[-1 - int(len(pool) * self.rng.random() ** 2)]
            t = space[x]
            if (t.is_floating_point() or self.coin(odd)) and (wanted is None or wanted(t)):
                return x
        for _ in range(3):
            if self.coin(odd):
                x = self.counted(tuple(self.size() for _ in range(self.one(1, 2, 2, 3))))
                if wanted is None or wanted(space[x]):
                    break
            x = self.leaf(tuple(self.size() for _ in range(self.one(0, 1, 1, 2, 2, 2, 3, 3, 4))))
            if wanted is None or wanted(space[x]):
                break
        return x

    def writable(self, x: str) -> str:
        """A value that torch lets be written into: no leaf, no view of one, nothing stretched."""
        t = self.space.get(x)
        if t is None:
            return x
        base = t if t._base is None else t._base
        if (base.is_leaf and base.requires_grad) or 0 in t.stride():
            return self.one(f"{x}.clone()", f"({x} * 1)", f"({x} + 0)")
        return x

    def within(self, x: str) -> str:
        """Numbers at which the function has a value, most of the time."""
        domain = random_calls.DOMAINS.get(self.name.rstrip("_").removeprefix("arc"))
        if domain and self.coin(0.6):
            with contextlib.suppress(NotImplementedError):  # of a bool, say
                self.evaluate(domain.format(x), "structure")
                x = self.pool[-1]
        return x

    def in_place(self) -> list[str]:
        return self.option(0.1, "inplace=True") if self.path.startswith("F.") else []

    def of(self, dims: int) -> str:
        """A tensor of so many axes."""
        pool, space = self.pool, self.space
        for _ in range(4):
            if not pool or self.coin(0.15):
                break
            x = self.one(*pool)
            t = space[x]
            if not t.is_floating_point():
                continue
            n = t.dim()
            if n == dims:
                return x
            if n > dims:
                return f"{x}.flatten(0, {n - dims})" if dims else f"{x}.sum()"
            return (
                f"{x}[{', '.join(['None'] * (dims - n))}]"
                if self.coin(0.5)
                else (x + ".unsqueeze(-1)" * (dims - n))
            )
        return self.leaf(tuple(self.size() for _ in range(dims)))

    def shaped(self, shape: Any, like: str | None = None, fresh: float = 0.3) -> str:
        """A tensor of this shape, and of the dtype of another."""
        shape = tuple(shape)
        dtype = self.value(like).dtype if like else self.drawn_dtype()
        if not self.coin(fresh):
            numel = 1
            for n in shape:
                numel *= n
            pool, space = self.pool, self.space
            exact, other = [], []
            for x in pool:
                t = space[x]
                if t.dtype is dtype:
                    if t.shape == shape:
                        exact.append(x)
                    elif t.numel() == numel:
                        other.append(x)
            if exact:
                return self.one(*exact)
            if other and numel and self.coin(0.7):
                return f"{self.one(*other)}.reshape({shape})"
        return self.leaf(shape, dtype)

    def alike(self, x: str) -> str:
        """A tensor that broadcasts with another."""
        shape = self.shape(x)
        n = len(shape)
        wanted = self.one(
            shape,
            shape,
            shape,
            shape[self.rng.randint(0, n) :],
            (),
            tuple(s if self.coin(0.6) else 1 for s in shape),
        )
        return self.shaped(wanted, x)

    def like(self, x: str, dims: int) -> str:
        return self.shaped(tuple(self.size() for _ in range(dims)), x)

    def other(self, x: str) -> str:
        """The other side of an operator: a tensor that broadcasts, of any dtype, or a number."""
        if self.coin(0.25):
            return self.number()
        if self.coin(0.35) and self.pool:
            y = self.one(*self.pool)
            a, b = self.shape(x), self.shape(y)
            if all(m == n or 1 in (m, n) for m, n in zip(a[::-1], b[::-1], strict=False)):
                return y
        if self.coin(0.05):
            return self.integers(self.shape(x), 5)
        return self.alike(x)

    def drawn_dtype(self) -> torch.dtype:
        return self.dtype or self.one(torch.double, torch.float, torch.half, torch.bfloat16)

    def leaf(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> str:
        """A new leaf, of any strides, that may want a gradient."""
        dtype = dtype or self.drawn_dtype()
        if not dtype.is_floating_point:
            dtype = torch.double
        n, drawn = len(shape), self.rng.choices(("randn", "rand", "1 + rand"), (7, 2, 1))[0]
        layout = self.rng.random()
        given, after = tuple(shape), ""
        if n > 1 and layout < 0.12:
            given, after = (*shape[:-2], shape[-1], shape[-2]), ".mT"
        elif n and layout < 0.18:
            d = self.rng.randrange(n)
            given = (*shape[:d], shape[d] + 2, *shape[d + 1 :])
            after = f".narrow({d}, 1, {shape[d]})"
        elif n and layout < 0.22:
            given = (*shape[:-1], 2 * shape[-1])
            after = "[..., ::2]"
        elif n and layout < 0.26:
            d = self.rng.randrange(n)
            given = (*shape[:d], 1, *shape[d + 1 :])
            after = f".expand({tuple(shape)})"
        source = f"{drawn}({self.rng.randrange(SEED)}, {given}" + (
            f", {dtype})" if dtype is not torch.double else ")"
        )
        source = f"({source})" if drawn[0] == "1" and after else source
        if self.coin(0.7):
            source = f"({source})" if drawn[0] == "1" and not after else source
            after += ".requires_grad_()"
        return self.begin(source + after)

    def counted(self, shape: tuple[int, ...]) -> str:
        """A leaf of integers or of truth values."""
        seed = self.rng.randrange(SEED)
        kind = self.one("long()", "int()", "byte()", "bool()")
        return self.begin(f"rand({seed}, {shape}).mul(3).{kind}")

    def frozen(self, shape: Any, like: str, kind: str) -> str:
        """A leaf without a gradient: signs, or numbers from 0 to 1."""
        shape, dtype = tuple(shape), self.value(like).dtype
        seed = self.rng.randrange(SEED)
        given = f"({seed}, {shape}" + (f", {dtype})" if dtype is not torch.double else ")")
        if dtype.is_floating_point:
            return self.begin(f"randn{given}.sign()" if kind == "sign" else f"rand{given}")
        return self.begin(f"rand({seed}, {shape})")

    def state(self, shape: tuple[int, ...], like: str, value: float) -> str:
        """Running statistics, which nothing else uses: torch writes to them behind its own back."""
        seed, dtype = self.rng.randrange(SEED), self.value(like).dtype
        name = self.begin(f"{value} + rand({seed}, {shape}, {dtype})")
        self.pool.remove(name)
        self.apart.add(name)
        return name

    def begin(self, source: str) -> str:
        name = f"x{self.count}"
        self.count += 1
        line = Line(f"{name} = {source}", (name,), leaf=True)
        exec(line.code, self.space)
        self.leaves.append(line)
        self.pool.append(name)
        return name

    def integers(self, shape: Any, high: int, unique: Any = None) -> str:
        shape = tuple(shape)
        numel = 1
        for n in shape:
            numel *= n
        if not numel or high <= 0:
            return f"torch.zeros({shape}, dtype=torch.long)"
        if unique is not None and unique is not False:
            d = 0 if unique is True else unique
            row = self.rng.sample(range(high), min(shape[d], high))
            if len(shape) == 1:
                return f"torch.tensor({row})"
            view = tuple(-1 if i == d else 1 for i in range(len(shape)))
            return f"torch.tensor({row}).view({view}).expand({shape})"
        values = torch.tensor([self.rng.randrange(high) for _ in range(numel)]).view(shape)
        return f"torch.tensor({values.tolist()})"

    def mask(self, x: str) -> str:
        """Truth values that broadcast with a tensor."""
        shape = self.shape(x)
        for y in self.rng.sample(self.pool, min(4, len(self.pool))):
            t = self.space[y]
            if t.dtype is torch.bool and t.shape == shape:
                return y
        kind = self.rng.random()
        if kind < 0.5:
            return f"({x} > {self.one('0', '0.3', '-0.5')})"
        if kind < 0.8:
            return f"({self.alike(x)} > 0)"
        if kind < 0.88:
            return f"({self.alike(x)} > 0).byte()"
        return self.one("torch.tensor(True)", f"({x} == {x})", f"({x}.isnan())")

    def sequence(self, parts: list[str]) -> str:
        inner = ", ".join(parts)
        return f"[{inner}]" if self.coin(0.7) else f"({inner},)"

    # ---------------------------------------------------------------------------------- axes

    def dim(self, x: str) -> str:
        n = len(self.shape(x))
        return str(self.rng.randint(-n, n - 1)) if n else self.one("0", "-1")

    def dims(self, x: str) -> str:
        n = len(self.shape(x))
        if not n:
            return self.one("()", "0")
        chosen = self.rng.sample(range(n), self.rng.randint(1, n))
        chosen = [d - n if self.coin(0.3) else d for d in chosen]
        return str(tuple(chosen)) if self.coin(0.7) else str(chosen)

    def axis(self, x: str) -> list[str]:
        keep = self.option(0.4, self.one("keepdim=True", "keepdim=False"))
        return self.one(
            [self.dim(x)],
            [self.dim(x), *keep],
            [f"dim={self.dim(x)}", *keep],
            [self.dim(x), "True"],
        )

    def axes(self, x: str, always: bool = False) -> list[str]:
        if not always and self.coin(0.2):
            return []
        keep = self.option(0.4, "keepdim=True")
        dims = self.one(self.dim(x), self.dims(x), self.dims(x), "None")
        return [self.named(0.5, "dim", dims), *keep]

    def named_axes(self, x: str) -> list[str]:
        dims = self.one(self.dim(x), self.dims(x), self.dims(x))
        return [f"dim={dims}", *self.option(0.4, "keepdim=True")]

    def reshaped(self, x: str) -> tuple[int, ...]:
        rest, shape = self.numel(x), []
        for n in (2, 3, 2, 5):
            if rest and rest % n == 0 and self.coin(0.6):
                shape.append(n)
                rest //= n
        shape.insert(self.rng.randint(0, len(shape)), rest if self.coin(0.5) or not rest else -1)
        return tuple(shape)

    def subscript(self, x: str, plain: bool = False) -> str:
        shape = self.shape(x)
        parts: list[str] = []
        for n in shape[: self.rng.randint(0 if len(shape) == 0 else 1, len(shape))]:
            some = [self.rng.randrange(n) for _ in range(self.one(1, 2, 3))] if n else []
            at = str(some[0] - self.one(0, n)) if some else ":"
            options = [at, ":", f"{self.one(0, 1)}:", f":{self.one(-1, 2)}", "::2", "None", "..."]
            if not plain:
                index = f"torch.tensor({some})" if some else "torch.tensor([], dtype=torch.long)"
                truth = [self.coin(0.6) for _ in range(n)]
                options += [
                    index,
                    index,
                    str(some),
                    f"torch.tensor({truth}, dtype=torch.bool)",
                    f"torch.tensor({at if at != ':' else 0})",
                    "True",
                    str(truth),
                ]
            parts.append(self.one(*options))
        if parts.count("...") > 1:
            parts = [part for part in parts if part != "..."]
        if not plain and self.coin(0.12):
            return self.mask(x)
        if not plain and self.coin(0.03):
            return self.one("()", "None", "[]", "torch.tensor(True)")
        return ", ".join(parts) or self.one("...", "None", "()")

    # ---------------------------------------------------------------------------------- lines

    def draw(self) -> tuple[str, str]:
        """A statement's source, or an expression's, and what it calls."""
        kind = self.rng.random()
        if kind < 0.66:
            path = self.one(*calls())
            where, _, name = path.rpartition(".")
            self.name, self.path = name, path
            arguments = (calls()[path])(self)
            if arguments is None:
                raise Refused
            if name[-1] == "_":
                if self.coin(0.95):
                    arguments[0] = self.writable(arguments[0])
                self.target = arguments[0]
            if name == "__getitem__":
                return f"{arguments[0]}[{arguments[1]}]", path
            if self.coin(0.04):
                arguments = random_calls.by_numpy(arguments)
            method = where == "Tensor"
            if self.coin(0.05):
                given = random_calls.by_keyword(arguments[method:], iter(parameters(path)[method:]))
                arguments = [*arguments[:method], *given]
            if not method:
                return f"{path}({', '.join(arguments)})", path
            return f"{arguments[0]}.{name}({', '.join(arguments[1:])})", path
        if kind < 0.74:
            return random_calls.operator(self), "operators"
        if kind < 0.89:
            return random_calls.structural(self) or "", "structure"
        if kind < 0.985:
            return random_calls.writing(self), "writing"
        return random_calls.hook(self), "hooks"

    def extend(self) -> None:
        """One more line, one that torch runs."""
        source, call = self.draw()
        begun = len(self.body)
        island = "with torch.no_grad(): " if self.coin(0.04) else ""
        writes = call == "writing" or call.endswith("_") or "inplace=True" in source
        try:
            if call == "hooks" or (call == "writing" and ASSIGNS.search(source)):
                names = NAME.findall(source)[:1] if AUGMENTS.match(source) else []
                line = Line(island + source, tuple(names), call)
                exec(line.code, self.space)
                self.body.append(line)
            else:
                self.evaluate(source, call, island)
        except Exception as error:
            if writes:
                self.replay(begun)
            raise Refused from error
        if (writes or island) and not self.differentiable(self.coin(0.95)):
            self.replay(begun)
            raise Refused

    def evaluate(self, source: str, call: str, island: str = "") -> None:
        """Keep a call that gives a tensor, or several, all that torch has to say of it allowing."""
        before = self.written(source, call) if call in calls() and call.endswith("_") else None
        line = Line(f"{island}v{self.count} = {source}", (f"v{self.count}",), call)
        exec(line.code, self.space)
        value = self.space.pop(line.defines[0])
        values = (value,)
        if isinstance(value, (tuple, list)) and value:
            names = tuple(f"v{self.count + i}" for i in range(len(value)))
            if len(value) > 3 or not all(isinstance(v, Tensor) for v in value):
                line, values = replace(line, source=f"{line.source}[0]"), (value[0],)
            elif hasattr(value, "values") and self.coin(0.3):
                line, values = replace(line, source=f"{line.source}.values"), (value.values,)
            else:
                targets = ", ".join(names) + "," * (len(names) == 1)
                line = Line(f"{island}{targets} = {source}", names, call)
                values = tuple(value)
        for v in values:
            # A view made of a leaf under no_grad says that it wants a gradient, and gets none.
            if island and isinstance(v, Tensor) and v._base is not None:
                raise Refused
            if not isinstance(v, Tensor) or v.numel() > 500 or v.is_complex() or v.is_sparse:
                raise Refused
            # torch's addbmm_ gives what it writes into another shape; nobody relies on that.
            if before is not None and before != v.shape:
                raise Refused
            if v.is_floating_point() and v.numel():
                largest = v.detach().abs().max().item()
                if not largest < 1e3 and self.coin(0.93):
                    raise Refused
        self.count += len(values)
        self.body.append(line)
        self.space.update(zip(line.defines, values, strict=True))
        self.pool.extend(line.defines)

    def written(self, source: str, call: str) -> torch.Size | None:
        """The shape of what a call writes into.

        Raises:
            Refused: a product would read what it writes, and torch's value is then not defined.
        """
        if "bmm" in call or "addm" in call:
            target, *read = (_memory(self.space[name]) for name in NAME.findall(source))
            if target in read:
                raise Refused
        return self.value(self.target).shape

    def replay(self, begun: int) -> None:
        """Begin again without the last line, which may have written into values."""
        body, self.body = self.body[:begun], []
        self.space = dict(SPACE)
        for line in self.leaves:
            exec(line.code, self.space)
        with contextlib.suppress(Exception):  # another draw of a dropout may allow less
            for line in body:
                exec(line.code, self.space)
                self.body.append(line)
        names = (name for line in (*self.leaves, *self.body) for name in line.defines)
        self.pool = list(dict.fromkeys(name for name in names if name not in self.apart))

    def differentiable(self, walk: bool) -> bool:
        """Whether torch still knows where values come from, and can walk back."""
        leaves = [t for line in self.leaves if (t := self.space[line.defines[0]]).requires_grad]
        try:
            roots = [t for n in self.pool if (t := self.space[n]).requires_grad and t.grad_fn]
            if not roots or not leaves or not walk:
                return True
            torch.autograd.grad(
                roots,
                leaves,
                [torch.zeros_like(t) for t in roots],
                retain_graph=True,
                allow_unused=True,
            )
        except Exception:
            return False
        return True

    def program(self) -> Program:
        length = self.rng.randint(3, 12)
        for _ in range(self.one(1, 2, 2, 3)):
            self.real(lambda t: False)
        tries = 0
        while len(self.body) < length and tries < 60:
            tries += 1
            with contextlib.suppress(Refused):
                self.extend()
        last: list[Line] = []
        if self.coin(0.04):  # a call that torch refuses: is it refused alike?
            for _ in range(20):
                try:
                    source, call = self.draw()
                    code = compile(source, source, "exec")
                    exec(code, self.space)
                except (SyntaxError, Refused):
                    continue
                except Exception:
                    last = [Line(source, (), call)]
                    break
            self.replay(len(self.body))
        if self.coin(0.5):  # a cost by formula, which a tape can begin at
            with contextlib.suppress(Refused):
                self.evaluate(f"{self.real()}.{self.one('mul(0.7)', 'sum()', 'sin()')}", "end")
        rows = [
            n
            for n in self.pool
            if (t := self.space[n]).grad_fn is not None and t.is_floating_point()
        ]
        costs = tuple(self.rng.sample(rows[-4:], min(len(rows[-4:]), self.one(1, 1, 1, 2))))
        if len({id(self.space[c]) for c in costs}) < len(costs):
            costs = costs[:1]
        double = all(
            self.space[n].dtype is torch.double
            for n in self.pool
            if self.space[n].is_floating_point()
        )
        program = Program(
            (*self.leaves, *self.body, *last),
            () if last else costs,
            retain=self.coin(0.1),
            accumulate=self.coin(0.15),
            # In the second pass a hook is called again where torch saved its value.
            second=double and self.coin(0.25) and all(line.call != "hooks" for line in self.body),
            joint=len(costs) > 1 and self.coin(0.5),
            twice=self.coin(0.1),
            # It multiplies numbers of single precision; those of other programs MKL does.
            onednn=self.dtype in (torch.float, None) and torch.backends.mkldnn.is_available(),
        )
        return pruned(program)


def pruned(program: Program, everything: bool = False) -> Program:
    """Without leaves that nothing uses, or without any line that nothing uses."""
    used, lines = set(program.costs), []
    for line in reversed(program.lines):
        idle = line.defines and not used.intersection(line.defines)
        if idle and (line.leaf or everything):
            continue
        used |= line.uses
        lines.append(line)
    return replace(program, lines=tuple(reversed(lines)))


def drawn(seed: int, number: int) -> Program:
    # A string is a seed on every version of Python, a tuple is not.
    return Builder(random.Random(f"{seed}/{number}")).program()


# ------------------------------------------------------------------------------------- running


@dataclass
class Outcome:
    values: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    second: dict[str, Tensor | None] = field(default_factory=dict)
    above: dict[str, Tensor] = field(default_factory=dict)
    #: whether the gradients are the leaves' .grad, which nobody else may hold
    own: bool = True
    error: Exception | None = None
    #: the line at which it raised, or the stage after the last one
    at: int = 0
    stage: str = "forward"


def nudged(draw: Callable[..., Tensor], nudge: float, seed: int) -> Callable[..., Tensor]:
    def run(number: int, shape: tuple[int, ...], dtype: torch.dtype = torch.double) -> Tensor:
        t = draw(number, shape, dtype)
        noise = randn(number + SEED * (4 + seed), shape)
        return (t.double() * (1 + nudge * noise)).to(t.dtype)

    return run


def _nudges(program: Program, nudge: float, seed: int) -> list[Callable[[dict[str, Any]], None]]:
    """What to do after each line, as rounding would."""
    calls = [line for line in program.lines if not line.leaf]
    if any(line.call == "writing" or WRITES.search(line.source) for line in calls):
        return []

    def step(names: tuple[str, ...], number: int, space: dict[str, Any]) -> None:
        for name in names:
            t = space[name]
            if t.is_floating_point() and t._base is None:
                noise = randn(SEED * (9 + seed) + number, tuple(t.shape))
                space[name] = t * (1 + nudge * noise).to(t.dtype)

    return [partial(step, line.defines, i) for i, line in enumerate(calls)] * (1 + program.twice)


def run(
    program: Program,
    way: str,
    space: dict[str, Any] | None = None,
    nudge: float = 0.0,
    seed: int = 0,
    moved: dict[str, Tensor] | None = None,
    above: dict[str, Tensor] | None = None,
    apart: bool = False,
) -> Outcome:
    """The program by torch, by torch as docs/differences.md says, by interception, or on a tape.

    With ``nudge`` every number is off by about that much of itself, a leaf's and where nothing is
    written over also what a call gives; with ``apart`` even numbers of a leaf that share memory.
    With ``moved`` those of some leaves are off by what it says.
    ``above`` are the gradients that arrive, if they are not drawn.
    """
    outcome = Outcome()
    space = dict(space or SPACE)
    if nudge:
        for draw in ("randn", "rand"):
            space[draw] = nudged(space[draw], nudge, seed)
    torch.default_generator.manual_seed(0)
    body = []
    for line in program.lines:
        if line.leaf:
            exec(line.code, space)
        else:
            body.append(line.code)
    for i, name in enumerate(program.leaves if apart else ()):
        t = space[name]
        if t.is_floating_point():
            noise = randn(SEED * (5 + seed) + i, tuple(t.shape)).to(t.dtype)
            space[name] = (t.detach() * (1 + nudge * noise)).requires_grad_(t.requires_grad)
    for name, by in (moved or {}).items():
        space[name] = (space[name].detach() + by).requires_grad_()
    leaves = {n: t for n in program.leaves if (t := space[n]).requires_grad}
    if way not in ("torch", "documented"):
        space["reverse"] = Reverse.apply
    tape: Any = None
    steps = _nudges(program, nudge, seed) if nudge else []
    for _ in range(1 + program.twice):
        with contextlib.ExitStack() as stack:
            if way == "tape":
                tape = stack.enter_context(manualbp.Tape(keep=program.keep))
            if way != "torch":
                by = Documented if way == "documented" else manualbp.intercept
                stack.enter_context(by())
            try:
                for i, code in enumerate(body):
                    outcome.at = i
                    exec(code, space)
                    if steps:
                        steps.pop(0)(space)
            except Exception as error:
                outcome.error = error
                break
    outcome.values = {n: t for n, t in space.items() if isinstance(t, Tensor)}
    if outcome.error is not None or not program.costs:
        return outcome
    outcome.stage = "backward"
    try:
        _walk_back(program, outcome, leaves, tape, above or {})
    except Exception as error:
        outcome.error = error
    return outcome


def _seed(i: int, g: Tensor) -> Tensor:
    """What arrives from above at the gradient of the i-th leaf, in second order."""
    return randn(2 * SEED + i, tuple(g.shape), g.dtype)


def _walk_back(
    program: Program,
    outcome: Outcome,
    leaves: dict[str, Tensor],
    tape: Any,
    given: dict[str, Tensor],
) -> None:
    costs = [outcome.values[c] for c in program.costs]

    def arriving() -> list[Tensor]:
        names = [f"g{i}" for i in range(len(costs))]
        return [
            given[n].to(c.dtype, copy=True)
            if n in given
            else randn(SEED + i, tuple(c.shape), c.dtype)
            for i, (n, c) in enumerate(zip(names, costs, strict=True))
        ]

    above = arriving()
    outcome.above = {f"g{i}": g for i, g in enumerate(above)}
    wanted = list(leaves.values())
    if program.second and tape is None:
        first = torch.autograd.grad(costs, wanted, above, create_graph=True, allow_unused=True)
        outcome.gradients = dict(zip(leaves, first, strict=True))
        outcome.stage, outcome.own = "second", False
        again = [(g, _seed(i, g)) for i, g in enumerate(first) if g is not None and g.requires_grad]
        if again:
            outputs, seeds = zip(*again, strict=True)
            second = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
            outcome.second = dict(zip(leaves, second, strict=True))
        return
    if program.accumulate:
        for i, leaf in enumerate(wanted):
            leaf.grad = randn(i, tuple(leaf.shape)).to(leaf.dtype)
    for again in range(1 + program.retain):
        if again:  # autograd may have made what arrived a leaf's .grad, and added to it
            above = arriving()
        if tape is not None:
            for cost, g in zip(costs, above, strict=True):
                tape.backprop(cost, g)
        elif program.joint:
            torch.autograd.backward(costs, above, retain_graph=program.keep)
        else:
            for cost, g in zip(costs, above, strict=True):
                cost.backward(g, retain_graph=program.keep)
    outcome.gradients = {n: leaf.grad for n, leaf in leaves.items()}
    for name, t in {id(t): (n, t) for n, t in outcome.values.items()}.values():
        with contextlib.suppress(RuntimeError):  # a stale view does not say where it comes from
            if not t.is_leaf and t.retains_grad:
                outcome.gradients[name] = t.grad


# ----------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Finding:
    way: str
    kind: str
    #: which value or line
    where: str
    detail: str = ""
    error: str = ""

    @property
    def label(self) -> str:
        return f"{self.way}: {self.kind}"


#: what a tape says that it does not do
REFUSALS = re.compile(
    "been through torch's own|expected a value computed by formulas|computed on another Tape|"
    "changed in place since|leaf Variable that requires grad|autograd does not pass by a value|"
    "cannot be changed in place|detached in place and then asked|"
    "in place, where nothing is recorded"
)
POOLING = re.compile("pool|interpolate|upsample|grid_sample")
#: what an author meets who writes into what a function of several steps gave
DETACHED = "Can't detach views in-place"
#: what is used may not be written over before the way back; what is kept is not always the same
CHANGED = "one of the variables needed for gradient computation has been modified"
TOLERANCE = {torch.double: 1e-6, torch.float: 1e-4, torch.half: 2e-2, torch.bfloat16: 1e-1}


def compare(program: Program, way: str, theirs: Outcome, ours: Outcome) -> Finding | None:
    """What differs from torch, if anything does; the gravest first."""
    if ours.error is not None:
        message = f"{type(ours.error).__name__}: {ours.error}"
        where = f"line {ours.at}" if ours.stage == "forward" else ours.stage
        same = theirs.error is not None and (theirs.stage, theirs.at) == (ours.stage, ours.at)
        if theirs.error is not None and theirs.stage in ("backward", "second"):
            return None
        if way == "tape" and (reason := REFUSALS.search(str(ours.error))):
            return Finding(way, f"refuses: {reason.group()}", where, message)
        if same:
            if isinstance(ours.error, type(theirs.error)):
                return None
            what = f"torch: {type(theirs.error).__name__}: {theirs.error}\nours: {message}"
            return Finding(
                way,
                f"raises another type ({type(theirs.error).__name__} → "
                f"{type(ours.error).__name__})",
                where,
                what,
            )
        for reason in (DETACHED, CHANGED):
            if reason in message:
                return Finding(way, f"refuses: {reason}", where, message)
        return Finding(way, f"raises {type(ours.error).__name__}", where, message)
    if theirs.error is not None:
        message = f"{type(theirs.error).__name__}: {theirs.error}"
        if theirs.stage == "forward":
            return Finding(way, "takes more than torch", f"line {theirs.at}", message)
        return None
    for name, t in theirs.values.items():
        found = _differs(t, ours.values[name], way, "value", name)
        if found:
            return found
        if (
            t.requires_grad is not ours.values[name].requires_grad
            and t.numel()
            and not any(v.requires_grad and not v.numel() for v in theirs.values.values())
        ):
            return Finding(way, "requires_grad", name, f"torch: {t.requires_grad}")
    for kind in ("gradient", "second"):
        before = theirs.gradients if kind == "gradient" else theirs.second
        after = ours.gradients if kind == "gradient" else ours.second
        for name, g in before.items():
            if (found := _differs(g, after.get(name), way, kind, name)) is not None:
                return found
    mine, other = _groups(ours), _groups(theirs)
    grads, values = mine[0] - other[0], mine[1] ^ other[1]
    if grads:
        return Finding(way, SHARED, str(sorted(map(sorted, grads))[0]))
    if values:
        pair = sorted(map(sorted, values))[0]
        word = (
            "torch's share memory, ours do not"
            if frozenset(pair) in other[1]
            else "ours share memory"
        )
        return Finding(way, word, str(pair))
    return None


def _differs(t: Tensor | None, u: Tensor | None, way: str, kind: str, name: str) -> Finding | None:
    if t is None or u is None:
        if (
            t is u
            or (t is None and u is not None and not u.any())
            or (u is None and t is not None and not t.any())
        ):
            # A gradient of zeros and none at all are the same to whoever adds it up.
            return None
        return Finding(way, kind, name, f"torch: {t}\nours: {u}")
    if t.dtype is not u.dtype or t.shape != u.shape:
        what = f"torch: {t.dtype}, {tuple(t.shape)}; ours: {u.dtype}, {tuple(u.shape)}"
        return Finding(way, f"{kind}: dtype or shape", name, what)
    with torch.no_grad():
        if torch.equal(t, u):
            return None
        if close(t, u):
            return None
        return Finding(way, kind, name, f"torch: {t.detach()}\nours: {u.detach()}")


def close(t: Tensor, u: Tensor, slack: float = 1.0) -> bool:
    """To the precision of the dtype, where a number of the order of the largest is not small."""
    if not t.is_floating_point():
        return torch.equal(t, u)
    tolerance, step = TOLERANCE[t.dtype] * slack, torch.finfo(t.dtype).eps
    t, u = t.detach().double(), u.detach().double()
    finite = t[t.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 1.0
    # What cancels is left with the rounding of what it was made of, here of the order of 1.
    room = max(tolerance * scale * 1e-2, 16 * step, 1e-12)
    return torch.allclose(u, t, rtol=tolerance, atol=room, equal_nan=True)


def _memory(t: Tensor) -> int:
    try:
        return t.untyped_storage().data_ptr()
    except RuntimeError:  # zeros that torch has not made up yet
        return id(t)


def _groups(outcome: Outcome) -> tuple[set[frozenset[str]], set[frozenset[str]]]:
    """Which gradients share memory with anything, and which values with one another."""
    holders: dict[int, list[str]] = {}
    for name, t in outcome.values.items():
        if t.numel():
            holders.setdefault(_memory(t), []).append(name)
    values = {frozenset((names[0], name)) for names in holders.values() for name in names[1:]}
    for name, g in outcome.above.items():
        if g.numel():
            holders.setdefault(_memory(g), []).append(name)
    grads: set[frozenset[str]] = set()
    given = outcome.gradients if outcome.own else {}
    for name, grad in given.items():
        if grad is not None and grad.numel():
            others = holders.setdefault(_memory(grad), [])
            grads |= {frozenset((other, f"{name}.grad")) for other in others}
            others.append(f"{name}.grad")
    return grads, values


# -------------------------------------------------------------------------------- is it a fault?

WIDE = {
    **SPACE,
    "randn": lambda seed, shape, dtype=torch.double: randn(seed, shape, dtype).double(),
    "rand": lambda seed, shape, dtype=torch.double: rand(seed, shape, dtype).double(),
}
NARROW = re.compile(r"torch\.(float32|float16|bfloat16|float|half)\b")


def widened(program: Program) -> Program:
    """The same program in float64, of the same numbers."""
    lines = [
        line
        if line.leaf and "randn" in line.source
        else replace(
            line, source=NARROW.sub("torch.double", line.source).replace(".float()", ".double()")
        )
        for line in program.lines
    ]
    return replace(program, lines=tuple(lines))


def part(outcome: Outcome, finding: Finding) -> Tensor | None:
    kind = finding.kind.partition(":")[0]
    found = {"value": outcome.values, "gradient": outcome.gradients, "second": outcome.second}
    return found[kind].get(finding.where)


def excused(program: Program, finding: Finding, ours: Outcome, theirs: Outcome) -> str:
    """Why a difference in numbers is none: rounding that the program itself makes large."""
    t, u = part(theirs, finding), part(ours, finding)
    if t is None or u is None or t.shape != u.shape or t.dtype is not u.dtype:
        return ""
    if POOLING.search(str(program.lines)) and not t.isfinite().all():
        both = t.isfinite() & u.isfinite()
        if close(t[both], u[both]) and not (u.isfinite() & ~t.isfinite()).any():
            return "nan spreads in pooling"  # as docs/differences.md says
    narrow = any(
        v.dtype in (torch.float, torch.half, torch.bfloat16) for v in theirs.values.values()
    )
    if narrow:
        wide = widened(program)
        exact, mine = (run(wide, w, WIDE, above=theirs.above) for w in ("torch", finding.way))
        if exact.error is None and mine.error is None:
            a, b = part(exact, finding), part(mine, finding)
            if a is not None and b is not None and a.shape == t.shape and close(a, b):
                error = (u.detach().double() - a.detach().double()).abs().max()
                other = (t.detach().double() - a.detach().double()).abs().max()
                if not t.is_floating_point():
                    return "no less precise than torch"  # it was rounded apart
                step = torch.finfo(t.dtype).eps * a.detach().abs().max()
                torch_s = not other.isfinite() and close(a, u.to(a.dtype), 1e4)
                if not error.isfinite() or error <= 4 * other + 8 * step or torch_s:
                    return "no less precise than torch"
    coarse = [v.dtype for v in theirs.values.values() if v.is_floating_point()]
    nudge = 4 * max((torch.finfo(d).eps for d in coarse), default=1e-16)
    before, spread = t.detach().double(), 0.0
    for seed in range(6):
        other_run = run(program, "torch", nudge=nudge, seed=seed, apart=seed >= 4)
        if seed >= 4 and other_run.error is not None:  # it needs a leaf's strides
            continue
        if other_run.error is not None or (moved := part(other_run, finding)) is None:
            return ""
        if moved.shape != t.shape:
            return "a tie"
        spread = max(spread, _gap(moved.detach().double(), before))
    finite = before[before.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 0.0
    room = 30 * spread + TOLERANCE.get(t.dtype, 0) * scale
    return "ill-conditioned" if _gap(u.detach().double(), before) <= room else ""


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite where one of two is finite, or nan."""
    same = (a == b) | (a.isnan() & b.isnan())
    return (a - b).abs().masked_fill(same, 0).nan_to_num(nan=math.inf).max().item()


def check(program: Program, ways: tuple[str, ...] = ("intercept", "tape")) -> list[Finding]:
    """What differs from torch when it runs by formula."""
    theirs = run(program, "torch")
    found = []
    for way in ways:
        if way == "tape" and (program.second or program.joint):
            continue
        with by_onednn() if program.onednn else contextlib.nullcontext():
            ours = run(program, way)
        finding = compare(program, way, theirs, ours)
        if finding is None:
            continue
        if finding.kind in NUMBERS:
            reason = excused(program, finding, ours, theirs) or known(program, way, ours)
        else:
            reason = known(program, way, ours) if finding.kind == SHARED else ""
        if reason:
            finding = replace(finding, kind=reason)
        found.append(finding)
    return found


def known(program: Program, way: str, ours: Outcome) -> str:
    """Why a difference in numbers is not a fault: it is documented, or begins with a rounding."""
    theirs = run(program, "documented")
    finding = compare(program, way, theirs, ours)
    if finding is None or (finding.kind in NUMBERS and excused(program, finding, ours, theirs)):
        return "as docs/differences.md says"
    if finding.kind == "second" and any("detach_()" in line.source for line in program.lines):
        lines = (
            replace(x, source=x.source.replace("detach_()", "detach()")) for x in program.lines
        )
        other = replace(program, lines=tuple(lines))
        if compare(other, way, run(other, "torch"), run(other, way)) is None:
            return "as docs/differences.md says"
    if finding.kind == "value" and rounded_apart(program, way):
        return "ill-conditioned"
    return ""


def rounded_apart(program: Program, way: str) -> bool:
    """Whether torch gives our value too, of the values that ours was computed from.

    Those are as close to torch's as rounding allows, as 1e-16 is to 0, and log is not close there.
    """
    for i in range(len(program.lines)):
        before, until = (
            replace(program, lines=program.lines[:n], costs=(), twice=False) for n in (i, i + 1)
        )
        ours = run(until, way)
        if compare(until, way, run(until, "torch"), ours) is None:
            continue
        space = {**SPACE, "reverse": TorchReverse.apply}
        space |= {n: t.detach().clone() for n, t in run(before, way).values.items()}
        torch.default_generator.manual_seed(0)
        try:
            exec(program.lines[i].code, space)
        except Exception:
            return False
        names = program.lines[i].defines
        return bool(names) and all(close(space[n], ours.values[n]) for n in names)
    return False


@contextlib.contextmanager
def by_onednn() -> Iterator[None]:
    """oneDNN multiplies whatever it can, as small as it is and on every processor."""
    large, slow = products.LARGE, products._mkl_is_slow
    products.LARGE, products._mkl_is_slow = 1, lambda: True
    try:
        yield
    finally:
        products.LARGE, products._mkl_is_slow = large, slow


#: the kind of what may be changed from outside
SHARED = "a gradient shares memory"
#: the kinds of what differs in numbers alone
NUMBERS = ("value", "gradient", "second")
#: not a fault: the tape says so itself, or there is nothing to be precise about
HARMLESS = (
    "as docs/differences.md says",
    "refuses",
    "takes more than torch",
    "nan spreads",
    "no less precise than torch",
    "ill-conditioned",
    "a tie",
)


def harmless(finding: Finding) -> bool:
    return finding.kind.startswith(HARMLESS)


# ----------------------------------------------------------------------------------- shrinking


def smaller(program: Program) -> Iterator[Program]:
    """Programs with a little less in them."""
    for flag in ("onednn", "retain", "accumulate", "second", "joint", "twice"):
        if getattr(program, flag):
            yield replace(program, **{flag: False})
    if program.costs:
        yield replace(program, costs=())
    for cost in program.costs if len(program.costs) > 1 else ():
        yield replace(program, costs=tuple(c for c in program.costs if c != cost), joint=False)
    lines = program.lines
    for i in range(len(lines) - 1, -1, -1):
        line = lines[i]
        rest = (*lines[:i], *lines[i + 1 :])
        if not line.leaf:
            used = set().union(*(other.uses for other in rest), program.costs)
            if not used.intersection(line.defines):
                yield replace(program, lines=rest)
            elif line.defines and set(line.defines).intersection(program.costs):
                for name in sorted(line.uses - set(line.defines) - set(program.leaves)):
                    costs = tuple(name if c in line.defines else c for c in program.costs)
                    if len(set(costs)) == len(costs):
                        yield pruned(replace(program, lines=rest, costs=costs), True)
    states = run(replace(program, costs=()), "torch").values
    for i, line in enumerate(lines):
        rest = (*lines[:i], *lines[i + 1 :])
        if line.leaf:
            t, name = states.get(line.defines[0]), line.defines[0]
            if t is None or not t.is_floating_point():
                continue
            plain = _leaf_line(name, t, t.requires_grad)
            if len(plain.source) < len(line.source):
                yield replace(program, lines=(*lines[:i], plain, *lines[i + 1 :]))
            if t.requires_grad:
                frozen = replace(line, source=line.source.replace(".requires_grad_()", ""))
                yield replace(program, lines=(*lines[:i], frozen, *lines[i + 1 :]))
        elif line.defines and all(
            n in states and states[n].is_floating_point() for n in line.defines
        ):
            for want in (True, False):  # begin with its value
                given = tuple(_leaf_line(n, states[n], want) for n in line.defines)
                costs = tuple(c for c in program.costs if c not in line.defines)
                if costs or not program.costs:
                    yield pruned(replace(program, lines=(*given, *rest), costs=costs))
            for name in line.uses - set(line.defines):
                if (
                    len(line.defines) == 1
                    and name in states
                    and (states[name].shape == states[line.defines[0]].shape)
                ):
                    yield pruned(_renamed(replace(program, lines=rest), line.defines[0], name))
        if line.source.startswith("with torch.no_grad(): "):
            source = line.source.removeprefix("with torch.no_grad(): ")
            yield replace(
                program, lines=(*lines[:i], replace(line, source=source), *lines[i + 1 :])
            )


def _leaf_line(name: str, t: Tensor, want: bool) -> Line:
    seed = int(name[1:])
    dtype = f", {t.dtype}" if t.dtype is not torch.double else ""
    source = f"{name} = randn({seed}, {tuple(t.shape)}{dtype})" + ".requires_grad_()" * want
    return Line(source, (name,), leaf=True)


def _renamed(program: Program, old: str, new: str) -> Program:
    pattern = re.compile(rf"\b{old}\b")
    lines = tuple(
        replace(
            line,
            source=pattern.sub(new, line.source),
            defines=tuple(new if n == old else n for n in line.defines),
        )
        for line in program.lines
    )
    return replace(
        program,
        lines=lines,
        costs=tuple(dict.fromkeys(new if c == old else c for c in program.costs)),
    )


def shrink(program: Program, finding: Finding, seconds: float = 10.0) -> tuple[Program, Finding]:
    """The smallest program found that goes wrong in the same way."""
    end = time.monotonic() + seconds
    program = pruned(program)
    going = True
    while going and time.monotonic() < end:
        going = False
        for candidate in smaller(program):
            candidate = pruned(candidate)
            try:
                found = [f for f in check(candidate, (finding.way,)) if f.label == finding.label]
            except Exception:
                continue
            if found and cost_of(candidate) < cost_of(program):
                program, finding, going = candidate, found[0], True
                break
            if time.monotonic() > end:
                break
    return program, finding


def cost_of(program: Program) -> tuple[int, int]:
    calls = sum(not line.leaf for line in program.lines)
    flags = program.retain + program.accumulate + program.second + program.joint + program.twice
    flags += program.onednn
    return (
        4 * calls + 2 * len(program.lines) + flags + len(program.costs),
        sum(len(line.source) for line in program.lines),
    )


# -------------------------------------------------------------------- finite differences as judge


TORCH = "finite differences agree with ours and not with torch"


def judged(program: Program, finding: Finding) -> str:
    """What finite differences say of a gradient on which torch and we differ."""
    unlike = any(word in str(program.lines) for word in ("no_grad", "detach", "hook", "reverse"))
    if finding.kind not in ("gradient", "second") or unlike:
        return ""
    second = finding.kind == "second"
    program = widened(replace(program, retain=False, accumulate=False, joint=False, second=second))
    theirs, ours = run(program, "torch", WIDE), run(program, finding.way, WIDE)
    if theirs.error or ours.error:
        return ""
    leaves = theirs.second if second else theirs.gradients
    directions = {
        n: randn(3 * SEED + i, tuple(theirs.values[n].shape)) for i, n in enumerate(leaves)
    }

    def dot(a: Tensor | None, b: Tensor) -> float:
        return 0.0 if a is None else (a.detach() * b).sum().item()

    def total(step: float) -> float:
        moved = {n: step * direction for n, direction in directions.items()}
        outcome = run(program, "torch", WIDE, moved=moved)
        if second:
            return sum(
                dot(g, _seed(i, g))
                for i, g in enumerate(outcome.gradients.values())
                if g is not None
            )
        return sum(
            dot(outcome.values[c], g)
            for c, g in zip(program.costs, theirs.above.values(), strict=True)
        )

    def along(outcome: Outcome) -> float:
        found = outcome.second if second else outcome.gradients
        return sum(dot(found.get(n), direction) for n, direction in directions.items())

    step = 1e-6
    numeric, mine, other = (total(step) - total(-step)) / (2 * step), along(ours), along(theirs)
    room = 1e-5 * max(abs(numeric), 1e-3)
    if abs(mine - numeric) < room and not abs(other - numeric) < room:
        return TORCH
    return (
        f"along one direction: finite differences {numeric:.8g}, torch {other:.8g}, ours {mine:.8g}"
    )


# ---------------------------------------------------------------------------------------- running


@dataclass
class Report:
    programs: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    #: the kind of fault → the numbers of the programs that have it
    found: dict[str, list[int]] = field(default_factory=dict)
    #: where finite differences say that torch is the one that is wrong
    torch: dict[str, list[int]] = field(default_factory=dict)
    #: a program for each
    told: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        return [path for path in calls() if not self.counts[path] and path != "Tensor.index"]

    def __str__(self) -> str:
        rate = self.programs / max(self.seconds, 1e-9)
        lines = [f"{self.programs:,} programs in {self.seconds:,.0f} s, {rate:.0f} a second"]
        lines += [
            f"{sum(self.counts.values()):,} calls; of the table's {len(calls())} functions "
            f"{len(calls()) - len(self.missing)} occurred"
        ]
        lines += [f"  never: {', '.join(self.missing)}"] if self.missing else []
        lines += [f"  {kind}: {n:,}" for kind, n in self.harmless.most_common()]
        lines += [f"  {len(n):,} × torch's own is wrong: {key}" for key, n in self.torch.items()]
        lines += [f"  {len(n):,} × {key}" for key, n in self.found.items()]
        lines += [] if self.found else ["nothing found"]
        return "\n".join(lines)


def hunt(
    seed: int,
    programs: int | None = None,
    seconds: float | None = None,
    first: int = 0,
    tell: Callable[[str], None] | None = None,
    shrinking: float = 10.0,
) -> Report:
    """Draw and check programs; each kind of fault is shrunk and told of as it is first seen."""
    report, begun = Report(), time.monotonic()
    number = first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while (programs is None or report.programs < programs) and (
            seconds is None or time.monotonic() - begun < seconds
        ):
            program = drawn(seed, number)
            report.counts.update(line.call for line in program.lines if not line.leaf)
            for finding in check(program):
                if harmless(finding):
                    report.harmless[finding.label] += 1
                    continue
                raised = "raises" in finding.kind and titled(program, finding)
                if raised in report.found:
                    report.found[raised].append(number)
                    continue
                small, finding = shrink(program, finding, shrinking)
                verdict = judged(small, finding)
                kept = report.torch if verdict == TORCH else report.found
                seen = kept.setdefault(titled(small, finding), [])
                seen.append(number)
                if len(seen) == 1:
                    report.told.append(told(seed, number, small, finding, verdict))
                    if tell:
                        tell(report.told[-1])
            number += 1
            report.programs += 1
    report.seconds = time.monotonic() - begun
    return report


def titled(program: Program, finding: Finding) -> str:
    """The kind of a fault, by which faults are counted."""
    what = ", ".join(sorted({line.call for line in program.lines if line.call}))
    if "raises" in finding.kind:
        message = finding.detail.partition("\n")[0].partition(": ")[2]
        what = re.sub(r"[\d\[\](), ]+", " ", message)[:70]
    return f"{finding.label}  ({what})"


def told(seed: int, number: int, program: Program, finding: Finding, verdict: str = "") -> str:
    head = f"# seed {seed}, program {number}: {finding.label}, {finding.where}"
    detail = "\n".join(
        f"#   {line}" for line in f"{finding.detail}\n{verdict}".strip().splitlines()
    )
    return f"{head}\n{detail}\n{program.text(finding.way).removeprefix(PREAMBLE).strip()}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--programs", type=int, help="how many, instead of how long")
    parser.add_argument("--only", type=int, help="print and check one program, by its number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.only is not None:
        program = drawn(options.seed, options.only)
        print(program.text("torch"))
        for finding in check(program):
            small, finding = shrink(program, finding)
            print(told(options.seed, options.only, small, finding, judged(small, finding)))
        return 0
    print(PREAMBLE)
    seconds = None if options.programs else 60 * options.minutes
    report = hunt(
        options.seed, options.programs, seconds, options.first, lambda text: print(text, flush=True)
    )
    print(report)
    return bool(report.found)


if __name__ == "__main__":
    sys.exit(main())
