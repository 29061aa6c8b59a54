"""torch's own container: it computes nothing itself."""

from torch.nn import Sequential

__all__ = ["Sequential"]
