"""Features of a frozen backbone: exported to ONNX once, computed by onnxruntime, both kept in the store."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import Artifact, LearningSamples, check_learning
from autodl_ray.errors import RunInterrupted, StageError
from autodl_ray.images import Preprocess, decode_image
from autodl_ray.models.graph import fold_graph
from autodl_ray.models.preprocess import normalize, preprocess_uint8
from autodl_ray.models.weights import weights_tag
from autodl_ray.models.zoo import ZooEntry
from autodl_ray.runtime import Context

if TYPE_CHECKING:
    from torch import nn

__all__ = ["backbone_runner", "frozen_features"]

_CHUNK = 16  # pictures a task of the pool
_CALL = 2  # pictures a call of onnxruntime: its tensors then stay in the cache (a quarter faster than 16)
_VERSION = 2  # of the exported graph; another number makes everything anew

Features = npt.NDArray[np.float32]


def frozen_features(
    entry: ZooEntry,
    *,
    weights: str,
    preprocess: Preprocess,
    samples: LearningSamples,
    dataset_id: str,
    split: str,
    context: Context,
) -> Features:
    """Compute what the frozen backbone of :func:`~autodl_ray.models.classifier.build` makes of every sample.

    The result is kept in the store by data set, split, backbone, weights and preprocessing, and found again.

    Args:
        entry: The network.
        weights: As resolved by :func:`~autodl_ray.models.zoo.choose`.
        preprocess: How pictures become its input.
        samples: Of one split; never augmented here.
        dataset_id: Id of the data set's version.
        split: ``train`` or ``val``.
        context: Store, progress and the wish to stop.

    Returns:
        (N, D) float32, in the order of ``samples``.

    Raises:
        RunInterrupted: A stop was asked for before all were computed.
        DatasetError: A picture cannot be decoded, or it is the test split.
    """
    check_learning(samples, use="The frozen backbone")
    backbone = _backbone_digest(entry, weights=weights, preprocess=preprocess)
    ids = hashlib.sha256(samples.ids.tobytes()).hexdigest()
    digest = _digest({"backbone": backbone, "data": dataset_id, "split": split, "ids": ids})
    key = f"features/{digest}"
    found = context.store.find(key)
    if found is None:
        graph = _exported(entry, weights=weights, preprocess=preprocess, digest=backbone, context=context)
        features = _compute(graph, samples=samples, preprocess=preprocess, split=split, context=context)
        inputs = {"dataset": dataset_id, "backbone": graph.id}
        meta = {"split": split, "model": entry.name, "shape": list(features.shape)}
        with context.store.write(
            key, kind="features", spec_digest=digest, inputs=inputs, seed=context.seed, meta=meta
        ) as writer:
            np.save(writer.path / "features.npy", features)
        return features
    loaded: Features = np.load(found.file("features.npy"), allow_pickle=False)
    return loaded


def backbone_runner(
    entry: ZooEntry, *, weights: str, preprocess: Preprocess, context: Context
) -> tuple[str, Callable[[npt.NDArray[np.uint8]], Features]]:
    """Open the frozen backbone for pictures that come in small batches from several threads.

    Args:
        entry: The network.
        weights: As resolved by :func:`~autodl_ray.models.zoo.choose`.
        preprocess: How pictures become its input.
        context: The store that keeps the exported graph.

    Returns:
        A tag that names network, weights and preprocessing, and the function (n, S, S, 3) uint8 → (n, D) float32,
        which uses one core a call.
    """
    digest = _backbone_digest(entry, weights=weights, preprocess=preprocess)
    graph = _exported(entry, weights=weights, preprocess=preprocess, digest=digest, context=context)
    return digest, _session(graph.file("backbone.onnx"))


def _backbone_digest(entry: ZooEntry, *, weights: str, preprocess: Preprocess) -> str:
    return _digest(
        {"v": _VERSION, "name": entry.name, "weights": weights_tag(weights), "pre": asdict(preprocess), "seed": 0}
    )


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _exported(entry: ZooEntry, *, weights: str, preprocess: Preprocess, digest: str, context: Context) -> Artifact:
    key = f"features/backbone-{digest}"
    found = context.store.find(key)
    if found is not None:
        return found
    from autodl_ray.models.classifier import build

    model = build(entry.name, num_classes=2, image_size=preprocess.size, weights=weights)
    meta = {"model": entry.name, "weights": weights_tag(weights), "preprocess": asdict(preprocess)}
    with context.store.write(key, kind="features", spec_digest=digest, inputs={}, seed=0, meta=meta) as writer:
        _export(model.backbone, preprocess, writer.path / "backbone.onnx")
    made = context.store.find(key)
    if made is None:
        raise StageError("The exported backbone is gone from the store.", seen=key, hint="run the same line again")
    return made


def _export(backbone: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """Write the graph: ``image`` uint8 (N, S, S, 3) → ``features`` float32 (N, D).

    The tracing exporter takes 0.4 s where the newer one takes 6; with the padding fixed (layers.py) and folded
    (graph.py) both graphs run equally fast.
    """
    import torch
    from torch import Tensor, nn

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, image: Tensor) -> Tensor:
            features: Tensor = self.backbone(normalize(image, preprocess))
            return features

    example = torch.zeros(1, preprocess.size, preprocess.size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notices of the tracing exporter
        torch.onnx.export(
            Graph().eval(),
            (example,),
            str(path),
            dynamo=False,
            input_names=["image"],
            output_names=["features"],
            dynamic_axes={"image": {0: "n"}, "features": {0: "n"}},
            opset_version=18,
        )
    fold_graph(path)


def _compute(
    graph: Artifact, *, samples: LearningSamples, preprocess: Preprocess, split: str, context: Context
) -> Features:
    """Let every thread decode, scale and run its own chunks: nothing waits, and each call has one core to itself."""
    run = _session(graph.file("backbone.onnx"))
    starts = range(0, len(samples), _CHUNK)
    threads = max(1, min(len(os.sched_getaffinity(0)), len(starts)))
    parts: dict[int, Features] = {}
    stop = threading.Event()

    def work(start: int) -> tuple[int, Features]:
        positions = range(start, min(start + _CHUNK, len(samples)))
        if stop.is_set():
            return start, np.empty((0, 0), dtype=np.float32)
        images = [preprocess_uint8(decode_image(samples.read(i)), preprocess) for i in positions]
        calls = [run(np.stack(images[i : i + _CALL])) for i in range(0, len(images), _CALL)]
        return start, np.concatenate(calls)

    with ThreadPoolExecutor(threads) as pool, context.progress.stage(f"features ({split})", len(samples)) as bar:
        try:
            for start, part in _completed(pool, work, starts, ahead=2 * threads):
                parts[start] = part
                bar.update(min(len(parts) * _CHUNK, len(samples)), len(samples))
                if context.stop.is_set() and len(parts) < len(starts):
                    raise RunInterrupted("Stopped while features were computed.", hint="run the same line again")
        finally:
            stop.set()
    return np.concatenate([parts[s] for s in starts])


def _completed(
    pool: ThreadPoolExecutor,
    work: Callable[[int], tuple[int, Features]],
    starts: range,
    *,
    ahead: int,
) -> Iterator[tuple[int, Features]]:
    pending: set[Future[tuple[int, Features]]] = set()
    queue = iter(starts)
    while True:
        while len(pending) < ahead and (start := next(queue, None)) is not None:
            pending.add(pool.submit(work, start))
        if not pending:
            return
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _session(path: Path) -> Callable[[npt.NDArray[np.uint8]], Features]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the threads of the pool are the parallelism
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: npt.NDArray[np.uint8]) -> Features:
        features: Features = session.run(None, {"image": images})[0]
        return features

    return run
