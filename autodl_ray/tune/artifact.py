"""A sweep as an artifact of the store: what is written at its end, and read back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection
from pathlib import Path

from autodl_ray.artifacts import Artifact, write_atomic
from autodl_ray.errors import StageError
from autodl_ray.spec.search import TuneSpec
from autodl_ray.tune.leaderboard import leaderboard
from autodl_ray.tune.records import SweepRun, TrialRecord
from autodl_ray.tune.state import SweepState, TrialState
from autodl_ray.tune.workspace import WEIGHTS, Workspace

__all__ = ["best_of", "open_sweep", "raise_if_all_failed", "trial_records", "write_files"]


def trial_records(state: SweepState, workspace: Workspace, earlier: Artifact | None) -> tuple[TrialRecord, ...]:
    """Return what happened in every trial.

    Args:
        state: Of the sweep.
        workspace: Where the weights of its best trial may lie.
        earlier: The artifact of a sweep that is gone on with; it may hold the weights instead.
    """
    return tuple(_record(state, trial, workspace, earlier) for trial in state.trials.values())


def write_files(
    folder: Path,
    records: tuple[TrialRecord, ...],
    best: TrialRecord | None,
    spec: TuneSpec,
    *,
    keep: Collection[str] = (),
) -> None:
    """Write ``trials.json``, ``leaderboard.json``, the weights of the best trial, and of others that are kept."""
    rows = [{**dataclasses.asdict(r), "weights": None} for r in records]
    write_atomic(folder / "trials.json", json.dumps(rows, indent=1, default=str) + "\n")
    board = leaderboard(records, metric=spec.score, mode=spec.mode)
    write_atomic(folder / "leaderboard.json", json.dumps(board, indent=1, default=str) + "\n")
    if best is not None and best.weights is not None:
        shutil.copyfile(best.weights, folder / WEIGHTS)
    for record in records:
        if record.weights is not None and record.id in keep and (best is None or record.id != best.id):
            shutil.copyfile(record.weights, folder / _weights_name(record.id))


def _weights_name(trial: str) -> str:
    return f"{trial}.safetensors"


def _record(state: SweepState, trial: TrialState, workspace: Workspace, earlier: Artifact | None) -> TrialRecord:
    row = state.best_row(trial) or {}
    weights = workspace.weights(trial.id)
    if weights is None and earlier is not None:
        weights = _kept_weights(earlier, trial.id)
    running = not trial.has_ended
    return TrialRecord(
        id=trial.id,
        params=trial.params,
        status="stopped" if trial.status == "running" or trial.status == "paused" else trial.status,
        epochs=trial.epochs,
        metrics=row,
        best_epoch=int(row.get("epoch", 0)),
        seconds=round(sum(float(r.get("epoch_s", 0.0)) for r in trial.curve), 3),
        curve=tuple(trial.curve),
        reason="interrupted; it goes on when the sweep is run again" if running else trial.reason,
        weights=weights,
    )


def best_of(state: SweepState, records: tuple[TrialRecord, ...]) -> TrialRecord | None:
    """Return the record of the best trial."""
    best = state.best()
    return next((r for r in records if best is not None and r.id == best.id), None)


def open_sweep(artifact: Artifact) -> SweepRun:
    """Read a sweep back."""
    rows = json.loads(artifact.file("trials.json").read_text(encoding="utf-8"))
    best = artifact.meta["best"]
    records = tuple(
        TrialRecord(**{**row, "curve": tuple(row["curve"]), "weights": _kept_weights(artifact, row["id"])})
        for row in rows
    )
    return SweepRun(artifact, records, next((r for r in records if r.id == best), None))


def _kept_weights(artifact: Artifact, trial: str) -> Path | None:
    """Return the weights of a trial, where the artifact of a sweep holds them."""
    name = WEIGHTS if artifact.meta.get("best") == trial else _weights_name(trial)
    return artifact.path / name if name in artifact.manifest.files else None


def raise_if_all_failed(records: tuple[TrialRecord, ...], key: str) -> None:
    """Raise StageError, with the error of the last trial, when none made an epoch."""
    if not records or any(r.status not in ("failed", "lost") or r.metrics for r in records):
        return
    count = "The trial" if len(records) == 1 else f"All {len(records)} trials"
    raise StageError(f"{count} of {key} failed.", seen=records[-1].reason)
