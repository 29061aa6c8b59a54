"""Convolutions, pooling, and the rearrangement of channels and pixels."""

import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from manualbp.verification.catalogue.specimen import Specimen, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# --------------------------------------------------------------------------------- convolutions


@right(
    single(2, 4, 5, 5),
    single(6, 2, 3, 3),
    single(6),
    1,
    1,
    1,
    2,
    met="torch.nn.grad's two functions, options as ints",
)
class Conv2d(Function):
    """A convolution with groups, by torch.nn.grad"""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups):
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, dilation, groups
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def by_bias(ctx, g):
        return g.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = conv2d_input(x.shape, weight, g, *ctx.options)
        by_weight = conv2d_weight(x, weight.shape, g, *ctx.options)
        return by_x, by_weight, Conv2d.by_bias(ctx, g), None, None, None, None


@wrong(
    single(2, 4, 5, 5),
    single(6, 2, 3, 3),
    single(6),
    1,
    1,
    1,
    2,
    met="pytorch#51430: torch.nn.grad's weight gradients were wrong for groups > 1",
    argument="weight",
)
class Conv2dGroups(Conv2d):
    """A convolution whose weight's gradient pairs every group with the first group's input"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        *others, groups = ctx.options
        by_x = conv2d_input(x.shape, weight, g, *ctx.options)
        first = x.chunk(groups, 1)[0].contiguous()
        by_weight = conv2d_weight(first, weight.shape, g, *others, 1)
        return by_x, by_weight, Conv2d.by_bias(ctx, g), None, None, None, None


@wrong(
    single(2, 3, 6, 5),
    single(4, 3, 3, 3),
    single(4),
    1,
    1,
    1,
    1,
    met="a common slip: a mean over the pixels",
    argument="bias",
    says=r"1/n|0\.0333* ?×|n = 30",
)
class Conv2dBiasMean(Conv2d):
    """A convolution whose bias's gradient is averaged over the pixels"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = conv2d_input(x.shape, weight, g, *ctx.options)
        by_weight = conv2d_weight(x, weight.shape, g, *ctx.options)
        by_bias = g.mean((2, 3)).sum(0) if ctx.needs_input_grad[2] else None
        return by_x, by_weight, by_bias, None, None, None, None


@wrong(
    single(3, 2, 5, 5),
    single(4, 2, 3, 3),
    single(4),
    1,
    1,
    1,
    1,
    met="a common slip: a loop over the batch that returns after its first example",
    argument="weight",
    says="first|batch|example|row|index 0",
)
class Conv2dFirstExample(Conv2d):
    """A convolution whose weight's gradient counts the first example alone"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = conv2d_input(x.shape, weight, g, *ctx.options)
        by_weight = conv2d_weight(x[:1], weight.shape, g[:1], *ctx.options)
        return by_x, by_weight, Conv2d.by_bias(ctx, g), None, None, None, None


@right(single(2, 3, 4, 4), single(3, 3, 3, 3), met="the input's gradient as a convolution itself")
class SameConv2d(Function):
    """A 3 × 3 convolution whose input's gradient is one with the flipped kernel"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = F.conv2d(g, weight.transpose(0, 1).flip(2, 3), padding=1)
        by_weight = F.conv2d(x.transpose(0, 1), g.transpose(0, 1), padding=1).transpose(0, 1)
        return by_x, by_weight


@wrong(
    single(2, 3, 4, 4),
    single(3, 3, 3, 3),
    met="a common slip: correlation for convolution",
    argument="x",
)
class SameConv2dFlip(SameConv2d):
    """A convolution whose input's gradient does not flip the kernel"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_weight = F.conv2d(x.transpose(0, 1), g.transpose(0, 1), padding=1).transpose(0, 1)
        return F.conv2d(g, weight.transpose(0, 1), padding=1), by_weight


@wrong(
    real(2, 3, 4, 4),
    real(3, 3, 3, 3),
    met="a common slip: as many channels in as out hide the transpose",
    argument="x",
)
class SameConv2dChannels(SameConv2d):
    """A convolution whose input's gradient does not exchange its channels"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_weight = F.conv2d(x.transpose(0, 1), g.transpose(0, 1), padding=1).transpose(0, 1)
        return F.conv2d(g, weight.flip(2, 3), padding=1), by_weight


