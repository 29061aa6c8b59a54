"""Second order, forward mode and vmap: where the first derivative is right."""

import torch
from torch.autograd import Function

from manualbp.verification.catalogue.specimen import Specimen, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# --------------------------------------------------------------------------------- second order


@wrong(
    real(4, 3),
    met="reliability, rule 5: half the right Hessian, without an error",
    argument="x",
    says="second",
)
class SquareOfSigmoid(Function):
    """A squared sigmoid that saves an intermediate, so that its second derivative is wrong"""

    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return s * s

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        return g * 2 * s * s * (1 - torch.sigmoid(x))


@wrong(
    single(4, 3),
    met="functorch#207 and WGAN-GP's users: saved intermediates cut the second derivative",
    argument="x",
    says="second",
)
class SoftplusKept(Function):
    """A softplus that saves its sigmoid, an intermediate that the second order cannot see"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.sigmoid(x))
        return torch.nn.functional.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (s,) = ctx.saved_tensors
        return g * s


@wrong(
    real(4, 3),
    met="reliability, rule 6: .detach() in backward, second derivative zero",
    argument="x",
    says="second",
)
class TanhDetached(Function):
    """A tanh that detaches its output on the way back"""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        y = ctx.saved_tensors[0].detach()
        return g * (1 - y * y)


@wrong(
    real(4, 3),
    met="reliability, rule 6: .data in backward, second derivative wrong",
    argument="x",
    says="second",
)
class SiLUData(Function):
    """A SiLU that reads x.data for a part of its gradient"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x.data)
        return g * (s + x * s * (1 - s))


@wrong(
    real(3, 4),
    real(4, 4),
    met="a common slip: torch.no_grad() in backward to save memory",
    says="second",
)
class BilinearNoGrad(Function):
    """A product whose weight is used under no_grad on the way back"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return (x @ weight) * x

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        with torch.no_grad():
            z = x @ weight
        return g * z + (g * x) @ weight.T, x.T @ (g * x)


class SigmoidSlope(Function):
    """∂C/∂x of a sigmoid, with a backward of its own."""

    @staticmethod
    def forward(ctx, y, g):
        ctx.save_for_backward(y, g)
        return g * y * (1 - y)

    @staticmethod
    def backward(ctx, gg):
        y, g = ctx.saved_tensors
        return gg * g * (1 - 2 * y), gg * y * (1 - y)


@right(real(4, 3), met="Chainer's style: the gradient is a Function with a backward of its own")
class SigmoidTwoFunctions(Function):
    """A sigmoid whose gradient is a Function itself"""

    slope = SigmoidSlope

    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return SigmoidSlope.apply(*ctx.saved_tensors, g)


class SigmoidSlopeSign(SigmoidSlope):
    @staticmethod
    def backward(ctx, gg):
        y, g = ctx.saved_tensors
        return gg * g * (2 * y - 1), gg * y * (1 - y)


@wrong(
    real(4, 3),
    met="a common slip in a double backward written by hand",
    argument="x",
    says="second",
)
class SigmoidSecondSign(SigmoidTwoFunctions):
    """A sigmoid whose gradient's own backward has the wrong sign"""

    @staticmethod
    def backward(ctx, g):
        return SigmoidSlopeSign.apply(*ctx.saved_tensors, g)


# --------------------------------------------------------------------------------- forward mode


@right(single(4, 3), met="forward mode by hand, save_for_forward")
class SinTangent(Function):
    """A sine with a jvp of its own"""

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos()

    @staticmethod
    def jvp(ctx, dx):
        (x,) = ctx.saved_tensors
        return dx * x.cos()


@wrong(
    single(4, 3),
    met="a common slip in a jvp, which training never calls",
    says="jvp|forward.mode|tangent",
)
class SinTangentSign(SinTangent):
    """A sine whose own jvp has the wrong sign"""

    @staticmethod
    def jvp(ctx, dx):
        (x,) = ctx.saved_tensors
        return -dx * x.cos()


@right(real(4, 3), real(4, 3), met="a tangent for each of two inputs")
class ProductTangent(Function):
    """A product with a jvp for both factors"""

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * b, g * a

    @staticmethod
    def jvp(ctx, da, db):
        a, b = ctx.saved_tensors
        return da * b + a * db


@wrong(
    real(4, 3),
    real(4, 3),
    met="a common slip: the tangent of one input alone",
    says="jvp|forward.mode|tangent",
)
class ProductTangentTerm(ProductTangent):
    """A product whose own jvp forgets the second factor's tangent"""

    @staticmethod
    def jvp(ctx, da, db):
        _, b = ctx.saved_tensors
        return da * b


# ----------------------------------------------------------------------------------------- vmap


@right(single(4, 3), met="the setup_context style with generate_vmap_rule")
class SquareGenerated(Function):
    """A square whose vmap is generated"""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


@right(single(4, 3), single(3), met="a vmap by hand, which moves the batch axis to the front")
class ScaleMapped(Function):
    """A scale with a vmap of its own"""

    @staticmethod
    def forward(x, scale):
        return x * scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum_to_size(scale.shape)

    @staticmethod
    def vmap(info, in_dims, x, scale):
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        if in_dims[1] is not None:
            scale = scale.movedim(in_dims[1], 0)
            scale = scale.reshape(len(scale), *[1] * (x.dim() - scale.dim()), *scale.shape[1:])
        return ScaleMapped.apply(x, scale), 0


@wrong(
    single(4, 3),
    met="a common slip in a vmap of one's own: in_dims taken for 0",
    says="vmap",
)
class CumulativeMapped(Function):
    """A cumulative sum whose own vmap takes the batch axis for axis 0"""

    @staticmethod
    def forward(x):
        return x.cumsum(0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g.flip(0).cumsum(0).flip(0)

    @staticmethod
    def vmap(info, in_dims, x):
        return x.cumsum(0), in_dims[0]


@wrong(
    single(4, 3),
    met="a common slip in a vmap of one's own: tried on equal rows",
    says="vmap",
)
class SquareMapped(SquareGenerated):
    """A square whose own vmap repeats the first example"""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, x):
        x = x.movedim(in_dims[0], 0)
        return SquareGenerated.apply(x[:1].expand_as(x)), 0
