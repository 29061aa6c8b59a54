"""Matrix products."""

from __future__ import annotations

import math
from string import ascii_letters
from typing import Any

from torch import Tensor

from manualbp import formulas
from manualbp.functional._arithmetic import mul
from manualbp.functional._common import dealiased
from manualbp.functional._linear import linear
from manualbp.functional._reduction import sum

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "baddbmm",
    "bmm",
    "dot",
    "einsum",
    "inner",
    "matmul",
    "mm",
    "mv",
    "outer",
    "tensordot",
]


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """z = A B: (\\*, n, k) × (\\*, k, m) → (\\*, n, m), the batches \\* broadcast.

    A vector is a row on the left and a column on the right, and z then lacks that axis.
    """
    if input.dim() == 0 or other.dim() == 0:
        raise RuntimeError(
            f"matmul: both arguments need to be at least 1-D, but they are {input.dim()}-D and "
            f"{other.dim()}-D"
        )
    if other.dim() <= 2 < input.dim():  # one matrix for the whole batch: a linear function
        return linear(input, other.mT if other.dim() == 2 else other)
    return formulas.MatMul.apply(input, dealiased(other, input))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """z = A B: (n, k) × (k, m) → (n, m)."""
    _check("mm", (input, 2), (mat2, 2))
    return formulas.MatMul.apply(input, dealiased(mat2, input))


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """z = A B, example by example: (b, n, k) × (b, k, m) → (b, n, m)."""
    _check("bmm", (input, 3), (mat2, 3))
    _same_batch("bmm", input, mat2)
    return formulas.MatMul.apply(input, dealiased(mat2, input))


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """z = A b: (n, k) × (k) → (n)."""
    _check("mv", (input, 2), (vec, 1))
    return formulas.MatVec.apply(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """z = Σᵢ aᵢ bᵢ: (n) × (n) → number."""
    _check("dot", (input, 1), (tensor, 1))
    return formulas.MatVec.apply(input, tensor)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """z = Σᵢ aᵢ bᵢ over the last axis of each: (\\*, n) × (\\*', n) → (\\*, \\*')."""
    if input.dim() == 0 or other.dim() == 0:
        return mul(input, other)
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            f"inner: the last axes must be of one length, but the shapes are {list(input.shape)} "
            f"and {list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """zᵢⱼ = aᵢ bⱼ: (n) × (m) → (n, m)."""
    _check("outer", (input, 1), (vec2, 1))
    return mul(input.unsqueeze(1), vec2)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """z = β c + α A B: c broadcast, (n, k) × (k, m) → (n, m)."""
    _check("addmm", (mat1, 2), (mat2, 2))
    return formulas.AddMatMul.apply(input, mat1, mat2, beta, alpha, False)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """z = β c + α A b: c broadcast, (n, k) × (k) → (n)."""
    _check("addmv", (mat, 2), (vec, 1))
    return formulas.AddMatMul.apply(input, mat, vec, beta, alpha, False)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """z = β c + α Σ A B over the batch: c broadcast, (b, n, k) × (b, k, m) → (n, m)."""
    _check("addbmm", (batch1, 3), (batch2, 3))
    _same_batch("addbmm", batch1, batch2)
    return formulas.AddMatMul.apply(input, batch1, batch2, beta, alpha, True)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """z = β c + α A B, example by example: c broadcast, (b, n, k) × (b, k, m) → (b, n, m)."""
    _check("baddbmm", (batch1, 3), (batch2, 3))
    _same_batch("baddbmm", batch1, batch2)
    return formulas.AddMatMul.apply(input, batch1, batch2, beta, alpha, False)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """z = Σ a b over pairs of axes: the last ``dims`` of a with the first of b, or two lists.

    The other axes of a come first in z, then those of b.
    """
    if out is not None:
        raise ValueError("tensordot: a formula writes into no given tensor; leave out `out`")
    if isinstance(dims, Tensor):
        dims = dims.tolist() if dims.numel() > 1 else int(dims.item())
    if isinstance(dims, (tuple, list)):
        ours, theirs = ([d % t.dim() for d in given] for t, given in zip((a, b), dims, strict=True))
    elif 0 <= dims <= min(a.dim(), b.dim()):
        ours, theirs = list(range(a.dim() - dims, a.dim())), list(range(dims))
    else:
        raise RuntimeError(
            f"tensordot: dims has to lie between 0 and the number of axes of a and of b, but it is "
            f"{dims} for {a.dim()} and {b.dim()} axes"
        )
    if len(ours) != len(theirs):
        raise RuntimeError(f"tensordot: expected two lists of one length, but dims is {dims}")
    if a.dtype is not b.dtype:
        raise RuntimeError(f"tensordot: expected one dtype, got {a.dtype} and {b.dtype}")
    for x, y in zip(ours, theirs, strict=True):  # a length of 1 broadcasts
        if b.shape[y] == 1 != a.shape[x]:
            a = sum(a, x, keepdim=True, dtype=a.dtype)
        elif a.shape[x] == 1 != b.shape[y]:
            b = sum(b, y, keepdim=True, dtype=b.dtype)
    free = [d for d in range(a.dim()) if d not in ours]
    others = [d for d in range(b.dim()) if d not in theirs]
    shape = [*(a.shape[d] for d in free), *(b.shape[d] for d in others)]
    if math.prod(shape) == 1 and [a.shape[d] for d in ours] == [b.shape[d] for d in theirs]:
        # torch computes a single number by dot, which has another precision under autocast.
        vectors = a.permute(*free, *ours).reshape(-1), b.permute(*theirs, *others).reshape(-1)
        return dot(*vectors).reshape(shape)
    i, j = list(ascii_letters[: a.dim()]), list(ascii_letters[a.dim() : a.dim() + b.dim()])
    for x, y in zip(ours, theirs, strict=True):
        j[y] = i[x]
    k = [c for c in i if c not in j] + [c for c in j if c not in i]
    return _contracted(a, "".join(i), b, "".join(j), "".join(k), entrywise=False)


def _contracted(a: Tensor, i: str, b: Tensor, j: str, k: str, entrywise: bool) -> Tensor:
    """zₖ = Σ aᵢ bⱼ: i, j and k have a letter for each axis; those that k lacks are summed over.

    It is a matrix product; if nothing is summed and ``entrywise``, a pointwise product.
    """
    for c in [c for c in i if c in j]:
        n, m = a.shape[i.index(c)], b.shape[j.index(c)]
        if n != m and 1 not in (n, m):
            raise RuntimeError(
                f"axes {i.index(c)} and {j.index(c)} of the operands go together, but their "
                f"lengths are {n} and {m}"
            )
        if n == 1 != m:  # a length of 1 broadcasts
            a, i = a.squeeze(i.index(c)), i.replace(c, "")
        elif m == 1 != n:
            b, j = b.squeeze(j.index(c)), j.replace(c, "")
    alike = a.dtype is b.dtype
    a, i = _sum_unneeded(a, i, j + k)
    b, j = _sum_unneeded(b, j, i + k)
    if alike and a.dtype is not b.dtype:  # the sum of integers is int64
        a, b = a.long(), b.long()
    batch, inner = [c for c in i if c in j and c in k], [c for c in i if c in j and c not in k]
    left, right = [c for c in i if c not in j], [c for c in j if c not in i]
    sizes = dict(zip(i + j, a.shape + b.shape, strict=True))
    outer = [sizes[c] for c in batch + left + right]
    batches, rows, middle, columns = (
        math.prod([sizes[c] for c in group]) for group in (batch, left, inner, right)
    )
    lead = [batches] if batch else []
    a = a.permute([i.index(c) for c in batch + left + inner]).reshape(*lead, rows, middle)
    b = b.permute([j.index(c) for c in batch + inner + right]).reshape(*lead, middle, columns)
    z = mul(a, b) if entrywise and not inner else formulas.MatMul.apply(a, b)
    return z.reshape(outer).permute([(batch + left + right).index(c) for c in k])


def _sum_unneeded(t: Tensor, letters: str, needed: str) -> tuple[Tensor, str]:
    """``t`` summed over the axes whose letters are not needed, and its letters."""
    alone = [axis for axis, c in enumerate(letters) if c not in needed]
    kept = "".join(c for c in letters if c in needed)
    if not alone:
        return t, letters
    whole = not (t.is_floating_point() or t.is_complex())  # torch sums integers in int64
    return sum(t, alone, dtype=None if whole else t.dtype), kept


def einsum(*args: Any) -> Tensor:
    """Σ of products of the operands, entry by entry, over the letters that the output lacks.

    ``einsum("ij,jk->ik", A, B)``, or with lists of integers in place of letters. As
    ``torch.einsum``, but pairs are contracted from the left.
    """
    equation, operands = _as_equation(args)
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    written = inputs.split(",")
    if len(written) != len(operands):
        raise ValueError(
            f"einsum: the equation '{equation}' is about {len(written)} operands, but there are "
            f"{len(operands)}"
        )
    terms, batch = _without_ellipsis(equation, written, operands)
    if arrow:
        output = output.replace("...", batch)
    else:
        seen = "".join(terms)
        once = (c for c in set(seen) if seen.count(c) == 1 and c not in batch)
        output = batch + "".join(sorted(once))
    pairs = [_diagonal(t, o) for t, o in zip(terms, operands, strict=True)]
    (letters, value), *rest = pairs
    for place, (theirs, other) in enumerate(rest, 1):
        needed = set(output).union(*(t for t, _ in rest[place:]))
        result = "".join(c for c in dict.fromkeys(letters + theirs) if c in needed)
        value, letters = _contracted(value, letters, other, theirs, result, True), result
    value, letters = _sum_unneeded(value, letters, output)
    if sorted(letters) != sorted(output):
        raise RuntimeError(
            f"einsum: the output of '{equation}' has a letter twice, or one that no operand has"
        )
    return value.permute([letters.index(c) for c in output])


def _as_equation(args: tuple[Any, ...]) -> tuple[str, list[Tensor]]:
    """The operands, and the equation in letters, from either of torch's notations."""
    if len(args) < 2:
        raise ValueError(
            "einsum: expected an equation and its operands, or operands each with its list of "
            "subscripts"
        )
    if not isinstance(args[0], Tensor):
        equation, operands = args[0], args[1:]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        return equation, list(operands)
    count = len(args) // 2 * 2
    equation = ",".join("".join(map(_letter, s)) for s in args[1:count:2])
    if len(args) > count:
        equation += "->" + "".join(map(_letter, args[-1]))
    return equation, list(args[:count:2])


def _letter(subscript: Any) -> str:
    if subscript is Ellipsis:
        return "..."
    if not 0 <= subscript < 52:
        raise ValueError(f"einsum: subscripts lie between 0 and 51, but one is {subscript}")
    return chr(ord("A") + subscript) if subscript < 26 else chr(ord("a") + subscript - 26)


def _without_ellipsis(
    equation: str, terms: list[str], operands: list[Tensor]
) -> tuple[list[str], str]:
    """Each operand's subscripts with a letter for every axis, and the letters of "..."."""
    counts = []
    for term, operand in zip(terms, operands, strict=True):
        named = len(term.replace("...", ""))
        if named > operand.dim() or ("..." not in term and named < operand.dim()):
            raise ValueError(
                f"einsum: '{term}' in '{equation}' does not fit an operand of {operand.dim()} axes"
            )
        counts.append(operand.dim() - named)
    free = [c for c in ascii_letters if c not in equation]
    batch = "".join(free[: max(counts)])
    full = [
        term.replace("...", batch[len(batch) - count :])
        for term, count in zip(terms, counts, strict=True)
    ]
    return full, batch


def _diagonal(letters: str, operand: Tensor) -> tuple[str, Tensor]:
    """The diagonal of axes that share a letter, so that each letter occurs once."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            i = letters.index(letter)
            j = letters.index(letter, i + 1)
            if operand.shape[i] != operand.shape[j]:
                raise RuntimeError(
                    f"einsum: '{letter}' stands for axes of lengths {operand.shape[i]} and "
                    f"{operand.shape[j]} of one operand"
                )
            operand = operand.diagonal(0, i, j).movedim(-1, i)
            letters = letters[:j] + letters[j + 1 :]
    return letters, operand


def _check(name: str, *expected: tuple[Tensor, int]) -> None:
    if any(t.dim() != axes for t, axes in expected):
        wanted = " and ".join(f"{axes}-D" for _, axes in expected)
        found = " and ".join(f"{t.dim()}-D" for t, _ in expected)
        raise RuntimeError(f"{name}: expected tensors that are {wanted}, but they are {found}")


def _same_batch(name: str, left: Tensor, right: Tensor) -> None:
    if left.shape[0] != right.shape[0]:
        raise RuntimeError(
            f"{name}: expected one batch size, but they are {left.shape[0]} and {right.shape[0]}"
        )
