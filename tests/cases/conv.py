"""Convolutions."""

import torch

from cases.table import *


def channels_last(make: Make) -> Make:
    """The same numbers, the channels of a pixel next to one another."""
    return lambda generator: make(generator).to(memory_format=torch.channels_last)


def padded_behind(function: Callable[..., Tensor], *margins: int) -> Callable[..., Tensor]:
    """torch's, without its warning that ``padding="same"`` copies for a kernel of even length."""

    def twin(input: Tensor, *weights: Tensor, padding: str) -> Tensor:
        return function(torch.nn.functional.pad(input, margins), *weights)

    return twin


NONE = {"jacobians": EMPTY["jacobians"]}
TBC = dict.fromkeys(("forward_mode", "jacobians"), "torch has no tangent of conv_tbc")
CONV1D, CONV2D, CONV3D = (getattr(torch.nn.functional, f"conv{n}d") for n in (1, 2, 3))

CASES = [
    row("conv1d", real(2, 3, 6), real(4, 3, 3), real(4)),
    row("conv1d", real(2, 3, 6), real(4, 3, 3), real(4), padding="same", dilation=2),
    row("conv1d", real(2, 3, 6), real(4, 3, 2), padding="same",
        twin=padded_behind(CONV1D, 0, 1)),
    row("conv1d", real(2, 3, 7), real(4, 3, 2), real(4), stride=3, padding="valid"),
    row("conv1d", real(3, 6), real(4, 3, 3), real(4), padding=1),
    row("conv1d", real(2, 3, 6), real(6, 1, 3), real(6), groups=3, padding=1),
    row("conv2d", real(2, 3, 5, 4), real(2, 3, 3, 2), real(2)),
    row("conv2d", real(2, 3, 5, 4), real(2, 3, 3, 2)),
    row("conv2d", real(2, 2, 6, 5), real(3, 2, 3, 2), real(3), stride=(2, 3), padding=(1, 2)),
    row("conv2d", real(2, 2, 6, 5), real(3, 2, 2, 2), stride=[2], padding=[1], dilation=(2, 3)),
    row("conv2d", real(2, 4, 4, 4), real(6, 2, 2, 3), real(6), groups=2, padding=1, stride=2),
    row("conv2d", real(2, 3, 4, 5), real(3, 1, 3, 3), real(3), groups=3, padding=1, note="depth"),
    row("conv2d", real(2, 2, 6, 5), real(4, 1, 2, 2), groups=2, stride=2, dilation=(2, 1)),
    row("conv2d", real(2, 3, 4, 4), real(4, 3, 2, 2), real(4), stride=2, note="patches"),
    row("conv2d", real(2, 3, 3, 2), real(4, 3, 1, 1), real(4), note="1x1"),
    row("conv2d", channels_last(real(2, 3, 4, 5)), channels_last(real(4, 3, 3, 3)), real(4),
        padding=1, note="channels last"),
    row("conv2d", channels_last(real(2, 3, 4, 5)), channels_last(real(3, 1, 3, 3)), real(3),
        padding=1, groups=3, note="channels last"),
    row("conv2d", transposed(real(2, 3, 4, 5)), transposed(real(4, 3, 3, 3)), real(4),
        padding=1, stride=2, note="transposed"),
    row("conv2d", real(3, 4, 5), real(2, 3, 2, 2), real(2), stride=2),
    row("conv2d", real(2, 3, 4, 4), real(2, 3, 3, 2), real(2), padding="same",
        twin=padded_behind(CONV2D, 0, 1, 1, 1)),
    row("conv2d", real(0, 3, 4, 4), real(2, 3, 3, 3), real(2), without=NONE),
    row("conv2d", constant(real(2, 3, 4, 4)), real(2, 3, 3, 3), real(2), note="data"),
    row("conv2d", real(2, 3, 4, 4), constant(real(2, 3, 3, 3)), real(2), note="frozen weight"),
    row("conv3d", real(2, 2, 3, 4, 3), real(3, 2, 2, 3, 2), real(3), stride=(1, 2, 1), padding=1),
    row("conv3d", real(2, 2, 3, 3, 3), real(2, 1, 2, 2, 2), groups=2, dilation=(1, 2, 1)),
    row("conv3d", real(2, 2, 3, 2), real(2, 2, 2, 3, 1), real(2), padding="same",
        twin=padded_behind(CONV3D, 0, 0, 1, 1, 0, 1)),
    row("conv_transpose1d", real(2, 3, 4), real(3, 2, 3), real(2), stride=2, output_padding=1),
    row("conv_transpose1d", real(3, 4), real(3, 2, 3), real(2), padding=1),
    row("conv_transpose2d", real(2, 3, 3, 2), real(3, 2, 3, 2), real(2)),
    row("conv_transpose2d", real(2, 3, 3, 2), real(3, 2, 3, 2), stride=(2, 3), padding=(1, 0),
        output_padding=(1, 2)),
    row("conv_transpose2d", real(2, 4, 3, 2), real(4, 1, 2, 3), real(2), groups=2, dilation=2,
        padding=1),
    row("conv_transpose2d", real(2, 2, 3, 2), real(2, 1, 2, 3), real(2), groups=2, stride=2),
    row("conv_transpose2d", real(2, 2, 3, 3), real(2, 2, 2, 2), real(2), dilation=3,
        output_padding=2, note="room for further windows"),
    row("conv_transpose2d", channels_last(real(2, 3, 3, 2)), channels_last(real(3, 2, 2, 2)),
        real(2), stride=2, note="channels last"),
    row("conv_transpose2d", real(0, 3, 3, 2), real(3, 2, 2, 2), real(2), without=NONE),
    row("conv_transpose3d", real(2, 2, 2, 2, 3), real(2, 2, 2, 3, 2), real(2), stride=2,
        output_padding=(0, 1, 1), padding=1),
    row("conv_tbc", real(5, 2, 3), real(3, 3, 4), real(4), twin=torch.conv_tbc, pad=1,
        without=TBC),
    row("conv_tbc", real(5, 2, 3), real(2, 3, 4), real(4), twin=torch.conv_tbc, without=TBC),
    row("unfold", real(2, 2, 4, 5), kernel_size=(2, 3)),
    row("unfold", real(2, 2, 5, 5), kernel_size=2, dilation=2, padding=(1, 0), stride=(2, 1)),
    row("unfold", real(2, 4, 3), kernel_size=2, stride=2),
    row("fold", real(2, 12, 9), output_size=(4, 5), kernel_size=(2, 3)),
    row("fold", real(2, 8, 6), output_size=5, kernel_size=2, dilation=2, padding=(1, 0),
        stride=(2, 2)),
    row("fold", real(8, 2), output_size=(4, 3), kernel_size=2, stride=2),
]  # fmt: skip


