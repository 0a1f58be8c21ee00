"""Strategy ``forest``: the settings whose last epoch is expected to improve most on the best report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autodl_ray.seeding import rng_for
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.forest.beliefs import Believer
from autodl_ray.tune.forest.pool import candidates
from autodl_ray.tune.space import draw

__all__ = ["ForestProposer"]


class ForestProposer:
    """Random draws until three trials have reported, then the best of some hundred candidates.

    Values of trials that were stopped or paused are used at the epoch at which they were reported: they say
    something of the curve, and do not pass for the value of a whole trial.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._believer = Believer(context)

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Return settings; attempt ``k`` returns the next best after those of the attempts before."""
        beliefs = self._believer.of(history)
        new = candidates(self._context, number, history) if beliefs is not None else []
        if beliefs is None or attempt >= len(new):
            return draw(self._context.space, rng_for(self._context.seed, "forest", number, attempt))
        gain = beliefs.gain(*beliefs.of_settings(self._believer.encoding.encode_all(new)))
        return new[int(np.argsort(-gain, kind="stable")[attempt])]
