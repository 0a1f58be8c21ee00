"""What a sweep is given and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autodl_ray.artifacts import Artifact
from autodl_ray.images import Preprocess
from autodl_ray.spec.sections import Domain, TrainSpec

if TYPE_CHECKING:
    from autodl_ray.data.stream import StreamSource
    from autodl_ray.train.telemetry import LogConfig

__all__ = ["SweepInputs", "SweepRun", "TrialRecord"]

Status = Literal["finished", "stopped", "failed", "lost"]


@dataclass(frozen=True)
class SweepInputs:
    """What the trials of a sweep have in common.

    Attributes:
        base: The defaults; trial 0 is trained with exactly these.
        model: Name of the zoo entry.
        preprocess: What the network expects of a picture.
        weights: Where the backbone starts: ``packaged``, ``none``, ``imagenet`` or a path.
        num_classes: Classes of the task.
        source: The stream of batches.
        num_samples: Trials in all, trial 0 included.
        epochs: Epochs of a whole trial.
        deadline: Unix time at which the trials have to end; None: no limit.
        head_init: Weights that the head starts with.
        param_space: Fields of ``base`` and the ranges to search; empty: only trial 0 (and ``enqueue``).
        enqueue: Settings that are tried right after trial 0, e.g. the best of an earlier run.
        dataset_id: Of the data, recorded with the artifact.
        class_weights: Of the loss, by class; None: all count alike.
        balanced: Draw training samples of rare classes more often.
        keep_best: The weights of so many best trials are kept.
        log: Where live metrics go; None: into the folders of the trials, and away with them.
    """

    base: TrainSpec
    model: str
    preprocess: Preprocess
    weights: str
    num_classes: int
    source: StreamSource
    num_samples: int
    epochs: int
    deadline: float | None = None
    head_init: Path | None = None
    param_space: Mapping[str, Domain] = field(default_factory=dict)
    enqueue: tuple[Mapping[str, Any], ...] = ()
    dataset_id: str = ""
    class_weights: tuple[float, ...] | None = None
    balanced: bool = False
    keep_best: int = 1
    log: LogConfig | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What happened in one trial.

    Attributes:
        id: ``t0000``, ``t0001``, … in the order of proposal.
        params: Its settings: fields of the training section (of trial 0: the defaults, as resolved).
        status: ``finished`` all its epochs; ``stopped`` early by the scheduler, the clock or the user;
            ``failed`` with an error of its own; ``lost`` with its process, twice.
        epochs: Epochs reported.
        metrics: Everything reported at the best epoch.
        best_epoch: That epoch, from 1; 0 when none was reported.
        seconds: Seconds of training and validation.
        curve: What was reported at each epoch.
        reason: Why it was stopped or failed.
        weights: The weights of its best epoch; None where they are not kept (of trials that lost).
    """

    id: str
    params: Mapping[str, Any]
    status: Status
    epochs: int
    metrics: Mapping[str, Any]
    best_epoch: int
    seconds: float
    curve: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""
    weights: Path | None = None


@dataclass(frozen=True)
class SweepRun:
    """A sweep that came to its end, or was interrupted.

    Attributes:
        artifact: What is kept; None when the user interrupted the sweep, which then goes on when run again.
        trials: In the order of proposal.
        best: The trial with the best value of the metric at any of its epochs; None when no trial made an epoch.
    """

    artifact: Artifact | None
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None

    @property
    def kept(self) -> tuple[TrialRecord, ...]:
        """The trials whose weights are kept: the best, and ``keep_best`` of them once the sweep has ended."""
        if self.artifact is None:  # weights of others still lie about, as long as they may go on
            return () if self.best_weights is None or self.best is None else (self.best,)
        return tuple(trial for trial in self.trials if trial.weights is not None)

    @property
    def best_weights(self) -> Path | None:
        """The weights (safetensors) of the best trial's best epoch."""
        return self.best.weights if self.best else None
