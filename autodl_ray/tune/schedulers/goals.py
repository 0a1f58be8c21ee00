"""When a whole sweep is over before its trials are used up: its target is reached, or nothing gets better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autodl_ray.tune.contracts import Mode, Observed

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """What ends a sweep; a pure function of its history.

    Attributes:
        mode: Whether the metric is to fall or to rise.
        target: Value at which it is good enough; None: none is.
        plateau: Trials without a new best after which it ends; 0: never.
    """

    mode: Mode
    target: float | None = None
    plateau: int = 0

    @property
    def is_set(self) -> bool:
        """Whether anything can end the sweep."""
        return self.target is not None or self.plateau > 0

    def reached(self, history: Sequence[Observed]) -> str | None:
        """Say why the sweep is over; None: it is not."""
        if not self.is_set:
            return None
        sign = 1.0 if self.mode == "max" else -1.0
        known = [(sign * o.value, -o.number) for o in history if o.value is not None]
        if not known:
            return None
        best, number = max(known)
        if self.target is not None and best >= sign * self.target:
            return f"the target {self.target:g} is reached ({sign * best:.4f})"
        since = sum(1 for o in history[1 - number :] if o.status not in ("running", "paused"))
        if self.plateau and since >= self.plateau:
            return f"no new best in {since} trials"
        return None
