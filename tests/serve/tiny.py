"""A real, tiny bundle for tests: mean colour → linear → softmax, written as ONNX."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from autodl_ray.artifacts import Store
from autodl_ray.artifacts.bundle import BUNDLE_JSON, BundleInfo, Int8Record, PreprocessInfo
from autodl_ray.artifacts.reference import REFERENCE_JSON, Reference
from autodl_ray.artifacts.smoke import SMOKE_JSON, smoke_document
from autodl_ray.models.predictor import open_session

CLASSES = ("blue", "green", "red")
COLOURS = {"red": (220, 30, 20), "green": (20, 200, 40), "blue": (30, 40, 230)}


def write_model(path: Path, *, work: int = 0) -> None:
    """Write the ONNX model; ``work`` multiplications of 512 × 512 matrices make it slow on purpose."""
    weight = np.array([[0, 0, 4], [0, 4, 0], [4, 0, 0]], np.float32) / 255
    constants: dict[str, npt.NDArray[Any]] = {"weight": weight, "bias": np.zeros(3, np.float32)}
    constants["axes"] = np.array([1, 2], np.int64)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
    ]
    colour = "colour"
    if work:
        constants["big"] = np.eye(512, dtype=np.float32)
        nodes.append(helper.make_node("Pad", ["colour", "pads"], ["m0"]))
        constants["pads"] = np.array([0, 0, 511, 509], np.int64)
        for i in range(work):
            nodes.append(helper.make_node("MatMul", [f"m{i}", "big"], [f"m{i + 1}"]))
        nodes.append(helper.make_node("Slice", [f"m{work}", "start", "end"], ["back"]))
        constants["start"], constants["end"] = np.array([0, 0], np.int64), np.array([1, 3], np.int64)
        colour = "back"
    nodes += [
        helper.make_node("MatMul", [colour, "weight"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def make_bundle(
    root: Path,
    *,
    name: str = "colours",
    work: int = 0,
    settings: dict[str, Any] | None = None,
    version: str = "0123456789ab",
    model: bytes | None = None,
    smoke: Literal["right", "wrong"] | None = None,
    classes: tuple[str, ...] = CLASSES,
    reference: Reference | None = None,
) -> Path:
    """Write a whole bundle below ``root`` and return its folder; ``model`` stands in for the tiny one."""
    info = BundleInfo(
        name=name,
        version=version,
        classes=classes,
        preprocess=PreprocessInfo(size=8, fit="stretch", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        model="tiny",
        licence="Apache-2.0",
        dataset_id="d" * 32,
        source="test",
        exporter="onnx.helper",
        variants={"fp32": "model.onnx"},
        default_variant="fp32",
        int8=Int8Record(kept=False, reason="not made"),
        val_scores={"accuracy": 1.0},
        serve=settings,
    )
    store = Store(root)
    with store.write(f"{name}/bundle", kind="bundle", spec_digest="0", inputs={}, seed=0) as writer:
        if model is None:
            write_model(writer.path / "model.onnx", work=work)
        else:
            (writer.path / "model.onnx").write_bytes(model)
        if smoke is not None:
            document = smoke_document({"fp32": partial(_run, writer.path / "model.onnx")})
            if smoke == "wrong":
                document["probabilities"]["fp32"].reverse()
            (writer.path / SMOKE_JSON).write_text(json.dumps(document), encoding="utf-8")
        if reference is not None:
            (writer.path / REFERENCE_JSON).write_text(json.dumps(reference.to_json()), encoding="utf-8")
        (writer.path / BUNDLE_JSON).write_text(info.to_json(), encoding="utf-8")
    return Path(store.root) / name / "bundle"


def _run(model: Path, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    session = open_session(model, num_threads=1)
    return np.concatenate([session.run(["probabilities"], {"image": image[None]})[0] for image in images])


def picture(
    colour: str | tuple[int, int, int] = "red", *, size: tuple[int, int] = (24, 16), form: str = "PNG"
) -> bytes:
    """Return the bytes of a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour] if isinstance(colour, str) else colour).save(buffer, form)
    return buffer.getvalue()
