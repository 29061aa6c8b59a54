"""Blocks and whole models: residuals, recurrences, tied weights, a wrong layer deep inside."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.attention import Attention, AttentionScale
from manualbp.verification.catalogue.linear import Linear
from manualbp.verification.catalogue.normalization import GroupNorm, GroupNormMean, LayerNorm
from manualbp.verification.catalogue.specimen import Specimen, between, integers, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# ---------------------------------------------------------------------------------------- blocks


@right(single(4, 3), single(3, 3), met="the skip's gradient added")
class Residual(Function):
    """A residual block, x + tanh(x W)"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x + torch.tanh(x @ weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        delta = g * (1 - torch.tanh(x @ weight).square())
        return g + delta @ weight.T, x.T @ delta


@wrong(single(4, 3), single(3, 3), met="a common slip: the skip forgotten", argument="x")
class ResidualSkip(Residual):
    """A residual block whose gradient does not go through the skip"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        delta = g * (1 - torch.tanh(x @ weight).square())
        return delta @ weight.T, x.T @ delta


@right(real(5, 4), real(3, 4), met="one weight used twice, both uses counted")
class TiedAutoencoder(Function):
    """A tied autoencoder, tanh(x Wᵀ) W"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.tanh(x @ weight.T) @ weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        code = torch.tanh(x @ weight.T)
        delta = (g @ weight.T) * (1 - code.square())
        return delta @ weight, delta.T @ x + code.T @ g


@wrong(
    real(5, 4),
    real(3, 4),
    met="a common slip with tied weights: the decoder's use alone",
    argument="weight",
)
class TiedAutoencoderOnce(TiedAutoencoder):
    """A tied autoencoder whose weight's gradient counts one of its two uses"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        code = torch.tanh(x @ weight.T)
        delta = (g @ weight.T) * (1 - code.square())
        return delta @ weight, code.T @ g


# ------------------------------------------------------------------------------------ recurrences


@right(
    single(3, 8), single(3, 2), met="two outputs that depend on one another, gates in four parts"
)
class LSTMCell(Function):
    """An LSTM's cell, from its gates before activation"""

    @staticmethod
    def forward(ctx, gates, c):
        i, f, o, z = gates.chunk(4, 1)
        after = f.sigmoid() * c + i.sigmoid() * z.tanh()
        ctx.save_for_backward(gates, c)
        return o.sigmoid() * after.tanh(), after

    @staticmethod
    def parts(ctx, g_h, g_after, forgotten=None):
        gates, c = ctx.saved_tensors
        i, f, o, z = gates.chunk(4, 1)
        i, f, o, z = i.sigmoid(), f.sigmoid(), o.sigmoid(), z.tanh()
        after = f * c + i * z
        t = after.tanh()
        by_after = g_h * o * (1 - t * t) + g_after
        kept = c if forgotten is None else after
        by_gates = [
            by_after * z * i * (1 - i),
            by_after * kept * f * (1 - f),
            g_h * t * o * (1 - o),
            by_after * i * (1 - z * z),
        ]
        return torch.cat(by_gates, 1), by_after * f

    @staticmethod
    def backward(ctx, g_h, g_after):
        return LSTMCell.parts(ctx, g_h, g_after)


@wrong(
    single(3, 8),
    single(3, 2),
    met="a common slip: the new state for the old one",
    argument="gates",
)
class LSTMCellState(LSTMCell):
    """An LSTM's cell whose forget gate's gradient reads the new state"""

    @staticmethod
    def backward(ctx, g_h, g_after):
        return LSTMCell.parts(ctx, g_h, g_after, "after")


@wrong(
    single(3, 8),
    single(3, 2),
    met="a common slip: a single step tried, where no gradient arrives at the state",
    says="output|state|after|term",
)
class LSTMCellOutput(LSTMCell):
    """An LSTM's cell that ignores the gradient of its state"""

    @staticmethod
    def backward(ctx, g_h, g_after):
        return LSTMCell.parts(ctx, g_h, torch.zeros_like(g_after))