@wrong(
    real(2, 3, 4, 4),
    real(3, 3, 3, 3),
    met="a common slip: as many channels in as out hide the transpose",
    argument="weight",
    says="transpos|swap|perm",
)
class SameConv2dWeight(SameConv2d):
    """A convolution whose weight's gradient has its channels transposed"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = F.conv2d(g, weight.transpose(0, 1).flip(2, 3), padding=1)
        return by_x, F.conv2d(x.transpose(0, 1), g.transpose(0, 1), padding=1)


@right(single(2, 3, 9), single(4, 3, 3), 2, 2, met="by hand: one product for each tap")
class Conv1d(Function):
    """A strided and dilated convolution by hand, one product a tap"""

    @staticmethod
    def taps(x, weight, stride, dilation):
        length = (x.shape[2] - dilation * (weight.shape[2] - 1) - 1) // stride + 1
        for k in range(weight.shape[2]):
            start = k * dilation
            yield k, slice(start, start + (length - 1) * stride + 1, stride)

    @staticmethod
    def forward(ctx, x, weight, stride, dilation):
        ctx.save_for_backward(x, weight)
        ctx.options = stride, dilation
        taps = Conv1d.taps(x, weight, stride, dilation)
        return sum(torch.einsum("nit,oi->not", x[:, :, at], weight[:, :, k]) for k, at in taps)

    @staticmethod
    def by_x(g, x, weight, stride, dilation):
        total = torch.zeros_like(x)
        for k, at in Conv1d.taps(x, weight, stride, dilation):
            part = torch.zeros_like(x)
            part[:, :, at] = torch.einsum("not,oi->nit", g, weight[:, :, k])
            total = total + part
        return total

    @staticmethod
    def by_weight(g, x, weight, stride, dilation):
        taps = Conv1d.taps(x, weight, stride, dilation)
        return torch.stack([torch.einsum("not,nit->oi", g, x[:, :, at]) for _, at in taps], 2)

    @staticmethod
    def backward(ctx, g):
        saved, options = ctx.saved_tensors, ctx.options
        return Conv1d.by_x(g, *saved, *options), Conv1d.by_weight(g, *saved, *options), None, None


@wrong(
    single(2, 3, 9),
    single(4, 3, 3),
    1,
    2,
    met="a common slip: the dilation ignored in one of the two",
    argument="weight",
)
class Conv1dDilation(Conv1d):
    """A convolution whose weight's gradient ignores the dilation"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        stride, dilation = ctx.options
        length = g.shape[2]
        parts = [x[:, :, k : k + length * stride : stride] for k in range(weight.shape[2])]
        by_weight = torch.stack([torch.einsum("not,nit->oi", g, p) for p in parts], 2)
        return Conv1d.by_x(g, x, weight, stride, dilation), by_weight, None, None


@wrong(
    single(2, 3, 9),
    single(4, 3, 3),
    2,
    1,
    met="a common slip: the stride ignored in one of the two",
    argument="x",
)
class Conv1dStride(Conv1d):
    """A convolution whose input's gradient ignores the stride"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        stride, dilation = ctx.options
        by_x = torch.zeros_like(x)
        for k in range(weight.shape[2]):
            part = torch.einsum("not,oi->nit", g, weight[:, :, k])
            by_x[:, :, k : k + g.shape[2]] += part
        return by_x, Conv1d.by_weight(g, x, weight, stride, dilation), None, None


@wrong(
    single(2, 3, 6),
    single(4, 3, 3),
    met="a common slip: the padding cut off at the wrong end",
    argument="x",
)
class PaddedConv1d(Function):
    """A padded convolution whose input's gradient still has the padding in front"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.conv1d(x, weight, padding=1)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_padded = F.conv_transpose1d(g, weight)
        by_weight = F.conv1d(x.transpose(0, 1), g.transpose(0, 1), padding=1).transpose(0, 1)
        return by_padded[:, :, : x.shape[2]], by_weight


@right(single(2, 3, 4, 5), single(3, 1, 3, 3), met="one filter a channel")
class Depthwise(Function):
    """A depthwise convolution by hand"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1, groups=x.shape[1])

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = F.conv2d(g, weight.flip(2, 3), padding=1, groups=x.shape[1])
        n, channels, height, width = x.shape
        windows = F.unfold(x, 3, padding=1).reshape(n, channels, 9, height * width)
        by_weight = torch.einsum("nckl,ncl->ck", windows, g.flatten(2))
        return by_x, by_weight.reshape(weight.shape)


@wrong(
    single(2, 3, 4, 5),
    single(3, 1, 3, 3),
    met="a common slip: a kernel without its offset for the channel",
    argument="weight",
    says="first|equal|is that of",
)
class DepthwiseFirst(Depthwise):
    """A depthwise convolution whose filters all get the first channel's gradient"""

    @staticmethod
    def backward(ctx, g):
        by_x, by_weight = Depthwise.backward(ctx, g)
        return by_x, by_weight[:1].expand_as(by_weight)


# -------------------------------------------------------------------------------------- pooling


@right(single(2, 3, 4, 4), met="the indices of the forward pass kept")
class MaxPool(Function):
    """A 2 × 2 maximum that keeps where it was"""

    @staticmethod
    def forward(ctx, x):
        y, where = F.max_pool2d(x, 2, return_indices=True)
        ctx.save_for_backward(where)
        ctx.size = x.shape[2:]
        return y

    @staticmethod
    def backward(ctx, g):
        (where,) = ctx.saved_tensors
        return F.max_unpool2d(g, where, 2, output_size=ctx.size)


