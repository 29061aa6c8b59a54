"""Pictures made larger, smaller, and moved."""

from __future__ import annotations

__all__: list[str] = []
