"""Which model is delivered under limits: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Choice", "Measured", "choose", "dominated", "table"]

LIMITS: Mapping[str, str] = {"latency_ms": "ms", "size_mb": "MB"}


@dataclass(frozen=True)
class Measured:
    """One exported file.

    Attributes:
        source: The model: ``quick``, ``sweep t0003``, ``train``; ``train@96px`` for a smaller input.
        variant: ``fp32`` or ``int8``.
        accuracy: On the validation split.
        macro_f1: On the validation split.
        latency_ms: Median of one picture at a time on this machine, decoding left out.
        size_mb: Of the file, in 10^6 bytes.
    """

    source: str
    variant: str
    accuracy: float
    macro_f1: float
    latency_ms: float
    size_mb: float

    @property
    def scores(self) -> dict[str, float]:
        """Of the validation split, by name."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1}


@dataclass(frozen=True)
class Choice:
    """What is delivered.

    Attributes:
        index: Its place among what was measured.
        met: Whether it keeps every limit.
        line: For people.
    """

    index: int
    met: bool
    line: str


def dominated(rows: Sequence[Measured], metric: Literal["accuracy", "macro_f1"]) -> list[bool]:
    """Say of each row whether another one is at least as good in score, latency and size, and better in one."""

    def figures(row: Measured) -> tuple[float, float, float]:
        return (-getattr(row, metric), row.latency_ms, row.size_mb)

    def beats(one: Measured, other: Measured) -> bool:
        a, b = figures(one), figures(other)
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [any(beats(other, row) for other in rows) for row in rows]


def choose(rows: Sequence[Measured], limits: Mapping[str, float], metric: Literal["accuracy", "macro_f1"]) -> Choice:
    """Choose the best score among the rows that keep every limit; where none does, the row that comes nearest.

    Nearest is the smallest of the largest ratios of a figure to its limit. Ties go to the faster one, then the smaller.
    """
    within = [i for i, row in enumerate(rows) if _excess(row, limits) <= 1.0]
    if within:
        best = max(within, key=lambda i: (round(getattr(rows[i], metric), 6), -rows[i].latency_ms, -rows[i].size_mb))
        return Choice(best, True, f"{_name(rows[best])} keeps the limits: {_figures(rows[best], limits)}")
    nearest = min(range(len(rows)), key=lambda i: (_excess(rows[i], limits), -getattr(rows[i], metric)))
    line = f"no model keeps the limits; {_name(rows[nearest])} comes nearest: {_figures(rows[nearest], limits)}"
    return Choice(nearest, False, line)


def table(
    rows: Sequence[Measured],
    choice: Choice,
    *,
    limits: Mapping[str, float],
    metric: Literal["accuracy", "macro_f1"],
) -> list[dict[str, Any]]:
    """Return the rows as plain data, best score first: whether they keep the limits, are dominated, and were chosen."""
    behind = dominated(rows, metric)
    found = [
        {
            **asdict(row),
            "keeps_limits": _excess(row, limits) <= 1.0,
            "dominated": behind[i],
            "chosen": i == choice.index,
        }
        for i, row in enumerate(rows)
    ]
    return sorted(found, key=lambda row: (-row[metric], row["latency_ms"], row["size_mb"]))


def _excess(row: Measured, limits: Mapping[str, float]) -> float:
    return max((getattr(row, name) / limit for name, limit in limits.items()), default=0.0)


def _name(row: Measured) -> str:
    return f"{row.source} as {row.variant.upper()}"


def _figures(row: Measured, limits: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name.split('_')[0]} {getattr(row, name):.3g} {LIMITS[name]} (at most {limit:g})"
        for name, limit in limits.items()
    )
