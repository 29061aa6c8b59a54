"""Dropout."""

from __future__ import annotations

import warnings

from torch import Tensor

from manualbp import formulas
from manualbp.core.formula import Formula
from manualbp.tape.in_place import inplace_

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """a = z ⊙ m / (1 − p), m = 0 with probability ``p``; drawn as torch draws it.

    Raises:
        ValueError: ``p`` is no probability.
    """
    return _dropped(formulas.Dropout, input, p, training, inplace)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels: of (N, C, L), or (C, L) a single example."""
    if input.dim() not in (2, 3):
        raise RuntimeError(f"dropout1d: expected 2 or 3 axes, but got shape {tuple(input.shape)}")
    return _dropped(formulas.FeatureDropout, input, p, training, inplace, input.dim() - 1)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels: of (N, C, H, W); three axes are (N, C, L), as in torch."""
    if input.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout "
            "behavior is desired - input is interpreted as shape (N, C, L). To keep to that, use "
            "dropout1d instead.",
            stacklevel=2,
        )
    elif input.dim() != 4:
        _warn_of_axes("dropout2d", input)
    return _dropped(formulas.FeatureDropout, input, p, training, inplace, 2)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """``dropout`` of whole channels: of (N, C, D, H, W), or (C, D, H, W) a single example."""
    if input.dim() not in (4, 5):
        _warn_of_axes("dropout3d", input)
    axes = 2 if input.dim() == 5 else 1
    return _dropped(formulas.FeatureDropout, input, p, training, inplace, axes)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """``dropout`` to the SELU's limit for z → −∞, keeping mean 0 and variance 1.

    Raises:
        ValueError: ``p`` is no probability.
    """
    return _dropped(formulas.AlphaDropout, input, p, training, inplace, None)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """``alpha_dropout`` of whole channels: of (N, C, ...)."""
    return _dropped(formulas.AlphaDropout, input, p, training, inplace, 2)


def _dropped(
    formula: type[Formula],
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    *options: int | None,
) -> Tensor:
    """``options``: for FeatureDropout, how many of the first axes have a draw for each index."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.numel() == 0:
        # torch returns a view of a single example, and a batch itself.
        return input.view_as(input) if options == (1,) and not inplace else input
    if p == 1:  # all zeros, without a draw
        formula, options = formulas.Dropout, ()
    elif any(axes is not None and input.dim() < axes for axes in options):
        raise RuntimeError(
            "Feature dropout requires at least 2 dimensions in the input, "
            f"but got shape {tuple(input.shape)}"
        )
    if inplace:
        return inplace_(formula, input, p, *options)
    return formula.apply(input, p, *options)[0]


def _warn_of_axes(name: str, input: Tensor) -> None:
    warnings.warn(
        f"{name}: Received a {input.dim()}-D input to {name}, which is deprecated and will result "
        "in an error in a future release. To retain the behavior and silence this warning, please "
        "use dropout instead.",
        stacklevel=3,
    )
