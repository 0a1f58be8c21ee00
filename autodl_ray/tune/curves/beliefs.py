"""What a sweep's reports say of its trials: a process over settings and epochs, conditioned on a choice of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodl_ray.seeding import rng_for
from autodl_ray.tune.contracts import EarlierSweep, Observed, SearchContext
from autodl_ray.tune.curves.similar import most_similar, setting_here
from autodl_ray.tune.curves.surface import Array, Points, Surface, conditioned, fitted
from autodl_ray.tune.space import Encoding

__all__ = ["Beliefs", "Believer", "Earlier", "believed_of", "legs_of"]

_MOST_FITTED = 100
_STEPS = 12
_SMOOTHED = 0.1
_HIGH, _TOP, _BEND, _FARTHEST = 1.6, 4.0, 3.0, 50.0
_FEWEST_TRIALS = 3
_LEAST_LEG = 3
_MOST_POINTS = 300
_MOST_EARLIER = 32
_MOST_POINTS_EARLIER = 100
_NEW = -1


@dataclass(frozen=True)
class Earlier:
    """What earlier sweeps say, as processes of their own over the same settings; empty without a warm start.

    Attributes:
        surfaces: One a sweep, each on a scale of its own: 0 is its median report, 2 about its best.
    """

    surfaces: tuple[Surface, ...]

    def points(self, x: Array, t: Array, owners: NDArray[np.int64]) -> Points:
        """Return points with what is said of them: (N, D) settings, (N,) times and (N,) trials."""
        bare = Points(x, t, owners, np.zeros((len(t), 0)))
        if not self.surfaces:
            return bare
        nobody = replace(bare, owner=np.full(len(t), np.iinfo(np.int64).min))  # no trial of that sweep
        return replace(bare, told=np.stack([surface.mean(nobody) for surface in self.surfaces], axis=1))


def legs_of(epochs: int, grace_period: int) -> tuple[int, ...]:
    """Return the epochs at which a trial may be paused: a whole trial, halved and halved again, to a sixteenth.

    The first leg has three epochs at least. The first two of a fine-tuning show how the warm-up shook the fitted head,
    not what the settings are worth: on TrashNet (6 epochs, 26 settings) the rank correlation with the best accuracy of
    the training is 0.40, -0.24, 0.49, 0.72 and 0.91 after epochs 1 to 5.

    Example:
        >>> legs_of(50, 1)
        (3, 6, 12, 25, 50)
        >>> legs_of(6, 1)
        (3, 6)
    """
    ends = {max(1, epochs // 2**k) for k in range(5)}
    return tuple(sorted(e for e in ends if e >= min(max(grace_period, _LEAST_LEG), epochs)))


@dataclass(frozen=True)
class Beliefs:
    """What is believed of trials, begun and not begun, after some reports; larger is better.

    Attributes:
        surface: The conditioned process.
        best: The best value reported, on the scale of the process.
        known: The trials whose reports the process was conditioned on.
        earlier: What earlier sweeps say.
    """

    surface: Surface
    best: float
    known: frozenset[int]
    earlier: Earlier

    def of_trials(self, points: Array, trials: Sequence[Observed]) -> tuple[Array, Array]:
        """Return mean and standard deviation of the last epoch of trials that were begun, (N,) float64 each.

        Args:
            points: (N, D) float64, their settings.
            trials: Of which the reports are known.
        """
        return self._whole(points, np.array([t.number for t in trials], dtype=np.int64))

    def of_settings(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the last epoch of settings not begun, encoded as (N, D) float64."""
        return self._whole(points, _NEW - np.arange(len(points), dtype=np.int64))

    def gain(self, mean: Array, spread: Array) -> Array:
        """Return the logarithm of the expected improvement over the best report, (N,) float64."""
        from scipy.special import log_ndtr, ndtr

        u = (mean - self.best) / spread
        density = np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
        expected = np.maximum(density + u * ndtr(u), 1e-30)
        # far below, u * ndtr(u) + density cancels; its asymptote is density / u²
        far = log_ndtr(np.minimum(u, -5.0)) - np.log(np.abs(np.minimum(u, -5.0)))
        return np.asarray(np.log(spread) + np.where(u < -5.0, far, np.log(expected)))

    def chance(self, mean: Array, spread: Array) -> Array:
        """Return the probability that the last epoch is better than the best report, (N,) float64."""
        from scipy.special import ndtr

        return np.asarray(ndtr((mean - self.best) / spread))

    def _whole(self, points: Array, owners: NDArray[np.int64]) -> tuple[Array, Array]:
        return self.surface.predict(self.earlier.points(points, np.ones(len(points)), owners))


