"""What is inside this backward pass, in numbers: :func:`manualbp.trace`, and what it answers."""

from manualbp.see.layers import Layer
from manualbp.see.tracing import Trace, trace

__all__ = ["Layer", "Trace", "trace"]