@wrong(single(2, 3, 4, 4), met="a common slip: the rule of average pooling", argument="x")
class MaxPoolSpread(MaxPool):
    """A maximum whose gradient is spread over its window"""

    @staticmethod
    def backward(ctx, g):
        return g.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4


@right(real(2, 2, 6, 4), met="a nearest upsampling on the way back")
class AvgPool(Function):
    """A 2 × 2 average"""

    @staticmethod
    def forward(ctx, x):
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx, g):
        return g.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4


@wrong(
    real(2, 2, 6, 4),
    met="a common slip: the window's size forgotten",
    argument="x",
    says=r"4\.0* ?×|1/n",
)
class AvgPoolSum(AvgPool):
    """An average whose gradient is that of the sum over its window"""

    @staticmethod
    def backward(ctx, g):
        return g.repeat_interleave(2, 2).repeat_interleave(2, 3)


@wrong(
    real(2, 2, 4),
    met="a common slip: count_include_pad=False in one of the two passes",
    argument="x",
)
class AvgPoolBorder(Function):
    """An average that counts no padding, whose gradient counts it"""

    @staticmethod
    def forward(ctx, x):
        return F.avg_pool1d(x, 3, 1, padding=1, count_include_pad=False)

    @staticmethod
    def backward(ctx, g):
        return F.avg_pool1d(g, 3, 1, padding=1, count_include_pad=True)


@right(single(2, 3, 2, 3), met="the sum over every copy")
class Upsample(Function):
    """A nearest upsampling"""

    @staticmethod
    def forward(ctx, x):
        return F.interpolate(x, scale_factor=2)

    @staticmethod
    def backward(ctx, g):
        return 4 * F.avg_pool2d(g, 2)


@wrong(single(2, 3, 2, 3), met="a common slip: downsampling for the transpose", argument="x")
class UpsampleFirst(Upsample):
    """A nearest upsampling whose gradient reads one of the four copies"""

    @staticmethod
    def backward(ctx, g):
        return g[:, :, ::2, ::2]


# --------------------------------------------------------------------------------- rearrangement


@right(single(2, 6, 3), 2, met="ShuffleNet's shuffle")
class ChannelShuffle(Function):
    """A shuffle of channels, undone by the inverse shuffle"""

    @staticmethod
    def forward(ctx, x, groups):
        ctx.groups = groups
        return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)

    @staticmethod
    def backward(ctx, g):
        return g.unflatten(1, (-1, ctx.groups)).transpose(1, 2).flatten(1, 2), None


@wrong(
    single(2, 6, 3),
    2,
    met="a common slip: the same shuffle on the way back",
    argument="x",
    says="swap|perm|order|channel|shuffl",
)
class ChannelShuffleAgain(ChannelShuffle):
    """A shuffle of channels that shuffles its gradient the same way"""

    @staticmethod
    def backward(ctx, g):
        return g.unflatten(1, (ctx.groups, -1)).transpose(1, 2).flatten(1, 2), None


@wrong(
    real(3, 3, 3),
    met="a common slip: permute's own order for its inverse, hidden by a cube",
    argument="x",
    says="transpos|perm|swap|order|axes",
)
class PermuteAgain(Function):
    """A permutation of axes that permutes its gradient the same way"""

    @staticmethod
    def forward(ctx, x):
        return x.permute(1, 2, 0).contiguous()

    @staticmethod
    def backward(ctx, g):
        return g.permute(1, 2, 0)


@right(single(2, 2, 5), met="overlapping windows added by index_add")
class Windows(Function):
    """Overlapping windows of three"""

    @staticmethod
    def forward(ctx, x):
        ctx.length = x.shape[-1]
        return x.unfold(-1, 3, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        by_x = g.new_zeros(*g.shape[:-2], ctx.length)
        for k in range(3):
            by_x[..., k : k + g.shape[-2]] += g[..., k]
        return by_x


@wrong(single(2, 2, 5), met="a common slip: = for += where windows overlap", argument="x")
class WindowsAssigned(Windows):
    """Overlapping windows whose gradients overwrite one another"""

    @staticmethod
    def backward(ctx, g):
        by_x = g.new_zeros(*g.shape[:-2], ctx.length)
        for k in range(3):
            by_x[..., k : k + g.shape[-2]] = g[..., k]
        return by_x


@right(single(4, 3), -1, 0, met="two ints")
class Roll(Function):
    """A cyclic shift, undone by the opposite one"""

    @staticmethod
    def forward(ctx, x, shift, dim):
        ctx.shift, ctx.dim = shift, dim
        return x.roll(shift, dim)

    @staticmethod
    def backward(ctx, g):
        return g.roll(-ctx.shift, ctx.dim), None, None


@wrong(
    single(4, 3),
    -1,
    0,
    met="a common slip: the same shift on the way back",
    argument="x",
    says="roll|row|swap|perm|order|shift",
)
class RollAgain(Roll):
    """A cyclic shift that shifts its gradient the same way"""

    @staticmethod
    def backward(ctx, g):
        return g.roll(ctx.shift, ctx.dim), None, None
