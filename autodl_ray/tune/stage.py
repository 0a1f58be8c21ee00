"""The sweep: trials over the ranges, or the one training with the defaults; resumed from its journal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from autodl_ray.errors import SpecError
from autodl_ray.runtime.cluster import ensure_ray
from autodl_ray.runtime.context import Context
from autodl_ray.runtime.resources import ResourcePlan, plan_resources
from autodl_ray.seeding import seed_for
from autodl_ray.spec.load import difference
from autodl_ray.spec.sections import Choice, TrainSpec, TuneSpec
from autodl_ray.train.config import FitConfig, resolve
from autodl_ray.train.telemetry import LogConfig
from autodl_ray.tune.artifact import best_of, open_sweep, raise_if_all_failed, trial_records, write_files
from autodl_ray.tune.contracts import EarlierSweep, SearchContext
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.extension import identity_of, keep_checkpoint, reopen
from autodl_ray.tune.identity import sweep_digest, sweep_identity
from autodl_ray.tune.journal import JOURNAL_VERSION, Journal, read_journal
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.records import SweepInputs, SweepRun
from autodl_ray.tune.schedulers import Goal, make_scheduler
from autodl_ray.tune.search import earlier_from, needs_earlier, resolve_search, warm_event
from autodl_ray.tune.show import show_progress
from autodl_ray.tune.space import only_active
from autodl_ray.tune.state import SweepState, TrialState
from autodl_ray.tune.workspace import Workspace

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
    events = sweep.begin()
    with Journal(sweep.workspace.journal) as journal:
        engine = sweep.engine(events, journal)
        if not engine.is_done and not engine.time_is_up and not context.stop.is_set():
            if inputs.num_samples > 1 or plan.num_workers > 1:
                context.progress.say(plan.line())
            sweep.train(engine, plan)
            if engine.over:
                context.progress.say(f"{key}: {engine.over}, after {len(engine.state.trials)} trials")
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
        return cls(spec, inputs, key, context, workspace, sweep_identity(spec, inputs, context.seed))

    @property
    def digest(self) -> str:
        return sweep_digest(self.identity)

    @property
    def kind(self) -> Literal["sweep", "training"]:
        return "sweep" if self.inputs.param_space or self.inputs.enqueue else "training"

    @property
    def log(self) -> LogConfig | None:
        return None if self.inputs.log is None else replace(self.inputs.log, key=self.key)

    def gather(self) -> None:
        """Bring the live metrics of all trials together."""
        log = self.log
        if log is not None and log.folder is not None:
            from autodl_ray.train.telemetry.collect import collect

            collect(log.folder / self.key, tensorboard=log.tensorboard)

    def look_up(self) -> SweepRun | None:
        """Return the sweep that is in the store, when it is this one and has all the trials that are wanted."""
        artifact = self.context.store.find(self.context.key(self.key))
        if artifact is None or artifact.manifest.spec_digest != self.digest:
            return None
        if artifact.meta["num_samples"] < self.inputs.num_samples and not artifact.meta["exhausted"]:
            return None
        if artifact.meta.get("over") and artifact.meta.get("goal") != self._goal_facts():
            return None
        return open_sweep(artifact)

    def begin_anew_if_different(self) -> None:
        """Set the journal aside when it is of other inputs, or when nothing in it succeeded."""
        events = read_journal(self.workspace.journal)
        if not events:
            return
        made = self.context.store.find(self.context.key(self.key))
        if self.kind == "training" and reopen(events, self.identity, self.workspace, made):
            return
        rows = difference(identity_of(events), self.identity)
        trials = SweepState(self.spec.score, self.spec.mode, None).fold(events[1:]).trials.values()
        if rows:
            self.context.progress.say(f"{self.key}: begun anew, its inputs changed ({'; '.join(rows)})")
        elif not trials or any(t.status not in ("failed", "lost") for t in trials):
            return
        self.workspace.begin_anew()
        if self.log is not None and self.log.folder is not None:
            shutil.rmtree(self.log.folder / self.key, ignore_errors=True)

    def begin(self) -> list[dict[str, Any]]:
        """Return the events of the journal; a new one is opened with the identity of the sweep, and its warm start."""
        events = read_journal(self.workspace.journal)
        if not events:
            events = [{"event": "begun", "version": JOURNAL_VERSION, "identity": self.identity}]
            if self.kind == "sweep" and needs_earlier(self.spec):
                events.append(self._warm())
            with Journal(self.workspace.journal) as journal:
                for event in events:
                    journal.append(event)
        return events

    def engine(self, events: list[dict[str, Any]], journal: Journal) -> Engine:
        """Make the engine, which goes on where the journal ends."""
        spec, inputs = self.spec, self.inputs
        earlier, warm = earlier_from(events)
        context = self._search(earlier)
        search, scheduler = resolve_search(spec, inputs.param_space, single=self.kind == "training")
        rule = make_scheduler(scheduler, context, patience=spec.patience)
        engine = Engine(
            SweepState(spec.score, spec.mode, rule).fold(events),
            journal,
            make_proposer(search, context) if inputs.param_space else None,
            inputs.param_space,
            (context.baseline, *inputs.enqueue, *warm),
            inputs.num_samples,
            inputs.epochs,
            inputs.deadline,
            Goal(spec.mode, spec.target, spec.plateau) if self.kind == "sweep" else None,
        )
        engine.settle()
        return engine

    def _search(self, earlier: tuple[EarlierSweep, ...] = ()) -> SearchContext:
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
            earlier=earlier,
            facts=self._facts(),
        )

    def _warm(self) -> dict[str, Any]:
        """Look at the earlier sweeps of the store."""
        from autodl_ray.tune.warm import earlier_sweeps, portfolio

        say, store = self.context.progress.say, self.context.store
        earlier = earlier_sweeps(store, without=self.context.key(self.key), say=say)
        first = portfolio(self._search(earlier), self.spec.warm_start) if earlier and self.spec.warm_start else []
        count = f"{len(earlier)} earlier sweep{'s' * (len(earlier) != 1)}"
        say(f"{self.key}: {count} in the store, {len(first)} of their settings are tried first")
        return warm_event(earlier, first)

    def _facts(self) -> dict[str, float]:
        """What warm starts compare data sets by."""
        from autodl_ray.tune.warm import facts_of

        inputs = self.inputs
        labels = inputs.source.train.labels
        return facts_of(labels, num_classes=inputs.num_classes, image_size=inputs.preprocess.size)

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
            memory_mb=cluster.memory_mb,
            gpu_memory_mb=cluster.gpu_memory_mb,
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
        params = {name: getattr(resolved, name, v) if v == "auto" else v for name, v in given.items()}
        return only_active(self.inputs.param_space, params)

    def train(self, engine: Engine, plan: ResourcePlan) -> None:
        from autodl_ray.tune.ray_tune import TrialJob, run_trials
        from autodl_ray.tune.trainable import LaunchTrial

        total = float(self.inputs.num_samples)
        name = "sweep" if self.kind == "sweep" else "train"
        least = self.inputs.base.min_workers
        job = TrialJob(
            LaunchTrial(
                self.inputs.source, plan, self.inputs.head_init, self.log, min_workers=1 if least == "auto" else least
            ),
            self.context.stop,
            self.inputs.deadline,
        )

        kept = engine.state.best_ids(self.inputs.keep_best)
        if self.kind == "sweep":  # of a single training the checkpoint is kept too: it may be given more epochs
            self.workspace.keep_only(None, {t.id for t in engine.state.trials.values() if t.has_ended}, also=kept)

        def on_end(trial: TrialState) -> None:
            nonlocal kept
            if self.kind == "training":
                return
            before, kept = kept, engine.state.best_ids(self.inputs.keep_best)
            touched = (trial, *(engine.state.trials[name] for name in before))
            self.workspace.keep_only(None, {t.id for t in touched if t.has_ended}, also=kept)

        with self.context.progress.stage(name, total if self.kind == "sweep" else float(self.inputs.epochs)) as bar:
            run_trials(
                engine,
                job,
                settings=self.settings,
                folder=self.workspace.folder,
                plan=plan,
                on_tick=lambda: show_progress(bar, engine, self.workspace, single=self.kind == "training"),
                on_end=on_end,
                say=self.context.progress.say,
            )
            show_progress(bar, engine, self.workspace, single=self.kind == "training")
        self.gather()

    def finish(self, engine: Engine) -> SweepRun:
        """Write the artifact; when the user interrupted, only say how far it came."""
        state, store = engine.state, self.context.store
        records = trial_records(state, self.workspace, store.find(self.context.key(self.key)))
        best = best_of(state, records)
        if self.context.stop.is_set() and not engine.is_done:
            return SweepRun(None, records, best)
        raise_if_all_failed(records, self.key)
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
                "epochs": self.inputs.epochs,
                "facts": self._facts(),
                "exhausted": engine.exhausted,
                "over": engine.over,
                "goal": self._goal_facts(),
                "best": best.id if best else None,
                "trials": len(records),
            },
        ) as writer:
            write_files(writer.path, records, best, self.spec, keep=state.best_ids(self.inputs.keep_best))
            if self.kind == "training":
                keep_checkpoint(self.workspace, writer.path)
        self.workspace.remove()
        artifact = store.find(self.context.key(self.key))
        assert artifact is not None
        return open_sweep(artifact)

    def _goal_facts(self) -> list[float | None]:
        return [self.spec.target, self.spec.plateau]
