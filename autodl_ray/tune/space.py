"""The ranges that a sweep searches: drawing from them, counting them, and telling two draws apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from autodl_ray.spec.sections import Choice, Domain, Float, Int

__all__ = ["contains", "draw", "fingerprint", "num_settings"]


def draw(space: Mapping[str, Domain], rng: np.random.Generator) -> dict[str, Any]:
    """Draw one value of each range, in the order of their names."""
    return {name: _draw(space[name], rng) for name in sorted(space)}


def contains(domain: Domain, value: Any) -> bool:
    """Whether ``value`` lies in the range (a bool is no number)."""
    if isinstance(domain, Choice):
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in domain.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = isinstance(domain, Float) or float(value).is_integer()
    return whole and domain.low <= value <= domain.high


def fingerprint(params: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal settings only."""
    return json.dumps(dict(params), sort_keys=True)


def num_settings(space: Mapping[str, Domain]) -> float:
    """Count the different settings of a space; infinite when it holds a float range."""
    total = 1.0
    for domain in space.values():
        if isinstance(domain, Float):
            return math.inf
        total *= len(set(domain.values)) if isinstance(domain, Choice) else domain.high - domain.low + 1
    return total


def _draw(domain: Domain, rng: np.random.Generator) -> Any:
    if isinstance(domain, Choice):
        return domain.values[int(rng.integers(len(domain.values)))]
    if isinstance(domain, Int):
        if not domain.log:
            return int(rng.integers(domain.low, domain.high + 1))
        drawn = math.exp(rng.uniform(math.log(domain.low - 0.5), math.log(domain.high + 0.5)))
        return min(domain.high, max(domain.low, round(drawn)))
    if domain.log:
        drawn = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    else:
        drawn = float(rng.uniform(domain.low, domain.high))
    return min(domain.high, max(domain.low, drawn))
