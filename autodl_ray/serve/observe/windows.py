"""The last pictures that a model answered, as counts in the bins of its reference."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autodl_ray.artifacts.reference import STATISTICS, Reference, picture_statistics
from autodl_ray.images import ImageArray
from autodl_ray.serve.answers import Probabilities

__all__ = ["CONFIDENCE", "Counts", "Window"]

CONFIDENCE = "confidence"
"""Name of the largest probability of an answer, beside those of :data:`STATISTICS`."""


@dataclass
class Counts:
    """Counts of one window, or of those of several replicas together.

    Attributes:
        seen: Pictures.
        since: Unix time of the oldest; 0: none.
        bins: Statistic → counts in the bins of the reference.
        classes: Times that each class was answered.
        replicas: How many windows it is the sum of.
    """

    seen: int
    since: float
    bins: dict[str, list[int]]
    classes: list[int]
    replicas: int = 1

    def add(self, other: Counts) -> None:
        """Add those of another replica; of another reference they are left out."""
        lengths = [{name: len(counts) for name, counts in one.bins.items()} for one in (self, other)]
        if lengths[0] != lengths[1] or len(self.classes) != len(other.classes):
            return
        self.seen += other.seen
        self.since = min((s for s in (self.since, other.since) if s), default=0.0)
        self.bins = {name: [a + b for a, b in zip(mine, other.bins[name], strict=True)] for name, mine in
                     self.bins.items()}  # fmt: skip
        self.classes = [a + b for a, b in zip(self.classes, other.classes, strict=True)]
        self.replicas += other.replicas

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"seen": self.seen, "since": self.since, "bins": self.bins, "classes": self.classes}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Counts:
        """Read what :meth:`to_json` returned."""
        return cls(document["seen"], document["since"], document["bins"], document["classes"])


@dataclass
class Window:
    """The last pictures of one version of a model in one replica; not safe to use from several threads at once.

    Attributes:
        reference: Whose bins are counted in.
        size: Most pictures it holds.
    """

    reference: Reference
    size: int
    _rows: deque[tuple[float, tuple[int, ...], int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        histograms = (*(self.reference.statistics[name] for name in STATISTICS), self.reference.confidence)
        self._edges = tuple(histogram.edges for histogram in histograms)
        self._bins = [[0] * len(histogram.counts) for histogram in histograms]
        self._classes = [0] * len(self.reference.classes)

    def add(self, image: ImageArray, probabilities: Probabilities) -> None:
        """Enter a picture (H, W, 3) uint8 and its answer (C,); the oldest leaves a full window."""
        values = (*picture_statistics(image), float(probabilities.max()))
        bins = tuple(bisect_right(edges, value) for edges, value in zip(self._edges, values, strict=True))
        row = (time.time(), bins, int(probabilities.argmax()))
        self._count(row, 1)
        self._rows.append(row)
        if len(self._rows) > self.size:
            self._count(self._rows.popleft(), -1)

    def counts(self) -> Counts:
        """Return the counts."""
        bins = {name: counts[:] for name, counts in zip((*STATISTICS, CONFIDENCE), self._bins, strict=True)}
        return Counts(len(self._rows), self._rows[0][0] if self._rows else 0.0, bins, self._classes[:])

    def _count(self, row: tuple[float, tuple[int, ...], int], by: int) -> None:
        for counts, at in zip(self._bins, row[1], strict=True):
            counts[at] += by
        self._classes[row[2]] += by
