"""One HTML file from a network: its numbers as JSON, arithmetic and pictures as JavaScript."""

from __future__ import annotations

import base64
import html
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

SCRIPTS = ("arithmetic", "state", "words", "figure", "panels", "tour", "main")
COSTS = ("squared_error", "mse", "cross_entropy", "nll", "bce_with_logits")
MOST_SNAPSHOTS = 12

#: what a network may do beside weighted sums and activations: nothing, once it is trained
NOTHING = (nn.Flatten, nn.Dropout, nn.Identity)


def page(
    net: nn.Module,
    cost: str,
    images: Tensor,
    labels: Tensor,
    *,
    snapshots: Mapping[str, Mapping[str, Tensor]] | None = None,
    title: str = "A network, backwards",
    about: str = "",
    rate: float = 0.1,
) -> str:
    """The text of one HTML file, which needs no server and asks for nothing.

    Args:
        net: weighted sums (``nn.Linear``) with activations between them, of torch or manualbp.
        cost: ``squared_error``, ``mse``, ``cross_entropy``, ``nll`` or ``bce_with_logits``.
        images: of one channel, (n, 1, height, width).
        labels: classes (n,), counted from 0.
        snapshots: weights that the network had before, in order: ``{"epoch 1": state_dict, …}``. Of
            many, some are taken, evenly, the first and the last among them.
        title: of the file.
        about: a line below the heading.
        rate: the learning rate that is offered first.

    Raises:
        ValueError: what the network, the cost or the images are, and why they cannot be shown.
    """
    layers = read_layers(net)
    if cost not in COSTS:
        raise ValueError(f"cost is one of {', '.join(COSTS)}, got {cost!r}")
    _check_examples(layers, images, labels)
    now = weights_of(net)
    kept = {**_evenly(snapshots or {}), "the trained network": now}
    # The last snapshot that has the very weights of the network is the network.
    same = [name for name, state in list(kept.items())[:-1] if _equal(layers, state, now)]
    if same:
        del kept["the trained network"]
    names = list(kept)
    data = {
        "about": about,
        "cost": cost,
        "rate": rate,
        "shape": list(images.shape[-2:]),
        "images": _images(images),
        "labels": labels.tolist(),
        "layers": [{k: v for k, v in layer.items() if k != "path"} for layer in layers],
        "snapshots": [{"title": n, "layers": _parameters(layers, kept[n])} for n in names],
        "current": names.index(same[-1]) if same else len(names) - 1,
    }
    folder = resources.files(__package__)
    read = {name: (folder / name).read_text(encoding="utf-8") for name in files()}
    return string.Template(read["template.html"]).substitute(
        title=html.escape(title),
        style=read["style.css"],
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script="\n".join(read[f"{name}.js"] for name in SCRIPTS),
    )


def files() -> list[str]:
    """What the page is made of, beside this file."""
    return ["template.html", "style.css", *(f"{name}.js" for name in SCRIPTS)]


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in net.state_dict().items()}


# ---------------------------------------------------------------- the network


def read_layers(net: nn.Module) -> list[dict[str, Any]]:
    """Of each weighted sum: where it is, how wide, and the activation that follows.

    Raises:
        ValueError: the network does something else, and what.
    """
    layers: list[dict[str, Any]] = []
    for path, module in _in_order(net):
        if isinstance(module, nn.Linear):
            to, width = module.weight.shape
            act = {"name": "identity", "label": "The identity"}
            layers.append({"path": path, "from": width, "to": to, "act": act})
        elif isinstance(module, NOTHING):
            continue
        else:
            act = _activation(path, module)
            if not layers or layers[-1]["act"]["name"] != "identity":
                raise ValueError(
                    f"the page shows one activation after each weighted sum, and {path} "
                    f"({type(module).__name__}) follows none"
                )
            layers[-1]["act"] = act
    if not layers:
        raise ValueError("the page shows weighted sums, and this network has no Linear layer")
    for before, after in pairwise(layers):
        if before["to"] != after["from"]:
            raise ValueError(
                f"layer {after['path']} takes {after['from']} numbers, but {before['path']} gives "
                f"{before['to']}: the page shows layers that follow one another"
            )
    return layers


