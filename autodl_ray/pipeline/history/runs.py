"""What a store knows of its runs: one line each for a list, or everything of one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from autodl_ray.errors import StoreError, near_names
from autodl_ray.pipeline.history.files import FileProblem, read_object, read_rows
from autodl_ray.pipeline.history.trials import SweepHistory, read_sweep

__all__ = ["RunHistory", "RunSummary", "list_runs", "open_run"]

_SILENCE_S = 15.0
"""A run that works writes its seconds into run.json every two seconds; after this long it was killed."""
_NOT_OURS = (AttributeError, KeyError, TypeError, ValueError, OSError)
"""What reading raises of files that are JSON, but not what a run writes."""
_KEPT_APART = ("datasets", "cache", "logs", "warm")
"""Folders of a store that hold no run."""


@dataclass(frozen=True)
class RunSummary:
    """One run in one line.

    Attributes:
        name: Of the run.
        status: ``done``, ``interrupted``, ``failed``, ``running``, ``killed``, ``begun`` or ``damaged``.
        data: Name of the folder or address that it was given.
        dataset: Id of the data set version.
        model: In the zoo; ``auto`` before it was chosen.
        metric: What its models were compared by, on the validation split.
        validation: The value of that metric, of the model in its bundle; None when there is none yet.
        test: Accuracy on the sealed test split; None when it was not opened.
        winner: Where the model in the bundle came from.
        trials: Trials of its sweep.
        seconds: Wall-clock of all attempts.
        when: Unix time at which run.json was last written.
        problems: What is wrong with its files.
    """

    name: str
    status: str
    data: str = ""
    dataset: str = ""
    model: str = ""
    metric: str = "accuracy"
    validation: float | None = None
    test: float | None = None
    winner: str = ""
    trials: int = 0
    seconds: float = 0.0
    when: float = 0.0
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class RunHistory:
    """Everything that the files of a run say.

    Attributes:
        folder: Of the run.
        summary: In one line.
        spec: The experiment specification, as it was written down.
        policies: Digests of augmentation policies that were read from files.
        rows: The leaderboard, best first; [] before the run has ended.
        decisions: The plan: what was done in which order, and why.
        facts: What the run noted: the winner, repeats, limits.
        sweeps: The sweep and the trainings, by name.
        bundle: ``bundle.json`` of the delivered model; {} when there is none.
        report: Scores on the sealed test split; {} when it was not opened.
        packages: Versions of the software that made it.
    """

    folder: Path
    summary: RunSummary
    spec: Mapping[str, Any]
    policies: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    decisions: tuple[dict[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    sweeps: Mapping[str, SweepHistory] = field(default_factory=dict)
    bundle: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the run."""
        return self.summary.name

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is to fall or to rise."""
        return "min" if self.summary.metric == "loss" else "max"

    @property
    def winning_row(self) -> Mapping[str, Any]:
        """The row of the leaderboard whose model is in the bundle; {} when there is none."""
        return next((row for row in self.rows if row.get("source") == self.summary.winner), {})

    def search(self) -> SweepHistory | None:
        """Return the sweep that has the most trials."""
        return max(self.sweeps.values(), key=lambda sweep: len(sweep.trials), default=None)


def list_runs(store: Path) -> list[RunSummary]:
    """Return the runs of a store by name; what is damaged is among them, with the reason.

    Raises:
        StoreError: The store is no folder.
    """
    if not store.is_dir():
        raise StoreError("There is no such store.", seen=str(store), hint="give its folder with --store")
    folders = (p for p in sorted(store.iterdir()) if p.name not in _KEPT_APART and not p.name.startswith("."))
    return [_summary_or_damage(folder) for folder in folders if _is_run(folder)]


def open_run(store: Path, name: str) -> RunHistory:
    """Read everything of one run.

    Raises:
        StoreError: The store has no run of that name, or its run.json is damaged.
    """
    folder = store / name
    if not name or Path(name).name != name or not _is_run(folder):
        known = [run.name for run in list_runs(store)]
        raise StoreError(
            "The store has no run of that name.",
            seen=f"{name} in {store}",
            accepted=", ".join(known[:12]) + (" …" if len(known) > 12 else "") if known else "none: the store is empty",
            hint=near_names(name, known) or "autodl runs list",
        )
    problems: list[str] = []
    record = _object(folder / "run.json", problems)
    if not record:
        raise _damaged(folder, problems[0] if problems else "it is missing")
    sweeps = {key: found for key in _sweep_keys(folder) if (found := read_sweep(folder, key)) is not None}
    problems += [sweep.problem for sweep in sweeps.values() if sweep.problem]
    rows = _rows(folder / "leaderboard.json", problems)
    bundle = _object(folder / "bundle" / "bundle.json", problems)
    manifests = [_object(folder / part / "manifest.json", problems) for part in ("bundle", "report", *sweeps)]
    try:
        summary = _summarise(folder, record, rows=rows, bundle=bundle, sweep=manifests[2:], problems=problems)
    except _NOT_OURS as error:
        raise _damaged(folder, f"it is not that of a run: {error}") from error
    search = sweeps.get("sweep")
    return RunHistory(
        folder=folder,
        summary=summary if search is None else _with_trials(summary, len(search.trials)),
        spec=record.get("spec") or {},
        policies=record.get("policies") or {},
        rows=tuple(rows),
        decisions=tuple(record.get("decisions") or ()),
        facts=record.get("facts") or {},
        sweeps=sweeps,
        bundle=bundle,
        report=manifests[1].get("meta") or {},
        packages=next((m["packages"] for m in (*manifests[2:], manifests[0]) if m.get("packages")), {}),
    )


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        "The record of the run is damaged.",
        seen=f"{folder / 'run.json'}: {why}",
        hint="restore run.json from a copy, or run the line again under another --name",
    )


def _with_trials(summary: RunSummary, trials: int) -> RunSummary:
    return RunSummary(**{**asdict(summary), "trials": trials})


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() or any(folder.glob("*.journal.jsonl"))


def _sweep_keys(folder: Path) -> list[str]:
    """Names of the sweeps; journals that were set aside (``sweep.journal.1.jsonl``) are not among them."""
    found = {p.name.removesuffix(".journal.jsonl") for p in folder.glob("*.journal.jsonl")}
    found |= {p.parent.name for p in folder.glob("*/trials.json")}
    order = {"sweep": 0, "train": 1}
    return sorted((key for key in found if not key.startswith(".")), key=lambda key: (order.get(key, 2), key))


def _summary_or_damage(folder: Path) -> RunSummary:
    try:
        return _summary(folder)
    except _NOT_OURS as error:
        return RunSummary(folder.name, "damaged", problems=(f"its files are not those of a run: {error}",))


def _summary(folder: Path) -> RunSummary:
    problems: list[str] = []
    record = _object(folder / "run.json", problems)
    if not record:
        return RunSummary(folder.name, "damaged", problems=tuple(problems or ["run.json is missing"]))
    rows = _rows(folder / "leaderboard.json", problems)
    bundle = _object(folder / "bundle" / "bundle.json", problems)
    sweep = [_object(folder / key / "manifest.json", problems) for key in ("sweep", "train")]
    summary = _summarise(folder, record, rows=rows, bundle=bundle, sweep=sweep, problems=problems)
    return summary if summary.trials else _with_trials(summary, _proposed(folder / "sweep.journal.jsonl"))


def _summarise(
    folder: Path,
    record: Mapping[str, Any],
    *,
    rows: list[dict[str, Any]],
    bundle: Mapping[str, Any],
    sweep: list[dict[str, Any]],
    problems: list[str],
) -> RunSummary:
    spec = record.get("spec") or {}
    facts = record.get("facts") or {}
    metas = [manifest.get("meta") or {} for manifest in sweep]
    metric = str(next((m["metric"] for m in metas if m.get("metric")), None) or (spec.get("tune") or {}).get("metric"))
    if metric not in ("accuracy", "macro_f1", "loss"):
        metric = "accuracy"
    shown = "accuracy" if metric == "loss" else metric  # contenders of a sweep by loss are compared by accuracy
    winner = str(facts.get("winner") or bundle.get("source") or "")
    row = next((r for r in rows if r.get("source") == winner), None) or bundle.get("val_scores") or {}
    test = bundle.get("test_scores") or {}
    when = (folder / "run.json").stat().st_mtime
    return RunSummary(
        name=folder.name,
        status=_status(str(record.get("status", "begun")), when),
        data=re.split(r"[/\\]", str((spec.get("data") or {}).get("path", "")).rstrip("/\\"))[-1],
        dataset=str(record.get("dataset", "")),
        model=str(bundle.get("model") or (spec.get("model") or {}).get("name") or ""),
        metric=shown,
        validation=row.get(shown),
        test=test.get("accuracy"),
        winner=winner,
        trials=int(metas[0].get("trials") or 0) if metas else 0,
        seconds=float(record.get("spent_s") or 0.0),
        when=when,
        problems=tuple(problems),
    )


def _status(written: str, when: float) -> str:
    return "killed" if written == "running" and time.time() - when > _SILENCE_S else written


def _proposed(journal: Path) -> int:
    """Count the trials of a sweep that has not ended; the file is not parsed."""
    try:
        return journal.read_bytes().count(b'"event":"proposed"')
    except OSError:
        return 0


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return read_object(path) or {}
    except FileProblem as problem:
        problems.append(f"{path.parent.name}/{problem}")
        return {}


def _rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    try:
        return read_rows(path) or []
    except FileProblem as problem:
        problems.append(f"{path.parent.name}/{problem}")
        return []
