"""Files that are copied into the folder of the TensorRT format; they run on a machine with a GPU."""

from __future__ import annotations

__all__: list[str] = []
