"""Whole models: each layer by itself, on the inputs it really had, and then the chain of them."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from manualbp.core.graph import nodes
from manualbp.verification.differences import sizes_of, slope
from manualbp.verification.examination import Examination, first_line
from manualbp.verification.numbers import inner, upstream_like
from manualbp.verification.report import Check, Finding, Report, in_order
from manualbp.verification.subject import Subject, check_target, custom_functions, seed

#: what the gradient of a whole model may be off along a direction, beside the differences' doubt
CHAIN = 1e-4

#: how much of the usual step is the first one: of 10⁶ units some are near a kink
CHAIN_REACH = 2.0**-10

Examine = Callable[[Subject, str, bool], Examination]


@dataclass
class Layer:
    """A module that computes by itself, and the inputs of its first call."""

    path: str
    module: nn.Module
    inputs: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)
    calls: int = 1


def verify_model(
    model: nn.Module,
    inputs: Sequence[Any],
    cost: Callable[..., Any] | None,
    progress: bool | None,
    examine: Examine,
) -> Report:
    """Verify the layers of a model, children before parents, and then the whole."""
    check_target(inputs, cost)
    report = Report(type(model).__name__)
    found: list[Finding] = []
    layers = list(_layers(model, inputs, cost))
    known: set[Any] = set()
    accused: list[str] = []
    with _bar(progress) as shown:
        for layer in shown(layers):
            if inner := [path for path in accused if _inside(path, layer.path)]:
                why = f"{layer.path or 'the model'} contains {inner[0]}, which is not right"
                report.checks.append(Check("layers", skipped=why, path=layer.path))
                continue
            examination = _examined(layer, known, examine, report)
            if examination is None:
                continue
            found += [f for f in examination.findings if f.against or f.kind == "kink"]
            found += [f for f in examination.findings if f.kind == "unsupported"]
            report.checks += examination.checks.values()
            if examination.failed:
                accused.append(layer.path)
    report.checks.append(Check("layers", tried=len(layers)))
    if not accused:
        chain = Examination(Subject(model, inputs, cost))
        _chain(chain)
        found += chain.findings
        report.checks += chain.checks.values()
    else:
        why = "a layer in it is not right"
        report.checks.append(Check("the chain of layers", skipped=why))
    report.findings = in_order(_merged(found))
    return report


def _inside(path: str, outer: str) -> bool:
    if path == "cost":
        return outer == path
    return outer == "" or path == outer or path.startswith(f"{outer}.")


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """What is not offered is said once, of the first layer that does not offer it."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for finding in findings:
        key = (finding.kind, finding.how)
        if finding.against or key not in seen:
            kept.append(finding)
        seen.add(key)
    return kept


def _examined(
    layer: Layer, known: set[Any], examine: Examine, report: Report
) -> Examination | None:
    """Thoroughly, where a Function is in it and no layer like it was examined before."""
    if why := _on_purpose(layer.module):
        report.checks.append(Check("layers", skipped=f"{layer.path}: {why}", path=layer.path))
        return None
    try:
        subject = Subject(layer.module, layer.inputs, keywords=layer.keywords)
    except (TypeError, ValueError):
        return None  # nothing in it has a gradient
    try:
        run = subject.run(subject.given, None)
    except Exception:
        return None  # it runs only within its model
    functions = custom_functions(run.outputs)
    shapes = [tuple(v.shape) for v in subject.given.values]
    mine = (type(layer.module), repr(layer.module), *functions, *shapes)
    thorough = bool(functions) and mine not in known
    known.add(mine)
    return examine(subject, layer.path, thorough)


def _on_purpose(module: nn.Module) -> str:
    """Why the gradient of one of torch's own layers is not the derivative of its value."""
    if isinstance(module, nn.CTCLoss):
        return "its gradient is that of normalised log-probabilities alone"
    if getattr(module, "padding_idx", None) is not None:
        return "its padding_idx is learnt by nobody"
    return ""


def _padding(model: nn.Module) -> dict[str, int]:
    """The row of a weight that is padding, by the name of the weight."""
    return {
        ".".join(filter(None, (name, "weight"))): module.padding_idx
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None
    }


# ------------------------------------------------------------------------------- layers


