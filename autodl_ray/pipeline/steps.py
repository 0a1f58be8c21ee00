"""The steps of a run: the quick model, the sweep, the training, and the end; each looks up what is done already."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray import evaluate, export
from autodl_ray.artifacts import Artifact, DatasetVersion
from autodl_ray.data.stream import StreamSource
from autodl_ray.errors import RunInterrupted
from autodl_ray.images import Preprocess
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.runtime import Context
from autodl_ray.runtime.cluster import ensure_ray
from autodl_ray.seeding import seed_for
from autodl_ray.spec import ExperimentSpec, spec_digest

if TYPE_CHECKING:
    from autodl_ray.models.zoo import ZooEntry
    from autodl_ray.tune import SweepRun

__all__ = ["Contender", "Network", "Run", "choose_network", "finish", "quick_model", "search"]


@dataclass(frozen=True)
class Network:
    """A model of the zoo as this run uses it."""

    entry: ZooEntry
    preprocess: Preprocess
    weights: str


@dataclass(frozen=True)
class Contender:
    """A model that may win: where its weights lie and how it did on the validation split."""

    network: Network
    weights_file: Path
    row: LeaderboardRow


@dataclass
class Run:
    """What the steps of one attempt share.

    Attributes:
        spec: What is wanted.
        context: The surroundings.
        version: The data.
        network: The model that is searched and trained.
        contenders: The best model of each step so far.
        rows: The leaderboard so far.
        speeds: Measured: infer_per_s, export_s, train_per_s, startup_s.
    """

    spec: ExperimentSpec
    context: Context
    version: DatasetVersion
    network: Network
    contenders: list[Contender] = field(default_factory=list)
    rows: list[LeaderboardRow] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    head_init: Path | None = None
    bundle: Artifact | None = None
    _source: StreamSource | None = None

    @property
    def source(self) -> StreamSource:
        """The stream of training batches; made when the first trial needs it."""
        if self._source is None:
            ensure_ray(Path(self.context.store.root))
            self._source = StreamSource.make(
                self.version.train,
                self.version.val,
                self.network.preprocess,
                seed=seed_for(self.spec.seed, "stream"),
            )
        return self._source

    def best(self) -> Contender:
        """Return the contender with the best validation metric (ties: the cheaper one)."""
        metric = self.spec.tune.metric
        if metric == "loss":
            metric = "accuracy"
        return max(self.contenders, key=lambda c: (round(getattr(c.row, metric), 6), -c.row.seconds))


def choose_network(spec: ExperimentSpec, version: DatasetVersion) -> Network:
    """Choose model, input and weights for the pictures of ``version``."""
    from autodl_ray.models.zoo import choose

    return Network(*choose(spec.model, version.image_size))


def quick_model(run: Run) -> Contender:
    """Make the first complete bundle: frozen features, a head fitted on them, exported and checked."""
    from autodl_ray.models.classifier import build, save_weights
    from autodl_ray.models.features import frozen_features
    from autodl_ray.train.head import fit_head, save_head

    context, version = run.context, run.version
    network = _quick_network(run)
    started = time.monotonic()
    features = {
        split: frozen_features(
            network.entry,
            weights=network.weights,
            preprocess=network.preprocess,
            samples=samples,
            dataset_id=version.id,
            split=split,
            context=context,
        )
        for split, samples in (("train", version.train), ("val", version.val))
    }
    _stop_without_model(context)
    with context.progress.stage("head") as bar:
        fit = fit_head(
            features["train"],
            version.train.labels,
            features["val"],
            version.val.labels,
            num_classes=version.num_classes,
            seed=seed_for(run.spec.seed, "head"),
        )
        bar.update(1, 1, note=f"val accuracy {fit.scores['accuracy']:.4f}, {len(fit.rows)} strengths tried")
    model = build(
        network.entry.name,
        num_classes=version.num_classes,
        image_size=network.preprocess.size,
        weights=network.weights,
    )
    fit.put_into(model)
    work = context.folder / "work"
    work.mkdir(exist_ok=True)
    weights_file, head_file = work / "quick.safetensors", work / "head.safetensors"
    save_weights(model, weights_file)
    save_head(fit, head_file)
    run.head_init = head_file if network == run.network else None
    row = LeaderboardRow(
        source="quick",
        accuracy=fit.scores["accuracy"],
        macro_f1=fit.scores["macro_f1"],
        epochs=0,
        seconds=time.monotonic() - started,
        status="finished",
        params={"model": network.entry.name, "frozen": True, "l2": fit.l2},
    )
    contender = Contender(network, weights_file, row)
    run.contenders.append(contender)
    run.rows.append(row)
    began = time.monotonic()
    run.bundle = _bundle(run, contender, report=None, int8=False, quick=True)
    run.speeds["export_s"] = time.monotonic() - began
    return contender


def search(run: Run, action: Action, *, key: str, startup_s: float) -> SweepRun:
    """Run the trials of an action (a sweep, or one final training) and enter them for the win."""
    from autodl_ray import tune

    deadline = time.time() + action.seconds if action.seconds is not None else None
    spec = run.spec.tune
    inputs = tune.SweepInputs(
        base=_base(run, action),
        model=run.network.entry.name,
        preprocess=run.network.preprocess,
        weights=run.network.weights,
        num_classes=run.version.num_classes,
        source=run.source,
        num_samples=action.num_samples,
        epochs=action.epochs,
        deadline=deadline,
        head_init=run.head_init,
        param_space=dict(spec.param_space or run.network.entry.param_space) if action.kind == "sweep" else {},
        enqueue=(),
    )
    sweep = tune.run(spec, inputs, key=key, context=run.context)
    label = "sweep " if action.kind == "sweep" else ""
    for trial in sweep.trials:
        if not trial.metrics:
            continue
        row = LeaderboardRow(
            source=f"{label}{trial.id}" if label else key,
            accuracy=trial.metrics["accuracy"],
            macro_f1=trial.metrics["macro_f1"],
            epochs=trial.epochs,
            seconds=trial.seconds,
            status=trial.status,
            params=trial.params,
        )
        run.rows.append(row)
        if sweep.best is not None and trial.id == sweep.best.id and sweep.best_weights is not None:
            run.contenders.append(Contender(run.network, sweep.best_weights, row))
        if trial.metrics.get("images_per_s"):
            run.speeds["train_per_s"] = trial.metrics["images_per_s"]
    return sweep


def finish(run: Run, action: Action) -> tuple[Artifact, Artifact, Contender]:
    """Export the best model, open the sealed test split once, and replace the bundle.

    Returns:
        bundle, report, and the contender that won.
    """
    winner = run.best()
    candidate = _candidate(run, winner, int8=action.int8, quick=False)
    report = _report(run, winner, candidate)
    bundle = export.write_bundle(candidate, report=report, serve=run.spec.serve, context=run.context)
    return bundle, report, winner


def _base(run: Run, action: Action) -> Any:
    params: dict[str, Any] = {}
    best = [r for r in run.rows if r.source.startswith("sweep ")]
    if action.kind == "train" and best:
        params = max(best, key=lambda r: r.accuracy).params
    return run.spec.train_with(params)


def _quick_network(run: Run) -> Network:
    """Frozen features need trained weights; without them the packaged ones (or plain pixels) make the quick model."""
    from autodl_ray.models.zoo import choose
    from autodl_ray.spec import ModelSpec

    if run.network.weights != "none":
        return run.network
    tiny = max(run.version.image_size) <= 64
    size = run.network.preprocess.size
    spec = ModelSpec(
        name="pixels" if tiny else "efficientnet_lite0",
        image_size=size if tiny or size >= 96 else "auto",
        fit=run.spec.model.fit,
    )
    return Network(*choose(spec, run.version.image_size))


def _stop_without_model(context: Context) -> None:
    if context.stop.is_set():
        raise RunInterrupted("Stopped before there was a model; what was computed is kept.")


def _candidate(run: Run, contender: Contender, *, int8: bool, quick: bool) -> Artifact:
    from autodl_ray.models.classifier import build, load_weights

    source = contender.row.source
    key = run.context.key(f"candidates/{source.replace(' ', '-')}{'-int8' if int8 else ''}")
    inputs = {"weights": export.weights_digest(contender.weights_file), "dataset": run.version.id}
    found = run.context.store.find(key)
    if found is not None and found.manifest.inputs == inputs:
        return found
    network = contender.network
    model = build(
        network.entry.name,
        num_classes=run.version.num_classes,
        image_size=network.preprocess.size,
        weights="none",
    )
    load_weights(model, contender.weights_file)
    return export.make_candidate(
        run.spec.export,
        export.CandidateInputs(
            model=model.eval(),
            model_name=network.entry.name,
            preprocess=network.preprocess,
            classes=run.version.classes,
            train=run.version.train,
            val=run.version.val,
            dataset_id=run.version.id,
            source=source,
            with_int8=int8,
            licence=network.entry.licence,
            parity_samples=64 if quick else None,
            inputs=inputs,
            deadline=run.context.budget.deadline,
        ),
        key=key,
        context=run.context,
    )


def _bundle(run: Run, contender: Contender, *, report: Artifact | None, int8: bool, quick: bool) -> Artifact:
    candidate = _candidate(run, contender, int8=int8, quick=quick)
    return export.write_bundle(candidate, report=report, serve=run.spec.serve, context=run.context)


def _report(run: Run, winner: Contender, candidate: Artifact) -> Artifact:
    from autodl_ray.models.predictor import Predictor

    key = run.context.key("report")
    found = run.context.store.find(key)
    if found is not None and found.manifest.inputs.get("candidate") == candidate.id:
        return found
    samples = run.version.test.open(run.context.folder / "test-openings.json", purpose=f"candidate {candidate.id}")
    info = json.loads(candidate.file("bundle.json").read_text())
    has_int8 = "model.int8.onnx" in candidate.manifest.files
    return evaluate.run(
        run.spec.evaluate,
        evaluate.EvaluateInputs(
            predict=Predictor.open(candidate.path, variant="fp32", verify=False),
            samples=samples,
            candidate_id=candidate.id,
            model={"name": winner.network.entry.name, "source": winner.row.source, "version": info.get("version", "")},
            dataset=_dataset_facts(run),
            leaderboard=[row.to_json() for row in ranked(run.rows)],
            curves=_curves(winner),
            int8=info.get("int8"),
            int8_predict=Predictor.open(candidate.path, variant="int8", verify=False) if has_int8 else None,
            openings=json.loads((run.context.folder / "test-openings.json").read_text()),
            spec_digest=spec_digest(run.spec),
        ),
        context=run.context,
    )


def ranked(rows: list[LeaderboardRow]) -> list[LeaderboardRow]:
    """Return the leaderboard, best validation accuracy first."""
    return sorted(rows, key=lambda r: (-round(r.accuracy, 6), r.seconds))


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


def _curves(winner: Contender) -> list[dict[str, Any]]:
    file = winner.weights_file.parent / "curves.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return rows


_ = replace
