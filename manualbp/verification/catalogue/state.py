"""What is kept, and what is written into: on ctx, on a module, on the class, in place."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import Specimen, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# -------------------------------------------------------------------------------- writes in place


@right(single(4, 6), single(6), met="in place in its own temporaries alone")
class RMSNormOwn(Function):
    """A root mean square norm that works in place in what it made itself"""

    @staticmethod
    def forward(ctx, x, weight):
        rstd = (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        ctx.save_for_backward(x, weight, rstd)
        return x * rstd * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, weight, rstd = ctx.saved_tensors
        xhat = x * rstd
        by_weight = (g * xhat).sum(0)
        by_x = g * weight
        means = (by_x * xhat).mean(-1, keepdim=True)
        return by_x.sub_(xhat.mul_(means)).mul_(rstd), by_weight


@wrong(
    single(4, 6),
    single(6),
    met="Liger-Kernel#370: the in-place backward corrupts the gradient of the residual branch",
    kinds="mutates wrong raises",
)
class RMSNormInGradient(RMSNormOwn):
    """A root mean square norm that writes into the incoming gradient"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, weight, rstd = ctx.saved_tensors
        xhat = x * rstd
        by_weight = (g * xhat).sum(0)
        g.mul_(weight)
        means = (g * xhat).mean(-1, keepdim=True)
        return g.sub_(xhat * means).mul_(rstd), by_weight


