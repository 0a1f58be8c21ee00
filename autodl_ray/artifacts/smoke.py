"""Made pictures and what a model says of them: a check that a bundle answers here as it did where it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SMOKE_JSON", "smoke_difference", "smoke_document", "smoke_pictures"]

SMOKE_JSON = "smoke.json"
_SIZES = ((48, 64), (97, 33), (64, 64), (150, 200), (31, 30), (120, 90))
_TOLERANCE = {"fp32": 2e-3, "int8": 0.1}  # 8-bit sums saturate on processors without VNNI

Answer = Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.float32]]


def smoke_pictures() -> list[npt.NDArray[np.uint8]]:
    """Return six pictures (H, W, 3) uint8 of several sizes, by whole numbers alone: the same everywhere."""
    pictures = []
    for i, (height, width) in enumerate(_SIZES):
        y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.int64)
        waves = (x * (3 + i) + y * (7 - i) + c * 40) % 256
        blocks = ((x // (5 + 2 * i) + y // (4 + i)) % 2) * (90 + 25 * c)
        pictures.append(((waves + blocks + (x * y) // (11 + i)) % 256).astype(np.uint8))
    return pictures


def smoke_document(answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Return the content of ``smoke.json``.

    Args:
        answers: Variant → what answers N pictures with (N, C) probabilities.
    """
    pictures = smoke_pictures()
    return {
        "schema": 1,
        "tolerance": {name: _TOLERANCE.get(name, 2e-3) for name in answers},
        "probabilities": {
            name: [[round(float(p), 6) for p in row] for row in answer(pictures)] for name, answer in answers.items()
        },
    }


def smoke_difference(document: Mapping[str, Any], variant: str, answer: Answer) -> tuple[float, float]:
    """Answer the pictures and return the largest difference of a probability, and the one that is accepted.

    Args:
        document: The content of ``smoke.json``.
        variant: ``fp32`` or ``int8``.
        answer: Answers N pictures with (N, C) probabilities.

    Raises:
        KeyError: The document has no such variant.
    """
    wanted = np.asarray(document["probabilities"][variant], dtype=np.float64)
    seen = np.asarray(answer(smoke_pictures()), dtype=np.float64)
    if seen.shape != wanted.shape:
        return float("inf"), float(document["tolerance"][variant])
    difference = np.nan_to_num(np.abs(seen - wanted), nan=np.inf)
    return float(difference.max()), float(document["tolerance"][variant])
