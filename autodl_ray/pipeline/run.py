"""The whole way, once: check → version → split → quick model → sweep → train → evaluate → export → bundle."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from autodl_ray import data
from autodl_ray.artifacts import DatasetVersion, Store, write_atomic
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import DatasetError, RunInterrupted, StageError
from autodl_ray.pipeline.interrupt import interruptible
from autodl_ray.pipeline.pace import measure_pace
from autodl_ray.pipeline.planner import Action, Observation, decide, finish_seconds
from autodl_ray.pipeline.policies import read_policies
from autodl_ray.pipeline.quick import quick_model
from autodl_ray.pipeline.record import RunRecord, identity_digest
from autodl_ray.pipeline.repeats import repeat_training
from autodl_ray.pipeline.result import LeaderboardRow, RunResult
from autodl_ray.pipeline.screening import screening_facts
from autodl_ray.pipeline.state import Run, begin, decide_metric, ranked
from autodl_ray.pipeline.steps import finish, search
from autodl_ray.runtime import Budget, Context, Progress, StopFlag
from autodl_ray.runtime.cluster import kill_ray_now, start_ray_in_background, stop_ray
from autodl_ray.runtime.disk import DiskGuard, disk_guard
from autodl_ray.spec import ExperimentSpec
from autodl_ray.train.telemetry import LogConfig
from autodl_ray.train.telemetry.tracking import Tracker
from autodl_ray.tune.workspace import free_paused

__all__ = ["run", "run_name"]

_STRETCH = 2.0
"""A training may have so many times the epochs of the network's recipe where there is time, if none are asked for."""
_STARTUP_S = 8.0
"""Until a first trial trains: Ray's worker process starts and imports torch (two cores)."""


def run(
    spec: ExperimentSpec,
    *,
    store: Store,
    progress: Progress,
    started: float | None = None,
    resume_line: str = "",
) -> RunResult:
    """Run an experiment to its end, or go on with it where an earlier attempt was stopped.

    Args:
        spec: What is wanted.
        store: Where everything is kept.
        progress: Where to report.
        started: Unix time at which the budget began (default: now).
        resume_line: Shown when the run is interrupted.

    Returns:
        What was delivered; ``interrupted`` when the user stopped it early.

    Raises:
        AutoDLError: By kind: see :mod:`autodl_ray.errors`.
    """
    _check_parts(spec)
    LogConfig.of(spec.log, run="", folder=Path())  # refuses what it cannot do
    read_policies(spec)
    stop = StopFlag(store.folder("logs") / f"stop-{os.getpid()}")
    budget = Budget(spec.budget_s, started=started or time.time())
    scout = Context(store, "", spec.seed, budget, progress, stop)
    stop.clear()
    with interruptible(stop, say=progress.say, kill_now=kill_ray_now):
        try:
            version = data.run(spec.data, context=scout)
            _check_task(version)
            name = run_name(spec, version)
            record = RunRecord(store.folder(name))
            with record.attempt():
                record.begin(spec, version.id)
                done = _look_up(record, store, name, version, formats=spec.export.formats)
                if done is not None:
                    return done
                record.start()
                budget = Budget(spec.budget_s, record.counted_s, budget.started)
                context = Context(store, name, spec.seed, budget, progress, stop, disk_limit=spec.disk_limit)
                try:
                    with Tracker(_log(spec, context)) as tracker, _within_disk_limit(context):
                        result = _attempt(spec, version, record, context)
                except Exception as error:
                    record.end("interrupted" if isinstance(error, RunInterrupted) else "failed")
                    raise
                if tracker.note:
                    progress.say(tracker.note)
                return result
        except RunInterrupted as error:
            raise RunInterrupted(error.what, hint=f"resume: {resume_line}" if resume_line else error.hint) from error
        finally:
            stop_ray()


def _within_disk_limit(context: Context) -> AbstractContextManager[DiskGuard | None]:
    return disk_guard(context, say=context.progress.say, last_resort=lambda: free_paused(context.folder))


def _check_parts(spec: ExperimentSpec) -> None:
    """Refuse a model, a format, a loss or a precision that is not to be had before any picture is read."""
    for name in sorted({model.name for model in spec.model.alternatives()} - {"auto"}):
        from autodl_ray.models.zoo import find_entry

        find_entry(name)
    if "openvino" in spec.export.formats:
        from autodl_ray.export.extras import import_openvino

        import_openvino()
    if ":" in spec.train.loss:
        from autodl_ray.models.custom import import_dotted

        import_dotted(spec.train.loss, where="train.loss")
    if spec.train.precision == "16" and not os.environ.get("RAY_ADDRESS"):  # a cluster may have other devices than this
        from autodl_ray.train.peers import Alone
        from autodl_ray.train.precision import check_precision

        check_precision("16", Alone().device)


def _log(spec: ExperimentSpec, context: Context) -> LogConfig:
    return LogConfig.of(spec.log, run=context.run, folder=context.folder / "metrics")


def _check_task(version: DatasetVersion) -> None:
    if version.train.boxes is not None:
        raise DatasetError(
            "The pictures have boxes instead of one label each; `autodl run` trains classifiers so far.",
            seen=f"{len(version.train.boxes.labels)} boxes in {len(version.train)} training pictures",
            accepted="pictures with one label each",
            hint="the data side is there for boxes too: autodl data check, snapshot, convert",
        )


