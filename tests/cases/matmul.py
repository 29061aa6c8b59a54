"""Products of matrices."""

import torch

from cases.table import *
from manualbp import functional


def einsum(*args, note: str = "", without: dict[str, str] | None = None) -> Case:
    """Equations stand first, so they are bound; the operands are the arguments."""
    equation, *operands = args
    return Case(
        f"einsum-{equation}{note}",
        ours=partial_einsum(functional.einsum, equation),
        theirs=partial_einsum(torch.einsum, equation),
        arguments=tuple(operands),
        without=without or {},
    )


def partial_einsum(function, equation):
    def einsum(*operands):
        return function(equation, *operands)

    return einsum


def subscripts(function):
    def einsum(a, b):
        return function(a, [..., 0, 30], b, [30, 1], [1, ..., 0])

    return einsum


CASES = [
    row("matmul", real(4, 3), real(3, 5)),
    row("matmul", real(3), real(3)),
    row("matmul", real(3), real(3, 2)),
    row("matmul", real(4, 3), real(3)),
    row("matmul", real(2, 4, 3), real(3, 2)),
    row("matmul", real(2, 4, 3), real(3)),
    row("matmul", real(3), real(2, 3, 4)),
    row("matmul", real(4, 3), real(2, 3, 2)),
    row("matmul", real(2, 1, 2, 3), real(3, 3, 2)),
    row("matmul", transposed(real(2, 4, 3)), transposed(real(2, 3, 4)), note="transposed"),
    row("matmul", real(4, 3), constant(real(3, 5)), note="data"),
    row("matmul", real(0, 4, 3), real(0, 3, 2), without=EMPTY),
    row("matmul", real(4, 0), real(0, 2), without=EMPTY),
    row("mm", transposed(real(4, 3)), real(3, 2), note="transposed"),
    row("bmm", real(2, 4, 3), real(2, 3, 2)),
    row("mv", real(4, 3), real(3)),
    row("dot", real(3), real(3)),
    row("inner", real(2, 3), real(4, 3)),
    row("inner", real(3), real(3)),
    row("inner", real(), real(3)),
    row("outer", real(3), real(2)),
    row("addmm", real(4, 5), real(4, 3), real(3, 5)),
    row("addmm", real(5), real(4, 3), real(3, 5), beta=0.5, alpha=-2.0),
    row("addmv", real(4), real(4, 3), real(3), beta=0.5, alpha=2.0),
    row("addbmm", real(4, 5), real(2, 4, 3), real(2, 3, 5)),
    row("addbmm", real(4, 1), real(2, 4, 3), real(2, 3, 5), beta=0.5, alpha=2.0),
    row("baddbmm", real(2, 4, 5), real(2, 4, 3), real(2, 3, 5)),
    row("baddbmm", real(4, 1), real(2, 4, 3), real(2, 3, 5), beta=0.5, alpha=2.0),
    row("tensordot", real(2, 3, 4), real(3, 4, 2)),
    row("tensordot", real(2, 3), real(2), dims=0),
    row("tensordot", real(2, 3, 4), real(4, 2, 1), dims=([0, -1], [1, 0])),
    row("tensordot", real(2, 3), real(1, 4), dims=([1], [0]), note="stretched"),
    einsum("ij,jk->ik", real(4, 3), real(3, 2)),
    einsum("bij, bjk", real(2, 2, 3), real(2, 3, 2), note="-implicit"),
    einsum("...ij,...j->i...", real(2, 1, 2, 3), real(3, 3)),
    einsum("ij,kl->l", real(2, 3), real(2, 4), note="-summed alone"),
    einsum("ij,j->ij", real(2, 1), real(3), note="-stretched"),
    einsum("iij,jk->ik", real(2, 2, 3), real(3, 2), note="-diagonal"),
    einsum("ijk->ki", real(2, 3, 4)),
    row("tensordot", real(2, 3), real(3, 2), dims=([0, 1], [1, 0])),
    einsum("ii", real(3, 3)),
    einsum("bn,anm,bm->ba", real(2, 3), real(2, 3, 4), real(2, 4)),
    einsum("a,ab,bc,c->", real(2), real(2, 3), real(3, 2), real(2)),
    Case("einsum-subscripts", subscripts(functional.einsum), subscripts(torch.einsum),
         (real(2, 2, 3), real(3, 4))),
]  # fmt: skip
