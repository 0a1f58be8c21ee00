"""What a run is doing right now, read from the files that it writes; nothing is asked of its processes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray.train.telemetry.rows import STEPS, Row, read_rows

if TYPE_CHECKING:
    from autodl_ray.pipeline.history import RunHistory, SweepHistory, TrialHistory

__all__ = ["ENDED", "Follower", "Live", "Snapshot", "TrialLine", "newest_run"]

ENDED = ("done", "interrupted", "failed", "killed")
"""How the status of a run reads when nothing will come any more."""

_PROGRESS = "progress.json"
_LIVE_FIELDS = ("loss", "accuracy", "lr", "grad_norm", "images_per_s", "data_wait", "cpu_percent", "rss_mb",
                "object_store_mb", "disk_free_gb", "gpu_percent", "gpu_memory_mb", "gpu_power_w",
                "gpu_temperature_c", "eta_s")  # fmt: skip


@dataclass(frozen=True)
class TrialLine:
    """One trial in the table.

    Attributes:
        name: ``sweep/t0003``.
        status: As in the journal.
        epoch: The last that was reported.
        epochs: Of a whole trial; 0: not known.
        value: Its best value of the metric.
        params: Its settings.
    """

    name: str
    status: str
    epoch: int
    epochs: int
    value: float | None
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Live:
    """A training that runs.

    Attributes:
        name: ``sweep/t0003``.
        epoch: That is trained, from 1.
        step: The last that was seen.
        steps: Planned steps in all; 0: not known.
        facts: The newest metrics: of steps, and of the machine.
        losses: Training losses so far, oldest first.
        scores: Validation scores so far, oldest first.
    """

    name: str
    epoch: int
    step: int
    steps: int
    facts: Mapping[str, float]
    losses: tuple[float, ...] = field(default=(), repr=False)
    scores: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        run: Its name.
        status: ``begun``, ``running``, or one of :data:`ENDED`.
        stage: What is being done, in words.
        seconds: Spent so far.
        budget_s: Of the run; None: not known.
        metric: What trials are compared by.
        counts: Trials by status, over all sweeps of the run.
        trials: Best first.
        live: Trainings that run.
        when: Unix time.
    """

    run: str
    status: str
    stage: str
    seconds: float
    budget_s: float | None
    metric: str
    counts: Mapping[str, int]
    trials: tuple[TrialLine, ...]
    live: tuple[Live, ...]
    when: float

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.status in ENDED

    @property
    def best(self) -> TrialLine | None:
        """The trial with the best value."""
        known = [trial for trial in self.trials if trial.value is not None]
        sign = -1.0 if self.metric == "loss" else 1.0
        return max(known, key=lambda t: sign * (t.value or 0.0), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; curves are left out, they are in ``steps.jsonl``."""
        best = self.best
        live = [{k: v for k, v in asdict(one).items() if k not in ("losses", "scores")} for one in self.live]
        document = {**asdict(self), "live": live, "best": None if best is None else asdict(best)}
        plain: dict[str, Any] = json.loads(json.dumps(document, default=str))
        return plain


def newest_run(store: Path) -> str | None:
    """Return the run of the store that wrote last; None when there is none."""
    from autodl_ray.pipeline.history import list_runs

    newest = max(list_runs(store), key=lambda run: run.when, default=None)
    return None if newest is None else newest.name


class Follower:
    """Looks at a run again and again; journals are read again only when they have grown.

    Args:
        store: Folder of the store.
        run: Name of the run.
        most: Trials that are listed.
    """

    def __init__(self, store: Path, run: str, *, most: int = 10) -> None:
        self._store, self._run, self._most = store, run, most
        self._stamp: tuple[Any, ...] = ()
        self._history: RunHistory | None = None

    def look(self) -> Snapshot:
        """Read what is there now.

        Raises:
            StoreError: There is no such run.
        """
        history = self._read()
        sweeps = history.sweeps
        live = tuple(
            _live(history.folder, sweep, trial)
            for sweep in sweeps.values()
            for trial in sweep.trials
            if trial.status == "running"
        )
        ended = history.summary.status in ENDED
        budget = history.spec.get("budget_s")
        return Snapshot(
            run=history.name,
            status=history.summary.status,
            stage=_stage(history, live),
            seconds=history.summary.seconds,
            budget_s=None if budget is None else float(budget),
            metric=_metric(sweeps),
            counts=_counts(sweeps),
            trials=tuple(_lines(sweeps)[: self._most]),
            live=() if ended else live,
            when=round(time.time(), 3),
        )

    def _read(self) -> RunHistory:
        from autodl_ray.pipeline.history import open_run

        folder = self._store / self._run
        stamp = tuple(sorted((p.name, *_marks(p)) for p in [*folder.glob("*.journal.jsonl"), folder / "run.json"]))
        # Without a change it is read every now and then all the same: a killed run is told by its silence.
        if self._history is None or stamp != self._stamp or time.time() - self._history.summary.when > 5.0:
            self._history, self._stamp = open_run(self._store, self._run), stamp
        return self._history


def _marks(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _stage(history: RunHistory, live: Sequence[Live]) -> str:
    if history.summary.status in ENDED:
        return history.summary.status
    if live:
        return {"sweep": "search"}.get(live[-1].name.partition("/")[0], "training")
    last = history.decisions[-1]["kind"] if history.decisions else ""
    return {"": "first model", "finish": "export and evaluation"}.get(last, "preparing")


def _metric(sweeps: Mapping[str, SweepHistory]) -> str:
    return next((sweep.metric for sweep in sweeps.values()), "accuracy")


def _counts(sweeps: Mapping[str, SweepHistory]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sweep in sweeps.values():
        for trial in sweep.trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
    return counts


def _lines(sweeps: Mapping[str, SweepHistory]) -> list[TrialLine]:
    """The trials, best first; a final training stands among those of the sweep."""
    lines = [
        TrialLine(
            f"{key}/{trial.id}",
            trial.status,
            trial.epochs,
            sweep.epochs,
            trial.value(sweep.metric, sweep.mode),
            trial.params,
        )
        for key, sweep in sweeps.items()
        for trial in sweep.trials
    ]
    sign = 1.0 if _metric(sweeps) == "loss" else -1.0
    return sorted(lines, key=lambda t: (t.value is None, sign * (t.value or 0.0), t.name))


def _live(folder: Path, sweep: SweepHistory, trial: TrialHistory) -> Live:
    name = f"{sweep.key}/{trial.id}"
    rows, progress = _step_rows(folder, sweep.key, trial.id), _progress(folder / "work" / sweep.key / trial.id)
    last = rows[-1] if rows else {}
    facts = {k: float(last[k]) for k in _LIVE_FIELDS if isinstance(last.get(k), int | float)}
    rates = [v for k, v in last.items() if k.startswith("lr/") and isinstance(v, int | float)]
    if rates:
        facts["lr"] = max(rates)
    if "images_per_s" not in facts and progress.get("images_per_s"):
        facts["images_per_s"] = float(progress["images_per_s"])
    return Live(
        name,
        epoch=int(last.get("epoch") or progress.get("epoch") or trial.epochs + 1),
        step=max(int(last.get("step") or 0), int(progress.get("step") or 0)),
        steps=int(progress.get("steps") or 0),
        facts=facts,
        losses=tuple(float(r["loss"]) for r in rows if isinstance(r.get("loss"), int | float)),
        scores=tuple(float(r[sweep.metric]) for r in trial.curve if isinstance(r.get(sweep.metric), int | float)),
    )


def _step_rows(folder: Path, key: str, trial: str) -> list[Row]:
    """The rows of a training, which lie with the run's metrics or, for one that was told nothing, in its own folder."""
    for place in (folder / "metrics" / key / trial, folder / "work" / key / trial / "metrics"):
        rows = read_rows(place / STEPS)
        if rows:
            return rows
    return []


def _progress(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    return {}
