"""Finding the faults of a data set, and planning a version without them."""

from __future__ import annotations

__all__: list[str] = []
