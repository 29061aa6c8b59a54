"""What is inside this backward pass, in numbers: of a trace, and of each example."""

from manualbp.see.layers import Layer
from manualbp.see.nudging import Nudge, nudge
from manualbp.see.per_example import clipped_grads, per_example_grads, per_example_norms
from manualbp.see.tracing import Trace, trace

__all__ = [
    "Layer",
    "Nudge",
    "Trace",
    "clipped_grads",
    "nudge",
    "per_example_grads",
    "per_example_norms",
    "trace",
]
