"""errors.csv and predictions.csv: the answers picture by picture."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["ERROR_COLUMNS", "Mistake", "find_mistakes", "write_errors", "write_predictions"]

ERROR_COLUMNS = ("path", "true", "predicted", "probability", "probability_of_true")


@dataclass(frozen=True)
class Mistake:
    """A picture with a wrong answer.

    Attributes:
        position: In the samples.
        path: Relative to the data folder.
        true: True class.
        predicted: Class that was answered.
        probability: Of the answer.
        probability_of_true: Of the true class.
    """

    position: int
    path: str
    true: str
    predicted: str
    probability: float
    probability_of_true: float


def find_mistakes(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    *,
    positions: npt.NDArray[np.int64],
    paths: Sequence[str],
    classes: Sequence[str],
) -> list[Mistake]:
    """Return the wrong answers, those that gave the true class the least probability first.

    Args:
        probabilities: (N, C).
        labels: (N,) true classes.
        positions: (N,) positions of the rows in the samples.
        paths: N paths.
        classes: C names.
    """
    predicted = probabilities.argmax(axis=1)
    rows = [
        Mistake(
            position=int(positions[i]),
            path=paths[i],
            true=classes[labels[i]],
            predicted=classes[predicted[i]],
            probability=float(probabilities[i, predicted[i]]),
            probability_of_true=float(probabilities[i, labels[i]]),
        )
        for i in np.flatnonzero(predicted != labels).tolist()
    ]
    return sorted(rows, key=lambda row: (row.probability_of_true, -row.probability, row.path))


def write_errors(path: Path, mistakes: Sequence[Mistake]) -> None:
    """Write the mistakes with the columns :data:`ERROR_COLUMNS`, worst first."""
    rows = ((m.path, m.true, m.predicted, f"{m.probability:.7f}", f"{m.probability_of_true:.7f}") for m in mistakes)
    _write(path, ERROR_COLUMNS, rows)


def write_predictions(
    path: Path,
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    *,
    paths: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Write one row a picture: path, true, predicted, and ``p_CLASS`` for each class, to 7 decimals."""
    predicted = probabilities.argmax(axis=1)
    rows = (
        (name, classes[true], classes[answer], *(f"{p:.7f}" for p in row))
        for name, true, answer, row in zip(paths, labels, predicted, probabilities, strict=True)
    )
    _write(path, ("path", "true", "predicted", *(f"p_{c}" for c in classes)), rows)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    # surrogateescape: a file name that is not UTF-8 is written with the bytes that it has on disk
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
