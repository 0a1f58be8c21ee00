"""What to do with the time that is left: one pure function from an observation to an action.

A run is anytime. It has a deployable model after about a minute, and each further action is only taken when it
is likely to end, evaluation and export included, before the budget does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Action", "Observation", "decide", "finish_seconds"]

_SWEEP_SHARE = 0.5
"""Of the time that is free for search and training, a sweep takes at most this share."""
_TRAINED_SHARE = 0.55
"""Share of the full epochs that a trial takes on average, since the scheduler pauses or stops most of them early."""
_MIN_TRIALS, _MAX_TRIALS = 8, 64
"""With fewer short trials than this, a longer training gains more than their best settings do."""
_CHEAP_TRIALS = 16
"""So many full trainings in half of the time: the search is done with full ones, and nothing is trained after it."""
_HOPED = 1.15
"""A stretched training is told so many times the epochs that fit by the estimate: it plans again by what it measures,
and shortens where it must; it cannot make itself longer (the estimate is up to a sixth too low)."""
_INT8_SHARE = 0.2
"""Training keeps time for INT8 when making and measuring it takes at most this share of the time left."""

_PARITY_COST = 3.0
"""The network in torch, in float32, is about this many times slower than onnxruntime (lite0, 224 px, two cores)."""


@dataclass(frozen=True)
class Observation:
    """What is known when the next action is chosen. Times in seconds, speeds in pictures a second.

    Attributes:
        left_s: Left of the budget.
        num_train: Pictures of the training split.
        num_val: Pictures of the validation split.
        num_test: Pictures of the test split.
        infer_per_s: Speed of the exported backbone, measured on the features.
        train_per_s: Speed of a training step, measured (by an earlier trial) or estimated.
        startup_s: Until a trial takes its first step.
        export_s: One export with its parity check, measured.
        full_epochs: Epochs of a full training.
        stretch: How many times as many a training may have where there is time.
        wanted_trials: ``tune.num_samples`` of the spec.
        wanted_trial_epochs: ``tune.epochs`` of the spec.
        with_int8: Whether the spec wants INT8 tried.
        calibration: Pictures that calibrate INT8.
        repeat: Final trainings that the spec wants, each with another seed; they share the time.
        swept: Whether the sweep was done (or skipped).
        trial_epochs: Most epochs of a trial in that sweep; 0 without one.
        trained: Whether the final training was done.
        stopping: Whether the user, or the limit of the disk, asked to finish.
    """

    left_s: float
    num_train: int
    num_val: int
    num_test: int
    infer_per_s: float
    train_per_s: float
    startup_s: float
    export_s: float
    full_epochs: int
    stretch: float = 1.0
    wanted_trials: int | Literal["auto"] = "auto"
    wanted_trial_epochs: int | Literal["auto"] = "auto"
    with_int8: bool = True
    calibration: int = 128
    repeat: int = 1
    swept: bool = False
    trial_epochs: int = 0
    trained: bool = False
    stopping: bool = False

    @property
    def epoch_s(self) -> float:
        """One pass over the training split, with validation."""
        return self.num_train / self.train_per_s + self.num_val / self.infer_per_s


@dataclass(frozen=True)
class Action:
    """What is done next.

    Attributes:
        kind: ``sweep``, ``train`` or ``finish``.
        reason: One line for people and for the record.
        num_samples: Trials of the sweep.
        epochs: Most epochs of a trial, or of the training.
        seconds: How long the action may take; None for ``finish``.
        int8: Whether INT8 is tried when finishing.
    """

    kind: Literal["sweep", "train", "finish"]
    reason: str
    num_samples: int = 0
    epochs: int = 0
    seconds: float | None = None
    int8: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the action as plain data, for the record."""
        return asdict(self)


def int8_seconds(o: Observation) -> float:
    """Estimate how long it takes to calibrate INT8, to judge four methods on validation, and to time the best."""
    return 6.0 + (3 * o.calibration + 5 * o.num_val) / o.infer_per_s