class Believer:
    """Makes the beliefs of a history; the last ones are kept, as a decision asks for them more than once."""

    def __init__(self, context: SearchContext, *, most_points: int = _MOST_POINTS) -> None:
        self.encoding = Encoding(context.space)
        self.legs = legs_of(context.epochs, context.grace_period)
        self._context = context
        self._most = most_points
        self._sign = 1.0 if context.mode == "max" else -1.0
        self._encoded: dict[int, tuple[Mapping[str, Any], Array]] = {}
        self._kept: tuple[object, Beliefs | None] = (None, None)

    def of(self, history: Sequence[Observed]) -> Beliefs | None:
        """Return what is believed after ``history``; None while fewer than three trials have reported.

        Trials that are running are counted as if they had reached what is expected of them, so that workers do not
        all try the same (kriging believer; Ginsbourger et al. 2010).
        """
        pending = tuple(h.number for h in history if h.status == "running")
        key = (tuple((h.number, h.epochs) for h in history), pending)
        if self._kept[0] != key:
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

            with threadpool_limits(1):  # more threads of BLAS than one wait for each other on a busy machine
                self._kept = (key, self._made(history, frozenset(pending)))
        return self._kept[1]

    @cached_property
    def earlier(self) -> Earlier:
        """What the most similar earlier sweeps say, by processes of their own; made when it is first asked for."""
        made = (believed_of(self._context, sweep) for sweep in most_similar(self._context, _MOST_EARLIER))
        return Earlier(tuple(beliefs.surface for beliefs in made if beliefs is not None))

    def encoded(self, trials: Sequence[Observed]) -> Array:
        """Return the settings of trials as points, (N, D) float64; each is encoded once."""
        for trial in trials:
            known = self._encoded.get(trial.number)
            if known is None or known[0] != trial.params:
                self._encoded[trial.number] = (trial.params, self.encoding.encode(trial.params))
        return np.stack([self._encoded[trial.number][1] for trial in trials])

    def _made(self, history: Sequence[Observed], pending: frozenset[int]) -> Beliefs | None:
        chosen = self._chosen([h for h in history if h.values])
        if len(chosen) < _FEWEST_TRIALS:
            return None
        owners, epochs, raw = self._rows(chosen)
        values = _transformed(raw)
        place = {t.number: i for i, t in enumerate(chosen)}
        x = self.encoded(chosen)[[place[n] for n in owners]]
        points = self.earlier.points(x, self._time(epochs), owners)
        surface = conditioned(self._theta(points, values), points, values)
        beliefs = Beliefs(surface, float(values.max()), frozenset(place), self.earlier)
        running = [h for h in history if h.number in pending]
        return self._with_pending(beliefs, values, running) if running else beliefs

    def _with_pending(self, beliefs: Beliefs, values: Array, running: Sequence[Observed]) -> Beliefs:
        numbers = np.array([t.number for t in running], dtype=np.int64)
        ends = self.earlier.points(self.encoded(running), np.ones(len(running)), numbers)
        values = np.concatenate([values, beliefs.surface.mean(ends)])
        surface = conditioned(beliefs.surface.theta, beliefs.surface.points.with_more(ends), values)
        return replace(beliefs, surface=surface)

    def _chosen(self, trials: Sequence[Observed]) -> list[Observed]:
        """The better half of the places goes to the best trials, the other half evenly over the rest."""
        most = self._most // 2
        if len(trials) <= most:
            return list(trials)
        ranked = sorted(trials, key=lambda t: (-self._sign * _finite(t.value, self._sign), t.number))
        rest = ranked[most // 2 :]
        spaced = [rest[i] for i in np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]
        return sorted([*ranked[: most // 2], *spaced], key=lambda t: t.number)

    def _rows(self, trials: Iterable[Observed]) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """The reports at ends of legs and powers of two, and the last of each trial; the last ones are kept first."""
        wanted = {*self.legs, *(2**k for k in range(20))}
        rows = [
            (e != t.epochs, i, t.number, e, self._sign * v)
            for i, t in enumerate(sorted(trials, key=lambda t: -self._sign * _finite(t.value, self._sign)))
            for e, v in t.values
            if e in wanted or e == t.epochs
        ]
        rows = sorted(sorted(rows)[: self._most], key=lambda row: (row[2], row[3]))
        owners, epochs = (np.array([row[k] for row in rows], dtype=np.int64) for k in (2, 3))
        return owners, epochs, np.array([row[4] for row in rows])

    def _time(self, epochs: NDArray[np.int64]) -> Array:
        return np.asarray(np.log(epochs) / math.log(max(2, self._context.epochs)))

    def _theta(self, points: Points, values: Array) -> Array:
        """Fit the parameters, from scratch: what was fitted before would be lost with the process."""
        if len(values) > _MOST_FITTED:
            rng = rng_for(self._context.seed, "beliefs", len(values))
            some = np.sort(rng.choice(len(values), _MOST_FITTED, replace=False))
            points, values = points.take(some), values[some]
        return fitted(points, values, steps=_STEPS)


def believed_of(context: SearchContext, sweep: EarlierSweep) -> Beliefs | None:
    """Return what an earlier sweep says of the settings that are searched now; None: too little."""
    there = replace(context, mode=sweep.mode, epochs=sweep.epochs, earlier=())
    trials = [replace(t, params=setting_here(context, t.params), status="finished") for t in sweep.trials]
    return Believer(there, most_points=_MOST_POINTS_EARLIER).of(trials)


def _finite(value: float | None, sign: float) -> float:
    """A value to sort by; what is not a number is the worst."""
    return value if value is not None and math.isfinite(value) else -sign * math.inf


def _transformed(values: Array) -> Array:
    """Return the mean of two scales: normal scores, and a linear one that shows how far apart the best are."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    values = np.clip(values, known.min(), known.max())
    return 0.5 * (_linear_above(values) + _normal_scores(values))


def _linear_above(values: Array) -> Array:
    """Move the median to 0 and what is near the top to 1 or 2; what is worse than the median is drawn together."""
    low, middle, high, top = np.quantile(values, [0.25, 0.5, 0.95, 1.0])
    widths = ((high - middle) / _HIGH, (top - middle) / _TOP, (middle - low) / _HIGH)
    scale = max(*widths, 1e-9 * max(1.0, float(np.abs(values).max())))
    z = (values - middle) / scale
    return np.asarray(np.where(z < 0, -_BEND * np.log1p(np.clip(-z, 0.0, _FARTHEST) / _BEND), z), dtype=np.float64)


def _normal_scores(values: Array) -> Array:
    """Replace values by normal quantiles of where they stand among all: outliers have no weight.

    The distribution is smoothed by a tenth of its middle half, so that values that are nearly equal, as those on the
    plateau of a curve, stay so; by rank alone the best of them would seem far ahead.
    """
    from scipy.special import ndtr, ndtri

    low, high = np.quantile(values, [0.25, 0.75])
    width = max(_SMOOTHED * float(high - low), 1e-9 * max(1.0, float(np.abs(values).max())))
    share = ndtr((values[:, None] - values[None, :]) / width).mean(1)
    return np.asarray(ndtri(share), dtype=np.float64)