@right(between(0.2, 0.9, 4), real(4, 6), met="a linear recurrence, backwards in time")
class Scan(Function):
    """A linear recurrence hₜ = a hₜ₋₁ + xₜ"""

    @staticmethod
    def forward(ctx, a, x):
        h, states = torch.zeros_like(a), []
        for t in range(x.shape[1]):
            h = a * h + x[:, t]
            states.append(h)
        y = torch.stack(states, 1)
        ctx.save_for_backward(a, y)
        return y

    @staticmethod
    def backward(ctx, g):
        a, y = ctx.saved_tensors
        by_h, by_a, by_x = torch.zeros_like(a), torch.zeros_like(a), []
        for t in reversed(range(g.shape[1])):
            by_h = g[:, t] + a * by_h
            by_x.insert(0, by_h)
            if t > 0:
                by_a = by_a + by_h * y[:, t - 1]
        return by_a, torch.stack(by_x, 1)


@wrong(
    between(0.2, 0.9, 4),
    real(4, 6),
    met="a common slip: backpropagation through one step of time",
)
class ScanOneStep(Scan):
    """A linear recurrence whose gradient goes back a single step"""

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        return (g[:, 1:] * y[:, :-1]).sum(1), g


@wrong(
    between(0.2, 0.9, 4),
    real(4, 6),
    met="a common slip: the state after the step for the one before",
    argument="a",
)
class ScanState(Scan):
    """A linear recurrence whose decay's gradient reads the states one step late"""

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        _, by_x = Scan.backward(ctx, g)
        return (by_x * y).sum(1), by_x


# ---------------------------------------------------------------------------------------- models


class Lin(nn.Module):
    function = Linear

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return self.function.apply(x, self.weight, self.bias)


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return LayerNorm.apply(x, self.weight, self.bias)


class Groups(nn.Module):
    function = GroupNorm

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return self.function.apply(x, self.weight, self.bias, 2)


class GroupsWithoutMean(Groups):
    function = GroupNormMean


@right(
    single(6, 4),
    integers(3, 6),
    cost=F.cross_entropy,
    met="a model of layers of one's own, with torch's cost",
)
class Classifier(nn.Sequential):
    """A classifier of layers of one's own, with dropout"""

    def __init__(self):
        super().__init__(
            Lin(4, 8), Norm(8), nn.Tanh(), nn.Dropout(0.2), Lin(8, 8), nn.Tanh(), Lin(8, 3)
        )


class LinearBiasTwice(Linear):
    @staticmethod
    def backward(ctx, g):
        by_x, by_weight, by_bias = Linear.backward(ctx, g)
        return by_x, by_weight, None if by_bias is None else 2 * by_bias


class LinBiasTwice(Lin):
    function = LinearBiasTwice


@wrong(
    single(6, 4),
    integers(3, 6),
    cost=F.cross_entropy,
    met="a common slip: one layer's bias, in a model that trains all the same",
    argument="bias",
    says=r"2\.0* ?×",
)
class ClassifierBias(nn.Sequential):
    """A classifier one of whose layers doubles its bias's gradient"""

    def __init__(self):
        super().__init__(Lin(4, 8), nn.Tanh(), LinBiasTwice(8, 8), nn.Tanh(), Lin(8, 3))


@wrong(
    single(3, 2, 5, 5),
    integers(3, 3),
    cost=F.cross_entropy,
    met="a group norm without its mean term, deep inside, which spoils what comes before it",
    argument="x",
)
class ImageClassifier(nn.Module):
    """A convolutional classifier with a wrong group norm inside"""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.norm = GroupsWithoutMean(4)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.second(self.norm(self.first(image)).tanh()).mean((2, 3)))


