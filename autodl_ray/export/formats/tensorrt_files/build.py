"""Build a TensorRT engine from the ONNX file beside this script: needs a GPU and the package tensorrt (10.x)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["build", "main"]

HERE = Path(__file__).parent


def build(onnx_file: Path, *, precision: str, batches: tuple[int, int, int], size: int, workspace_mb: int) -> bytes:
    """Return the serialized engine.

    Args:
        onnx_file: From ``pixels`` (N, 3, S, S) float32 to ``probabilities`` (N, C) float32.
        precision: ``fp32``, ``fp16``, or ``int8`` for a file with QuantizeLinear and DequantizeLinear.
        batches: Smallest, usual and largest N of the optimisation profile.
        size: S.
        workspace_mb: Scratch memory that the builder may use.

    Raises:
        RuntimeError: TensorRT does not accept the file; its reasons are listed.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise RuntimeError("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    if precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    profile = builder.create_optimization_profile()
    profile.set_shape("pixels", *((n, 3, size, size) for n in batches))
    config.add_optimization_profile(profile)
    plan: Any = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("TensorRT could not build an engine; its log says why")
    return bytes(plan)


def main(arguments: list[str] | None = None) -> int:
    """Build one engine and write it beside the ONNX file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp16")
    parser.add_argument("--batches", type=int, nargs=3, default=(1, 8, 32), metavar=("MIN", "USUAL", "MAX"))
    parser.add_argument("--workspace-mb", type=int, default=1024)
    given = parser.parse_args(arguments)
    source = HERE / ("model.int8.onnx" if given.precision == "int8" else "model.onnx")
    if not source.is_file():
        print(f"there is no {source.name} here: the bundle was made without INT8", file=sys.stderr)  # noqa: T201
        return 2
    rule = json.loads((HERE / "preprocess.json").read_text(encoding="utf-8"))
    plan = build(
        source,
        precision=given.precision,
        batches=tuple(given.batches),
        size=int(rule["resize"]["size"]),
        workspace_mb=given.workspace_mb,
    )
    target = HERE / f"model.{given.precision}.plan"
    target.write_bytes(plan)
    print(f"{target}: {len(plan):,} bytes")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
