"""Gradients that are not the derivative on purpose, said by ``surrogate``; and references."""

import torch
import torch.nn.functional as F
from torch.autograd import Function

from manualbp.verification.catalogue.elementwise import GELU, Sigmoid
from manualbp.verification.catalogue.specimen import Specimen, fixed, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# --------------------------------------------------------------------------------- straight through


@right(single(4, 3, scale=2), met="a straight-through estimator", surrogate=lambda x: x)
class Round(Function):
    """A rounding whose gradient goes straight through"""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


@right(single(4, 3, scale=2), met="BinaryNet's sign, by hardtanh", surrogate=F.hardtanh)
class Sign(Function):
    """A sign with the gradient of a hard tanh"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() < 1)


@right(
    single(4, 3, scale=2),
    met="clipping with a gradient everywhere, so that nothing gets stuck",
    surrogate=lambda x: x,
)
class ClampThrough(Function):
    """A clamp whose gradient goes straight through"""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx, g):
        return g


@right(
    single(4, 3),
    8,
    met="fake quantisation: a gradient within the range alone",
    surrogate=lambda x, levels: x.clamp(-1, 1),
)
class Quantize(Function):
    """A fake quantisation with a gradient within its range"""

    @staticmethod
    def forward(ctx, x, levels):
        ctx.save_for_backward(x)
        return (x.clamp(-1, 1) * levels).round() / levels

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1), None


# ------------------------------------------------------------------------- gradients made otherwise


@right(
    single(4, 3),
    0.5,
    met="domain-adversarial training",
    surrogate=lambda x, strength: -strength * x,
)
class Reversal(Function):
    """A gradient reversal"""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -ctx.strength * g, None


@wrong(
    single(4, 3),
    0.5,
    met="a common slip: the strength forgotten",
    argument="x",
    says=r"2\.0* ?×",
    surrogate=lambda x, strength: -strength * x,
)
class ReversalStrength(Reversal):
    """A gradient reversal that forgets its strength"""

    @staticmethod
    def backward(ctx, g):
        return -g, None


@wrong(
    single(4, 3),
    0.5,
    met="a common slip: nothing is reversed",
    argument="x",
    says="sign",
    surrogate=lambda x, strength: -strength * x,
)
class ReversalSign(Reversal):
    """A gradient reversal that does not reverse"""

    @staticmethod
    def backward(ctx, g):
        return ctx.strength * g, None


@right(single(4, 3), met="equalised learning rates, StyleGAN's", surrogate=lambda x: 0.1 * x)
class Damped(Function):
    """An identity that damps its gradient"""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 0.1 * g


@right(
    single(4, 3),
    met="snnTorch's and SpikingJelly's: a spike with the slope of a fast sigmoid",
    surrogate=lambda u: u / (1 + 5 * u.abs()),
)
class Spike(Function):
    """A spike with the gradient of a fast sigmoid"""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u)

    @staticmethod
    def backward(ctx, g):
        (u,) = ctx.saved_tensors
        return g / (1 + 5 * u.abs()) ** 2


@wrong(
    single(4, 3),
    met="snnTorch's docstring said the gradient of a fast sigmoid, its code the identity",
    argument="u",
    surrogate=lambda u: u / (1 + 5 * u.abs()),
)
class SpikeIdentity(Spike):
    """A spike that is said to have the gradient of a fast sigmoid, and has the identity's"""

    @staticmethod
    def backward(ctx, g):
        return g


@wrong(
    single(4, 3),
    met="a common slip: the fast sigmoid's square forgotten",
    argument="u",
    surrogate=lambda u: u / (1 + 5 * u.abs()),
)
class SpikeSquare(Spike):
    """A spike whose gradient lacks the square of the fast sigmoid's"""

    @staticmethod
    def backward(ctx, g):
        (u,) = ctx.saved_tensors
        return g / (1 + 5 * u.abs())


def padded_lookup(index, weight):
    """What torch's padding_idx=0 is the derivative of."""
    keep = (torch.arange(len(weight)) != 0)[:, None]
    return torch.where(keep, weight, weight.detach())[index]


@right(
    fixed([[1, 3, 0], [0, 1, 4]], dtype=torch.int64),
    single(5, 3),
    met="padding_idx: the row of the padding learns nothing",
    surrogate=padded_lookup,
)
class PaddedEmbedding(Function):
    """An embedding whose padding gets no gradient"""

    @staticmethod
    def forward(ctx, index, weight):
        ctx.save_for_backward(index)
        ctx.rows = weight.shape[0]
        return weight[index]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        rows = g.reshape(-1, g.shape[-1])
        by_weight = g.new_zeros(ctx.rows, g.shape[-1]).index_add(0, index.reshape(-1), rows)
        return None, by_weight * (torch.arange(ctx.rows) != 0)[:, None]


# -------------------------------------------------------------------------------------- references


@right(real(4, 3), met="held to another implementation", reference=F.gelu)
def gelu(x):
    """A GELU beside torch's"""
    return GELU.apply(x)


@wrong(
    real(4, 3),
    met="a common slip: the default of approximate differs between two libraries",
    reference=lambda x: F.gelu(x, approximate="tanh"),
    says="value|reference",
)
def gelu_of_another_kind(x):
    """A GELU by erf beside a reference by tanh, whose value differs"""
    return GELU.apply(x)


@right(single(4, 3), met="held to torch's own function", reference=torch.sigmoid)
class SigmoidBesideTorch(Sigmoid):
    """A sigmoid beside torch's"""
