"""What is inside one backward pass: :func:`manualbp.trace`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from manualbp.see import checking, explanation, pathways, summary
from manualbp.see.flow import Flow
from manualbp.see.layers import Calls, Layer, Layers
from manualbp.see.naming import nearest
from manualbp.see.receipts import Receipt, receipt
from manualbp.see.running import Cost, record
from manualbp.see.vanishing import Vanishing, vanishing
from manualbp.tape import Tape


def trace(model: nn.Module, x: Any, y: Any, *, cost: Cost) -> Trace:
    """One forward and one backward pass of ``cost(model(x), y)``, with all numbers kept.

    ::

        trace = manualbp.trace(model, x, y, cost=criterion)
        print(trace)                    # a row for each layer
        trace["encoder.0"].grad_output  # ∂C/∂a of that layer

    The model runs by formula, as inside :func:`manualbp.intercept` after :func:`manualbp.convert`.
    It is afterwards as it was before: its parameters, ``.grad``, buffers, mode, hooks and classes,
    and the generators of random numbers.

    Args:
        model: any module that ``convert`` and ``intercept`` cover.
        x: its input, of shape (n, …), or a tuple of its inputs; examples along the first axis.
        y: the target, for n examples.
        cost: a function of the model's output and ``y`` that gives one number, such as
            ``torch.nn.CrossEntropyLoss()``.

    Raises:
        TypeError: ``model`` is no module, or ``cost`` cannot be called.
        ValueError: x and y differ in length, or the cost is no single number, or depends on no
            parameter.
        TapeError: the model computes what manualbp has no formula of; lists it.
    """
    watched: list[Calls] = []

    def watch(tape: Tape, model: nn.Module) -> Any:
        watched.append(Calls(tape, model))
        return watched[-1].watched()

    recorded = record(model, x, y, cost, input_grads=True, watch=watch)
    layers = Layers(recorded, watched[-1].calls)
    return Trace(model, cost, layers)


class Trace:
    """The numbers of one forward and one backward pass; made by :func:`trace`.

    ``trace["encoder.0"]`` is the layer of that path; of one that ran more than once, a tuple of
    its calls. Modules that contain others are found so too.

    Attributes:
        layers: the innermost modules, and the functions called between them, in the order of the
            forward pass.
        criterion: the cost, as a layer.
        cost: C.
        grads: ∂C/∂p of each parameter by its name in the model: what ``.grad`` would be.
        parameters: these parameters.
        tape: has an entry for each formula that ran.
        model: the model; ``function`` is its cost.
        x, y: what the model and the cost were given.
    """

    def __init__(self, model: nn.Module, cost: Cost, layers: Layers) -> None:
        recorded = layers.recorded
        self.model, self.function = model, cost
        self.layers = layers.innermost()
        self.criterion = layers.of_cost(cost)
        self.cost = recorded.cost
        self.grads = recorded.grads
        self.parameters = {name: recorded.parameters[name] for name in self.grads}
        self.tape = recorded.tape
        self.entries = layers.entries
        self.x = recorded.inputs[0] if len(recorded.inputs) == 1 else recorded.inputs
        self.y = recorded.target
        self.end = layers.end
        self._layers = layers
        self._versions = [p._version for p in model.parameters()]

    @property
    def examples(self) -> int:
        """How many examples there are: n."""
        first = self.x[0] if isinstance(self.x, tuple) else self.x
        return len(first) if isinstance(first, Tensor) and first.dim() else 1

    def __getitem__(self, path: str) -> Any:
        found = [layer for layer in self.layers if layer.path == path]
        if not found:
            found = [self._layers.of_call(c) for c in self._layers.calls if c.path == path]
        if not found and path == "cost":
            found = [self.criterion]
        if not found:
            known = {layer.path for layer in self.layers} | {c.path for c in self._layers.calls}
            raise KeyError(f"{path!r} is no layer that ran; {nearest(path, sorted(known))}")
        return found[0] if len(found) == 1 else tuple(found)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __str__(self) -> str:
        numbers = self.to_dict()
        return summary.table(numbers["layers"], numbers)

    def __repr__(self) -> str:
        name, cost = type(self.model).__name__, float(self.cost)
        return f"<Trace of {name}: {len(self)} layers, C = {cost:.4g}>"

    def vanishing(self) -> Vanishing:
        """How ‖δ‖ changes from the cost back to the first layer, and by what.

        ::

            print(trace.vanishing())  # a row for each layer with parameters, and a sentence

        δ of a layer is ∂C/∂output, and its size that of one example: the root mean square over the
        examples. A step leads from δ of one layer with parameters to δ of the one before it. It is
        log₁₀ of the quotient of their sizes, and has two parts that add up to it:

        - ``slope``, by σ′: the sum over the activations between the two of the log₁₀ of
          ‖∂C/∂input‖ / ‖∂C/∂output‖, which is ‖g ⊙ σ′(z)‖ / ‖g‖;
        - ``weights``: the rest. In a chain of layers it is ‖δ W‖ / ‖δ‖ and the like for all that
          is no activation: convolution, pooling, normalisation, attention, a whole LSTM. Where
          paths meet, as in a residual network, it has in it what the other paths add.

        Where several layers take what a layer returns, the step is from the one that sends the
        most back.
        """
        return vanishing(self)

    def to_dict(self) -> dict[str, Any]:
        """What is printed, as plain numbers: see :func:`manualbp.see.summary.numbers_of`."""
        return {
            "cost": float(self.cost),
            "name": self.criterion.name,
            "examples": self.examples,
            "layers": [summary.numbers_of(layer, self.examples) for layer in self.layers],
        }

    def to_json(self, **options: Any) -> str:
        """:meth:`to_dict` as JSON; ``options`` are those of :func:`json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    # ------------------------------------------------------------------------------- why

    def explain(self, name: str, *index: int) -> explanation.Explanation:
        """Why one entry of a parameter should move: ``trace.explain("0.weight", 3, 407)``.

        Its gradient as the document states it, the mean over examples of how wrong the output is,
        ∂Cₙ/∂aⱼ, × how responsive the neuron is, σ′(zⱼ), × how active the input was, aₖ. Where
        the parameter is in no Linear layer or convolution, its gradient for each example alone.

        Raises:
            KeyError: ``name`` is no parameter that C depends on.
            IndexError: the parameter has no such entry.
        """
        return explanation.explain(self, name, index)

    def has_factors(self, name: str) -> bool:
        """Whether :meth:`explain` has the three factors for a parameter."""
        return explanation.has_factors(self, name)

    def paths(
        self, name: str, *index: int, top: int = 10, example: int | None = None
    ) -> pathways.Paths | pathways.WeightPaths:
        """Over which paths a value acts on C.

        ``trace.paths("1", 5)``: activation 5 of layer "1". A row for each unit j of the next
        weighted sum: wⱼₖ, σ′(zⱼ), ∂C/∂aⱼ and their product. They add up to ∂C/∂aₖ.

        ``trace.paths("0.weight", 3, 407)``: the heaviest whole paths from that weight through
        the weighted sums behind it, to the end of their chain, each with the product along it.

        Args:
            name: the path of a layer, or the name of a parameter.
            index: the unit in the layer's output for each example, or the entry of the parameter.
            top: how many whole paths.
            example: the example that is meant; otherwise the mean of the batch.

        Raises:
            KeyError: no layer and no parameter is called so.
            IndexError: there is no such unit, entry or example.
            ValueError: the layer ran more than once, or the weight is in no Linear layer.
        """
        if name in self.parameters:
            return pathways.paths_of_weight(self, name, index, top, example)
        return pathways.paths_of_activation(self, name, index, example)

    def check(self, *, rtol: float | None = None) -> checking.Checked:
        """Hold the chain's identities against the numbers, layer by layer.

        δ of a layer is what torch's own derivative makes of the δ of the next; ∂C/∂W is so from δ
        and a; ∂C/∂ a value is the sum over the paths; ∂C/∂p is the sum over the layers and the mean
        over the examples.

        Args:
            rtol: the largest relative error; 10⁴ units of the dtype's rounding by default.

        Returns:
            the largest error, and the layer where it is.

        Raises:
            AssertionError: it is larger than ``rtol``; names layer and identity.
        """
        return checking.check(self, rtol)

    def receipt(self) -> Receipt:
        """The gradient of each parameter three ways, in double precision.

        By formula; by torch's own autograd, on a copy of the model without a formula; and by
        central differences, at the entry of each parameter with the largest gradient.

        ::

            print(trace.receipt())  # a line for each parameter, and where they differ most

        Raises:
            RuntimeError: the model has been trained since it was traced.
        """
        return receipt(self)

    def check_unchanged(self) -> None:
        """Raise where the model has been trained since: it has to run again."""
        if [p._version for p in self.model.parameters()] != self._versions:
            raise RuntimeError(
                "the parameters of the model have changed since it was traced, and it has to run "
                "again for this: trace it anew"
            )

    @cached_property
    def flow(self) -> Flow:
        """The entries of the tape by what they take."""
        return Flow(self.entries)
