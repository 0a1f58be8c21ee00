"""The first step of a run: a complete bundle from frozen features, after seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from autodl_ray import export
from autodl_ray.artifacts import Artifact, TrainSamples, write_atomic
from autodl_ray.images import decode_image
from autodl_ray.pipeline.candidates import candidate_of
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.pipeline.screening import Network
from autodl_ray.pipeline.state import Contender, Run
from autodl_ray.seeding import rng_for, seed_for

__all__ = ["quick_model"]

_MAX_PIXEL_PICTURES = 5_000
"""A linear model on pixels learns little from more (Fashion-MNIST: 0.84 from 8,500, 0.85 from all)."""


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
    candidate = candidate_of(run, contender, int8=False, quick=True)
    run.speeds["export_s"] = max(time.monotonic() - began, 3.0)
    run.speeds["infer_per_s"] = _speed(candidate, run)
    export.write_bundle(candidate, report=None, serve=run.spec.serve, context=run.context, train=run.version.train)
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
    learned = _learned(run, network)
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
        for split, samples in (("train", learned), ("val", version.val))
    )
    with context.progress.stage("head") as bar:
        fit = fit_head(
            train,
            learned.labels,
            val,
            version.val.labels,
            num_classes=version.num_classes,
            seed=seed_for(run.spec.seed, "head"),
            class_weights=run.balanced.weights,
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
        params={"model": entry.name, "frozen": True, "l2": fit.l2, **_part(learned, version.train)},
    )
    write_atomic(folder / "row.json", json.dumps(row.to_json()) + "\n")
    return row


def _part(learned: TrainSamples, train: TrainSamples) -> dict[str, int]:
    return {} if len(learned) == len(train) else {"pictures": len(learned)}


def _learned(run: Run, network: Network) -> TrainSamples:
    """The pictures that the quick head is fitted on: all, but for pixels only so many."""
    train = run.version.train
    if network.entry.name != "pixels" or len(train) <= _MAX_PIXEL_PICTURES:
        return train
    drawn = rng_for(run.spec.seed, "quick pictures").permutation(len(train))[:_MAX_PIXEL_PICTURES]
    return train.take(np.sort(drawn))


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


def _speed(candidate: Artifact, run: Run) -> float:
    """Measure pictures a second of the exported model, on a few validation pictures."""
    from autodl_ray.models.predictor import Predictor

    predict = Predictor.open(candidate.path, variant="fp32", verify=False)
    images = [decode_image(run.version.val.read(i)) for i in range(min(16, len(run.version.val)))]
    predict(images)
    began = time.perf_counter()
    predict(images)
    return len(images) / (time.perf_counter() - began)
