"""Bundles and pictures of a real size for the benchmarks of serving: efficientnet_lite0 in FP32 and INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from autodl_ray.artifacts import Store
from autodl_ray.artifacts.bundle import BUNDLE_JSON, BundleInfo, Int8Record, PreprocessInfo
from autodl_ray.images import Preprocess

__all__ = ["lite0_bundles", "photo"]

_CLASSES = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


def photo(*, height: int = 384, width: int = 512, seed: int = 0) -> bytes:
    """Return a JPEG of the size of TrashNet's photos, with as many details as a photo has."""
    import io

    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def lite0_bundles(root: Path) -> dict[Literal["fp32", "int8"], Path]:
    """Export efficientnet_lite0 (224 px, six classes, ImageNet weights, an untrained head) and quantize it.

    Speed is all that these bundles are for.
    """
    import torch

    from autodl_ray.export.graph import with_preprocess
    from autodl_ray.export.int8.calibration import observe, ranges
    from autodl_ray.export.int8.quantize import quantize_core
    from autodl_ray.export.onnx import export_core
    from autodl_ray.models.classifier import build

    torch.manual_seed(0)
    model = build("efficientnet_lite0", num_classes=len(_CLASSES), image_size=224, weights="none").eval()
    exported = export_core(model, image_size=224)
    core = exported[0] if isinstance(exported, tuple) else exported
    pixels = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    quantized = quantize_core(core, ranges(observe(core, [pixels]), "minmax"), pixels[:1])
    preprocess = Preprocess(224)
    graphs = {"fp32": core, "int8": quantized}
    return {  # type: ignore[return-value]
        kind: _write(root, kind, with_preprocess(graph, preprocess, len(_CLASSES)).SerializeToString())
        for kind, graph in graphs.items()
    }


def _write(root: Path, kind: str, model: bytes) -> Path:
    info = BundleInfo(
        name=f"lite0-{kind}",
        version=f"{kind}00000000",
        classes=_CLASSES,
        preprocess=PreprocessInfo.of(Preprocess(224)),
        model="efficientnet_lite0",
        licence="Apache-2.0",
        dataset_id="d" * 32,
        source="benchmark",
        exporter="trace",
        variants={"fp32": "model.onnx"},
        default_variant="fp32",
        int8=Int8Record(kept=False, reason="the file is what it is"),
        val_scores={"accuracy": 0.0},
    )
    with Store(root).write(f"{kind}/bundle", kind="bundle", spec_digest="0", inputs={}, seed=0) as writer:
        (writer.path / "model.onnx").write_bytes(model)
        (writer.path / BUNDLE_JSON).write_text(info.to_json(), encoding="utf-8")
    return root / kind / "bundle"
