"""The sweep: trials over the ranges, or the one training with the defaults; resumed from its journal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from autodl_ray.artifacts import Artifact, write_atomic
from autodl_ray.errors import SpecError, StageError
from autodl_ray.runtime.cluster import ensure_ray
from autodl_ray.runtime.context import Context
from autodl_ray.runtime.resources import ResourcePlan, plan_resources
from autodl_ray.seeding import seed_for
from autodl_ray.spec.load import difference
from autodl_ray.spec.sections import Choice, TrainSpec, TuneSpec
from autodl_ray.train.config import FitConfig, resolve
from autodl_ray.tune.contracts import Scheduler, SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.journal import JOURNAL_VERSION, Journal, read_journal
from autodl_ray.tune.leaderboard import leaderboard
from autodl_ray.tune.proposers import PROPOSERS
from autodl_ray.tune.records import SweepInputs, SweepRun, TrialRecord
from autodl_ray.tune.schedulers import Goal, make_scheduler
from autodl_ray.tune.show import show_progress
from autodl_ray.tune.state import SweepState, TrialState
from autodl_ray.tune.workspace import WEIGHTS, Workspace

__all__ = ["run"]


def run(spec: TuneSpec, inputs: SweepInputs, *, key: str, context: Context) -> SweepRun:
    """Run the trials of a sweep, or go on with them where an earlier attempt was stopped.

    Trial 0 is the defaults. Trials that ended are not trained again, those that were begun go on from their last
    checkpoint; a larger ``num_samples`` adds trials. The store keeps ``trials.json`` and the weights of the best
    trial; the journal stays beside them.

    Args:
        spec: How values are proposed and trials stopped.
        inputs: What is trained.
        key: Name of the artifact in the run, e.g. ``sweep`` or ``train``.
        context: The surroundings.

    Returns:
        The trials and the best of them; without an artifact when the user interrupted.

    Raises:
        StageError: Every trial failed; the text ends in the error of the last one.
        ResourceError: Not even one trial fits on the cluster.
        SpecError: A value of the ranges is not accepted by the training section.
        StoreError: The journal is damaged, or the disk is full.
    """
    sweep = _Sweep.of(spec, inputs, key, context)
    done = sweep.look_up()
    if done is not None:
        return done
    sweep.check_space()
    plan = sweep.plan()
    sweep.begin_anew_if_different()
    state = sweep.state()
    with Journal(sweep.workspace.journal) as journal:
        engine = sweep.engine(state, journal)
        if not engine.is_done and not engine.time_is_up and not context.stop.is_set():
            if inputs.num_samples > 1 or plan.num_workers > 1:
                context.progress.say(plan.line())
            sweep.train(engine, plan)
        if not (context.stop.is_set() and not engine.is_done):
            engine.close()
    return sweep.finish(engine)


@dataclass(frozen=True)
class _Sweep:
    """One sweep and where it lies."""

    spec: TuneSpec
    inputs: SweepInputs
    key: str
    context: Context
    workspace: Workspace
    identity: dict[str, Any]

    @classmethod
    def of(cls, spec: TuneSpec, inputs: SweepInputs, key: str, context: Context) -> _Sweep:
        folder = context.folder
        workspace = Workspace(folder / "work" / key, folder / f"{key}.journal.jsonl")
        return cls(spec, inputs, key, context, workspace, _identity(spec, inputs, context.seed))

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def kind(self) -> Literal["sweep", "training"]:
        return "sweep" if self.inputs.param_space or self.inputs.enqueue else "training"

    def look_up(self) -> SweepRun | None:
        """Return the sweep that is in the store, when it is this one and has all the trials that are wanted."""
        artifact = self.context.store.find(self.context.key(self.key))
        if artifact is None or artifact.manifest.spec_digest != self.digest:
            return None
        if artifact.meta["num_samples"] < self.inputs.num_samples and not artifact.meta["exhausted"]:
            return None
        return _opened(artifact)

    def begin_anew_if_different(self) -> None:
        """Set the journal aside when it is of other inputs, or when nothing in it succeeded."""
        events = read_journal(self.workspace.journal)
        if not events:
            return
        rows = difference(events[0].get("identity", {}), self.identity)
        trials = SweepState(self.spec.score, self.spec.mode, None).fold(events[1:]).trials.values()
        if rows:
            self.context.progress.say(f"{self.key}: begun anew, its inputs changed ({'; '.join(rows)})")
        elif not trials or any(t.status not in ("failed", "lost") for t in trials):
            return
        self.workspace.begin_anew()

    def state(self) -> SweepState:
        """Fold the journal; a new one is opened with the identity of the sweep."""
        events = read_journal(self.workspace.journal)
        if not events:
            with Journal(self.workspace.journal) as journal:
                journal.append({"event": "begun", "version": JOURNAL_VERSION, "identity": self.identity})
        return SweepState(self.spec.score, self.spec.mode, self._scheduler()).fold(events)

    def _scheduler(self) -> Scheduler:
        name = "none" if self.kind == "training" else {"auto": "asha"}.get(self.spec.scheduler, self.spec.scheduler)
        return make_scheduler(name, self._search(), patience=self.spec.patience)

    def _search(self) -> SearchContext:
        """What proposers and schedulers are made from."""
        spec, inputs = self.spec, self.inputs
        return SearchContext(
            inputs.param_space,
            spec.mode,
            seed_for(self.context.seed, "tune", self.key),
            inputs.epochs,
            baseline=self._defaults(),
            num_samples=inputs.num_samples,
            grace_period=spec.grace_period,
            reduction_factor=spec.reduction_factor,
        )

    def engine(self, state: SweepState, journal: Journal) -> Engine:
        inputs = self.inputs
        propose = PROPOSERS[{"auto": "tpe"}.get(self.spec.search, self.spec.search)]
        engine = Engine(
            state,
            journal,
            propose(inputs.param_space, self.spec.mode, seed_for(self.context.seed, "tune", self.key)),
            inputs.param_space,
            (self._defaults(), *inputs.enqueue),
            inputs.num_samples,
            inputs.epochs,
            inputs.deadline,
            Goal(self.spec.mode, self.spec.target, self.spec.plateau) if self.kind == "sweep" else None,
        )
        engine.settle()
        return engine

    def plan(self) -> ResourcePlan:
        """Share the cluster out, or refuse."""
        cluster, train, spec = ensure_ray(), self.inputs.base, self.spec
        return plan_resources(
            cpus=cluster.cpus,
            gpus=cluster.gpus,
            num_samples=self.inputs.num_samples,
            num_workers=train.num_workers,
            cpus_per_worker=None if train.cpus_per_worker == "auto" else train.cpus_per_worker,
            gpus_per_worker=None if train.gpus_per_worker == "auto" else train.gpus_per_worker,
            max_concurrent_trials=None if spec.max_concurrent_trials == "auto" else spec.max_concurrent_trials,
            stream_cpus=self.inputs.source.cpus_needed,
        )

    def settings(self, params: Mapping[str, Any]) -> FitConfig:
        """Make the whole configuration of a trial from its params."""
        from autodl_ray.models.zoo import find_entry

        try:
            train = TrainSpec.model_validate({**self.inputs.base.model_dump(), **params})
        except ValidationError as error:
            problem = error.errors()[0]
            raise SpecError(
                f"A value of tune.param_space is not accepted by train.{problem['loc'][0]}.",
                seen=f"{problem['input']!r}: {problem['msg']}",
                hint="narrow the range in tune.param_space",
            ) from error
        return resolve(
            train,
            find_entry(self.inputs.model),
            preprocess=self.inputs.preprocess,
            num_classes=self.inputs.num_classes,
            weights=self.inputs.weights,
            epochs=self.inputs.epochs,
            seed=seed_for(self.context.seed, "fit"),
            metric=self.spec.score,
            class_weights=self.inputs.class_weights,
            balanced=self.inputs.balanced,
        )

    def check_space(self) -> None:
        """See to it that the ends of every range are accepted, before anything is trained."""
        for name, domain in self.inputs.param_space.items():
            for value in domain.values if isinstance(domain, Choice) else (domain.low, domain.high):
                self.settings({name: value})

    def _defaults(self) -> dict[str, Any]:
        """The params of trial 0: what the defaults are for the searched fields, so that no trial repeats them."""
        resolved, base = self.settings({}), self.inputs.base.model_dump()
        given = {name: base[name] for name in sorted(self.inputs.param_space)}
        return {name: getattr(resolved, name, value) if value == "auto" else value for name, value in given.items()}

    def train(self, engine: Engine, plan: ResourcePlan) -> None:
        from autodl_ray.tune.ray_tune import TrialJob, run_trials
        from autodl_ray.tune.trainable import LaunchTrial

        total = float(self.inputs.num_samples)
        name = "sweep" if self.kind == "sweep" else "train"
        job = TrialJob(
            LaunchTrial(self.inputs.source, plan, self.inputs.head_init), self.context.stop, self.inputs.deadline
        )

        def on_end(_: TrialState) -> None:
            state = engine.state
            best = state.best()
            ended = {t.id for t in state.trials.values() if t.has_ended}
            self.workspace.keep_only(best.id if best else None, ended)

        with self.context.progress.stage(name, total if self.kind == "sweep" else float(self.inputs.epochs)) as bar:
            run_trials(
                engine,
                job,
                settings=self.settings,
                folder=self.workspace.folder,
                plan=plan,
                on_tick=lambda: show_progress(bar, engine, self.workspace, single=self.kind == "training"),
                on_end=on_end,
            )
            show_progress(bar, engine, self.workspace, single=self.kind == "training")

    def finish(self, engine: Engine) -> SweepRun:
        """Write the artifact; when the user interrupted, only say how far it came."""
        state, store = engine.state, self.context.store
        earlier = store.find(self.context.key(self.key))
        records = tuple(_record(state, t, self.workspace, earlier) for t in state.trials.values())
        best = _best(state, records)
        if self.context.stop.is_set() and not engine.is_done:
            return SweepRun(None, records, best)
        _raise_if_all_failed(records, self.key)
        with store.write(
            self.context.key(self.key),
            kind=self.kind,
            spec_digest=self.digest,
            inputs={"dataset": self.inputs.dataset_id} if self.inputs.dataset_id else {},
            seed=self.context.seed,
            meta={
                "metric": self.spec.score,
                "mode": self.spec.mode,
                "num_samples": self.inputs.num_samples,
                "exhausted": engine.exhausted,
                "best": best.id if best else None,
                "trials": len(records),
            },
        ) as writer:
            rows = [{**dataclasses.asdict(r), "weights": None} for r in records]
            write_atomic(writer.path / "trials.json", json.dumps(rows, indent=1, default=str) + "\n")
            board = leaderboard(records, metric=self.spec.score, mode=self.spec.mode)
            write_atomic(writer.path / "leaderboard.json", json.dumps(board, indent=1, default=str) + "\n")
            if best is not None and best.weights is not None:
                shutil.copyfile(best.weights, writer.path / WEIGHTS)
        self.workspace.remove()
        artifact = store.find(self.context.key(self.key))
        assert artifact is not None
        return _opened(artifact)


def _identity(spec: TuneSpec, inputs: SweepInputs, seed: int) -> dict[str, Any]:
    """Everything that decides a trial's result, but how many there are and how long they may take."""
    document = {
        "base": {
            k: v for k, v in inputs.base.model_dump(mode="json").items() if not k.startswith(("num_", "cpus", "gpus"))
        },
        "model": inputs.model,
        "preprocess": dataclasses.asdict(inputs.preprocess),
        "weights": _file_digest(Path(inputs.weights)) or inputs.weights,
        "num_classes": inputs.num_classes,
        "epochs": inputs.epochs,
        "head_init": _file_digest(inputs.head_init) if inputs.head_init else None,
        "param_space": {name: domain.model_dump(mode="json") for name, domain in inputs.param_space.items()},
        "enqueue": [dict(p) for p in inputs.enqueue],
        "tune": spec.model_dump(
            mode="json", include={"search", "scheduler", "grace_period", "reduction_factor", "metric"}
        ),
        "dataset": inputs.dataset_id,
        "class_weights": inputs.class_weights,
        "balanced": inputs.balanced,
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _file_digest(path: Path) -> str | None:
    """The hash of a file in the place of its path, which a move of the store would change."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def _record(state: SweepState, trial: TrialState, workspace: Workspace, earlier: Artifact | None) -> TrialRecord:
    row = state.best_row(trial) or {}
    weights = workspace.weights(trial.id)
    if weights is None and earlier is not None and earlier.meta.get("best") == trial.id:
        weights = earlier.file(WEIGHTS)
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


def _best(state: SweepState, records: tuple[TrialRecord, ...]) -> TrialRecord | None:
    best = state.best()
    return next((r for r in records if best is not None and r.id == best.id), None)


def _opened(artifact: Artifact) -> SweepRun:
    rows = json.loads(artifact.file("trials.json").read_text(encoding="utf-8"))
    best = artifact.meta["best"]
    weights = artifact.path / WEIGHTS
    records = tuple(
        TrialRecord(
            **{
                **row,
                "curve": tuple(row["curve"]),
                "weights": weights if row["id"] == best and weights.is_file() else None,
            }
        )
        for row in rows
    )
    return SweepRun(artifact, records, next((r for r in records if r.id == best), None))


def _raise_if_all_failed(records: tuple[TrialRecord, ...], key: str) -> None:
    if not records or any(r.status not in ("failed", "lost") or r.metrics for r in records):
        return
    count = "The trial" if len(records) == 1 else f"All {len(records)} trials"
    raise StageError(f"{count} of {key} failed.", seen=records[-1].reason)
