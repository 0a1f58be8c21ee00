"""What the pictures and answers of a training looked like: statistics that later pictures are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import BundleError
from autodl_ray.images import ImageArray

__all__ = ["REFERENCE_JSON", "STATISTICS", "Histogram", "Reference", "answers_document", "picture_statistics"]

REFERENCE_JSON = "reference.json"
STATISTICS = ("brightness", "contrast", "saturation", "sharpness", "aspect_ratio", "side_px")
"""Names of what :func:`picture_statistics` returns, in its order."""

_GRID = 48  # rows and columns of a picture that are looked at
_BINS = 10
_A_BIN = 10  # values that a bin of the reference should hold at least
_FINE = 1e-4  # values are compared after rounding to so many of their size


def picture_statistics(image: ImageArray) -> tuple[float, ...]:
    """Return simple statistics of a picture, from 48 × 48 of its pixels and their neighbours.

    Args:
        image: (H, W, 3) uint8, RGB.

    Returns:
        In the order of :data:`STATISTICS`: mean of the luma (Rec. 601) and its standard deviation, mean distance of
        the largest and the smallest channel (all in [0, 255]), mean step between neighbouring pixels by the
        contrast, width by height, and the side of a square of as many pixels.
    """
    height, width = image.shape[:2]
    down, across = max(1, height // _GRID), max(1, width // _GRID)
    seen = image[::down, ::across].astype(np.float32)
    luma = _luma(seen)
    contrast = float(luma.std())
    # Neighbours at full resolution: steps between the chosen pixels themselves would not tell a blur.
    right = _luma(image[::down, 1::across].astype(np.float32))
    columns = min(luma.shape[1], right.shape[1])
    step = float(np.abs(luma[:, :columns] - right[:, :columns]).mean()) if columns else 0.0
    largest = np.maximum(np.maximum(seen[..., 0], seen[..., 1]), seen[..., 2])
    smallest = np.minimum(np.minimum(seen[..., 0], seen[..., 1]), seen[..., 2])
    return (
        float(luma.mean()),
        contrast,
        float((largest - smallest).mean()),
        step / (contrast + 1.0),
        width / height,
        float(height * width) ** 0.5,
    )


@dataclass(frozen=True)
class Histogram:
    """How often values of the reference fell between edges: about a tenth of them in each bin.

    Attributes:
        edges: K − 1 inner edges, ascending; a value at an edge belongs above it.
        counts: K counts.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Histogram:
        """Divide values at their deciles (at fewer quantiles where there are few); frequent values get their own bin.

        Args:
            values: N numbers, at least one.
        """
        numbers = np.sort(np.asarray(values, np.float64))
        bins = int(np.clip(numbers.size // _A_BIN, 2, _BINS))
        inner = np.quantile(numbers, np.arange(1, bins) / bins, method="lower")
        found, times = np.unique(inner, return_counts=True)
        margin = np.maximum(np.abs(found), 1.0) * _FINE
        often = (times > 1) | (bins == 2)
        # Whatever differs from a frequent value has to fall elsewhere: a lower and an upper edge around it.
        edges = np.unique(np.concatenate([found - margin, (found + margin)[often]]))
        counts = np.bincount(np.searchsorted(edges, numbers, side="right"), minlength=len(edges) + 1)
        return cls(tuple(map(float, edges)), tuple(map(int, counts)))

    def to_json(self) -> dict[str, Any]:
        """Return ``edges`` and ``counts``."""
        return {"edges": list(self.edges), "counts": list(self.counts)}


@dataclass(frozen=True)
class Reference:
    """The content of ``reference.json``.

    Attributes:
        pictures: Of the training split that were looked at.
        statistics: Name of :data:`STATISTICS` → histogram over them.
        answers: Pictures of the validation split that were answered.
        classes: C times that each class was answered.
        confidence: Histogram of the largest probability of each answer.
    """

    pictures: int
    statistics: Mapping[str, Histogram]
    answers: int
    classes: tuple[int, ...]
    confidence: Histogram

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], answers: Mapping[str, Any]) -> Reference:
        """Put a reference together.

        Args:
            rows: Of each picture of the training split what :func:`picture_statistics` returned.
            answers: What :func:`answers_document` returned of the validation split.
        """
        columns = np.asarray(rows, np.float64).T
        statistics = {name: Histogram.of(values) for name, values in zip(STATISTICS, columns, strict=True)}
        return cls(len(rows), statistics, **_answers(answers))

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "schema": 1,
            "pictures": self.pictures,
            "statistics": {name: histogram.to_json() for name, histogram in self.statistics.items()},
            "answers": {
                "pictures": self.answers,
                "classes": list(self.classes),
                "confidence": self.confidence.to_json(),
            },
        }

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read the file.

        Raises:
            BundleError: It is damaged.
        """
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError(f"{REFERENCE_JSON} is damaged.", seen=f"{type(error).__name__}: {error}") from error
        return cls.from_json(document)

    @classmethod
    def from_json(cls, document: Any) -> Reference:
        """Read the document.

        Raises:
            BundleError: It is damaged.
        """
        try:
            statistics = {name: _histogram(document["statistics"][name]) for name in STATISTICS}
            return cls(int(document["pictures"]), statistics, **_answers(document["answers"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{REFERENCE_JSON} is damaged.", seen=f"{type(error).__name__}: {error}") from error


def answers_document(probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return how often each class was answered, and how sure the answers were.

    Args:
        probabilities: (N, C), N at least 1.
    """
    count, classes = probabilities.shape
    return {
        "pictures": count,
        "classes": np.bincount(probabilities.argmax(axis=1), minlength=classes).tolist(),
        "confidence": Histogram.of(probabilities.max(axis=1)).to_json(),
    }


def _answers(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "answers": int(document["pictures"]),
        "classes": tuple(map(int, document["classes"])),
        "confidence": _histogram(document["confidence"]),
    }


def _histogram(document: Mapping[str, Any]) -> Histogram:
    edges, counts = tuple(map(float, document["edges"])), tuple(map(int, document["counts"]))
    if len(counts) != len(edges) + 1 or list(edges) != sorted(edges):
        raise ValueError("edges and counts do not fit")
    return Histogram(edges, counts)


def _luma(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    luma: npt.NDArray[np.float32] = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma
