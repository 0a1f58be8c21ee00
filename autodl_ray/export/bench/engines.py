"""What can answer for a bundle: onnxruntime and OpenVINO with either file, and torch as the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.bundle import WEIGHTS_FILE, BundleInfo
from autodl_ray.errors import AutoDLError, in_short
from autodl_ray.export.graph import INPUT, OUTPUT

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENGINES", "Answer", "Engine", "EngineName", "open_engines"]

EngineName = Literal["onnxruntime", "openvino", "torch", "torch bf16"]
ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino", "torch", "torch bf16")

Answer = Callable[[npt.NDArray[np.uint8]], object]
"""Maps (N, H, W, 3) uint8 pictures to their probabilities."""


@dataclass(frozen=True)
class Engine:
    """An engine with a model file, or the reason why there is none.

    Attributes:
        name: Of the engine.
        variant: ``fp32`` or ``int8``.
        answer: What is timed; None where it cannot be had.
        note: Why not.
    """

    name: EngineName
    variant: str
    answer: Answer | None
    note: str = ""

    @property
    def label(self) -> str:
        """Name and variant, as in a table."""
        return f"{self.name} {self.variant}"


def open_engines(folder: Path, info: BundleInfo, names: Sequence[EngineName], *, num_threads: int) -> list[Engine]:
    """Open what is asked for with so many threads; what cannot be had comes with its reason.

    Args:
        folder: Of the bundle.
        info: Its record.
        names: Engines.
        num_threads: Of one call.
    """
    engines = []
    for name in names:
        if name in ("onnxruntime", "openvino"):
            opener = _onnxruntime if name == "onnxruntime" else _openvino
            engines += [_opened(name, v, opener, folder / file, num_threads) for v, file in info.variants.items()]
        else:
            low = name == "torch bf16"
            engines.append(_opened(name, "fp32", _torch_opener(info, low=low), folder / WEIGHTS_FILE, num_threads))
    return engines


def _opened(name: EngineName, variant: str, opener: Callable[[Path, int], Answer], file: Path, threads: int) -> Engine:
    try:
        return Engine(name, variant, opener(file, threads))
    except AutoDLError as error:
        return Engine(name, variant, None, f"{error.what}{f' {error.hint}' if error.hint else ''}")
    except Exception as error:  # an engine raises what it likes on a graph that it does not take
        return Engine(name, variant, None, in_short(error))


def _onnxruntime(file: Path, threads: int) -> Answer:
    from autodl_ray.models.predictor import open_session

    session = open_session(file, num_threads=threads)
    return lambda batch: session.run([OUTPUT], {INPUT: batch})


def _openvino(file: Path, threads: int) -> Answer:
    from autodl_ray.export.formats.openvino import convert, import_openvino

    settings: Mapping[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 is its own choice where the processor has it
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = import_openvino().Core().compile_model(convert(file.read_bytes()), "CPU", settings)
    return lambda batch: compiled(batch)[0]


def _torch_opener(info: BundleInfo, *, low: bool) -> Callable[[Path, int], Answer]:
    def opened(file: Path, threads: int) -> Answer:
        from autodl_ray.models.classifier import build, load_weights

        preprocess = info.preprocess.to_preprocess()
        model = build(info.model, num_classes=len(info.classes), image_size=preprocess.size, weights="none")
        load_weights(model, file)
        return _torch_answer(model.eval(), info, threads, low=low)

    return opened


def _torch_answer(model: nn.Module, info: BundleInfo, threads: int, *, low: bool) -> Answer:
    """Preprocess as the reference does, then the network; channels-last and bfloat16 where ``low``."""
    import torch

    from autodl_ray.models.preprocess import preprocess_tensor

    preprocess = info.preprocess.to_preprocess()
    if low:
        model = model.to(memory_format=torch.channels_last)

    def answer(batch: npt.NDArray[np.uint8]) -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            pixels = torch.from_numpy(np.stack([preprocess_tensor(picture, preprocess) for picture in batch]))
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
                pixels = pixels.contiguous(memory_format=torch.channels_last) if low else pixels
                return torch.softmax(model(pixels).float(), dim=1).numpy()
        finally:
            torch.set_num_threads(before)

    return answer
