"""TorchScript: the network and its preprocessing in one file that libtorch runs, in C++ and on phones as well."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodl_ray.export.faithful import first_faithful, logit_error
from autodl_ray.export.layers import first_difference, layer_outputs
from autodl_ray.export.onnx import frozen_copy
from autodl_ray.images import ImageArray, Preprocess
from autodl_ray.models.preprocess import preprocess_tensor

__all__ = ["MODEL_TS", "How", "explain_torchscript", "open_torchscript", "scripted", "to_torchscript"]

How = Literal["trace", "script"]
MODEL_TS = "model.ts"
_MAX_ERROR = 1e-4
"""Largest accepted difference of a logit on random pixels, relative to the largest (or to 1)."""


class _Raw(nn.Module):
    """Pictures as they are in, probabilities out; what :func:`autodl_ray.models.preprocess.preprocess_tensor` does.

    Whole numbers alone decide the geometry, as in :func:`autodl_ray.images.fit_geometry`.
    """

    def __init__(self, core: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.core = core
        self.size = preprocess.size
        self.fit: str = preprocess.fit
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(preprocess.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, H, W, 3) uint8, RGB, to (N, C) float32."""
        size = self.size
        height, width = size, size
        if self.fit != "stretch":
            fixed = min(image.shape[1], image.shape[2])
            if self.fit == "pad":
                fixed = max(image.shape[1], image.shape[2])
            height = max(1, (image.shape[1] * size + fixed // 2) // fixed)
            width = max(1, (image.shape[2] * size + fixed // 2) // fixed)
        values = image.permute(0, 3, 1, 2).contiguous().float()
        if width == 1:  # torch 2.14 scales contiguous planes to a width of 1 px wrongly, but not to a height
            scaled = _resized(values.transpose(2, 3).contiguous(), width, height).transpose(2, 3)
        else:
            scaled = _resized(values, height, width)
        pixels = (scaled / 255.0 - self.mean) / self.std
        if self.fit == "crop":
            top, left = (height - size) // 2, (width - size) // 2
            pixels = pixels[:, :, top : top + size, left : left + size]
        if self.fit == "pad":
            top, left = (size - height) // 2, (size - width) // 2
            pixels = F.pad(pixels, [left, size - width - left, top, size - height - top])
        return torch.softmax(self.core(pixels), dim=1)


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(values, size=[height, width], mode="bilinear", antialias=True, align_corners=False)


def scripted(model: nn.Module, image_size: int) -> tuple[torch.jit.ScriptModule, How]:
    """Return the network in TorchScript by the first way that answers like it: recorded, else compiled.

    Args:
        model: (N, 3, S, S) float32 → logits; not changed.
        image_size: S, px.

    Raises:
        StageError: Neither way answers like the network.
    """
    frozen = frozen_copy(model)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, image_size, image_size, generator=generator)
    ways: dict[How, Callable[[], Any]] = {
        "trace": lambda: torch.jit.trace(frozen, (pixels[:2],), check_trace=False),  # type: ignore[no-untyped-call]
        "script": lambda: torch.jit.script(frozen),
    }

    def fault(made: Any) -> str:
        error = max(logit_error(frozen(pixels[:n]).numpy(), made(pixels[:n]).numpy()) for n in (1, 3))
        return "" if error <= _MAX_ERROR else f"logits differ by {error:.2g}"

    with _quiet(), torch.no_grad():
        return first_faithful(
            ways,
            fault,
            what="The network could not be written as TorchScript.",
            accepted=f"logits within {_MAX_ERROR:g} of the network's",
            hint="leave torchscript out of export.formats, or choose a network of the zoo: see `autodl models`",
        )


def to_torchscript(core: torch.jit.ScriptModule, preprocess: Preprocess) -> bytes:
    """Put the preprocessing before and a softmax behind the network; equal weights give equal bytes.

    Args:
        core: From :func:`scripted`.
        preprocess: What the network's input is of a picture.

    Returns:
        A TorchScript archive, from ``image`` uint8 (N, H, W, 3) to probabilities float32 (N, C).
    """
    with _quiet(), torch.no_grad():
        whole = torch.jit.freeze(torch.jit.script(_Raw(core, preprocess).eval()))
        buffer = io.BytesIO()
        torch.jit.save(whole, buffer)
    return _canonical(buffer.getvalue())


def open_torchscript(path: Path) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Open the file; the call maps (N, H, W, 3) uint8 to (N, C) float32."""
    with _quiet():
        module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = module(
                torch.from_numpy(np.require(batch, requirements=["C", "W"]))
            ).numpy()
        return answer

    return run


def explain_torchscript(
    model: nn.Module, core: torch.jit.ScriptModule, picture: ImageArray, preprocess: Preprocess
) -> str:
    """Say which layer first differs in TorchScript, by the values that its graph makes in the scope of each module."""
    pixels = torch.from_numpy(preprocess_tensor(picture, preprocess)[None])
    paths = {path for path, _ in model.named_modules() if path}
    graph, parameters = torch._C._jit_pass_lower_graph(core.inlined_graph.copy(), core._c)
    values: dict[str, Any] = {}
    for node in graph.nodes():
        path = node.scopeName().rsplit("/", 1)[-1].removeprefix("__module.")
        for output in node.outputs():
            if path in paths and output.type().kind() == "TensorType":
                values[path] = output
    if not values:
        return "a network that was compiled does not say which module its values are of"
    all_of_them = graph.create("prim::TupleConstruct", list(values.values()), 1)
    all_of_them.output().setType(torch._C.TupleType([value.type() for value in values.values()]))
    graph.appendNode(all_of_them)
    graph.eraseOutput(0)
    graph.registerOutput(all_of_them.output())
    run = torch._C._create_function_from_graph("layers", graph)
    with torch.no_grad():
        seen = {path: value.numpy() for path, value in zip(values, run(pixels, *parameters), strict=True)}
    return first_difference(layer_outputs(model, pixels), seen)


def _canonical(archive: bytes) -> bytes:
    """Write the records again without what differs between two runs of the same code.

    That is the numbers by which TorchScript tells classes of one name apart, which count on through the process, and
    the records for error messages, which hold the paths of source files.
    """
    names: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return names.setdefault(found[0], b"___torch_mangle_%d" % len(names))

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        records = {name.split("/", 1)[1]: source.read(name) for name in source.namelist()}
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, data in records.items():
        if name.endswith(".debug_pkl") or name.startswith(("traced_inputs", ".data/", "byteorder", "version")):
            continue
        if name.startswith("code/") or name.endswith(".pkl"):
            name = re.sub(rb"___torch_mangle_\d+", number, name.encode()).decode()
            data = re.sub(rb"___torch_mangle_\d+", number, data)
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep away the notices that TorchScript is deprecated: people ask for this format by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
