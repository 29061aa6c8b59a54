"""What a formula saves for its backward pass, and how it is read there.

Autograd saves tensors; options, which are no tensors, stand beside them on ``ctx``. A value that
may be either is split when it is saved and merged again when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from manualbp.core.derivation import Derivation

Save = Callable[[Any, tuple[Any, ...], Any], None]
Saved = Callable[[Any], tuple[Any, ...]]


def saving(d: Derivation) -> tuple[Save, Saved]:
    """``save(ctx, arguments, output)`` and ``saved(ctx)`` of a formula."""
    keep, num_saved, num_tensors = d.keep, d.num_saved, d.num_saved_tensors
    multiple_outputs, differentiable = d.multiple_outputs, d.differentiable_outputs

    def save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
        outputs = output if multiple_outputs else (output,)
        values = keep(ctx.needs_input_grad, *arguments, *outputs)
        if num_tensors == num_saved:
            ctx.save_for_backward(*values)
        elif num_tensors is not None:
            ctx.save_for_backward(*values[:num_tensors])
            ctx.options = values[num_tensors:]
        else:
            ctx.save_for_backward(*map(_tensor, values))
            ctx.options = tuple(map(_option, values))
        if multiple_outputs:
            ctx.mark_non_differentiable(
                *(o for o, d in zip(outputs, differentiable, strict=True) if not d)
            )
            ctx.set_materialize_grads(False)  # the derived code does

    def saved(ctx: Any) -> tuple[Any, ...]:
        if num_tensors == num_saved:
            return ctx.saved_tensors
        if num_tensors is not None:
            return (*ctx.saved_tensors, *ctx.options)
        return _merge(ctx.saved_tensors, ctx.options)

    return save, saved


def save_for_both(d: Derivation, ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    """Save what all rules need, and the outputs, for the backward pass and for tangents.

    Both get the same tensors, because torch's vmap has one list of batch axes for the two.
    """
    outputs = output if d.multiple_outputs else (output,)
    values = d.keep((True,) * len(d.arguments), *arguments, *outputs)
    tensors = (*map(_tensor, values), *outputs)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.options = tuple(map(_option, values))


def saved_for_both(d: Derivation, ctx: Any) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """What :func:`save_for_both` saved: the values, and the outputs."""
    tensors = ctx.saved_tensors
    return _merge(tensors[: d.num_saved], ctx.options), tensors[d.num_saved :]


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _option(value: Any) -> Any:
    return None if isinstance(value, Tensor) else value


def _merge(tensors: Sequence[Tensor | None], options: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(o if t is None else t for t, o in zip(tensors, options, strict=True))
