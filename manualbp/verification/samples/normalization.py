"""Arguments of normalisation: at least two numbers are normalised together."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


def _affine(s: Source, *shape: int) -> tuple[Tensor | None, Tensor | None]:
    return s.maybe(lambda: s.tensor(*shape)), s.maybe(lambda: s.tensor(*shape))


def _epsilon(s: Source) -> float:
    return s.choice(0.1, 1e-5)


def _statistics(s: Source, channels: int) -> tuple[Tensor, Tensor]:
    """A mean and a variance of each channel."""
    mean = s.tensor(channels, strided=False)
    return mean, s.tensor(channels, low=0.3, high=2, strided=False)


@of(f.BatchNorm)
def _batch_norm(s: Source) -> Arguments:
    channels, positions = s.size(1, 3), s.sizes(0, 3)
    count = s.batch() if math.prod(positions) > 1 else s.size(2)
    repeated = 1
    if count == 1:  # instance_norm has the channels of all examples as channels of one
        repeated = s.size(1, 2)
    running = _statistics(s, channels) if s.boolean() else (None, None)
    affine = _affine(s, repeated * channels)
    image = s.tensor(count, repeated * channels, *positions)
    return image, *affine, *running, s.choice(0.1, 0.0, 1.0), _epsilon(s)


@of(f.FixedBatchNorm)
def _fixed_batch_norm(s: Source) -> Arguments:
    shape = s.shape(2, 5)
    affine = _affine(s, shape[1])
    return s.tensor(*shape), *affine, *_statistics(s, shape[1]), _epsilon(s)


@of(f.GroupNorm)
def _group_norm(s: Source) -> Arguments:
    groups, each, positions = s.size(1, 2), s.size(1, 3), s.sizes(0, 3)
    if math.prod(positions) * each == 1:
        each = 2
    weight, bias = _affine(s, groups * each)
    return s.tensor(s.batch(), groups * each, *positions), groups, weight, bias, _epsilon(s)


def _examples(s: Source) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a batch, and of what is normalised."""
    normalized = (*s.sizes(0, 1), s.size(2))
    return s.shape(0, 2), normalized


@of(f.LayerNorm)
def _layer_norm(s: Source) -> Arguments:
    batch, shape = _examples(s)
    return s.tensor(*batch, *shape), shape, *_affine(s, *shape), _epsilon(s)


@of(f.RMSNorm)
def _rms_norm(s: Source) -> Arguments:
    batch, shape = _examples(s)
    weight = s.maybe(lambda: s.tensor(*shape))
    return s.tensor(*batch, *shape), shape, weight, s.choice(0.1, 1e-5, None)


@of(f.LocalResponseNorm)
def _local_response_norm(s: Source) -> Arguments:
    options = s.integer(1, 5), s.choice(1e-4, 0.5), s.choice(0.75, 0.3), s.choice(1.0, 2.0)
    return s.tensor(*s.sizes(3, 4)), *options


@of(f.Normalize)
def _normalize(s: Source) -> Arguments:
    shape = s.sizes(1, 3)  # of no numbers there is no largest
    p = s.choice(2.0, 1.0, 3.0, math.inf, 0.5, 0.0)
    dim = s.axis(len(shape)) if s.boolean() else s.axes(len(shape), 1)
    # With the last ε no vector is that long.
    return s.nonzero(*shape), p, dim, s.choice(1e-12, 1e-4, 100.0)
