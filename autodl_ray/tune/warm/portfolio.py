"""A portfolio: a few settings of which one is good wherever it was searched before.

Chosen greedily by the regret that is left, after Feurer et al., "Auto-Sklearn 2.0" (JMLR 2022). Sweeps share no
settings, so what a setting would have reached in another sweep is read from a process over that sweep.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np

from autodl_ray.tune.contracts import EarlierSweep, SearchContext
from autodl_ray.tune.curves.beliefs import believed_of
from autodl_ray.tune.curves.similar import most_similar, setting_here, similarity
from autodl_ray.tune.space import Encoding, fingerprint

__all__ = ["portfolio"]

_MOST_SWEEPS = 64
_BEST_OF_EACH = 5


def portfolio(context: SearchContext, size: int) -> list[dict[str, Any]]:
    """Return up to ``size`` settings, the most useful first.

    Each next one takes most from the sum, over the earlier sweeps, of the regret that the best setting so far leaves
    there; similar data count more.
    """
    sweeps = most_similar(context, _MOST_SWEEPS)
    settings = _best_settings(context, sweeps)
    believed = [(sweep, believed_of(context, sweep)) for sweep in sweeps]
    rows = [(similarity(context.facts, sweep.facts), beliefs) for sweep, beliefs in believed if beliefs is not None]
    if not rows or not settings:
        return []
    points = Encoding(context.space).encode_all(settings)
    weights = np.array([weight for weight, _ in rows])
    regret = np.stack([np.maximum(0.0, b.best - b.of_settings(points)[0]) for _, b in rows])
    chosen: list[int] = []
    left = np.full(len(rows), np.inf)
    for _ in range(min(size, len(settings))):
        after = weights @ np.minimum(left[:, None], regret)
        after[chosen] = np.inf
        chosen.append(int(np.argmin(after)))
        left = np.minimum(left, regret[:, chosen[-1]])
    return [settings[i] for i in chosen]


def _best_settings(context: SearchContext, sweeps: list[EarlierSweep]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for sweep in sweeps:
        sign = 1.0 if sweep.mode == "max" else -1.0
        known = ((sign * t.value, -t.number, t) for t in sweep.trials if t.value is not None and math.isfinite(t.value))
        for *_, trial in heapq.nlargest(_BEST_OF_EACH, known):
            params = setting_here(context, trial.params)
            found.setdefault(fingerprint(params), params)
    return list(found.values())
