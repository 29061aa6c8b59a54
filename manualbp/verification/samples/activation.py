"""Arguments of the activations."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import SURROGATES, of

Arguments = tuple[Any, ...]


@of(f.Sigmoid, f.Tanh)
def _saturating(s: Source) -> Arguments:
    # Farther from 0 their value has no digits left of the slope in half precision.
    return (s.tensor(*s.shape()),)


@of(f.ReLU, f.Tanhshrink, f.SELU, f.SiLU, f.Mish, f.Softsign, f.LogSigmoid)
def _plain(s: Source) -> Arguments:
    return (s.tensor(*s.shape(), low=-4, high=4),)


@of(f.ReLU6, f.Hardsigmoid, f.Hardswish)
def _bent_twice(s: Source) -> Arguments:
    return (s.tensor(*s.shape(), low=-5, high=8),)


@of(f.Hardtanh)
def _hardtanh(s: Source) -> Arguments:
    low = s.number(-1, 0.5)
    return s.tensor(*s.shape()), low, low + s.number(0.2, 1)


@of(f.Threshold)
def _threshold(s: Source) -> Arguments:
    return s.tensor(*s.shape()), s.number(-1, 1), s.number(-2, 2)


@of(f.Hardshrink, f.Softshrink)
def _shrink(s: Source) -> Arguments:
    return s.tensor(*s.shape()), s.number(0, 1)


@of(f.LeakyReLU)
def _leaky_relu(s: Source) -> Arguments:
    return s.tensor(*s.shape()), s.choice(0.01, 0.3, -0.5)


@of(f.PReLU)
def _prelu(s: Source) -> Arguments:
    if s.boolean():
        shape = s.shape(2, 4)
        return s.tensor(*shape), s.tensor(shape[1])
    return s.tensor(*s.shape()), s.tensor(*s.choice((1,), ()))


@of(f.RReLU)
def _rrelu(s: Source) -> Arguments:
    low = s.number(0, 0.5)
    return s.tensor(*s.shape()), low, low + s.choice(0.3, 0.0)


@of(f.ELU)
def _elu(s: Source) -> Arguments:
    return s.tensor(*s.shape(), low=-4, high=4), s.choice(1.0, 0.5, -0.7)


@of(f.CELU)
def _celu(s: Source) -> Arguments:
    return s.tensor(*s.shape(), low=-4, high=4), s.choice(1.0, 0.5, -0.7)


@of(f.GELU)
def _gelu(s: Source) -> Arguments:
    return s.tensor(*s.shape(), low=-4, high=4), s.choice("none", "tanh")


@of(f.Softplus)
def _softplus(s: Source) -> Arguments:
    return s.tensor(*s.shape(), low=-4, high=4), s.choice(1.0, 2.0, 0.5), s.choice(20.0, 1.5)


@of(f.GLU)
def _glu(s: Source) -> Arguments:
    shape = list(s.shape(1, 4))
    dim = s.axis(len(shape))
    shape[dim] *= 2
    return s.tensor(*shape), dim


@of(f.Softmax, f.Softmin, f.LogSoftmax)
def _along_an_axis(s: Source) -> Arguments:
    shape = s.shape(0, 4)
    return s.tensor(*shape), s.axis(len(shape))


@of(f.StraightThrough)
def _straight_through(s: Source) -> Arguments:
    shape = s.sizes(0, 4)  # of none there is no largest
    return s.tensor(*shape), s.axis(len(shape))


@of(f.GumbelSoftmax)
def _gumbel_softmax(s: Source) -> Arguments:
    shape = s.shape(1, 3)
    return s.tensor(*shape), s.number(0.5, 2), s.axis(len(shape))


SURROGATES[f.StraightThrough] = lambda input, dim: input
