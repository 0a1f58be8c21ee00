"""Which model of the zoo comes out in which format: made from real exports, and shown by `autodl models`.

Every network of the zoo is built with random weights at a small input, its batch norms are given statistics, and it is
exported to every format and quantized; each file is held against the network in batches of 1, 3 and 32. The goal: every
cell is made, and no probability differs by more than 1e-3 (MAX_DIFFERENCE). What a random network loses in 8 bits
says nothing: of INT8 only the size is shown.

    python -m tests.benchmarks.model_matrix            # show
    python -m tests.benchmarks.model_matrix --write    # and keep it in the package
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autodl_ray.artifacts import TrainSamples
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import AutoDLError
from autodl_ray.export import CandidateInputs, format_source, make_candidate
from autodl_ray.export.formats import FORMATS, make_formats
from autodl_ray.images import Preprocess, decode_image
from autodl_ray.models.classifier import Classifier, build
from autodl_ray.models.matrix import MATRIX, read_matrix
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.models.zoo import ZOO
from autodl_ray.spec import ExportSpec
from tests.export.tiny import CLASSES, Shapes, context_in, make_shapes

SPEC = ExportSpec(int8="static", qat="off", max_drop=0.2, min_speedup=1e-6, calibration=8)
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "timm", "torchvision")


def random_network(name: str, preprocess: Preprocess, samples: TrainSamples) -> Classifier:
    """Build a network whose batch norms know these pictures, and whose logits are spread over them by 1."""
    model = build(name, num_classes=len(CLASSES), image_size=preprocess.size, weights="none").train()
    pictures = [decode_image(samples.read(i)) for i in range(len(samples))]
    pixels = torch.from_numpy(np.stack([preprocess_tensor(p, preprocess) for p in pictures]))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.5
        for _ in range(8):
            model(pixels)
        logits = model.eval()(pixels)
        spread = float(logits.std(dim=0).mean())
        model.head.weight.div_(spread)
        model.head.bias.sub_(logits.mean(dim=0)).div_(spread)
    return model


def row(name: str, shapes: Shapes, folder: Path) -> dict[str, Any]:
    """Export one network to everything."""
    entry = ZOO[name]
    size = 32 if entry.image_size == 0 else 64
    preprocess = Preprocess(size, "pad", entry.mean, entry.std)
    inputs = CandidateInputs(
        model=random_network(name, preprocess, shapes.train),
        model_name=name,
        preprocess=preprocess,
        classes=CLASSES,
        train=shapes.train,
        val=shapes.val,
        dataset_id="0" * 32,
        source="random weights",
    )
    made = make_candidate(SPEC, inputs, key=f"shapes/candidates/{name}", context=context_in(folder))
    artifact, info = open_bundle(made.path)
    parity = json.loads(artifact.file("parity.json").read_text(encoding="utf-8"))
    cells: dict[str, Any] = {"onnx": _cell(True, info.exporter, parity["max_difference"])}
    source = format_source(artifact, info)
    for format_name in FORMATS:
        try:
            records, _ = make_formats([format_name], source, folder / name, samples=shapes.val)
            record = records[format_name]
            how = "limits kept, not run" if not record.ran_here else record.how
            cells[format_name] = _cell(True, how, record.max_difference)
        except AutoDLError as error:
            cells[format_name] = {"made": False, "how": f"{error.what} {error.seen or ''}".strip()}
    figures = info.int8
    if figures.int8 is not None and figures.fp32 is not None:
        cells["int8"] = {"made": True, "how": f"{figures.fp32.bytes / figures.int8.bytes:.1f} times smaller"}
    else:
        cells["int8"] = {"made": False, "how": figures.reason}
    return {"image_size": size, "cells": cells}


def _cell(made: bool, how: str, difference: float) -> dict[str, Any]:
    return {"made": made, "how": how, "max_difference": float(f"{difference:.0e}")}


def make_matrix(names: Sequence[str]) -> dict[str, Any]:
    """Export the networks; the result is what :func:`autodl_ray.models.matrix.read_matrix` reads."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = make_shapes(Path(folder) / "shapes", train=12, val=33)
        rows = {name: row(name, shapes, Path(folder)) for name in names}
    return {"schema": 1, "versions": {name: version(name) for name in PACKAGES}, "models": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in the package")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    matrix = make_matrix(list(ZOO))
    if given.write:
        MATRIX.write_text(json.dumps(matrix, indent=1) + "\n", encoding="utf-8")
        read_matrix()
    if given.json:
        print(json.dumps(matrix, indent=1))
        return
    for name, found in matrix["models"].items():
        print(f"{name} at {found['image_size']} px")
        for cell, value in found["cells"].items():
            worst = f"  largest difference {value['max_difference']:.0e}" if "max_difference" in value else ""
            print(f"  {cell:<12} {'made' if value['made'] else 'NOT MADE'}  {value['how']}{worst}")


if __name__ == "__main__":
    main()
