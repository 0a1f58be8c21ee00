"""One table of formats, and the one way to make and check them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from autodl_ray.artifacts import LearningSamples
from autodl_ray.artifacts.bundle import WEIGHTS_FILE, FormatRecord
from autodl_ray.errors import InputError, near_names
from autodl_ray.export.documents import LABELS_JSON, PREPROCESS_JSON, dump, labels_document, preprocess_document
from autodl_ray.export.layers import explain_onnx
from autodl_ray.export.onnx import frozen_copy
from autodl_ray.export.parity import Checked, ParityRecord, Pictures, Probabilities, check_files, network_answers
from autodl_ray.images import ImageArray, Preprocess
from autodl_ray.models.classifier import save_weights

__all__ = ["FORMATS", "FormatSource", "MadeFormat", "known_format", "make_format", "make_formats"]


@dataclass(frozen=True)
class FormatSource:
    """What a format is made from.

    Attributes:
        model: The trained network, (N, 3, S, S) → logits.
        preprocess: What its input is of a picture.
        classes: C class names.
        fp32: The exported ONNX model, from pictures to probabilities.
        int8: The same quantized, where it is delivered.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    fp32: bytes
    int8: bytes | None = None


@dataclass(frozen=True)
class MadeFormat:
    """A format that was written.

    Attributes:
        how: Which way was taken.
        ran_here: Whether its own runtime answered the pictures of the parity check.
        note: What the record says beside.
        checked: Answers pictures.
        int8: The same in 8 bits, which is measured and not judged.
    """

    how: str
    ran_here: bool
    note: str
    checked: Checked
    int8: Checked | None = None


def _torchscript(source: FormatSource, folder: Path) -> MadeFormat:
    from autodl_ray.export.formats.torchscript import (
        MODEL_TS,
        explain_torchscript,
        open_torchscript,
        scripted,
        to_torchscript,
    )

    core, how = scripted(source.model, source.preprocess.size)
    path = folder / MODEL_TS
    path.write_bytes(to_torchscript(core, source.preprocess))
    _write_labels(source, folder)
    checked = Checked(open_torchscript(path), lambda p: explain_torchscript(source.model, core, p, source.preprocess))
    return MadeFormat(how, True, "preprocessing inside", checked)


def _openvino(source: FormatSource, folder: Path) -> MadeFormat:
    from autodl_ray.export.formats.openvino import MODEL_XML, explain_openvino, open_openvino, to_openvino

    to_openvino(source.fp32, folder)
    _write_labels(source, folder)
    checked = Checked(
        open_openvino(folder / MODEL_XML),
        lambda p: explain_openvino(source.model, source.fp32, p, source.preprocess),
    )
    return MadeFormat("from onnx, its antialiased Resize as bilinear_pillow", True, "preprocessing inside", checked)


def _tensorrt(source: FormatSource, folder: Path) -> MadeFormat:
    from autodl_ray.export.formats.tensorrt import CORE, CORE_INT8, open_core, to_tensorrt

    precisions = to_tensorrt(source.fp32, source.int8, source.preprocess, folder)
    _write_labels(source, folder)
    checked = Checked(open_core((folder / CORE).read_bytes(), source.preprocess), _explain_onnx(source))
    note = f"build scripts for {', '.join(precisions)}; preprocessing outside, by preprocess.json; no engine was built"
    int8 = Checked(open_core((folder / CORE_INT8).read_bytes(), source.preprocess)) if "int8" in precisions else None
    return MadeFormat("onnx without preprocessing", False, note, checked, int8)


def _safetensors(source: FormatSource, folder: Path) -> MadeFormat:
    from safetensors.torch import load_file

    save_weights(source.model, folder / WEIGHTS_FILE)
    (folder / PREPROCESS_JSON).write_text(dump(preprocess_document(source.preprocess)), encoding="utf-8")
    _write_labels(source, folder)
    again = frozen_copy(source.model)
    with torch.no_grad():
        for value in again.state_dict().values():
            value.zero_()
    again.load_state_dict(load_file(folder / WEIGHTS_FILE))

    def run(batch: Pictures) -> Probabilities:
        return network_answers(again, list(batch), source.preprocess)

    return MadeFormat("state_dict", True, "preprocessing outside, by preprocess.json", Checked(run))


def _explain_onnx(source: FormatSource) -> Callable[[ImageArray], str]:
    return lambda picture: explain_onnx(source.model, source.fp32, picture, source.preprocess)


def _write_labels(source: FormatSource, folder: Path) -> None:
    (folder / LABELS_JSON).write_text(dump(labels_document(source.classes)), encoding="utf-8")


FORMATS: Mapping[str, Callable[[FormatSource, Path], MadeFormat]] = MappingProxyType(
    {"torchscript": _torchscript, "openvino": _openvino, "tensorrt": _tensorrt, "safetensors": _safetensors}
)
"""Format → what writes it into a folder."""


def known_format(name: str) -> str:
    """Return the name of a format as it is.

    Raises:
        InputError: There is no such format; near names are suggested.
    """
    if name not in FORMATS:
        raise InputError(
            "There is no such format.", seen=name, accepted=", ".join(FORMATS), hint=near_names(name, FORMATS)
        )
    return name


def make_format(name: str, source: FormatSource, folder: Path) -> MadeFormat:
    """Write one format into an existing folder; it is not checked yet.

    Raises:
        InputError: There is no such format.
        MissingExtraError: Its package is not installed.
        StageError: The network cannot be written in it.
    """
    return FORMATS[known_format(name)](source, folder)


def make_formats(
    names: Sequence[str],
    source: FormatSource,
    folder: Path,
    *,
    samples: LearningSamples,
    until: float | None = None,
) -> tuple[dict[str, FormatRecord], dict[str, ParityRecord]]:
    """Write formats into ``folder/NAME`` and hold all of them against the network in one pass over the pictures.

    Args:
        names: Of :data:`FORMATS`.
        source: What they are made from; the network is not changed.
        folder: Gets a folder a format.
        samples: Validation split.
        until: Unix time after which no further pictures are compared, once there are 64.

    Returns:
        Format → record for the bundle, and format → parity (also of ``tensorrt int8``).

    Raises:
        InputError: There is no such format.
        MissingExtraError: A package is not installed.
        StageError: A format cannot be made, or does not answer like the network; the first layer is named.
    """
    frozen = FormatSource(frozen_copy(source.model), source.preprocess, source.classes, source.fp32, source.int8)
    made = {}
    for name in dict.fromkeys(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        made[name] = make_format(name, frozen, folder / name)
    quantized = {f"{name} int8": m.int8 for name, m in made.items() if m.int8 is not None}
    found = check_files(
        frozen.model,
        {**{name: m.checked for name, m in made.items()}, **quantized},
        preprocess=frozen.preprocess,
        samples=samples,
        until=until,
        ungated=quantized,
    )
    return {name: _record(made[name], found, name, folder / name) for name in made}, found


def _record(made: MadeFormat, records: Mapping[str, ParityRecord], name: str, folder: Path) -> FormatRecord:
    found, int8 = records[name], records.get(f"{name} int8")
    same = "" if int8 is None else f"; int8 names the same class as the network for {int8.agreement:.4f} of pictures"
    return FormatRecord(
        folder=f"formats/{name}",
        how=made.how,
        ran_here=made.ran_here,
        note=f"{made.note}{same}",
        bytes=sum(p.stat().st_size for p in folder.iterdir()),
        pictures=found.pictures,
        agreement=found.agreement,
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
    )
