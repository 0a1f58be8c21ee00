"""Which way to INT8 is tried next, given what the ones before it gave and the time that is left: pure decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autodl_ray.spec import ExportSpec

__all__ = ["RUNGS", "Outcome", "Rung", "Step", "ladder", "next_rung"]

Rung = Literal["static", "equalised", "mixed", "qat", "dynamic", "weights"]

RUNGS: Mapping[Rung, str] = {
    "static": "weights and activations in 8 bits, ranges from calibration pictures",
    "equalised": "channels scaled to like ranges, means of the outputs put right",
    "mixed": "the most sensitive layers stay in float",
    "qat": "a short training that feels the rounding",
    "dynamic": "weights of linear layers in 8 bits, ranges of activations at run time",
    "weights": "weights alone in 8 bits: small, not faster",
}
_LINEAR_HEAVY = 0.5
_ALL_IN_8_BITS: tuple[Rung, ...] = ("static", "equalised", "qat")
_MENDING: tuple[Rung, ...] = ("equalised", "mixed", "qat")


@dataclass(frozen=True)
class Outcome:
    """What a rung gave.

    Attributes:
        rung: Which.
        drop: Validation accuracy lost, as a share; None where it could not be made.
        speedup: Speed by that of FP32; None where it was not measured.
    """

    rung: Rung
    drop: float | None
    speedup: float | None = None

    def accurate(self, spec: ExportSpec) -> bool:
        """Whether it loses no more than is accepted."""
        return self.drop is not None and self.drop <= spec.max_drop + 1e-9

    def fast(self, spec: ExportSpec) -> bool:
        """Whether it is as fast as is asked for, as far as that was measured."""
        return self.speedup is None or self.speedup >= spec.min_speedup


@dataclass(frozen=True)
class Step:
    """The rung to try, or None, and why."""

    rung: Rung | None
    reason: str


def ladder(spec: ExportSpec, *, linear_share: float) -> tuple[Rung, ...]:
    """Return the rungs that may be tried, the cheapest and best suited first.

    Args:
        spec: ``int8`` and ``qat``.
        linear_share: Share of the weights that belong to linear layers; from a half on, a network is linear-heavy.
    """
    static: tuple[Rung, ...] = ("static", "equalised", "mixed", *(("qat",) if spec.qat == "auto" else ()))
    ways: Mapping[str, tuple[Rung, ...]] = {
        "off": (),
        "static": static,
        "dynamic": ("dynamic",),
        "weights": ("weights",),
        "auto": (*static, "dynamic") if linear_share >= _LINEAR_HEAVY else static,
    }
    return ways[spec.int8]


def next_rung(
    spec: ExportSpec,
    outcomes: tuple[Outcome, ...],
    *,
    linear_share: float,
    seconds: Mapping[Rung, float],
    left_s: float,
) -> Step:
    """Decide what to try next.

    One that keeps both limits ends the climb. One that is too slow makes the rungs after it pointless that only mend
    accuracy (they cost speed or none); a network of linear layers may still gain by dynamic ranges.

    Args:
        spec: The limits and what may be tried.
        outcomes: What was tried, in order.
        linear_share: Share of the weights that belong to linear layers.
        seconds: Rung → what it is expected to take.
        left_s: Seconds left for INT8.
    """
    if any(o.accurate(spec) and o.fast(spec) and o.drop is not None for o in outcomes):
        return Step(None, "both limits are kept")
    tried = {o.rung for o in outcomes}
    slow = any(not o.fast(spec) for o in outcomes if o.rung in _ALL_IN_8_BITS)
    mendable = any(o.rung == "static" and o.drop is not None for o in outcomes)
    late: list[Rung] = []
    for rung in ladder(spec, linear_share=linear_share):
        if rung in tried or (rung in _MENDING and (slow or not mendable)):
            continue
        if seconds.get(rung, 0.0) > left_s:
            late.append(rung)
            continue
        return Step(rung, RUNGS[rung])
    if late:
        needed = min(seconds.get(rung, 0.0) for rung in late)
        return Step(None, f"no time for {', '.join(late)}: about {needed:.0f} s needed, {max(0.0, left_s):.0f} s left")
    return Step(None, "nothing is left to try")
