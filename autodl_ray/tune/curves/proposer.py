"""Strategy ``curves``: the settings whose last epoch is expected, or hoped, to improve most on the best report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autodl_ray.seeding import rng_for
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.curves.beliefs import Beliefs, Believer
from autodl_ray.tune.curves.climb import STARTS, climbed
from autodl_ray.tune.curves.pool import Pool
from autodl_ray.tune.curves.surface import Array
from autodl_ray.tune.space import draw

__all__ = ["CurveProposer"]

_FIRST = 4
_DRAWN_EVERY = 6
_HOPE = 1.5


class CurveProposer:
    """Random draws for the first four trials and every sixth, else the top above the best of some hundred candidates.

    The draws in between are for the case that the model is wrong: it would not look where it expects nothing. For the
    same reason what is maximised takes turns: the expected improvement, and a mean with 1.5 standard deviations.

    Values of trials that were stopped or paused are used at the epoch at which they were reported: they say
    something of the curve, and do not pass for the value of a whole trial.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._believer = Believer(context)
        self._pool = Pool(context, self._believer.encoding)

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Return settings; an attempt after the first returns the next best of the candidates."""
        drawn = number < _FIRST or number % _DRAWN_EVERY == _DRAWN_EVERY - 1
        beliefs = None if drawn else self._believer.of(history)
        if beliefs is None:
            return draw(self._context.space, rng_for(self._context.seed, "forest", number, attempt))
        settings, points = self._pool.candidates(number, history, self._believer.encoded(history))
        if attempt >= len(settings):
            return draw(self._context.space, rng_for(self._context.seed, "forest", number, attempt))

        def gain(asked: Array) -> Array:
            return _gain(beliefs, asked, hopes=number % 2 == 1)

        order = np.argsort(-beliefs.gain(*beliefs.of_settings(points)), kind="stable")
        if attempt:
            return settings[int(order[attempt - 1])]
        return climbed(
            [settings[i] for i in order[:STARTS]],
            points[order[:STARTS]],
            gain,
            space=self._context.space,
            encoding=self._believer.encoding,
            rng=rng_for(self._context.seed, "forest", "climb", number),
        )


def _gain(beliefs: Beliefs, points: Array, *, hopes: bool) -> Array:
    mean, spread = beliefs.of_settings(points)
    return mean + _HOPE * spread if hopes else beliefs.gain(mean, spread)