def convolutions() -> list[Module]:
    """Each class in every padding mode."""
    images = {1: real(2, 4, 6), 2: real(2, 4, 5, 6), 3: real(2, 4, 4, 3, 4)}
    modes = ("zeros", "reflect", "replicate", "circular")
    return [
        *(module(f"Conv{n}d", 4, 2, 3, inputs=(image,), padding=1, padding_mode=mode)
          for n, image in images.items() for mode in modes),
        *(module(f"Conv{n}d", 4, 6, 3, inputs=(image,), padding="same", groups=2, bias=False)
          for n, image in images.items()),
        *(module(f"ConvTranspose{n}d", 4, 2, 3, inputs=(image,), stride=2, padding=1)
          for n, image in images.items()),
    ]  # fmt: skip


MODULES = [
    *convolutions(),
    module("Conv2d", 3, 4, (3, 2), inputs=(real(2, 3, 7, 6),), stride=(2, 3), dilation=2),
    module("Conv2d", 3, 3, 3, inputs=(real(3, 5, 5),), padding=1, groups=3),
    module("Conv2d", 3, 4, 3, inputs=(real(2, 3, 5, 4),), padding="same", padding_mode="circular"),
    module("ConvTranspose1d", 2, 2, 3, inputs=(real(2, 2, 4), [10]), stride=2),
    module("ConvTranspose2d", 2, 2, 3, inputs=(real(2, 2, 3, 4), [2, 2, 8, 9]), stride=2),
    module("ConvTranspose2d", 4, 2, 2, inputs=(real(4, 3, 4),), groups=2, bias=False),
    module("Unfold", 2, inputs=(real(2, 2, 4, 5),), stride=2, padding=1),
    module("Fold", (4, 5), 2, inputs=(real(2, 8, 12),)),
]
