"""Matrices as images: what a neuron sees, and whose gradients agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manualbp.see.explanation import labels_of
from manualbp.see.layers import Layer
from manualbp.see.plots import style
from manualbp.see.tracing import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def neuron(
    trace: Trace, unit: int, *, shape: tuple[int, int] | None = None, ax: Axes | None = None
) -> Any:
    """A neuron of the first layer as images: its weights, −∂C/∂w, and −∂C/∂w of each class.

    The gradient of a class is the mean over its examples: ``trace.explain(…).classes`` of every
    weight. Gradient descent adds a share of −∂C/∂w, which is the mean over all examples.

    Args:
        trace: of a network whose first layer with parameters is Linear and takes pixels.
        unit: which neuron of it.
        shape: height and width of the images; by default those of ``trace.x``.
        ax: where to draw; the images divide its place.

    Returns:
        an array of Axes: weights, −∂C/∂w, and then a class each, in order.

    Raises:
        ValueError: the first layer is another one, or the inputs are no images of one channel.
        IndexError: the layer has no such neuron.
    """
    layer = _first(trace)
    height, width = shape or _image_shape(trace, layer)
    weight, grad = layer.parameters["weight"], layer.grads["weight"]
    if weight.shape[1] != height * width:
        raise ValueError(
            f"shape: expected height × width = {weight.shape[1]}, the inputs of layer "
            f"{layer.path}, got {height} × {width}"
        )
    if not -len(weight) <= unit < len(weight):
        raise IndexError(f"unit: layer {layer.path} has neurons 0 to {len(weight) - 1}, got {unit}")
    unit %= len(weight)
    labels = labels_of(trace.y, trace.examples)
    classes = _class_gradients(layer, unit, labels)
    images = [weight[unit], -grad[unit], *(-g for g in classes.values())]
    limits = [float(image.abs().max()) for image in images[:2]]
    shared = max((float(image.abs().max()) for image in images[2:]), default=0.0)
    limits += [shared] * len(classes)
    names = [f"w  ±{style.number(limits[0])}", f"−∂C/∂w  ±{style.number(limits[1])}"]
    counts = [f"n = {int((labels == c).sum())}" for c in classes] if labels is not None else []
    heading = f"Neuron {unit} of layer {layer.path}: where gradient descent moves its weights"
    beneath = "blue: positive; orange, a minus in each pixel: negative"
    if classes:
        heading = f"Neuron {unit} of layer {layer.path}: where each class pulls its weights"
        beneath += f" · on the right −∂C/∂w of each class, ±{style.number(shared)}"
    grid = _Grid(len(classes), height / width)
    with style.drawing(ax, 0.65 + grid.height) as ax:
        ax.set_axis_off()
        tiles = grid.tiles(ax)
        for tile, image, limit in zip(tiles, images, limits, strict=True):
            tile.imshow(style.painted(image.reshape(height, width), limit), aspect="equal")
            tile.set(xticks=[], yticks=[], anchor="SW")
            tile.spines[["top", "right"]].set_visible(True)
        how: dict[str, Any] = {"fontsize": 9.5, "pad": 4}
        tiles[0].set_title(names[0], color=style.WEIGHT, **how)
        tiles[1].set_title(names[1], color=style.COST, **how)
        for tile, label, count in zip(tiles[2:], classes, counts, strict=True):
            tile.set_title(str(label), **how)
            tile.set_title(count, loc="right", color=style.MUTED, weight="normal", **how)
        style.title(ax, heading, beneath)
    return tiles


def cosines(
    grads: Mapping[str, Tensor] | Tensor, labels: Tensor, *, ax: Axes | None = None
) -> Axes:
    """Whose gradients agree: the cosine of the angle between any two examples', by class.

    ::

        grads = manualbp.per_example_grads(model, x, y, cost=criterion)
        plots.cosines(grads, labels)           # of all parameters together
        plots.cosines(grads["1.weight"], labels)

    Below the diagonal is every pair of examples, above it the mean of each pair of classes.

    Args:
        grads: of each example, (n, …), by the names of parameters or of one of them.
        labels: the class of each example, (n,).
        ax: where to draw.

    Raises:
        ValueError: there is not one label for each example.
    """
    given = [grads] if isinstance(grads, Tensor) else [*grads.values()]
    n = len(given[0]) if given else 0
    if not n or labels.shape != (n,) or any(len(g) != n for g in given):
        raise ValueError(
            f"labels: expected one for each of {n} examples, got shape {tuple(labels.shape)}"
        )
    order = labels.argsort(stable=True)
    between = _cosines([g[order] for g in given])
    classes = sorted(set(labels.tolist()))
    ends = [int((labels < c).sum()) for c in classes] + [n]
    means = _class_means(between, ends)
    image = between.clone()
    for i in range(len(classes)):
        for j in range(i, len(classes)):
            block = image[ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
            if i == j:
                above = torch.ones_like(block, dtype=torch.bool).triu()
                block[above] = means[i, i].to(block.dtype)
            else:
                block.fill_(float(means[i, j]))
    with style.drawing(ax, 7.4) as ax:
        ax.imshow(style.painted(image.nan_to_num(), 1.0, marks=1), extent=(0, n, n, 0))
        ax.spines[:].set_visible(False)
        for end in ends[1:-1]:
            ax.axhline(end, color="white", lw=1.2)
            ax.axvline(end, color="white", lw=1.2)
        _block_means(ax, means, ends)
        centres = [(a + b) / 2 for a, b in pairwise(ends)]
        named = [str(c) for c in classes]
        ax.set_xticks(centres, named)
        ax.set_yticks(centres, named)
        ax.tick_params(length=0, labelcolor=style.INK, labelsize=10)
        ax.set(xlabel="class", ylabel="class", anchor="W")
        _scale(ax)
        style.title(
            ax,
            f"Whose gradients agree: the cosines between those of {n} examples",
            "below the diagonal each pair of examples, above it the mean of each pair of classes",
        )
    return ax


# ------------------------------------------------------------------------------- a neuron


def _first(trace: Trace) -> Layer:
    """The first layer with parameters, where it takes vectors of pixels."""
    layer = next((layer for layer in trace.layers if layer.parameters), None)
    if layer is None:
        raise ValueError("trace: no layer has parameters")
    weight, delta = layer.parameters.get("weight"), layer.grad_output
    fits = isinstance(layer.input, Tensor) and layer.input.dim() == 2
    if weight is None or weight.dim() != 2 or not fits or not isinstance(delta, Tensor):
        raise ValueError(
            f"trace: the neurons of a Linear layer are drawn, and the first layer with parameters "
            f"is {layer.name} {layer.path}"
        )
    return layer


def _image_shape(trace: Trace, layer: Layer) -> tuple[int, int]:
    given = trace.x[0] if isinstance(trace.x, tuple) else trace.x
    shape, pixels = tuple(given.shape[1:]), layer.input.shape[1]
    side = math.isqrt(pixels)
    if len(shape) in (2, 3) and math.prod(shape) == pixels == math.prod(shape[-2:]):
        return shape[-2], shape[-1]
    if len(shape) == 1 and side * side == pixels:
        return side, side
    raise ValueError(
        f"trace: x is of shape {tuple(given.shape)}, which are no images of one channel; "
        f"shape=(height, width) says how {pixels} inputs form one"
    )


def _class_gradients(layer: Layer, unit: int, labels: Tensor | None) -> dict[int, Tensor]:
    """∂Cₙ/∂w of a neuron, the mean over the examples of each class."""
    if labels is None:
        return {}
    delta = layer.grad_output[:, unit] * len(labels)
    return {
        int(c): (delta[labels == c, None] * layer.input[labels == c]).mean(0)
        for c in sorted(set(labels.tolist()))
    }


class _Grid:
    """Images in two rows: weights above −∂C/∂w, and beside them those of the classes."""

    GAP, BESIDE, NAME = 0.012, 0.024, 0.28  # the last in inches, above each image

    def __init__(self, classes: int, ratio: float) -> None:
        self.classes = classes
        self.rows = 2 if classes else 1
        self.across = 1 + math.ceil(classes / 2) if classes else 4
        room = 1 - self.GAP * (self.across - 1) - self.BESIDE * bool(classes)
        self.width = room / self.across
        self.image = self.width * style.WIDTH * ratio
        self.height = self.rows * (self.image + self.NAME)

    def tiles(self, ax: Axes) -> Any:
        """Axes inside of ``ax``."""
        import numpy as np

        places = [(0, 0), (1, 0)] if self.classes else [(0, 0), (0, 1)]
        places += [divmod(i, self.across - 1) for i in range(self.classes)]
        made = np.empty(len(places), dtype=object)
        share = self.image / (self.image + self.NAME) / self.rows
        for i, (row, column) in enumerate(places):
            left = column * (self.width + self.GAP)
            if i > 1:
                left += self.width + self.GAP + self.BESIDE
            made[i] = ax.inset_axes((left, 1 - (row + 1) / self.rows, self.width, share))
        return made


# ------------------------------------------------------------------------------- cosines


def _cosines(grads: list[Tensor]) -> Tensor:
    """(n, n)"""
    products: Any = 0
    for grad in grads:
        rows = grad.detach().flatten(1).double().cpu()
        products = products + rows @ rows.T
    sizes = products.diagonal().sqrt()
    found: Tensor = products / torch.outer(sizes, sizes).clamp(min=torch.finfo(sizes.dtype).tiny)
    return found


def _class_means(between: Tensor, ends: list[int]) -> Tensor:
    """The mean cosine of each pair of classes; within one, over pairs of different examples."""
    count = len(ends) - 1
    means = torch.full((count, count), math.nan, dtype=torch.double)
    for i in range(count):
        for j in range(count):
            block = between[ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
            if i != j:
                means[i, j] = block.mean()
            elif len(block) > 1:
                others = len(block) * (len(block) - 1)
                means[i, i] = (block.sum() - block.diagonal().sum()) / others
    return means


def _block_means(ax: Axes, means: Tensor, ends: list[int]) -> None:
    """The means as numbers, each in its block above the diagonal."""
    for i in range(len(means)):
        for j in range(i, len(means)):
            value = float(means[i, j])
            narrow = min(ends[i + 1] - ends[i], ends[j + 1] - ends[j]) < 0.05 * ends[-1]
            if math.isnan(value) or narrow:
                continue
            x, y = (ends[j] + ends[j + 1]) / 2, (ends[i] + ends[i + 1]) / 2
            side = "center"
            if i == j:  # in the upper right corner, above the diagonal
                x, y, side = ends[j + 1] - 0.006 * ends[-1], ends[i] + (y - ends[i]) / 2, "right"
            colour = "white" if abs(value) > 0.55 else style.INK
            text = style.signed(f"{value:+.2f}") if abs(value) >= 0.005 else "0.00"
            ax.text(x, y, text, ha=side, va="center", color=colour, fontsize=8.5)


def _scale(ax: Axes) -> None:
    """What the colours say, on the right."""
    bar = ax.inset_axes((1.05, 0.3, 0.03, 0.4))
    values = torch.linspace(1, -1, 101).unsqueeze(1)
    bar.imshow(style.painted(values, 1.0, marks=1), extent=(0, 1, -1, 1), aspect="auto")
    bar.spines[:].set_visible(False)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.set_yticks([1, 0, -1], ["+1  one way", "  0  across", "−1  against"])
    bar.tick_params(length=0)
