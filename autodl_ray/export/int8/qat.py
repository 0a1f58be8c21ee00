"""Quantization-aware training: a short fine-tuning with the rounding in place, taught by the float network.

After Jacob et al. (2018), with the ranges of the activations as they were calibrated: what comes out is quantized with
these very ranges. The teacher's answers are the targets (Hinton et al., 2015), so that no label and no loss of the
user's training is needed. The training split is all it sees.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from autodl_ray.artifacts import TrainSamples
from autodl_ray.export.graph import LOGITS, PIXELS
from autodl_ray.export.int8.calibration import Range
from autodl_ray.export.int8.torch_graph import GraphNetwork
from autodl_ray.export.pictures import decoded
from autodl_ray.images import Preprocess
from autodl_ray.models.predictor import open_session
from autodl_ray.models.preprocess import normalize, preprocess_uint8
from autodl_ray.seeding import rng_for

__all__ = ["QatResult", "rounded_tensors", "train_rounded"]

_BATCH = 16
_LR = 1e-3  # at the start; falls to nothing along a cosine
_SHIFT = 0.04  # of the side, either way
_EPOCHS = 3


@dataclass(frozen=True)
class QatResult:
    """What a short training gave.

    Attributes:
        core: Float, with the trained weights; to be quantized with the same ranges.
        steps: Updates that were made.
        pictures: Of the training split that were seen, with repetition.
    """

    core: onnx.ModelProto
    steps: int
    pictures: int


def rounded_tensors(quantized: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges of those tensors that a quantized graph rounds."""
    taken = {node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    return {name: span for name, span in ranges.items() if name in taken}


def train_rounded(
    core: onnx.ModelProto,
    ranges: Mapping[str, Range],
    *,
    train: TrainSamples,
    preprocess: Preprocess,
    seed: int,
    until: float,
) -> QatResult:
    """Fine-tune with the rounding in place, for 3 epochs or until the time is up.

    Args:
        core: Float, with named nodes.
        ranges: Of the tensors that are rounded, see :func:`rounded_tensors`.
        train: The training split.
        preprocess: What the network takes of a picture.
        seed: Of the order and the shifts.
        until: Unix time.

    Raises:
        UnknownOperator: The graph cannot be trained.
    """
    network = GraphNetwork(core, ranges).train()
    teacher = open_session(core.SerializeToString())
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, nesterov=True)
    total = _EPOCHS * max(1, len(train) // _BATCH)
    steps = seen = 0
    began = time.time()
    with _grad_mode():
        for pixels in _batches(train, preprocess, seed=seed):
            share = max(steps / total, (time.time() - began) / max(until - began, 1e-3))
            if share >= 1.0:
                break
            wanted = torch.from_numpy(teacher.run([LOGITS], {PIXELS: pixels.numpy()})[0])
            loss = F.kl_div(
                F.log_softmax(network(pixels), dim=1),
                F.log_softmax(wanted, dim=1),
                log_target=True,
                reduction="batchmean",
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = _LR * 0.5 * (1.0 + float(np.cos(np.pi * share)))
            optimizer.step()
            steps, seen = steps + 1, seen + len(pixels)
    return QatResult(_with_weights(core, network), steps, seen)


@contextlib.contextmanager
def _grad_mode() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _batches(train: TrainSamples, preprocess: Preprocess, *, seed: int) -> Iterator[torch.Tensor]:
    """Yield (B, 3, S, S) float32: every epoch in another order, each picture shifted by a little."""
    for epoch in range(_EPOCHS):
        rng = rng_for(seed, "qat", epoch)
        order: Sequence[int] = rng.permutation(len(train)).tolist()
        size = min(_BATCH, len(order))
        for positions, pictures in decoded(train, order[: len(order) // size * size], chunk=size):
            small = np.stack([preprocess_uint8(picture, preprocess) for picture in pictures])
            pixels = normalize(torch.from_numpy(small), preprocess)
            yield _shifted(pixels, rng.integers(-1, 2, (len(positions), 2)))


def _shifted(pixels: torch.Tensor, directions: npt.NDArray[np.int64]) -> torch.Tensor:
    """Shift each picture by 4 % of its side or not at all, either way; what comes in is the mean."""
    step = max(1, round(_SHIFT * pixels.shape[2]))
    side = pixels.shape[2]
    padded = F.pad(pixels, (step, step, step, step))
    rows = [
        padded[
            i, :, step + step * int(y) : step + step * int(y) + side, step + step * int(x) : step + step * int(x) + side
        ]
        for i, (y, x) in enumerate(directions)
    ]
    return torch.stack(rows).contiguous()


def _with_weights(core: onnx.ModelProto, network: GraphNetwork) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(core)
    trained = network.weights()
    for tensor in model.graph.initializer:
        if tensor.name in trained:
            value = trained[tensor.name].detach().numpy().astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model