@wrong(
    single(4, 3),
    met="a common slip: a temporary saved by writing into the saved input",
    kinds="mutates wrong raises nondeterministic",
    argument="x",
)
class SquareInSaved(Function):
    """A square whose backward writes into its saved input"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return x.mul_(2).mul(g)


@wrong(
    single(4, 3),
    met="a common slip: clamp_ for clamp; BackPACK refuses inplace=True for its like",
    kinds="mutates wrong raises",
    argument="x",
)
class ReLUInInput(Function):
    """A scaled ReLU that clamps its input in place and does not say so"""

    @staticmethod
    def forward(ctx, x):
        y = x.clamp_(min=0) * 2
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return 2 * g * (y > 0)


@wrong(
    single(4, 3),
    met="a common slip: weights normalised in forward, where the optimiser does not see it",
    kinds="mutates wrong nondeterministic",
    argument="weight",
)
class NormalizesParameter(nn.Module):
    """A linear layer that normalises its weight in place whenever it runs"""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, x):
        with torch.no_grad():
            self.weight.div_(self.weight.norm(dim=1, keepdim=True))
        return x @ self.weight.T


@right(single(4, 3, shift=0.1), met="inplace=True, said by mark_dirty")
class ReLUDirty(Function):
    """A ReLU in place that says so by mark_dirty"""

    @staticmethod
    def forward(ctx, x):
        x.clamp_(min=0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (y > 0)


@right(single(4, 3), met="in place on what a layer made itself, as in ReLU(inplace=True)")
def relu_of_own(x):
    """A function that runs an in-place ReLU on its own tensor"""
    return ReLUDirty.apply(3 * x - 0.1)


@right(single(4, 3), met="its output is a view of its input")
class Transposed(Function):
    """A transpose that returns a view"""

    @staticmethod
    def forward(ctx, x):
        return x.t()

    @staticmethod
    def backward(ctx, g):
        return g.t()


# ------------------------------------------------------------------------------------ kept on ctx


@right(single(4, 3), met="a fresh mask as an attribute: nothing can change it")
class ReLUMask(Function):
    """A ReLU with its mask as an attribute of ctx"""

    @staticmethod
    def forward(ctx, x):
        ctx.mask = x > 0
        return x * ctx.mask

    @staticmethod
    def backward(ctx, g):
        return g * ctx.mask


@right(real(4, 3), met="a clone as an attribute, once_differentiable: nothing can change it")
class CubeClone(Function):
    """A cube that keeps a clone on ctx and says once_differentiable"""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.clone()
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 3 * g * ctx.x**2


@wrong(
    single(4, 3),
    met="reliability, rule 4: 4.0 for 2.0; pytorch#5569 for the leak of the same habit",
    kinds="stale",
)
class CubeOnContext(Function):
    """A cube that keeps its input as ctx.x"""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * g * ctx.x**2


@wrong(
    single(4, 3),
    met="a common slip; sru PR#171 mends tensors kept on ctx",
    kinds="stale",
)
class ExpOnContext(Function):
    """An exponential that keeps its output as ctx.y"""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.y = y
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.y


@wrong(
    single(4, 3),
    single(2, 3),
    met="a common slip: the optimiser's step between forward and backward goes unnoticed",
    kinds="stale",
)
class LinearOnContext(Function):
    """A linear layer that keeps its weight as ctx.weight, in the setup_context style"""

    @staticmethod
    def forward(x, weight):
        return x @ weight.T

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.x, ctx.weight = inputs

    @staticmethod
    def backward(ctx, g):
        return g @ ctx.weight, g.T @ ctx.x


@wrong(
    single(4, 3),
    met="a common slip: a saved intermediate used as scratch, unseen without retain_graph",
    kinds="wrong nondeterministic mutates stale",
)
class SigmoidScratch(Function):
    """A sigmoid that uses what it kept as scratch, so that a second backward is wrong"""

    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(x)
        ctx.slope = y * (1 - y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return ctx.slope.mul_(g).clone()


# ---------------------------------------------------------------------------- kept somewhere else


@wrong(
    single(4, 3),
    met="a common slip: what was saved last, on the class",
    kinds="stale wrong nondeterministic",
)
class TanhOnClass(Function):
    """A tanh that keeps its last output on the class"""

    last = None

    @staticmethod
    def forward(ctx, x):
        TanhOnClass.last = torch.tanh(x)
        return TanhOnClass.last.clone()

    @staticmethod
    def backward(ctx, g):
        return g * (1 - TanhOnClass.last**2)


class OfModule(Function):
    @staticmethod
    def forward(ctx, x, weight, module):
        ctx.module = module
        module.input = x.detach().clone()
        return x * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * ctx.module.weight, (g * ctx.module.input).sum(0), None


@wrong(
    single(4, 3),
    met="the style of NumPy layers, self.input: a module called twice",
    kinds="stale wrong nondeterministic",
)
class RemembersInput(nn.Module):
    """A layer that remembers its last input on the module"""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return OfModule.apply(x, self.weight, self)


class ByBuffer(Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        return x / module.scale

    @staticmethod
    def backward(ctx, g):
        return g / ctx.module.scale, None


@wrong(
    single(4, 3, scale=2),
    met="a common slip: a running scale read again on the way back, after its update",
    kinds="stale wrong nondeterministic",
)
class ScaleByBuffer(nn.Module):
    """A layer whose backward reads a buffer that its forward has updated since"""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3))

    def update(self, x):
        with torch.no_grad():
            self.scale.lerp_(x.abs().amax(0), 0.1)

    def forward(self, x):
        y = ByBuffer.apply(x, self)
        self.update(x)
        return y


class ByScale(Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(scale)
        return x / scale

    @staticmethod
    def backward(ctx, g):
        (scale,) = ctx.saved_tensors
        return g / scale, None


@right(single(4, 3, scale=2), met="the running scale replaced, so that what was saved stays")
class ScaleReplaced(ScaleByBuffer):
    """A layer that replaces the buffer which it has used"""

    def forward(self, x):
        y = ByScale.apply(x, self.scale)
        if self.training:
            self.scale = torch.lerp(self.scale, x.detach().abs().amax(0), 0.1)
        return y


@wrong(
    single(4, 3),
    met="a common slip: a workspace made once and not zeroed again",
    kinds="nondeterministic wrong stale mutates",
)
class Workspace(Function):
    """A doubling whose gradient is added up in a workspace that is never zeroed"""

    space = None

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        space = Workspace.space
        if space is None or space.shape != g.shape or space.dtype != g.dtype:
            space = Workspace.space = torch.zeros_like(g)
        return space.add_(g, alpha=2).clone()


@wrong(
    single(4, 3),
    met="Liger-Kernel PR#1305: two results were one buffer, and a test compared it with itself",
    kinds="stale wrong nondeterministic mutates",
)
class SharedResult(Function):
    """A doubling that returns the same buffer from every backward"""

    buffer = None

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        buffer = SharedResult.buffer
        if buffer is None or buffer.shape != g.shape or buffer.dtype != g.dtype:
            buffer = SharedResult.buffer = torch.empty_like(g)
        return torch.mul(g, 2, out=buffer)


# --------------------------------------------------------------------------------- at random, anew


@wrong(
    single(4, 3),
    met="trifast#2: gradcheck failed because the backward was not deterministic",
    kinds="nondeterministic wrong",
    argument="x",
)
class Noisy(Function):
    """A tanh whose gradient has a little noise of its own"""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y) * (1 + 0.01 * random.uniform(-1, 1))


def block(x, weight):
    return F.dropout(torch.tanh(x @ weight), 0.5)


class Recompute(Function):
    @staticmethod
    def forward(ctx, x, weight, keep):
        ctx.state = torch.get_rng_state() if keep else None
        ctx.save_for_backward(x, weight)
        return block(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        leaves = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            if ctx.state is not None:
                torch.set_rng_state(ctx.state)
            y = block(*leaves)
        return *torch.autograd.grad(y, leaves, g), None


@right(single(4, 3), single(3, 6), met="checkpointing by hand, with the generator's state")
def recomputed(x, weight):
    """A block with dropout, recomputed on the way back from the same random state"""
    return Recompute.apply(x, weight, True)


@wrong(
    single(4, 3),
    single(3, 6),
    met="a common slip: checkpointing by hand, without the generator's state",
    kinds="wrong nondeterministic",
)
def recomputed_anew(x, weight):
    """A block with dropout, recomputed on the way back with another mask"""
    return Recompute.apply(x, weight, False)


# ------------------------------------------------------------------------------------ paths dropped


@wrong(
    single(4, 3),
    met="a common slip: .detach() to silence an error, and a path is gone",
    argument="x",
)
def detached_gate(x):
    """A gate whose second use of its input is detached"""
    return ReLUMask.apply(x) * torch.sigmoid(x.detach())


@wrong(
    single(4, 3),
    met="a common slip: through .numpy() and back, or torch.tensor(…) of a tensor",
    argument="weight",
    says="zero|None|no gradient",
)
class Rewrapped(nn.Module):
    """A layer that wraps its parameter anew, so that it gets no gradient"""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return ReLUMask.apply(x * self.weight.detach().clone())
