"""The later steps of a run: the sweep, the training, and the end; each looks up what is done already."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray import evaluate, export
from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.pipeline.candidates import candidate_of
from autodl_ray.pipeline.feeding import show_first_batch
from autodl_ray.pipeline.judging import as_exported, judge_delivered, judge_others
from autodl_ray.pipeline.limits import within_limits
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.pipeline.search_facts import search_facts
from autodl_ray.pipeline.state import Contender, Run, ranked
from autodl_ray.spec import spec_digest

if TYPE_CHECKING:
    from autodl_ray.spec import Domain, TrainSpec
    from autodl_ray.tune import SweepInputs, SweepRun

__all__ = ["finish", "search", "sweep_inputs"]

_KEPT = 3
"""Under ``tune.limits`` the weights of so many trials are weighed against each other, as FP32 and INT8."""


def search(run: Run, action: Action, *, key: str) -> SweepRun:
    """Run the trials of an action (a sweep, or one final training) and enter them for the win."""
    from autodl_ray import tune

    spec, given = run.spec.tune, _given(run, action)
    inputs = sweep_inputs(
        run,
        base=run.spec.train_with(given),
        num_samples=action.num_samples,
        epochs=action.epochs,
        deadline=time.time() + action.seconds if action.seconds is not None else None,
        param_space=dict(spec.param_space or run.network.entry.param_space) if action.kind == "sweep" else {},
        keep_best=_KEPT if spec.limits and action.kind == "sweep" else 1,
    )
    _show_batch(run, inputs)
    sweep = tune.run(spec, inputs, key=key, context=run.context)
    kept = {trial.id for trial in sweep.kept}
    for trial in sweep.trials:
        if not trial.metrics:
            continue
        row = LeaderboardRow(
            source=f"{key} {trial.id}" if action.kind == "sweep" else key,
            accuracy=trial.metrics["accuracy"],
            macro_f1=trial.metrics["macro_f1"],
            epochs=trial.epochs,
            seconds=round(trial.seconds, 2),
            status=trial.status,
            params={**given, **trial.params},
        )
        run.rows.append(row)
        if trial.id in kept and trial.weights is not None:
            run.contenders.append(Contender(run.network, trial.weights, row, trial.curve))
        if trial.metrics.get("images_per_s"):
            run.speeds["train_per_s"] = trial.metrics["images_per_s"]
    return sweep


def sweep_inputs(
    run: Run,
    *,
    base: TrainSpec,
    num_samples: int,
    epochs: int,
    deadline: float | None,
    param_space: Mapping[str, Domain],
    enqueue: tuple[Mapping[str, Any], ...] = (),
    keep_best: int = 1,
) -> SweepInputs:
    """Return what the trials of a sweep of this run have in common: its network, data, balance and first head."""
    from autodl_ray import tune

    return tune.SweepInputs(
        base=base,
        model=run.network.entry.name,
        preprocess=run.network.preprocess,
        weights=run.network.weights,
        num_classes=run.version.num_classes,
        source=run.source,
        num_samples=num_samples,
        epochs=epochs,
        deadline=deadline,
        head_init=run.head_init,
        param_space=param_space,
        enqueue=enqueue,
        keep_best=keep_best,
        dataset_id=run.version.id,
        class_weights=run.balanced.loss_weights,
        balanced=run.balanced.way == "sampler",
        log=run.log,
    )


def _given(run: Run, action: Action) -> dict[str, Any]:
    """Return the settings that the trials of an action begin with: for a training, those of the best trial."""
    trials = [r for r in run.rows if r.source.startswith("sweep ")]
    return dict(ranked(trials, run.metric)[0].params) if action.kind == "train" and trials else {}


def _show_batch(run: Run, inputs: SweepInputs) -> None:
    """Write ``train_batch.png`` before anything is trained: what the network will see, with labels."""
    from autodl_ray.train.config import resolve

    path = run.context.folder / "train_batch.png"
    if path.exists():
        return
    config = resolve(
        inputs.base,
        run.network.entry,
        preprocess=inputs.preprocess,
        num_classes=inputs.num_classes,
        weights=inputs.weights,
        epochs=inputs.epochs,
        seed=run.spec.seed,
        balanced=inputs.balanced,
    )
    show_first_batch(run.source, config, path)


def finish(run: Run, action: Action) -> tuple[Artifact, Artifact, Contender]:
    """Export the best model, open the sealed test split once, and replace the bundle.

    With ``tune.limits`` the best model that keeps them is delivered, or the one that comes nearest (see
    :mod:`autodl_ray.pipeline.limits`).

    Returns:
        bundle, report, and the contender that won.
    """
    if run.spec.tune.limits:
        winner, candidate = within_limits(run, int8=action.int8)
    else:
        winner, candidate = _best_exported(run, action)
    winner = judge_delivered(run, winner, candidate)
    judge_others(run, winner)
    report = _report(run, winner, candidate)
    bundle = export.write_bundle(
        candidate,
        report=report,
        serve=run.spec.serve,
        context=run.context,
        formats=export.Formats(tuple(run.spec.export.formats), run.version.val, run.context.budget.deadline),
        dataset=run.version.artifact.meta,
        train=run.version.train,
    )
    return bundle, report, winner


def _best_exported(run: Run, action: Action) -> tuple[Contender, Artifact]:
    winner = run.best()
    for _ in run.contenders:  # the exported file is judged; where it is worse than was trained, another may win
        candidate = candidate_of(run, winner, int8=action.int8, quick=False)
        winner = as_exported(run, winner, candidate)
        if run.best() is winner:
            break
        winner = run.best()
    return winner, candidate_of(run, winner, int8=action.int8, quick=False)


def _report(run: Run, winner: Contender, candidate: Artifact) -> Artifact:
    from autodl_ray.models.predictor import Predictor

    key = run.context.key("report")
    found = run.context.store.find(key)
    if found is not None and found.manifest.inputs.get("candidate") == candidate.id and _has_repeats(found, run):
        return found
    record = run.context.folder / "test-openings.json"
    samples = run.version.test.open(record, purpose=f"candidate {candidate.id}")
    _, info = open_bundle(candidate.path, verify=False)
    files: dict[str, Any] = {v: Predictor.open(candidate.path, variant=v, verify=False) for v in info.variants}
    return evaluate.run(
        run.spec.evaluate,
        evaluate.EvaluateInputs(
            predict=files.pop(info.default_variant),
            judged=info.default_variant,
            others=files,
            samples=samples,
            candidate_id=candidate.id,
            model={"name": winner.network.entry.name, "source": winner.row.source, "version": info.version},
            dataset=_dataset_facts(run),
            leaderboard=[{**row.to_json(), "chosen": row == winner.row} for row in ranked(run.rows, run.metric)],
            search=search_facts(run),
            curves=list(winner.curve),
            int8=info.int8.model_dump(),
            openings=json.loads(record.read_text()),
            spec_digest=spec_digest(run.spec),
        ),
        context=run.context,
    )


def _has_repeats(report: Artifact, run: Run) -> bool:
    """Whether a report shows the repeats there are now: a finished run may have been given more of them."""
    shown: dict[str, Any] = json.loads(report.file("report.json").read_text(encoding="utf-8")).get("search", {})
    return bool(shown.get("repeat") == run.facts.get("repeat"))


def _dataset_facts(run: Run) -> dict[str, Any]:
    version = run.version
    return {
        "id": version.id,
        "name": Path(run.spec.data.path).name,
        "skipped": len(json.loads(version.artifact.file("findings.json").read_text(encoding="utf-8"))["unreadable"]),
        "classes": list(version.classes),
        "train": len(version.train),
        "val": len(version.val),
        "test": version.test.size,
        **version.artifact.meta,
    }
