"""Fewer numbers from many."""

import torch

from cases.table import *

TIES = fixed([[1.0, 3.0, 3.0], [-2.0, -2.0, -2.0], [0.0, -0.0, 0.0]])
ENDS = fixed([[1.0, NAN, 3.0], [INF, INF, 0.0], [-INF, 0.0, 1.0], [-INF, -INF, -INF]])
CONSTANT = fixed([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
ZEROS = fixed([[0.0, 2.0, 3.0], [2.0, 0.0, 3.0], [0.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
BOUND = {"saturated": "the slope itself is infinite or none there, as torch's"}


CASES = [
    row("sum", real(2, 4, 3)),
    row("sum", transposed(real(2, 4, 3)), (0, -1), keepdim=True, note="transposed"),
    row("sum", real(), 0),
    row("sum", real(0, 3), 0, without=EMPTY),
    row("sum", real(4, 3), dim=-1, dtype=torch.double),
    row("mean", real(2, 4, 3), 1),
    row("mean", real(2, 4, 3), (-1, 0)),
    row("mean", real(4, 3), dtype=torch.double),
    row("mean", real(0, 3), 0, without=EMPTY_MEAN),
    row("nansum", real(4, 3), 1, special=[(ENDS, 1)]),
    row("trace", real(4, 3)),
    row("logsumexp", real(), dim=(), note="of one number"),
    row("logsumexp", real(4, 3), 1, special=[(TIES, 1), (ENDS, 1)], without=BOUND),
    row("logsumexp", real(2, 4, 3), (0, -1), keepdim=True),
    row("cumsum", real(4, 3), 0, special=[(TIES, 1)]),
    row("cumsum", real(), -1, dtype=torch.double),
    row("prod", real(4, 3), special=[(TIES,), (CONSTANT,)]),
    row("prod", real(4, 3), 1, special=[(ZEROS, 1)]),
    row("prod", ZEROS, 1, note="zeros"),
    row("cumprod", real(5, 3), 0, special=[(ZEROS, 1), (ZEROS, 0)]),
    row("cumprod", ZEROS, -1, note="zeros"),
    row("cumprod", real(), 0),
    row("var", real(4, 3), special=[(CONSTANT,)]),
    row("var", real(2, 4, 3), (0, -1), correction=0),
    row("var", real(4, 3), 1, False, True),
    row("std", real(4, 3), False, special=[(CONSTANT,)]),
    row("std", real(2, 4, 3), (0, 1), keepdim=True, correction=2),
    row("var_mean", real(4, 3), 1, pick=0, keepdim=True),
    row("std_mean", real(4, 3), 0, pick=1, without={"thrifty": "the twin keeps all for either"}),
    row("norm", real(4, 3), special=[(TIES,), (CONSTANT,)]),
    row("norm", away_from(0, 4, 3), 1, 1, special=[(TIES, 1, 1)]),
    row("norm", real(4, 3), 3, 0, True, special=[(TIES, 3, 1), (CONSTANT, 3, 1)]),
    row("norm", away_from(0, 4, 3), 0.5, 1, special=[(ZEROS, 0.5, 1)], without=BOUND),
    row("norm", away_from(0, 4, 3), 1.5, (0, 1), special=[(CONSTANT, 1.5, 1)]),
    row("norm", real(4, 3), INF, -1, special=[(TIES, INF, 1), (ENDS, INF, 1)]),
    row("vector_norm", real(4, 3), twin=torch.linalg.vector_norm, dim=1),
    row("dist", real(4, 3), real(3), special=[(TIES, TIES)]),
    row("dist", real(4, 3), real(4, 1), 3),
    row("dist", real(4, 3), real(3), INF, special=[(TIES, TIES)]),
    row("amax", real(2, 4, 3), (0, -1), True, special=[(TIES, 1), (ENDS, 1)], without=BOUND),
    row("amin", real(4, 3), special=[(TIES,)]),
    row("aminmax", real(4, 3), dim=1, pick=0),
    row("max", real(4, 3), special=[(TIES,), (ENDS,)], without=BOUND),
    row("max", real(4, 3), 1, pick=0, special=[(TIES, 1), (ENDS, 1)]),
    row("max", real(4, 3), real(3), note="two"),
    row("min", real(4, 3), -2, True, pick=0, special=[(TIES, 1)]),
    row("min", real(4, 3), other=real(4, 1)),
    row("median", real(4, 3), 1, pick=0),
    row("nanmedian", real(4, 3), special=[(ENDS,)]),
    row("kthvalue", real(4, 3), 2, pick=0),
    row("topk", real(4, 5), 3, pick=0),
    row("topk", real(4, 3), 2, 0, False, pick=0),
    row("sort", real(4, 3), 0, True, pick=0),
]
