"""Whether a new version takes over: what was seen of both versions goes in; promote, hold or roll back comes out.

Nothing here knows Ray, a clock or a socket. Counts are cumulative and can be added, so that every replica that adds
up the counts of all comes to the same decision, and none has to lead.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Decision", "RolloutRules", "Seen", "Verdict", "decide", "takes_new"]

Decision = Literal["promote", "hold", "roll back"]
_EDGES_MS = tuple(round(0.5 * 1.2**i, 3) for i in range(64))  # up to 50 s, each a fifth above the one before
_Z = 2.33  # one in a hundred good versions is suspected of a thing by chance


class RolloutRules(BaseModel):
    """When a new version takes over and when it goes: see :func:`decide`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_requests: int = Field(50, ge=1, description="answers of the new version before it may take over")
    min_seconds: float = Field(10, ge=0, description="seconds that it answers before it may take over")
    max_seconds: float = Field(600, gt=0, description="then it takes over after fewer answers too, if none failed")
    max_error_rate: float = Field(0.01, ge=0, le=1, description="failed answers above the old version's share")
    max_slower: float = Field(1.5, ge=1, description="95th percentile of the latency, as a multiple of the old one's")
    max_disagreement: float = Field(0.3, ge=0, le=1, description="share of pictures that both name differently")


@dataclass
class Seen:
    """What was seen of one version, by one replica or by all.

    Attributes:
        requests: Answers asked of it.
        errors: Those that failed by no fault of the input.
        compared: Pictures that the other version saw too.
        disagreed: Those for which it named another class.
        buckets: Answers by latency, in steps of a fifth.
    """

    requests: int = 0
    errors: int = 0
    compared: int = 0
    disagreed: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_EDGES_MS) + 1))

    def answered(self, seconds: float, *, failed: bool = False) -> None:
        """Count one answer."""
        self.requests += 1
        self.errors += failed
        self.buckets[bisect.bisect_left(_EDGES_MS, 1000 * seconds)] += 1

    def quantile_ms(self, share: float) -> float:
        """Return the latency below which ``share`` of the answers lie, in milliseconds; 0 without any."""
        wanted, total = share * sum(self.buckets), 0
        for count, edge in zip(self.buckets, (*_EDGES_MS, math.inf), strict=True):
            total += count
            if total >= wanted > 0:
                return edge
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-like values."""
        return {k: getattr(self, k) for k in ("requests", "errors", "compared", "disagreed", "buckets")}

    @classmethod
    def total(cls, parts: Iterable[dict[str, Any]]) -> Seen:
        """Add up what several replicas saw."""
        seen = cls()
        for part in parts:
            for name in ("requests", "errors", "compared", "disagreed"):
                setattr(seen, name, getattr(seen, name) + int(part[name]))
            seen.buckets = [a + b for a, b in zip(seen.buckets, part["buckets"], strict=True)]
        return seen


@dataclass(frozen=True)
class Verdict:
    """What becomes of the new version, and why, in words."""

    decision: Decision
    reason: str


def decide(old: Seen, new: Seen, rules: RolloutRules, *, seconds: float) -> Verdict:
    """Judge the new version beside the old one.

    Args:
        old: What was seen of the old version since the new one came.
        new: Of the new one; its shadow answers count too.
        rules: Limits.
        seconds: Since the new version began to answer.

    Returns:
        ``roll back`` as soon as a rate is above its limit beyond doubt (Wilson's interval, one side, 1 %), or the
        latency is; ``promote`` after enough answers and time; else ``hold``.
    """
    bad = _fault(old, new, rules)
    if bad is not None:
        return Verdict("roll back", bad)
    enough = new.requests >= rules.min_requests and seconds >= rules.min_seconds
    summary = f"{new.requests} answers in {seconds:.0f} s, {new.errors} failed, p95 {new.quantile_ms(0.95):.3g} ms"
    if enough:
        return Verdict("promote", summary)
    if seconds >= rules.max_seconds and new.errors == 0:
        return Verdict("promote", f"little traffic: {summary}")
    return Verdict("hold", summary)


def _fault(old: Seen, new: Seen, rules: RolloutRules) -> str | None:
    known = old.errors / old.requests if old.requests else 0.0
    if _at_least(new.errors, new.requests) > rules.max_error_rate + known:
        return f"{new.errors} of {new.requests} answers failed (old version: {old.errors} of {old.requests})"
    if new.compared >= 10 and _at_least(new.disagreed, new.compared) > rules.max_disagreement:
        return f"it names another class than the old version for {new.disagreed} of {new.compared} pictures"
    if min(new.requests, old.requests) >= 20:
        slow, usual = new.quantile_ms(0.95), old.quantile_ms(0.95)
        # A fifth is one step of the buckets; a few milliseconds are no reason to roll back.
        if slow > 1.2 * rules.max_slower * usual and slow > usual + 5:
            return f"p95 of the latency is {slow:.3g} ms, with the old version {usual:.3g} ms"
    return None


def _at_least(hits: int, of: int) -> float:
    """Lower end of Wilson's interval for a rate (E. B. Wilson, JASA 22, 1927)."""
    if not of or not hits:
        return 0.0
    rate, z2 = hits / of, _Z * _Z
    middle = rate + z2 / (2 * of)
    half = _Z * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of * of))
    return (middle - half) / (1 + z2 / of)


def takes_new(key: bytes, rollout: str, share: float) -> bool:
    """Whether the requests with this key go to the new version: the same answer in every replica and every time.

    Args:
        key: Of the request: who asks, or what.
        rollout: Id of the rollout, so that not the same clients are first every time.
        share: Of the keys, in [0, 1].
    """
    digest = hashlib.blake2b(key, key=rollout.encode()[:64], digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * 2**32