def _layers(
    model: nn.Module, inputs: Sequence[Any], cost: Callable[..., Any] | None
) -> Iterator[Layer]:
    """The layers in the order in which their first calls ended, and then the cost."""
    watched = _copied(model)
    names = {id(module): name for name, module in watched.named_modules()}
    calls: dict[int, Layer] = {}
    ended: dict[int, Layer] = {}
    own: dict[int, set[Any]] = {}
    claimed: set[Any] = set()
    running: list[int] = []

    def claim(owner: int | None, values: Any) -> None:
        """The Functions behind ``values`` that nobody called yet were called by ``owner``."""
        tensors = [t for t in tree_flatten(values)[0] if isinstance(t, Tensor)]
        for node in nodes(*(t.grad_fn for t in tensors)):
            if node not in claimed and hasattr(node, "_forward_cls"):
                claimed.add(node)
                if owner is not None:
                    own.setdefault(owner, set()).add(type(node))

    def before(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        claim(running[-1] if running else None, (args, keywords))
        running.append(id(module))
        if id(module) in calls:
            calls[id(module)].calls += 1
            return
        args, keywords = _positional(module, args, keywords)
        kept = tree_map(_kept, args), tree_map(_kept, keywords)
        calls[id(module)] = Layer(names.get(id(module), ""), module, *kept)

    def after(module: nn.Module, _: Any, __: Any, result: Any) -> None:
        ended.setdefault(id(module), calls[id(module)])
        claim(running.pop(), result)

    hooks = []
    for module in watched.modules():
        hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(module.register_forward_hook(after, with_kwargs=True))
    seed()
    given = list(inputs if cost is None else inputs[:-1])
    try:
        output = watched(*(_fresh(value) for value in given))
    finally:
        for hook in hooks:
            hook.remove()
    for key, layer in ended.items():
        module = layer.module
        alone = not any(True for _ in module.children())
        direct = any(True for _ in module.parameters(recurse=False))
        if layer.path and (alone or direct or key in own):
            yield layer
        elif not layer.path and key in own:
            yield layer
    if cost is not None:
        yield _cost_layer(cost, output, inputs[-1])


def _cost_layer(cost: Callable[..., Any], output: Any, target: Any) -> Layer:
    module = cost if isinstance(cost, nn.Module) else _Cost(cost)
    output, target = tree_map(_kept, output), tree_map(_kept, target)
    flat = [t for t in tree_flatten(output)[0] if isinstance(t, Tensor) and t.is_floating_point()]
    for t in flat:
        t.requires_grad_()
    return Layer("cost", module, (output, target))


class _Cost(nn.Module):
    """A function as a module."""

    def __init__(self, cost: Callable[..., Any]) -> None:
        super().__init__()
        self.cost = cost

    def forward(self, output: Any, target: Any) -> Any:
        return self.cost(output, target)


def _copied(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


def _fresh(value: Any) -> Any:
    """A copy that a layer may write into."""
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, value)


def _kept(value: Any) -> Any:
    """An input as it arrived, with whether a gradient flows to it."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _positional(
    module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position, as far as the signature has positions."""
    try:
        bound = inspect.signature(module.forward).bind(*args, **keywords)
    except (TypeError, ValueError):
        return args, keywords
    if keywords:
        bound.apply_defaults()
    return bound.args, bound.kwargs


# ------------------------------------------------------------------------------- the chain


def _chain(ex: Examination) -> None:
    """The gradient of the whole along random directions through all inputs and parameters."""
    name = "the chain of layers"
    subject = ex.subject
    padding = {} if subject.module is None else _padding(subject.module)
    given = subject.given
    for dtype in (torch.double, None):
        try:
            subject.choose_outputs(given, dtype)
            ex.dtype = dtype
            pulled = ex.pull(given)
            break
        except Exception as raised:
            if dtype is None:
                ex.find("raises", f"the backward pass of the whole raises {first_line(raised)}")
                return
    for number in range(3):
        noise = upstream_like([v.detach().double() for v in given.values], 60 + number)
        directions = [d * sizes_of(v) for d, v in zip(noise, given.values, strict=True)]
        for slot, direction in zip(subject.slots, directions, strict=True):
            if slot.parameter in padding:
                direction[padding[slot.parameter]] = 0.0
        beside = _along(ex, pulled, directions)
        if beside is None:
            continue
        error, wrong = beside
        ex.check(name).saw(error)
        if wrong:
            _tell_chain(ex, pulled, directions, error)
            return
        if number:
            return
    if not ex.check(name).tried:
        ex.skip(name, "no direction without a kink was found")


def _along(
    ex: Examination, pulled: Any, directions: Sequence[Tensor | None]
) -> tuple[float, bool] | None:
    """The relative error along a direction, and whether it is too much; None at a kink."""
    given = ex.subject.given

    def there(t: float) -> Tensor:
        values = [
            v if d is None else v.detach().double() + t * d
            for v, d in zip(given.values, directions, strict=True)
        ]
        outputs = ex.subject.value(type(given)(values, given.others, given.training), ex.dtype)
        return inner(outputs, pulled.upstream)

    measured = slope(there, there(0.0), ex.eps, reach=CHAIN_REACH if ex.eps < 1e-12 else 1.0)
    if measured.kink or not measured.finite:
        return None
    products = [
        (g.detach().double() * d).sum()
        for g, d in zip(pulled.grads.values(), directions, strict=True)
        if g is not None and d is not None
    ]
    told = float(torch.stack(products).sum()) if products else 0.0
    expected, doubt = float(measured.value), float(measured.error)
    each = float(torch.stack(products).norm()) if products else 0.0
    size = max(abs(expected), each, 1e-300)
    limit = CHAIN if ex.eps < 1e-12 else 0.05
    off = abs(told - expected)
    return off / size, off > limit * size + 20 * doubt


def _tell_chain(ex: Examination, pulled: Any, directions: Sequence[Tensor], error: float) -> None:
    """Name the last parameter whose gradient is wrong: what follows it is at fault."""
    count = len(directions)
    for i in reversed(range(count)):
        alone = [d if j == i else None for j, d in enumerate(directions)]
        beside = _along(ex, pulled, alone)
        if beside is not None and beside[1]:
            how = "is wrong, though each layer by itself is right: see what the model computes "
            how += "after it"
            ex.find("wrong", how, i, beside[0])
            return
    ex.find("wrong", "the gradient of the whole is wrong, though each layer is right", None, error)


# ------------------------------------------------------------------------------- progress


@contextmanager
def _bar(progress: bool | None) -> Iterator[Callable[[Sequence[Layer]], Iterator[Layer]]]:
    """Shows which layer is being verified: on a terminal, unless told otherwise."""
    wanted = sys.stderr.isatty() if progress is None else progress
    if not wanted or find_spec("rich") is None:
        yield iter
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def shown(layers: Sequence[Layer]) -> Iterator[Layer]:
            task = bar.add_task("", total=len(layers))
            for layer in layers:
                bar.update(task, description=layer.path)
                yield layer
                bar.advance(task)

        yield shown
