"""The part of a specification that says what is delivered, and what INT8 has to show before it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from autodl_ray.spec.values import Section, yaml_word

__all__ = ["ExportSpec"]


class ExportSpec(Section):
    """What is delivered, and what INT8 has to show before it is."""

    formats: tuple[Literal["torchscript", "openvino", "tensorrt"], ...] = Field(
        (), description="made beside ONNX and the weights, each held against the trained network"
    )
    int8: Annotated[Literal["auto", "off", "static", "dynamic", "weights"], BeforeValidator(yaml_word)] = Field(
        "auto",
        description="auto: made as suits the network, measured, and kept where it is better; static: weights and "
        "activations by calibrated ranges; dynamic: linear layers, ranges at run time; weights: smaller, not faster",
    )
    qat: Annotated[Literal["auto", "off"], BeforeValidator(yaml_word)] = Field(
        "auto", description="auto: a short training with the rounding in place where INT8 loses too much otherwise"
    )
    target: Literal["any", "edge"] = Field(
        "any", description="edge: judged on one thread, one picture a call, as suits a small machine"
    )
    max_drop: float = Field(0.005, ge=0, le=0.2, description="largest accepted loss of validation accuracy")
    min_speedup: float = Field(1.0, gt=0, description="least speed against FP32 on this machine")
    calibration: int = Field(128, ge=8, le=5000, description="pictures of the training split that calibrate INT8")
