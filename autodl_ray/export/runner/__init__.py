"""What is shipped with a model to run it without this package: numpy and Pillow (and onnxruntime), nothing else."""

from __future__ import annotations

__all__: list[str] = []