def _in_order(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a Sequential, in which others may lie, with their paths."""
    if not isinstance(net, nn.Sequential):
        kind = type(net).__name__
        if isinstance(net, nn.modules.conv._ConvNd):
            raise ValueError(
                f"{prefix.rstrip('.') or 'the network'} is a {kind}: it uses each weight at many "
                "places, and the page draws each weight as one line"
            )
        if any(True for _ in net.children()):
            raise ValueError(
                f"{prefix.rstrip('.') or 'the network'} is a {kind}, whose forward is code: the "
                "page shows an nn.Sequential of Linear layers and activations"
            )
        yield prefix.rstrip("."), net
        return
    for name, module in net.named_children():
        yield from _in_order(module, f"{prefix}{name}.")


#: the class of an activation → its name in the page, and its options
ACTIVATIONS: dict[type[nn.Module], tuple[str, dict[str, str]]] = {
    nn.Sigmoid: ("sigmoid", {}),
    nn.Tanh: ("tanh", {}),
    nn.ReLU: ("relu", {}),
    nn.LeakyReLU: ("leaky_relu", {"slope": "negative_slope"}),
    nn.ELU: ("elu", {"alpha": "alpha"}),
    nn.GELU: ("gelu", {"tanh": "approximate"}),
    nn.SiLU: ("silu", {}),
    nn.Softplus: ("softplus", {"beta": "beta", "threshold": "threshold"}),
    nn.Softmax: ("softmax", {}),
    nn.LogSoftmax: ("log_softmax", {}),
}


def _activation(path: str, module: nn.Module) -> dict[str, Any]:
    for kind, (name, options) in ACTIVATIONS.items():
        if isinstance(module, kind):
            found = {key: getattr(module, attribute) for key, attribute in options.items()}
            if "tanh" in found:
                found["tanh"] = found["tanh"] == "tanh"
            if name.endswith("softmax") and getattr(module, "dim", None) not in (1, -1):
                raise ValueError(f"{path} is a {kind.__name__} along another axis than the units'")
            return {"name": name, "label": f"The {kind.__name__}", **found}
    raise ValueError(
        f"{path} is a {type(module).__name__}; the page shows Linear layers and the activations "
        f"{', '.join(kind.__name__ for kind in ACTIVATIONS)}"
    )


# ---------------------------------------------------------------- numbers


def _check_examples(layers: list[dict[str, Any]], images: Tensor, labels: Tensor) -> None:
    if images.dim() != 4 or images.shape[1] != 1 or not len(images):
        raise ValueError(
            f"images of one channel, (n, 1, height, width), are shown, got {tuple(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels are classes ({len(images)},), got {tuple(labels.shape)}")
    if (pixels := images[0].numel()) != layers[0]["from"]:
        raise ValueError(
            f"the first layer takes {layers[0]['from']} numbers, and an image has {pixels}"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < layers[-1]["to"]:
        raise ValueError(f"labels lie in 0 to {layers[-1]['to'] - 1}, as the outputs do")


def _parameters(layers: list[dict[str, Any]], state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    found = []
    for layer in layers:
        weight, bias = (state.get(f"{layer['path']}.{name}") for name in ("weight", "bias"))
        if weight is None or weight.shape != (layer["to"], layer["from"]):
            raise ValueError(f"a snapshot has no {layer['path']}.weight of this network's shape")
        found.append({"weight": _packed(weight), "bias": None if bias is None else _packed(bias)})
    return found


def _packed(values: Tensor) -> dict[str, Any]:
    """Numbers as they are in memory, in base64."""
    wide = values.dtype == torch.float64
    flat = values.detach().cpu().to(torch.float64 if wide else torch.float32).reshape(-1)
    return {"kind": "f8" if wide else "f4", "data": _base64(flat)}


def _images(images: Tensor) -> dict[str, Any]:
    """A byte a pixel, where the pixels are whole numbers of 1/255."""
    bytes_ = (images.detach().cpu().double() * 255).round()
    if torch.equal((bytes_ / 255).to(images.dtype), images.detach().cpu()) and (
        0 <= float(bytes_.min()) <= float(bytes_.max()) <= 255
    ):
        flat = bytes_.to(torch.uint8).reshape(-1)
        return {"kind": "u1", "data": _base64(flat), "scale": 255}
    return _packed(images)


def _base64(flat: Tensor) -> str:
    # Little-endian, as the browsers' typed arrays are.
    return base64.b64encode(bytes(flat.contiguous().view(torch.uint8).tolist())).decode()


def _evenly(snapshots: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    names: Sequence[str] = list(snapshots)
    if len(names) > MOST_SNAPSHOTS:
        last = MOST_SNAPSHOTS - 1
        names = [names[round(i * (len(names) - 1) / last)] for i in range(MOST_SNAPSHOTS)]
    return {name: snapshots[name] for name in names}


def _equal(
    layers: list[dict[str, Any]], state: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> bool:
    names = [name for name in now if any(name.startswith(f"{layer['path']}.") for layer in layers)]
    return all(name in state and torch.equal(state[name].cpu(), now[name].cpu()) for name in names)
