"""The served answer against `autodl predict` against the training model, on every picture of the test split; JSON.

    python -m tests.benchmarks.served_parity runs/NAME photos/

All three are asked for the FP32 model; the delivered variant is asked once more through HTTP.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from autodl_ray.artifacts import Store
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.images import decode_image
from autodl_ray.models.classifier import build, load_weights
from autodl_ray.models.predictor import Predictor
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.serve.service import start, stop
from autodl_ray.spec import ServeSpec

Array = np.ndarray[Any, np.dtype[np.float32]]


def main() -> None:
    """Ask all three and print how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--port", type=int, default=8311)
    arguments = parser.parse_args()
    bundle = arguments.run / "bundle"
    with (arguments.run / "report" / "predictions.csv").open(newline="") as stream:
        pictures = [(arguments.photos / row["path"]).read_bytes() for row in csv.DictReader(stream)]
    _, info = open_bundle(bundle)
    with tempfile.TemporaryDirectory() as folder:
        plain = fp32_only(bundle, Path(folder))
        answers = {
            "training model": trained(bundle, pictures),
            "autodl predict, fp32": predicted(plain, pictures, "fp32"),
            "served, fp32": served(plain, pictures, arguments.port, info.classes),
        }
        if info.default_variant != "fp32":
            answers[f"autodl predict, {info.default_variant}"] = predicted(bundle, pictures, info.default_variant)
            answers[f"served, {info.default_variant}"] = served(bundle, pictures, arguments.port, info.classes)
    reference = answers["training model"]
    figures = {
        name: {
            "same_top1": float((p.argmax(1) == reference.argmax(1)).mean()),
            "max_difference": float(np.abs(p - reference).max()),
        }
        for name, p in answers.items()
    }
    print(json.dumps({"pictures": len(pictures), "against the training model": figures}, indent=1))


def fp32_only(bundle: Path, folder: Path) -> Path:
    """Write the same bundle with FP32 as the variant to serve."""
    artifact, info = open_bundle(bundle)
    document = {**info.model_dump(), "default_variant": "fp32"}
    with Store(folder).write("fp32", kind="bundle", spec_digest="", inputs={}, seed=0) as writer:
        for name in artifact.manifest.files:
            shutil.copyfile(bundle / name, writer.path / name)
        (writer.path / "bundle.json").write_text(type(info).model_validate(document).to_json())
    return folder / "fp32"


def trained(bundle: Path, pictures: list[bytes]) -> Array:
    """Probabilities of the network in torch, from the delivered weights, in float32."""
    _, info = open_bundle(bundle)
    preprocess = info.preprocess.to_preprocess()
    model = build(info.model, num_classes=len(info.classes), image_size=preprocess.size, weights="none")
    load_weights(model, bundle / "model.safetensors")
    model.eval()
    with torch.inference_mode():
        rows = [
            model(torch.as_tensor(preprocess_tensor(decode_image(p), preprocess))[None]).softmax(1) for p in pictures
        ]
    return torch.cat(rows).numpy()


def predicted(bundle: Path, pictures: list[bytes], variant: Any) -> Array:
    """Probabilities as `autodl predict` computes them."""
    predict = Predictor.open(bundle, variant=variant)
    return np.concatenate([predict([decode_image(p)]) for p in pictures])


def served(bundle: Path, pictures: list[bytes], port: int, classes: tuple[str, ...]) -> Array:
    """Probabilities that the service answers over HTTP."""
    service = start([bundle], ServeSpec(port=port))
    try:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            rows = []
            for picture in pictures:
                answer = client.post("/predict", content=picture, params={"top_k": len(classes)})
                given = {p["class"]: p["probability"] for p in answer.raise_for_status().json()["predictions"]}
                rows.append([given[c] for c in classes])
    finally:
        stop()
    return np.array(rows, dtype=np.float32)


if __name__ == "__main__":
    main()
