"""What a formula saves between its forward and its backward pass, and gets back.

Autograd saves tensors; options, which are no tensors, stand beside them on ``ctx``. A value that
may be either is split when it is saved and put together again when it is read.
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
    keep, count, split, asked, several = d.keep, d.kept, d.split, d.asked, d.several

    def save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
        outputs = output if several else (output,)
        kept = keep(ctx.needs_input_grad, *arguments, *outputs)
        if split == count:
            ctx.save_for_backward(*kept)
        elif split is not None:
            ctx.save_for_backward(*kept[:split])
            ctx.options = kept[split:]
        else:
            ctx.save_for_backward(*map(_tensor, kept))
            ctx.options = tuple(map(_option, kept))
        if several:
            ctx.mark_non_differentiable(
                *(o for o, differentiable in zip(outputs, asked, strict=True) if not differentiable)
            )
            ctx.set_materialize_grads(False)  # the derived code does

    def saved(ctx: Any) -> tuple[Any, ...]:
        if split == count:
            return ctx.saved_tensors
        if split is not None:
            return (*ctx.saved_tensors, *ctx.options)
        return _together(ctx.saved_tensors, ctx.options)

    return save, saved


def save_for_both(d: Derivation, ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    """Save what all rules need, and the outputs, for the backward pass and for tangents.

    The same tensors twice, since torch's vmap has one list of axes for both.
    """
    outputs = output if d.several else (output,)
    kept = d.keep((True,) * len(d.arguments), *arguments, *outputs)
    tensors = (*map(_tensor, kept), *outputs)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.options = tuple(map(_option, kept))


def saved_for_both(d: Derivation, ctx: Any) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """What :func:`save_for_both` saved: the values, and the outputs."""
    tensors = ctx.saved_tensors
    return _together(tensors[: d.kept], ctx.options), tensors[d.kept :]


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _option(value: Any) -> Any:
    return None if isinstance(value, Tensor) else value


def _together(tensors: Sequence[Tensor | None], options: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(o if t is None else t for t, o in zip(tensors, options, strict=True))
