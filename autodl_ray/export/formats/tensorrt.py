"""TensorRT: everything that a machine with a GPU needs to build an engine, checked as far as that goes without one.

TensorRT has no antialiased resize, so the engine begins at normalised pixels; ``preprocess.json`` and its reference
``preprocess.py`` make those. The ONNX files are held against TensorRT's table (see :mod:`.limits`) and run by
onnxruntime behind that preprocessing for the parity check. No engine is built or run here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from autodl_ray.errors import StageError
from autodl_ray.export.documents import PREPROCESS_JSON, dump, preprocess_document
from autodl_ray.export.formats.limits import OPSETS, SOURCE, TENSORRT, find_problems
from autodl_ray.export.graph import OUTPUT, PIXELS, model_of
from autodl_ray.export.runner import preprocess as reference
from autodl_ray.images import Preprocess
from autodl_ray.models.predictor import open_session

__all__ = [
    "BUILD_SH",
    "CORE",
    "CORE_INT8",
    "LIMITS_JSON",
    "open_core",
    "symmetric",
    "to_tensorrt",
    "without_preprocess",
]

BUILD_SH, BUILD_PY, LIMITS_JSON, README = "build.sh", "build.py", "limits.json", "README.md"
CORE, CORE_INT8 = "model.onnx", "model.int8.onnx"
_PREFIX = "preprocess/"
_FILES = Path(__file__).parent / "tensorrt_files"


def without_preprocess(whole: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """Return the model from ``pixels`` float32 (N, 3, S, S) to ``probabilities`` (N, C)."""
    size = preprocess.size
    nodes = [n for n in whole.graph.node if not n.name.startswith(_PREFIX)]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["N", 3, size, size])],
        list(whole.graph.output),
        [t for t in whole.graph.initializer if t.name in used],
    )
    return model_of(graph, list(whole.opset_import))


def symmetric(quantized: onnx.ModelProto) -> onnx.ModelProto:
    """Return a quantized model whose activations are int8 around 0, as TensorRT wants them, with the same ranges.

    Zero points of activations become 0 and scales reach to the farther end of the range. onnxruntime leaves a ReLU out
    whose work uint8 with a zero point of 0 does as well; int8 does not, so it is put back. Biases, which TensorRT takes
    in float only, are dequantized.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    changed: dict[str, npt.NDArray[Any]] = {}
    floats: dict[str, npt.NDArray[np.float32]] = {}
    kept = []
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            kept.append(node)
            continue
        data, scale, zero = (values.get(name) for name in node.input)
        if scale is None or zero is None:
            kept.append(node)
        elif data is not None and data.dtype == np.int32:
            floats[node.output[0]] = (data.astype(np.float64) * scale).astype(np.float32)
        else:
            if zero.dtype == np.uint8:
                low, high = (float(edge - int(zero)) * float(scale) for edge in (0, 255))
                changed[node.input[1]] = np.full(scale.shape, max(-low, high) / 127, dtype=np.float32)
                changed[node.input[2]] = np.zeros(zero.shape, dtype=np.int8)
                if node.op_type == "QuantizeLinear" and int(zero) == 0:
                    kept.append(_relu(node))
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    tensors = {**values, **changed, **floats}
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in tensors.items() if k in used)
    onnx.checker.check_model(model)
    return model


def _relu(quantize: onnx.NodeProto) -> onnx.NodeProto:
    """Put a ReLU before a QuantizeLinear, which is changed to read from it."""
    clamped = f"{quantize.output[0]}/clamped"
    node = helper.make_node("Relu", [quantize.input[0]], [clamped], name=f"{quantize.name or quantize.output[0]}/relu")
    quantize.input[0] = clamped
    return node


