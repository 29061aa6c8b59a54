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

    Whatever :mod:`manualbp.functional` has a function for, ``F.relu(x)``, ``x @ w``, ``x + y``,
    ``x.mean(1)``, ``torch.cat([x, y])``, is run by its formula when something in it wants a
    gradient. What torch writes in Python over other functions,
    ``F.multi_head_attention_forward``, is entered. The rest runs as it is: views are structure,
    and what else remains :func:`manualbp.coverage` names.

    What no formula can do torch's own function does, and what is wrong torch refuses in its own
    words. Calls with ``out=``, complex, sparse and nested tensors, and tensors of a class with a
    ``__torch_function__`` of its own, are torch's too. ``@intercept()`` before a function opens the
    context at each call.

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
        # The handler enters it again, for the functions that torch writes in Python.
        if not self._pushed:
            self._paths.install()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if not self._pushed:
            self._paths.remove()
