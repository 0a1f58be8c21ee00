"""What a training is told about its live metrics, and what it tells them at each step."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from autodl_ray.errors import MissingExtraError
from autodl_ray.spec.sections import LogSpec

__all__ = ["LogConfig", "StepFacts"]


@dataclass(frozen=True)
class LogConfig:
    """Where the live metrics of one training go; plain data, picklable.

    Attributes:
        run: Name of the run.
        key: Of the sweep or the training inside the run, e.g. ``sweep``.
        trial: Id of the trial.
        folder: Where the files lie; None: ``metrics`` in the training's own folder (which a sweep deletes).
        tensorboard: Write event files, for trainings that last some seconds.
        mlflow: Tracking URI, for the run as a whole; None: nothing goes there.
        every_steps: A row of step metrics every so many steps; None: about one a second, at most 2,000 in all.
        params: Settings of the trial, shown as hyper-parameters.
        after_s: Event files and ``metrics.parquet`` are for trainings that last so many seconds; what is shorter is
            gathered afterwards (:func:`autodl_ray.train.telemetry.collect.collect`).
        enabled: False: nothing is measured and nothing written, e.g. to time a training without any of it.
    """

    run: str = ""
    key: str = ""
    trial: str = ""
    folder: Path | None = None
    tensorboard: bool = False
    mlflow: str | None = None
    every_steps: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    after_s: float = 5.0
    enabled: bool = True

    @property
    def name(self) -> str:
        """Of the training inside the run, e.g. ``sweep/t0003``."""
        return "/".join(part for part in (self.key, self.trial) if part)

    @classmethod
    def of(cls, spec: LogSpec, *, run: str, folder: Path) -> LogConfig:
        """Make the configuration that all trainings of a run share; :meth:`for_trial` makes that of one.

        Args:
            spec: The section ``log``.
            run: Name of the run.
            folder: Of the run's metrics, e.g. ``RUN/metrics``.

        Raises:
            MissingExtraError: ``log.mlflow`` is given and MLflow is not installed.
        """
        return cls(
            run=run,
            folder=folder.resolve(),
            tensorboard=spec.tensorboard,
            mlflow=None if spec.mlflow is None else _usable(spec.mlflow),
            every_steps=None if spec.every_steps == "auto" else spec.every_steps,
        )

    def for_trial(self, key: str, trial: str, params: Mapping[str, Any]) -> LogConfig:
        """Return the configuration of one training, whose files lie in ``KEY/TRIAL``.

        It knows no tracking URI (which may hold a password): what a run tells MLflow is told by one process of its
        own (:class:`autodl_ray.train.telemetry.tracking.Tracker`).
        """
        folder = None if self.folder is None else self.folder / key / trial
        return replace(self, key=key, trial=trial, folder=folder, params=dict(params), mlflow=None)


class StepFacts(NamedTuple):
    """What the loop knows after an optimizer step; made at every step, so a tuple (a dataclass takes 4 times as long).

    Attributes:
        step: From 1, over the whole training.
        epoch: From 1.
        loss: As it was minimised, the mean over the samples.
        samples: Of the step, over all workers.
        wait_s: Seconds spent waiting for the batch.
        step_s: Seconds of the whole step, waiting included.
        lr: Learning rate by the name of the parameter group; only looked at where :meth:`Telemetry.wants_step` said so.
        accuracy: Share of the step's samples that were right; None: not measured.
        grad_norm: L2 norm of the whole gradient before it is clipped; None: not measured at this step.
        weight_norm: L2 norm of all trained weights; None: not measured at this step.
        update_ratio: L2 norm of the step's change of the weights over ``weight_norm``; None: not measured.
        loss_scale: Of the gradient scaler; None: there is none.
        skipped: Whether the scaler skipped the update because of a gradient that is not finite.
        eta_s: Seconds until the training is expected to end; None: unknown.
    """

    step: int
    epoch: int
    loss: float
    samples: int
    wait_s: float
    step_s: float
    lr: Mapping[str, float] = {}
    accuracy: float | None = None
    grad_norm: float | None = None
    weight_norm: float | None = None
    update_ratio: float | None = None
    loss_scale: float | None = None
    skipped: bool = False
    eta_s: float | None = None


def _usable(uri: str) -> str:
    """Return the address as every process understands it: a trial's process has another working directory."""
    if importlib.util.find_spec("mlflow") is None:
        raise MissingExtraError(
            "MLflow is not installed, and log.mlflow asks for it.",
            seen=urlsplit(uri).hostname or uri,  # not the password that may be before it
            hint="pip install 'autodl_ray[mlflow]', or leave log.mlflow out",
        )
    parts = urlsplit(uri)
    if parts.scheme == "":
        return Path(uri).resolve().as_uri()
    if parts.scheme == "file" and not parts.netloc:
        return Path(parts.path).resolve().as_uri()
    return uri
