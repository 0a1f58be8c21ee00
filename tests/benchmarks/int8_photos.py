"""INT8 beside FP32 on networks that were trained on photos: size, speed, accuracy lost, and how INT8 was made.

    python -m tests.benchmarks.int8_photos --photos DIR --weights DIR [--models resnet18 …] [--size 224] [--json]

Each network is briefly trained on the published training split of TrashNet (``int8_models.py``; kept in ``--weights``,
so that it happens once; efficientnet_lite0 starts from its packaged ImageNet weights, the others from nothing, because
no network is needed then), exported with its preprocessing, and climbs the shipped ladder (``export.int8.try_int8``)
with the default limits. Compared with the FP32 file in onnxruntime on the same pictures (256 x 192), batch 8, all
cores, in turns; accuracy on the 328 validation photos, which choose among the ways, and on the 431 test photos, which
choose nothing.

Goal: 3.5 times smaller; resnet18 at least 2.8 times as fast, efficientnet_lite0 2 times; at most 0.5 points lost where
INT8 is delivered; FP32 is delivered, with the reason, where INT8 is slower (mobilenet_v3_small).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.artifacts import ValSamples
from autodl_ray.artifacts.bundle import Int8Record
from autodl_ray.export.graph import INPUT, OUTPUT, with_preprocess
from autodl_ray.export.int8 import try_int8
from autodl_ray.export.onnx import export_core
from autodl_ray.export.pictures import decoded
from autodl_ray.models.predictor import open_session
from autodl_ray.spec import ExportSpec
from tests.benchmarks.int8_models import CLASSES, RECIPES, preprocess_of, published_splits, trained

GOALS = {"resnet18": 2.8, "efficientnet_lite0": 2.0, "mobilenet_v3_small": 1.0}


def accuracy(model: bytes, samples: ValSamples) -> float:
    """Return the share of pictures that an exported file has right."""
    session, right = open_session(model), 0
    for positions, pictures in decoded(samples, range(len(samples))):
        rows = session.run([OUTPUT], {INPUT: np.stack(pictures)})[0]  # all of TrashNet is 256 x 192
        right += int((rows.argmax(axis=1) == samples.labels[positions]).sum())
    return right / len(samples)


def measure(name: str, photos: Path, kept: Path, *, size: int, spec: ExportSpec, seconds: float) -> dict[str, Any]:
    """Train or load a network, export it, climb, and return the row of the table."""
    train, val, test = published_splits(photos)
    model = trained(name, train, val, kept=kept, size=size)
    preprocess = preprocess_of(name, size)
    core, _ = export_core(model, size)
    fp32 = with_preprocess(core, preprocess, len(CLASSES)).SerializeToString()
    record, int8 = try_int8(
        spec, core, fp32, preprocess=preprocess, train=train, val=val, deadline=time.time() + seconds
    )
    return {
        "model": name,
        **_figures(record),
        "test_fp32": accuracy(fp32, test),
        "test_int8": accuracy(int8, test) if int8 is not None else None,
        "record": record.model_dump(mode="json"),
    }


def _figures(record: Int8Record) -> dict[str, Any]:
    fp32, int8, how = record.fp32, record.int8, record.conditions
    if fp32 is None or int8 is None or how is None:
        return {"kept": False, "reason": record.reason}
    return {
        "kept": record.kept,
        "reason": record.reason,
        "fp32": fp32.accuracy,
        "int8": int8.accuracy,
        "lost": fp32.accuracy - int8.accuracy,
        "interval": [how.lost_low, how.lost_high],
        "fp32_mb": fp32.bytes / 1e6,
        "int8_mb": int8.bytes / 1e6,
        "smaller": fp32.bytes / int8.bytes,
        "fp32_per_s": fp32.images_per_s,
        "faster": int8.images_per_s / fp32.images_per_s,
        "faster_interval": [how.speed_low, how.speed_high],
        "rung": how.rung,
        "seconds": how.seconds,
    }


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    print(f"\n{row['model']}: {'INT8 delivered' if row['kept'] else 'FP32 delivered'}: {row['reason']}")
    if "smaller" not in row:
        return
    low, high = row["interval"]
    print(f"  size       {row['fp32_mb']:.1f} MB → {row['int8_mb']:.1f} MB, {row['smaller']:.2f} times (goal 3.5)")
    fast = row["faster_interval"]
    print(
        f"  speed      {row['fp32_per_s']:.0f} → {row['faster'] * row['fp32_per_s']:.0f} pictures/s, "
        f"{row['faster']:.2f} times ({fast[0]:.2f} to {fast[1]:.2f}; goal {GOALS.get(row['model'], 1.0)})"
    )
    print(
        f"  validation {row['fp32']:.4f} → {row['int8']:.4f}, {100 * row['lost']:+.2f} points lost "
        f"({100 * low:+.1f} to {100 * high:+.1f}; goal 0.5)"
    )
    after = f" → {row['test_int8']:.4f}" if row["test_int8"] is not None else ""
    print(f"  test       {row['test_fp32']:.4f}{after}")
    for tried in row["record"]["conditions"]["tried"]:
        lost = "not made" if tried["lost"] is None else f"{100 * tried['lost']:+.2f} points lost"
        print(f"  tried      {tried['rung']} ({tried['way']}): {lost}, {tried['seconds']:.0f} s {tried['note']}")
    print(f"  then       {row['record']['conditions']['stopped']}")


def main() -> None:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True, help="folder of TrashNet with images/ and splits/")
    parser.add_argument("--weights", type=Path, required=True, help="where trained networks are kept")
    parser.add_argument("--models", nargs="+", choices=sorted(RECIPES), default=list(RECIPES))
    parser.add_argument("--size", type=int, default=224, help="side of the exported input, px")
    parser.add_argument("--seconds", type=float, default=600, help="for INT8 of each network")
    parser.add_argument("--max-drop", type=float, default=0.005)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    spec = ExportSpec(max_drop=given.max_drop)
    rows = []
    for name in given.models:
        rows.append(measure(name, given.photos, given.weights, size=given.size, spec=spec, seconds=given.seconds))
        if not given.json:
            show(rows[-1])
    if given.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