def to_tensorrt(fp32: bytes, int8: bytes | None, preprocess: Preprocess, folder: Path) -> tuple[str, ...]:
    """Write the ONNX files without preprocessing, the build scripts, the preprocessing and the result of the check.

    Args:
        fp32: The whole model, from pictures to probabilities.
        int8: The same quantized, where there is one.
        preprocess: What was taken off the graph.
        folder: Where they go.

    Returns:
        Names of the precisions that can be built.

    Raises:
        StageError: The FP32 graph breaks limits of TensorRT; operators and limits are named.
    """
    cores = {CORE: without_preprocess(onnx.load_from_string(fp32), preprocess)}
    if int8 is not None:
        cores[CORE_INT8] = symmetric(without_preprocess(onnx.load_from_string(int8), preprocess))
    problems = {name: find_problems(core) for name, core in cores.items()}
    if problems[CORE]:
        raise StageError(
            "TensorRT does not accept the network.",
            seen="; ".join(f"{p.operator} ({p.nodes} nodes, e.g. {p.example}): {p.reason}" for p in problems[CORE]),
            accepted=f"opset {OPSETS[0]} to {OPSETS[1]} and the operators of {SOURCE}",
            hint="leave tensorrt out of export.formats",
        )
    if problems.get(CORE_INT8):
        del cores[CORE_INT8]
    for name, core in cores.items():
        (folder / name).write_bytes(core.SerializeToString(deterministic=True))
    precisions = ("fp32", "fp16", *(("int8",) if CORE_INT8 in cores else ()))
    _write_texts(folder, preprocess, problems=problems, precisions=precisions)
    return precisions


def _write_texts(
    folder: Path, preprocess: Preprocess, *, problems: Mapping[str, Any], precisions: tuple[str, ...]
) -> None:
    shutil.copyfile(_FILES / BUILD_PY, folder / BUILD_PY)
    shutil.copyfile(Path(str(reference.__file__)), folder / "preprocess.py")
    (folder / PREPROCESS_JSON).write_text(dump(preprocess_document(preprocess)), encoding="utf-8")
    (folder / BUILD_SH).write_text(_script(preprocess.size), encoding="utf-8")
    (folder / BUILD_SH).chmod(0o755)
    document = {
        "tensorrt": TENSORRT,
        "source": SOURCE,
        "opsets": list(OPSETS),
        "precisions": list(precisions),
        "run_here": False,
        "files": {name: [vars(p) for p in found] for name, found in problems.items()},
    }
    (folder / LIMITS_JSON).write_text(dump(document), encoding="utf-8")
    (folder / README).write_text(_readme(precisions), encoding="utf-8")


def _script(size: int) -> str:
    return f"""#!/bin/sh
# Builds a TensorRT engine with trtexec (TensorRT 10): sh build.sh [fp32|fp16|int8] [MIN USUAL MAX batch]
set -eu
cd "$(dirname "$0")"
precision="${{1:-fp16}}"; min="${{2:-1}}"; usual="${{3:-8}}"; max="${{4:-32}}"
case "$precision" in
  fp32) model={CORE}; flags="" ;;
  fp16) model={CORE}; flags="--fp16" ;;
  int8) model={CORE_INT8}; flags="--fp16 --int8" ;;  # the scales are in the file: no calibration
  *) echo "fp32, fp16 or int8" >&2; exit 2 ;;
esac
[ -f "$model" ] || {{ echo "there is no $model here: the bundle was made without INT8" >&2; exit 2; }}
exec trtexec --onnx="$model" --saveEngine="model.$precision.plan" $flags \\
  --minShapes={PIXELS}:"$min"x3x{size}x{size} \\
  --optShapes={PIXELS}:"$usual"x3x{size}x{size} \\
  --maxShapes={PIXELS}:"$max"x3x{size}x{size} \\
  --memPoolSize=workspace:1024M --skipInference
"""


def _readme(precisions: tuple[str, ...]) -> str:
    return f"""# TensorRT

Build an engine on the machine that will run it (an engine fits one GPU and one version of TensorRT):

    sh build.sh fp16            # trtexec; precisions here: {", ".join(precisions)}
    python build.py --precision fp16 --batches 1 8 32

The engine maps `{PIXELS}` float32 (N, 3, S, S) to `{OUTPUT}` float32 (N, C), N from 1 to 32. TensorRT has no
antialiased resize, so pictures are made into pixels outside: `preprocess.json` is the rule and `preprocess.py` its
reference (numpy and Pillow).

What was checked: the operators, types and opset against {SOURCE} (`limits.json`), and the ONNX file with
`preprocess.py` before it against the trained network, with onnxruntime (`parity.json` of the bundle). **No engine was
built or run where this was made.**
"""


def open_core(core: bytes, preprocess: Preprocess) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Open what TensorRT is given with onnxruntime, behind the reference preprocessing."""
    session, rule = open_session(core), preprocess_document(preprocess)

    def run(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pixels = np.stack([reference.to_pixels(picture, rule) for picture in batch])
        answer: npt.NDArray[np.float32] = session.run([OUTPUT], {PIXELS: pixels})[0]
        return answer

    return run