def run_name(spec: ExperimentSpec, version: DatasetVersion) -> str:
    """Return the name of the run: the one given, or the folder's name with a digest of spec and data.

    Example:
        ``photos-3f2a1c``: the same line on the same pictures has the same name, and so resumes.
    """
    if spec.name:
        return spec.name
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(spec.data.path).resolve().name).strip("-").lower()[:20]
    return f"{slug or 'run'}-{identity_digest(spec, version.id)[:6]}"


def _attempt(spec: ExperimentSpec, version: DatasetVersion, record: RunRecord, context: Context) -> RunResult:
    state = begin(spec, version, context)
    if spec.model.candidates:
        state.facts["screening"] = screening_facts(context.folder)
    state.log = _log(spec, context)
    decide_metric(state)
    start_ray_in_background(Path(context.store.root))  # takes seconds; the quick model is made meanwhile
    quick_model(state)
    context.progress.say(f"first bundle after {context.budget.spent_s():.0f} s: {context.key('bundle')}")
    action = _search_and_train(state, record)
    bundle, report, winner = finish(state, action)
    interrupted = context.stop.is_set()
    board = ranked(state.rows, state.metric)
    write_atomic(
        context.folder / "leaderboard.json", json.dumps([r.to_json() for r in board], indent=1, default=str) + "\n"
    )
    record.note(winner=winner.row.source, **state.facts)
    record.end("interrupted" if interrupted else "done")
    return RunResult(
        name=context.run,
        folder=context.folder,
        dataset_id=version.id,
        bundle=bundle,
        report=report,
        leaderboard=tuple(board),
        winner=winner.row.source,
        seconds=context.budget.spent_s(),
        interrupted=interrupted,
        facts=dict(state.facts),
    )


def _search_and_train(state: Run, record: RunRecord) -> Action:
    """Take one action after the other until nothing is left but to finish."""
    swept = trained = False
    trial_epochs = trainings = 0
    for step in range(100):
        seen = observe(state, swept=swept, trained=trained, trial_epochs=trial_epochs)
        earlier = record.action(step)
        action = decide(seen) if earlier is None or seen.stopping else Action(**earlier)
        state.context.progress.say(f"{action.kind}: {action.reason}")
        if action.kind == "finish":
            if not seen.stopping:
                repeat_training(state, seconds=seen.left_s - finish_seconds(seen))
            return action
        if earlier is None:
            record.decided(step, action)
        if action.kind == "sweep":
            search(state, action, key="sweep")
            swept, trial_epochs = True, action.epochs
        else:
            trainings += 1
            key = "train" if trainings == 1 else f"train{trainings}"
            is_old = state.context.store.find(state.context.key(key)) is not None
            best = search(state, action, key=key).best
            # A training that an earlier, smaller budget cut short is worth another one now.
            trained = not is_old or (best is not None and best.epochs >= action.epochs)
    raise StageError("The plan of the run does not end.", hint="this is a bug; please report it")


def observe(state: Run, *, swept: bool, trained: bool, trial_epochs: int) -> Observation:
    """Gather what the planner looks at."""
    spec, version, speeds = state.spec, state.version, state.speeds
    if "train_per_s" not in speeds and not state.context.stop.is_set():
        pace = measure_pace(state)
        speeds["train_per_s"] = pace.train_per_s
        # The quick model's may be another network: pixels, say, which are a hundred times faster.
        speeds["infer_per_s"] = min(speeds.get("infer_per_s", pace.infer_per_s), pace.infer_per_s)
    infer_per_s = speeds.get("infer_per_s", 100.0)
    epochs = spec.train.epochs
    return Observation(
        left_s=state.context.budget.left_s(),
        num_train=len(version.train),
        num_val=len(version.val),
        num_test=version.test.size,
        infer_per_s=infer_per_s,
        train_per_s=speeds.get("train_per_s", infer_per_s),
        startup_s=_STARTUP_S,
        export_s=speeds.get("export_s", 10.0),
        full_epochs=state.network.entry.epochs if epochs == "auto" else epochs,
        stretch=_STRETCH if epochs == "auto" else 1.0,
        wanted_trials=spec.tune.num_samples,
        wanted_trial_epochs=spec.tune.epochs,
        with_int8=spec.export.int8 != "off",
        calibration=spec.export.calibration,
        repeat=spec.repeat,
        swept=swept,
        trial_epochs=trial_epochs,
        trained=trained,
        stopping=state.context.stop.is_set(),
    )


def _look_up(
    record: RunRecord, store: Store, name: str, version: DatasetVersion, *, formats: Sequence[str]
) -> RunResult | None:
    """Return the result of a run that is done; None when there is something left to do, such as another format."""
    bundle, report = store.find(f"{name}/bundle"), store.find(f"{name}/report")
    if not record.is_done or bundle is None or report is None:
        return None
    if set(formats) - set(open_bundle(bundle.path, verify=False)[1].formats):
        return None
    folder = store.folder(name)
    rows = json.loads((folder / "leaderboard.json").read_text())
    return RunResult(
        name=name,
        folder=folder,
        dataset_id=version.id,
        bundle=bundle,
        report=report,
        leaderboard=tuple(LeaderboardRow(**row) for row in rows),
        winner=record.fact("winner"),
        seconds=record.spent_s,
        repeated=True,
        facts={name: fact for name in ("repeat", "limits", "screening") if (fact := record.fact(name)) is not None},
    )
