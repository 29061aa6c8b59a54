"""torch's own functions, run by formula while a context is open: :class:`manualbp.intercept`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from manualbp.core.module_paths import NodePaths
from manualbp.functional._override import by_formula

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class intercept(by_formula):
    """Runs unmodified code by formula: functions, operators and methods of torch.

    ::

        with manualbp.intercept():
            cost = criterion(net(x), y)
        cost.backward()

    A call runs by formula if :mod:`manualbp.functional` has the function (``F.relu(x)``, ``x @ w``,
    ``x + y``, ``x.mean(1)``, ``torch.cat([x, y])``) and an argument requires a gradient. A function
    that torch writes in Python over others, such as ``F.multi_head_attention_forward``, runs as
    torch's, and the functions it calls run by formula. Everything else runs as torch's own;
    :func:`manualbp.coverage` lists what computes there. Views only pass gradients on.

    torch's own function also runs where the formula does not support the arguments, and raises
    torch's error if they are wrong. It runs for ``out=``, for complex, sparse and nested tensors,
    and for tensors of a class with its own ``__torch_function__``. ``@intercept()`` before a
    function opens the context at each call.

    The context holds for the forward pass in the thread that opened it; ``backward`` may be
    called outside. The transforms of ``torch.func`` may be used inside it. ``torch.compile`` breaks
    its graph at each function that is run by formula here: convert the model instead, whose layers
    it traces whole. Recomputation by ``torch.utils.checkpoint`` happens in the backward pass and
    needs a context of its own: pass ``context_fn=lambda: (intercept(), intercept())``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._paths = NodePaths()

    def __call__(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """``function``, run inside a context of its own at each call."""

        @wraps(function)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with type(self)():
                return function(*args, **kwargs)

        return run

    def __enter__(self) -> intercept:
        # __torch_function__ enters it again, for functions that torch writes in Python.
        if not self._pushed:
            self._paths.install()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if not self._pushed:
            self._paths.remove()
