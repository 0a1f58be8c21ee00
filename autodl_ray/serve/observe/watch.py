"""Watches for drift: looks at some of the pictures that are answered, and tells how far they are from the training."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autodl_ray.artifacts.reference import STATISTICS, Reference
from autodl_ray.images import ImageArray
from autodl_ray.serve.answers import Probabilities, ServedModel
from autodl_ray.serve.metrics import Snapshot
from autodl_ray.serve.observe.distances import LEAST, Distance, class_distance, psi_distance
from autodl_ray.serve.observe.windows import CONFIDENCE, Counts, Window

__all__ = ["Watch", "drift_report"]

_SHARE = 0.01  # of the time of answers
_MOST_CREDIT_S = 0.05
_WRITE_EVERY_S = 1.0


class Watch:
    """The windows of one replica, one for each version that has a reference; safe to use from several threads.

    Looking takes 0.01 of the time that answers take: which pictures are looked at follows from that, and is decided
    before their own time is known, so that large ones are not seen more often than they come.

    Args:
        window: Pictures of a version that a replica holds.
        folder: Where the replicas of this machine leave their counts for each other; None: nowhere.
        share: Of the time of answers.
        name: Of this replica's file, the id of its process; None: of this process.
    """

    def __init__(
        self, window: int, folder: Path | None = None, *, share: float = _SHARE, name: int | None = None
    ) -> None:
        self._size, self._folder, self._share = window, folder, share
        self._name = os.getpid() if name is None else name
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], Window] = {}
        self._credit = self._cost = 0.0
        self._written = 0.0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def look(self, model: ServedModel, image: ImageArray, probabilities: Probabilities, *, seconds: float) -> None:
        """Look at an answered picture if the time allows it; in the thread that answered.

        Args:
            model: Who answered.
            image: (H, W, 3) uint8.
            probabilities: (C,) of it.
            seconds: That answering took.
        """
        if model.reference is None:
            return
        with self._lock:
            credit = self._credit
            self._credit = min(_MOST_CREDIT_S, credit + self._share * seconds)
            if credit < self._cost:
                return
            began = time.perf_counter()
            self._window(model, model.reference).add(image, probabilities)
            self._publish()
            self._cost = time.perf_counter() - began
            self._credit -= self._cost

    def counts(self, model: ServedModel, reference: Reference) -> Counts:
        """Return the counts of a version, over the replicas of this machine."""
        with self._lock:
            whole = self._window(model, reference).counts()
        for file in sorted(self._folder.glob("*.json")) if self._folder is not None else ():
            if file.stem != str(self._name) and _lives(int(file.stem)):
                for name, version, document in _read(file):
                    if (name, version) == (model.name, model.version):
                        whole.add(Counts.from_json(document))
        return whole

    def report(self, model: ServedModel, reference: Reference) -> dict[str, Any]:
        """Return how far the last pictures of a version are from the training, as JSON."""
        counts = self.counts(model, reference)
        return {**model.facts(), **drift_report(model.classes, reference, counts, window=self._size)}

    def gauges(self, models: Sequence[ServedModel]) -> Snapshot:
        """Return the distances as series: gauges over all replicas, so never added up."""
        values: dict[tuple[str, tuple[str, ...]], float] = {}
        for model in models:
            if model.reference is None:
                continue
            counts, labels = self.counts(model, model.reference), (model.name, model.version)
            distances, classes = _distances(model.reference, counts)
            values["autodl_drift_pictures", labels] = counts.seen
            if counts.seen:
                for name, distance in (*distances.items(), ("classes", classes)):
                    values["autodl_drift_distance", (name, *labels)] = distance.value
                    values["autodl_drift_limit", (name, *labels)] = distance.limit
                values["autodl_drifting", labels] = float(_verdict([*distances.values(), classes]) == "drifting")
        return Snapshot(values)

    def _window(self, model: ServedModel, reference: Reference) -> Window:
        key = (model.name, model.version)
        window = self._windows.get(key)
        if window is None or window.reference is not reference:
            window = self._windows[key] = Window(reference, self._size)
        return window

    def _publish(self) -> None:
        """Leave the counts for the other replicas, at most once a second."""
        now = time.monotonic()
        if self._folder is None or now - self._written < _WRITE_EVERY_S:
            return
        self._written = now
        content = [[name, version, window.counts().to_json()] for (name, version), window in self._windows.items()]
        hidden = self._folder / f".{self._name}"
        with contextlib.suppress(OSError):  # a full disk is no reason to leave the request without its answer
            hidden.write_text(json.dumps(content), encoding="utf-8")
            hidden.replace(self._folder / f"{self._name}.json")


def drift_report(classes: Sequence[str], reference: Reference, counts: Counts, *, window: int) -> dict[str, Any]:
    """Return the distances of a window from a reference, with a verdict on each and on all.

    Args:
        classes: Names of the C classes.
        reference: Of the training.
        counts: Of the window.
        window: Pictures that one replica's window holds at most.
    """
    distances, mix = _distances(reference, counts)
    shares = {"reference": reference.classes, "seen": counts.classes}
    return {
        "verdict": _verdict([*distances.values(), mix]),
        "drifting": [name for name, d in (*distances.items(), ("classes", mix)) if d.verdict == "drifting"],
        "seen": counts.seen,
        "window": window * counts.replicas,
        "replicas": counts.replicas,
        "since": datetime.fromtimestamp(counts.since, UTC).isoformat(timespec="seconds") if counts.since else None,
        "reference": {"train_pictures": reference.pictures, "validation_answers": reference.answers},
        "statistics": {name: distance.to_json("psi") for name, distance in distances.items()},
        "classes": {
            **mix.to_json("jensen_shannon"),
            **{which: _named(classes, values) for which, values in shares.items()},
        },
        "note": (
            f"Of the pictures answered {counts.seen} were looked at, as time allowed. Nothing is said of fewer than "
            f"{LEAST[0]}. A distance from its limit on is drift: 0.25 in PSI, and more where the samples are small."
        ),
    }


def _distances(reference: Reference, counts: Counts) -> tuple[dict[str, Distance], Distance]:
    histograms = {**{name: reference.statistics[name] for name in STATISTICS}, CONFIDENCE: reference.confidence}
    distances = {name: psi_distance(histogram.counts, counts.bins[name]) for name, histogram in histograms.items()}
    return distances, class_distance(reference.classes, counts.classes)


def _verdict(distances: Sequence[Distance]) -> str:
    verdicts = {distance.verdict for distance in distances}
    return next((v for v in ("drifting", "stable") if v in verdicts), "too few")


def _named(classes: Sequence[str], counts: Sequence[int]) -> dict[str, float]:
    whole = max(1, sum(counts))
    return {name: round(count / whole, 4) for name, count in zip(classes, counts, strict=True)}


def _read(file: Path) -> list[tuple[str, str, dict[str, Any]]]:
    try:
        content: list[tuple[str, str, dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # taken away in this moment
        return []
    return content


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
