"""Distances and similarities of vectors."""

import torch
from torch import Tensor

from cases.table import *


def all_pairs(x1: Tensor, x2: Tensor, p: float = 2.0, **_: object) -> Tensor:
    """torch's cdist, in operations that have a second derivative."""
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def each_pair(input: Tensor, p: float = 2) -> Tensor:
    """torch's pdist, in operations that have a second derivative."""
    i, j = torch.triu_indices(len(input), len(input), 1, device=input.device).unbind()
    return torch.linalg.vector_norm(input[i] - input[j], p, -1)


#: of torch's kernels themselves, beside which the rows with a twin are the rest
ONCE = {
    "second_order": "torch has no second derivative of it",
    "jacobians": "torch has no second derivative of it",
    "forward_mode": "torch has no tangent of it",
    "dtypes": "torch has no bfloat16 of it",
}
PDIST = {
    "dtypes": "torch has no bfloat16 of it",
    "per_example": "torch warns that it loops",
}
PRODUCTS = "use_mm_for_euclid_dist"
EXACT = "donot_use_mm_for_euclid_dist"
EQUAL = fixed([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), fixed([[1e-6] * 3, [1.0, 1.0, 1.0]])
SHORT = fixed([[0.0, 0.0, 0.0], [1e3, 1.0, -1e3]]), fixed([[1.0, 2.0, 3.0], [1e-3, 0.0, 1.0]])

#: of the rows beside another twin than torch's function
NO_TWIN = {"precision": "the twin keeps digits that torch loses too, or has dtypes that it lacks"}

CASES = [
    *(row("pairwise_distance", real(4, 3), real(4, 3), p=p)
      for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF)),
    row("pairwise_distance", real(4, 3), real(3), keepdim=True),
    row("pairwise_distance", real(3), real(3)),
    row("pairwise_distance", real(2, 3), real(2, 3), note="special", special=[EQUAL]),
    row("cosine_similarity", real(4, 3), real(4, 3)),
    row("cosine_similarity", real(2, 3, 4), real(3, 1), dim=-2),
    row("cosine_similarity", real(2, 3), real(2, 3), note="special", special=[SHORT]),
    *(row("cdist", real(4, 3), real(2, 3), p=p, without=ONCE)
      for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, INF)),
    row("cdist", real(2, 4, 3), real(5, 3), without=ONCE, note="broadcast"),
    row("cdist", real(4, 3), real(2, 3), twin=all_pairs, compute_mode=PRODUCTS,
        without=NO_TWIN),
    row("cdist", real(4, 3), real(2, 3), twin=all_pairs, compute_mode=EXACT,
        without={"dtypes": ONCE["dtypes"]} | NO_TWIN),
    row("cdist", real(3, 2), real(3, 2), p=2.0, note="special", special=[EQUAL], without=ONCE),
    *(row("pdist", real(4, 3), p=p, without=ONCE | PDIST) for p in (2, 3.0)),
    row("pdist", real(4, 3), twin=each_pair, without=PDIST | NO_TWIN),
    row("pdist", real(1, 3), without=ONCE | PDIST | EMPTY),
]  # fmt: skip

MODULES = [
    module("CosineSimilarity", inputs=(real(4, 3), real(4, 3))),
    module("PairwiseDistance", 1.5, keepdim=True, inputs=(real(4, 3), real(4, 3))),
]
