"""The live metrics of one training: cheap calls from the loop, everything slow in a thread beside it."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from autodl_ray.train.telemetry.config import LogConfig, StepFacts
from autodl_ray.train.telemetry.pace import Pace
from autodl_ray.train.telemetry.scores import MAX_LISTED, epoch_scores
from autodl_ray.train.telemetry.window import Window
from autodl_ray.train.telemetry.writer import Writer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = ["Telemetry"]

_AVERAGED = ("cpu_percent", "cpu_machine_percent", "gpu_percent", "gpu_power_w")


class Telemetry:
    """Made by the loop on every rank, closed when the training ends; only rank 0 writes. Nothing here raises
    because a disk is full or a server is gone: that becomes one of ``notes``.

    Files (see :mod:`autodl_ray.train.telemetry.columns`): ``steps.jsonl``, ``epochs.jsonl``, and for trainings that
    last some seconds ``metrics.parquet`` and event files of TensorBoard.

    Args:
        folder: Of the training, whose disk is watched.
        config: Where the metrics go.
        rank: Of this worker.
        device: Of this worker.
        num_samples: Of the training split.
    """

    def __init__(
        self, folder: Path, config: LogConfig, *, rank: int, device: torch.device | str, num_samples: int
    ) -> None:
        self.folder = config.folder or folder / "metrics"
        self._enabled = config.enabled
        self._pace = Pace(config.every_steps)
        self._window, self._epoch = Window(), Window()
        self._asked: bool | None = None
        self._last: StepFacts | None = None
        facts = {"samples": num_samples, "device": str(device)}
        self._writer = (
            Writer(self.folder, config, training=folder, device=str(device), facts=facts)
            if rank == 0 and config.enabled
            else None
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, e.g. that the MLflow server did not answer; one line each."""
        return () if self._writer is None else tuple(self._writer.notes)

    def wants_step(self, step: int) -> bool:
        """Whether the norms of ``step`` (from 1) are worth computing: it will have a row. Asked once a step."""
        self._asked = self._writer is not None and self._pace.wants(step)
        return self._asked

    def step(self, facts: StepFacts) -> None:
        """Take in a step; a few microseconds for those that have no row."""
        writer = self._writer
        if writer is None:
            return
        self._window.add(facts)
        wanted = self._pace.wants(facts.step) if self._asked is None else self._asked
        self._asked = None
        if self._last is None:
            writer.begin(facts.step)
        self._last = facts
        if wanted:
            if writer.put_step(self._row(facts)):
                self._pace.slow_down()
            self._epoch.merge(self._window)
            self._window = Window()

    def epoch(
        self,
        row: dict[str, Any],
        *,
        probabilities: npt.NDArray[np.floating] | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> dict[str, Any]:
        """Take in an epoch, and return what is to be added to its row.

        Args:
            row: With ``epoch`` (from 1) and what the loop measured.
            probabilities: (N, C) of the validation split.
            labels: (N,) int64.

        Returns:
            ``top5`` (top-k accuracy with k = min(5, C)), ``balanced_accuracy``, ``recall_min`` and (up to 100
            classes) ``recall``; on rank 0 also means over the epoch of ``grad_norm`` and ``update_ratio``,
            ``train_accuracy`` where steps told it, ``weight_norm``, ``loss_scale``, ``skipped_steps``, ``step_s``,
            and what :class:`~autodl_ray.train.telemetry.system.SystemSampler` saw: means of shares, the largest
            of sizes.
        """
        added: dict[str, Any] = {}
        if not self._enabled:
            return added
        if probabilities is not None and labels is not None:
            added.update(epoch_scores(probabilities, labels))
        if self._writer is not None:
            added.update(self._of_steps())
            added.update(self._writer.epoch_facts(_AVERAGED))
            steps = {} if self._last is None else {"step": self._last.step}
            self._writer.put_epoch({"time": round(time.time(), 3), **steps, **row, **added})
        if len(added.get("recall", ())) > MAX_LISTED:
            del added["recall"]
        return added

    def close(self, status: str = "ended") -> None:
        """Write what is left and end the thread; a second call does nothing.

        Args:
            status: Written into ``about.json``, e.g. ``finished``, ``stopped`` or ``failed``.
        """
        if self._writer is not None:
            self._writer.close(status)

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_failure = isinstance(error, Exception) and not isinstance(error, StopIteration)  # Tune ends trials by those
        self.close("failed" if is_failure else "ended")

    def _row(self, facts: StepFacts) -> dict[str, Any]:
        row: dict[str, Any] = {"step": facts.step, "epoch": facts.epoch, "time": round(time.time(), 3)}
        row.update(self._window.row())
        row.update({f"lr/{name}": rate for name, rate in facts.lr.items()})
        for name in ("grad_norm", "weight_norm", "update_ratio", "loss_scale", "eta_s"):
            value = getattr(facts, name)
            if value is not None:
                row[name] = value
        row["skipped_steps"] = self._window.skipped
        return row

    def _of_steps(self) -> dict[str, Any]:
        """What the steps of the epoch say together."""
        self._epoch.merge(self._window)
        whole, self._epoch, self._window = self._epoch, Window(), Window()
        if whole.steps == 0:
            return {}
        found: dict[str, Any] = {**whole.norms(), "step_s": whole.step_s / whole.steps, "skipped_steps": whole.skipped}
        if whole.judged:
            found["train_accuracy"] = whole.right / whole.judged
        last = self._last
        if last is not None and last.weight_norm is not None:
            found["weight_norm"] = last.weight_norm
        if last is not None and last.loss_scale is not None:
            found["loss_scale"] = last.loss_scale
        return found
