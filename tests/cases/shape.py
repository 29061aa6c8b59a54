"""The same numbers in other places."""

from dataclasses import replace

import torch

from cases.table import *
from manualbp import functional

ROWS = fixed([2, 0, 2], torch.long)
PLACES = fixed([[2, 0, 2], [1, 1, 0]], torch.long)
MASK = fixed([[True, False, True], [False, False, True], [True, True, True]], torch.bool)
MOVED = {"taped": "views and copies of torch alone, without a formula"}
COUNTED = {
    "per_example": "each example would have as many entries as its own mask",
    "jacobians": "torch cannot map over a mask",
    "compiled": "the shape depends on the numbers",
    "inference_mode": "the shape depends on the numbers",
    "on_cuda": "the mask is counted on the CPU",
}


def together(function: str, *tensors: Any, **options: Any) -> Case:
    """A function of a sequence of tensors."""

    def spread(of: Any) -> Any:
        def call(*given: Tensor, **options: Any) -> Tensor:
            return of(given, **options)

        call.__name__ = function
        return call

    made = row(function, *tensors, **options)
    return replace(made, ours=spread(getattr(functional, function)), theirs=spread(made.theirs))


def indexed(name: str, at: Callable[..., Any], *arguments: Any, **options: Any) -> Case:
    """x[at(…)], the indices being made of the arguments after x."""
    return Case(
        name=f"index-{name}",
        ours=lambda x, *i: functional.index(x, at(*i)),
        theirs=lambda x, *i: x[at(*i)],
        arguments=arguments,
        **options,
    )


CASES = [
    together("cat", real(2, 3), real(4, 3), real(0, 3)),
    together("cat", real(2, 3), transposed(real(2, 1)), dim=-1),
    together("concat", real(2, 3), constant(real(2, 3)), dim=1),
    together("stack", real(), real(), real(), dim=-1),
    together("hstack", real(2, 3), real(2, 1)),
    together("hstack", real(), real(3), note="rows"),
    together("vstack", real(3), real(2, 3)),
    row("flip", real(2, 3), (0, -1)),
    row("roll", real(2, 3), (1, -2), (0, 1)),
    row("rot90", real(2, 3)),
    row("tile", real(2, 3), (2,)),
    row("repeat", real(2, 3), (2, 1, 3), twin=Tensor.repeat),
    row("repeat", real(), (), twin=Tensor.repeat),
    row("repeat_interleave", real(2, 3), 3, -2, without=MOVED),
    row("repeat_interleave", real(1, 3), 2, 0, without=MOVED),
    row("repeat_interleave", real(2, 3), 1, 1, without=MOVED),
    row("repeat_interleave", real(2, 3), ROWS, dim=1, output_size=4,
        without={"per_example": "torch does not map over the numbers of copies"}),
    row("tril", real(2, 4, 3), -1),
    row("triu", real(4, 3)),
    row("diag", real(3), 1),
    row("diag", real(4, 3), -1, without=MOVED),
    row("diag_embed", real(2, 3), 1, 0, -1),
    row("index", real(3, 4), ROWS, twin=Tensor.__getitem__),
    row("index", real(3), fixed([], torch.long), twin=Tensor.__getitem__),
    row("index", real(3, 3, 2), MASK, twin=Tensor.__getitem__, note="mask", without=COUNTED),
    row("index", real(3, 3), MASK, twin=Tensor.__getitem__, note="mask", without=COUNTED),
    indexed("after a slice", lambda i: (slice(1, None), i), real(3, 4), ROWS),
    indexed("apart", lambda i, j: (i, 0, ..., None, j), transposed(real(3, 2, 3, 3)), ROWS, ROWS),
    indexed("mask at the end", lambda m: (..., m), real(2, 3, 3), MASK, without=COUNTED),
    indexed("list", lambda: (slice(None), [1, 0, 1]), real(2, 3),
            without={"on_cuda": "a list is copied to the device, which waits"}),
    indexed("four", lambda *i: i, real(3, 3, 3, 3), ROWS, ROWS, PLACES, ROWS),
    row("index_select", real(3, 4), 0, ROWS),
    row("gather", real(4, 3), -2, PLACES, note="fewer"),
    row("take_along_dim", real(1, 3, 2), fixed([[[2], [0]], [[1], [1]]], torch.long), 1),
    row("take_along_dim", real(2, 3), fixed([[-1, 0], [-3, 2]], torch.long), 1),
    row("masked_select", real(3), MASK, without=COUNTED),
    row("scatter", real(2, 3), 1, fixed([[2, 0], [1, 0]], torch.long), real(2, 2)),
    row("scatter", real(2, 3), 1, PLACES, value=2.5),
    row("scatter_add", real(2, 3), -1, PLACES, real(2, 3)),
    row("index_add", real(3, 2), 0, ROWS, real(3, 2), alpha=2.5),
    row("index_copy", real(3, 2), 0, fixed([2, 0], torch.long), real(2, 2)),
    row("index_fill", real(2, 3), 1, ROWS, 2.5),
    row("index_fill", real(2, 3), 1, ROWS, real()),
]  # fmt: skip


MODULES = [
    module("Flatten", inputs=(real(2, 3, 4),)),
    module("Flatten", 0, 1, inputs=(real(2, 3, 4),)),
    module("Unflatten", 1, (2, 2), inputs=(real(3, 4),)),
]