def finish_seconds(o: Observation) -> float:
    """Estimate what has to be kept for the end: export, parity, the sealed test split, the report, INT8."""
    int8_s = _int8_seconds_judged(o)
    return _plain_finish_seconds(o) + (int8_s if o.with_int8 and int8_s <= _INT8_SHARE * o.left_s else 0.0)


def _plain_finish_seconds(o: Observation) -> float:
    judged = ((1 + _PARITY_COST) * o.num_val + o.num_test) / o.infer_per_s
    return o.export_s + judged + 4.0


def _int8_seconds_judged(o: Observation) -> float:
    return int8_seconds(o) + o.num_test / o.infer_per_s


def decide(o: Observation) -> Action:
    """Choose the next action. The order is always sweep, train, finish; each of the first two may be left out."""
    free = o.left_s - finish_seconds(o)
    if o.stopping:
        return _finish(o, "the run was told to stop", int8=False)
    if not o.swept and o.wanted_trials != 0:
        sweep = _sweep(o, free)
        if sweep is not None:
            return sweep
    if o.trained:
        return _finish(o, "trained")
    if o.trial_epochs >= o.full_epochs:
        return _finish(o, "the best trial was trained in full")
    return _train(o, free)


def _sweep(o: Observation, free: float) -> Action | None:
    full_s = o.startup_s + o.repeat * o.full_epochs * o.epoch_s
    if o.wanted_trials != "auto":
        epochs = _trial_epochs(o, o.full_epochs)
        seconds = free if epochs >= o.full_epochs else max(free - full_s, _SWEEP_SHARE * free)
        return Action("sweep", "as the spec asks", o.wanted_trials, epochs, seconds) if seconds > 0 else None
    seconds = min(free - 1.1 * full_s, _SWEEP_SHARE * free)
    in_full = _trials_in(o, _SWEEP_SHARE * free, o.full_epochs)
    if in_full >= _CHEAP_TRIALS:  # training is cheap here: search with full trainings, and train no more
        epochs = _trial_epochs(o, o.full_epochs)
        return Action("sweep", "full trainings are cheap", min(in_full, _MAX_TRIALS), epochs, free)
    epochs = _trial_epochs(o, max(2, o.full_epochs // 3))
    trials = _trials_in(o, seconds, epochs)
    if trials < _MIN_TRIALS:
        return None
    return Action("sweep", f"{trials} short trials fit", min(trials, _MAX_TRIALS), epochs, seconds)


def _trial_epochs(o: Observation, otherwise: int) -> int:
    return otherwise if o.wanted_trial_epochs == "auto" else o.wanted_trial_epochs


def _trials_in(o: Observation, seconds: float, epochs: int) -> int:
    # Trials side by side share the processors, so they do not make the sweep shorter; start-up overlaps.
    trial_s = max(_TRAINED_SHARE * epochs, 1.0) * o.epoch_s + 0.2
    return max(0, math.floor((seconds - o.startup_s) / trial_s))


def _train(o: Observation, free: float) -> Action:
    free = free / o.repeat  # the others come after it, with as many epochs
    useful = o.startup_s + max(0.5 * o.epoch_s, 3.0)
    if free < useful:
        return _finish(o, f"{max(free, 0):.0f} s left, training needs {useful:.0f} s to be of use")
    fits = (free - o.startup_s) / o.epoch_s
    epochs = max(o.full_epochs, math.floor(min(_HOPED * fits, o.stretch * o.full_epochs)))
    if fits >= o.full_epochs and epochs > o.full_epochs:
        reason = f"about {fits:.1f} epochs fit, more than the usual {o.full_epochs}"
    elif fits >= o.full_epochs:
        reason = "the full schedule fits"
    else:
        reason = f"about {fits:.1f} of {o.full_epochs} epochs fit"
    return Action("train", reason, 1, epochs, free)


def _finish(o: Observation, reason: str, *, int8: bool = True) -> Action:
    fits = o.with_int8 and _plain_finish_seconds(o) + _int8_seconds_judged(o) <= o.left_s
    return Action("finish", reason, int8=int8 and fits)
