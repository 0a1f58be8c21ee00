"""The steps of a run: the quick model, the sweep, the training, and the end; each looks up what is done already."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray import evaluate, export
from autodl_ray.artifacts import Artifact, DatasetVersion, write_atomic
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.data.stream import StreamSource
from autodl_ray.images import Preprocess, decode_image
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.runtime import Context
from autodl_ray.runtime.cluster import ensure_ray
from autodl_ray.seeding import seed_for
from autodl_ray.spec import ExperimentSpec, spec_digest

if TYPE_CHECKING:
    from autodl_ray.models.zoo import ZooEntry
    from autodl_ray.tune import SweepRun

__all__ = ["Contender", "Network", "Run", "choose_network", "finish", "quick_model", "ranked", "search"]


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
    curve: tuple[Mapping[str, Any], ...] = ()


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
        speeds: Measured: infer_per_s, export_s, train_per_s.
    """

    spec: ExperimentSpec
    context: Context
    version: DatasetVersion
    network: Network
    contenders: list[Contender] = field(default_factory=list)
    rows: list[LeaderboardRow] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    head_init: Path | None = None
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
                max_unreadable=self.spec.data.max_unreadable,
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
    network = _quick_network(run)
    folder = run.context.folder / "quick"
    row = _found_quick(folder)
    if row is None:
        row = _fit_quick(run, network, folder)
    run.head_init = folder / "head.safetensors" if network == run.network else None
    contender = Contender(network, folder / "weights.safetensors", row)
    run.contenders.append(contender)
    run.rows.append(row)
    began = time.monotonic()
    candidate = _candidate(run, contender, int8=False, quick=True)
    run.speeds["export_s"] = max(time.monotonic() - began, 3.0)
    run.speeds["infer_per_s"] = _speed(candidate, run)
    export.write_bundle(candidate, report=None, serve=run.spec.serve, context=run.context)
    return contender


def _found_quick(folder: Path) -> LeaderboardRow | None:
    """The row is written last: where it is, the files of the quick model are whole."""
    file = folder / "row.json"
    return LeaderboardRow(**json.loads(file.read_text())) if file.exists() else None


def _fit_quick(run: Run, network: Network, folder: Path) -> LeaderboardRow:
    from autodl_ray.models.classifier import build, save_weights
    from autodl_ray.models.features import frozen_features
    from autodl_ray.train.head import fit_head, save_head

    context, version, entry = run.context, run.version, network.entry
    started = time.monotonic()
    train, val = (
        frozen_features(
            entry,
            weights=network.weights,
            preprocess=network.preprocess,
            samples=samples,
            dataset_id=version.id,
            split=split,
            context=context,
        )
        for split, samples in (("train", version.train), ("val", version.val))
    )
    with context.progress.stage("head") as bar:
        fit = fit_head(
            train,
            version.train.labels,
            val,
            version.val.labels,
            num_classes=version.num_classes,
            seed=seed_for(run.spec.seed, "head"),
        )
        bar.update(1, 1, note=f"val accuracy {fit.scores['accuracy']:.4f}, {len(fit.rows)} strengths tried")
    size = network.preprocess.size
    model = build(entry.name, num_classes=version.num_classes, image_size=size, weights=network.weights)
    fit.put_into(model)
    folder.mkdir(exist_ok=True)
    save_weights(model, folder / "weights.safetensors")
    save_head(fit, folder / "head.safetensors")
    row = LeaderboardRow(
        source="quick",
        accuracy=fit.scores["accuracy"],
        macro_f1=fit.scores["macro_f1"],
        epochs=0,
        seconds=round(time.monotonic() - started, 2),
        status="finished",
        params={"model": entry.name, "frozen": True, "l2": fit.l2},
    )
    write_atomic(folder / "row.json", json.dumps(row.to_json()) + "\n")
    return row


def _speed(candidate: Artifact, run: Run) -> float:
    """Measure pictures a second of the exported model, on a few validation pictures."""
    from autodl_ray.models.predictor import Predictor

    predict = Predictor.open(candidate.path, variant="fp32", verify=False)
    images = [decode_image(run.version.val.read(i)) for i in range(min(16, len(run.version.val)))]
    predict(images)
    began = time.perf_counter()
    predict(images)
    return len(images) / (time.perf_counter() - began)


def search(run: Run, action: Action, *, key: str) -> SweepRun:
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
        dataset_id=run.version.id,
    )
    sweep = tune.run(spec, inputs, key=key, context=run.context)
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
            params=dict(trial.params),
        )
        run.rows.append(row)
        if sweep.best is not None and trial.id == sweep.best.id and sweep.best_weights is not None:
            run.contenders.append(Contender(run.network, sweep.best_weights, row, trial.curve))
        if trial.metrics.get("images_per_s"):
            run.speeds["train_per_s"] = trial.metrics["images_per_s"]
    return sweep


def finish(run: Run, action: Action) -> tuple[Artifact, Artifact, Contender]:
    """Export the best model, open the sealed test split once, and replace the bundle.

    Returns:
        bundle, report, and the contender that won.
    """
    winner = run.best()
    for _ in run.contenders:  # the exported file is judged; where it is worse than was trained, another may win
        candidate = _candidate(run, winner, int8=action.int8, quick=False)
        winner = _as_exported(run, winner, candidate)
        if run.best() is winner:
            break
        winner = run.best()
    candidate = _candidate(run, winner, int8=action.int8, quick=False)
    report = _report(run, winner, candidate)
    bundle = export.write_bundle(candidate, report=report, serve=run.spec.serve, context=run.context)
    return bundle, report, winner


def _as_exported(run: Run, contender: Contender, candidate: Artifact) -> Contender:
    """Give the contender (and its row of the leaderboard) the validation scores of its exported file."""
    scores = open_bundle(candidate.path, verify=False)[1].val_scores
    row = replace(contender.row, accuracy=scores["accuracy"], macro_f1=scores["macro_f1"])
    exported = replace(contender, row=row)
    run.rows[run.rows.index(contender.row)] = row
    run.contenders[run.contenders.index(contender)] = exported
    return exported


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
            val_scores={"accuracy": contender.row.accuracy, "macro_f1": contender.row.macro_f1},
            licence=network.entry.licence,
            parity_samples=64 if quick else None,
            inputs=inputs,
            deadline=run.context.budget.deadline - _judging_seconds(run),
        ),
        key=key,
        context=run.context,
    )


def _judging_seconds(run: Run) -> float:
    """Estimate what comes after the export: the test split in both variants, the report, and ending Ray."""
    return 3.0 + 1.5 * run.version.test.size / run.speeds.get("infer_per_s", 100.0)


def _report(run: Run, winner: Contender, candidate: Artifact) -> Artifact:
    from autodl_ray.models.predictor import Predictor

    key = run.context.key("report")
    found = run.context.store.find(key)
    if found is not None and found.manifest.inputs.get("candidate") == candidate.id:
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
            leaderboard=[{**row.to_json(), "chosen": row == winner.row} for row in ranked(run.rows)],
            curves=list(winner.curve),
            int8=info.int8.model_dump(),
            openings=json.loads(record.read_text()),
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