@right(
    single(3, 2, 5, 5),
    integers(3, 3),
    cost=F.cross_entropy,
    met="frozen layers before a layer of one's own",
)
class FrozenClassifier(nn.Module):
    """A convolutional classifier whose first layer is frozen"""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3).requires_grad_(False)
        self.norm = Groups(4)
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.norm(self.first(image)).tanh().mean((2, 3)))


class Heads(nn.Module):
    function = Attention

    def __init__(self, size):
        super().__init__()
        self.mixed, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x):
        q, k, v = self.mixed(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = self.function.apply(q, k, v, True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class HeadsWithoutScale(Heads):
    function = AttentionScale


@right(
    single(2, 4, 6),
    integers(6, 2),
    cost=F.cross_entropy,
    met="a small transformer, its attention one's own",
)
class Transformer(nn.Module):
    """A transformer of two blocks with an attention of one's own"""

    blocks = Heads, Heads

    def __init__(self):
        super().__init__()
        first, second = self.blocks
        self.first, self.norm, self.second = first(6), nn.LayerNorm(6), second(6)

    def forward(self, x):
        return self.second(self.norm(self.first(x))).mean(1)


@wrong(
    single(2, 4, 6),
    integers(6, 2),
    cost=F.cross_entropy,
    met="an attention that forgets the scale in one gradient, in the first of two blocks",
)
class TransformerScale(Transformer):
    """A transformer whose first attention forgets the scale in the gradient of its queries"""

    blocks = HeadsWithoutScale, Heads


@right(
    single(5, 4),
    integers(3, 5),
    cost=F.cross_entropy,
    met="pytorch#61519: hooks and ReLU(inplace=True); everyone has one",
)
class InPlaceClassifier(nn.Sequential):
    """A classifier with torch's ReLU in place between layers of one's own"""

    def __init__(self):
        super().__init__(
            Lin(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), Lin(8, 8), nn.ReLU(True), Lin(8, 3)
        )


@right(
    single(5, 4), real(5, 4).then(torch.Tensor.float), cost=F.mse_loss, met="backpack#248: reuse"
)
class CalledTwice(nn.Module):
    """A model that calls the same layer twice"""

    layer = Lin

    def __init__(self):
        super().__init__()
        self.shared = self.layer(4, 4)

    def forward(self, x):
        return self.shared(torch.tanh(self.shared(x)))


@wrong(
    single(5, 4),
    real(5, 4).then(torch.Tensor.float),
    cost=F.mse_loss,
    met="opacus#58: a layer called twice, here with a doubled bias's gradient",
    argument="bias",
)
class CalledTwiceBias(CalledTwice):
    """A model that calls the same wrong layer twice"""

    layer = LinBiasTwice


@right(single(3, 4, 5), met="torch's LSTM under a head of one's own, the last state")
class Sequence(nn.Module):
    """A model with torch's LSTM under a layer of one's own"""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 4, batch_first=True), Lin(4, 2)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.head(h[-1])


@right(single(3, 4), met="outputs in a dict, as Hugging Face's models return them")
class Named(nn.Module):
    """A model that returns a dict"""

    def __init__(self):
        super().__init__()
        self.body, self.head = Lin(4, 6), Lin(6, 2)

    def forward(self, x):
        hidden = torch.tanh(self.body(x))
        return {"logits": self.head(hidden), "hidden": hidden}


@right(single(4, 3), met="a function that calls a Function twice, and torch between")
def two_layers(x):
    """A function of two Functions with torch's own operations between"""
    y = Residual.apply(x, 0.3 * torch.eye(3, dtype=x.dtype))
    return Residual.apply(y.sin() + x, torch.eye(3, dtype=x.dtype)).cumsum(0)


class Block(Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.tanh(F.gelu(x @ weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        saved = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            y = torch.tanh(F.gelu(saved[0] @ saved[1]))
        return torch.autograd.grad(y, saved, g)


@right(single(4, 3), single(3, 5), met="autograd run inside backward, as checkpointing does")
def checkpointed(x, weight):
    """A block whose backward runs autograd on its recomputation"""
    return Block.apply(x, weight)
