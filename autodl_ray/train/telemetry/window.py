"""What is added up between two rows: one small update a step."""

from __future__ import annotations

from typing import Any

from autodl_ray.train.telemetry.config import StepFacts

__all__ = ["Window"]


class Window:
    """Sums over some steps, which give a row their means."""

    def __init__(self) -> None:
        self.steps = self.samples = self.skipped = 0
        self.loss = self.right = self.wait_s = self.step_s = 0.0
        self.judged = 0
        self._norms: dict[str, tuple[float, int]] = {}

    def add(self, facts: StepFacts) -> None:
        """Add a step; its norms where they were measured."""
        samples = facts.samples
        self.steps += 1
        self.samples += samples
        self.loss += facts.loss * samples
        self.wait_s += facts.wait_s
        self.step_s += facts.step_s
        if facts.skipped:
            self.skipped += 1
        if facts.accuracy is not None:
            self.right += facts.accuracy * samples
            self.judged += samples
        if facts.grad_norm is not None:
            self._add_norm("grad_norm", facts.grad_norm)
        if facts.update_ratio is not None:
            self._add_norm("update_ratio", facts.update_ratio)

    def merge(self, other: Window) -> None:
        """Add what ``other`` holds."""
        for name in ("steps", "samples", "skipped", "loss", "right", "wait_s", "step_s", "judged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, (total, count) in other._norms.items():
            before, number = self._norms.get(name, (0.0, 0))
            self._norms[name] = (before + total, number + count)

    def row(self) -> dict[str, Any]:
        """Return the means: ``loss``, ``accuracy``, ``images_per_s``, ``data_wait`` (share of the time), ``step_s``."""
        row: dict[str, Any] = {
            "loss": self.loss / max(self.samples, 1),
            "images_per_s": self.samples / max(self.step_s, 1e-9),
            "data_wait": self.wait_s / max(self.step_s, 1e-9),
            "step_s": self.step_s / max(self.steps, 1),
        }
        if self.judged:
            row["accuracy"] = self.right / self.judged
        return row | self.norms()

    def norms(self) -> dict[str, float]:
        """Return the means of the norms that were measured."""
        return {name: total / count for name, (total, count) in self._norms.items()}

    def _add_norm(self, name: str, value: float) -> None:
        if value - value == 0.0:  # a skipped step has a gradient that is not finite
            total, count = self._norms.get(name, (0.0, 0))
            self._norms[name] = (total + value, count + 1)
