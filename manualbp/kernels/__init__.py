"""Kernels: faster functions that compute the same as one rule, several rules, or a forward.

A kernel is registered for the methods that it replaces::

    @kernels.of(formulas.ReLU.grad_input)
    def relu(g: Tensor, output: Tensor) -> Tensor:
        return aten.threshold_backward(g, output, 0)

It runs in eager mode, for plain tensors of real numbers on the CPU. A second derivative, a
transform, a compiled program, a counter of operations, and a subclass that states the rule anew
run the mathematics. Without kernels every result is the same, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from manualbp.core import modes
from manualbp.core.derivation import Kernel
from manualbp.core.formula import register

__all__ = ["enabled", "of"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def of(
    *methods: Callable[..., Any],
    supported: Callable[..., bool] | None = None,
    profitable: Callable[..., bool] | None = None,
) -> Callable[[_Function], _Function]:
    """Register a function as the kernel of ``methods`` of a formula.

    Args:
        methods: a rule, an intermediate, ``forward``; or several rules, for a kernel that returns
            the gradients of all of them as a tuple. Such a kernel may have a parameter ``needs``:
            for each rule, whether its gradient is wanted.
        supported: whether the kernel computes the same for these arguments; for example for one
            dtype alone. By default it always does.
        profitable: whether it is faster for these arguments; for example for large tensors.

    The parameters of a kernel, and of its conditions, are arguments, outputs or gradients that its
    methods name. The gradient of one of several outputs is None if that output was not used.

    Raises:
        TypeError: no formula has such methods, or they do not have such parameters.
    """

    def registered(function: _Function) -> _Function:
        register(Kernel(methods, function, supported, profitable))
        return function

    return registered


class enabled:
    """Switch all kernels on or off: from now on, or inside a ``with`` block.

    The environment variable ``MANUALBP_KERNELS=0`` switches them off from the start.

    ::

        manualbp.kernels.enabled(False)
        with manualbp.kernels.enabled(True):
            ...
    """

    def __init__(self, mode: bool) -> None:
        self._before = modes.kernels_enabled
        modes.kernels_enabled = mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        modes.kernels_enabled = self._before


from manualbp.kernels import activation as _activation  # noqa: E402, F401
from manualbp.kernels import conv as _conv  # noqa: E402, F401
from manualbp.kernels import distance as _distance  # noqa: E402, F401
from manualbp.kernels import loss as _loss  # noqa: E402, F401
from manualbp.kernels import matmul as _matmul  # noqa: E402, F401
from manualbp.kernels import normalization as _normalization  # noqa: E402, F401
from manualbp.kernels import padding as _padding  # noqa: E402, F401
from manualbp.kernels import pooling as _pooling  # noqa: E402, F401
from manualbp.kernels import reduction as _reduction  # noqa: E402, F401
from manualbp.kernels import rnn as _rnn  # noqa: E402, F401
from manualbp.kernels import vision as _vision  # noqa: E402, F401
