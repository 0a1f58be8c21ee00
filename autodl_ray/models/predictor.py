"""An exported model that answers pictures: onnxruntime and numpy only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from autodl_ray.artifacts.bundle import BundleInfo, Variant, open_bundle
from autodl_ray.errors import BundleError, InputError
from autodl_ray.images import ImageArray, without_far_ends

__all__ = ["Predictor", "group_by_size", "open_session"]

_MAX_BATCH = 32
_MAX_BATCH_BYTES = 64 * 2**20  # of uint8 input: a batch of 12-megapixel photos would need 4 times that as float


def open_session(model: str | Path | bytes, *, num_threads: int = 0) -> Any:
    """Open an onnxruntime session on the CPU whose waiting threads sleep: spinning ones starve other processes.

    Args:
        model: Path or bytes of an ONNX model.
        num_threads: Threads of one call; 0: all cores.

    Returns:
        The ``onnxruntime.InferenceSession``.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Predictor:
    """A candidate or bundle that is ready to answer; safe to call from several threads.

    Example:
        >>> predictor = Predictor.open("runs/photos/bundle")  # doctest: +SKIP
        >>> predictor([image])[0].argmax()  # doctest: +SKIP
    """

    def __init__(self, session: Any, info: BundleInfo, variant: Variant) -> None:
        self._session = session
        self.info = info
        self.variant: Variant = variant
        self.classes = info.classes
        self.name = info.name
        self.version = info.version

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        num_threads: int = 0,
        variant: Literal["auto", "fp32", "int8"] = "auto",
        verify: bool = True,
    ) -> Predictor:
        """Open a candidate or bundle folder.

        Args:
            folder: The folder with ``manifest.json`` and ``bundle.json``.
            num_threads: onnxruntime threads of one call; 0: all cores.
            variant: Which model file; ``auto`` takes what the bundle says is best.
            verify: Hash every file first and compare with the manifest.

        Raises:
            BundleError: It is no bundle, truncated, changed, of a newer schema, or has no such variant.
        """
        artifact, info = open_bundle(folder, verify=verify)
        chosen: Variant = info.default_variant if variant == "auto" else variant
        if chosen not in info.variants:
            raise BundleError(
                f"The bundle has no {chosen} variant.",
                seen=f"{folder}: {', '.join(info.variants)}",
                accepted=f"auto, {', '.join(info.variants)}",
                hint=info.int8.reason if chosen == "int8" else None,
            )
        path = artifact.file(info.variants[chosen])
        try:
            session = open_session(path, num_threads=num_threads)
        except Exception as error:  # onnxruntime raises its own classes, all below Exception
            raise BundleError("The model cannot be loaded.", seen=f"{path}: {error}") from error
        return cls(session, info, chosen)

    def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        """Classify pictures of any sizes; those of equal size share a batch.

        Args:
            images: N arrays (H, W, 3) uint8, RGB.

        Returns:
            (N, C) float32 probabilities, row i for picture i.

        Raises:
            InputError: A picture has another shape or type.
        """
        for position, image in enumerate(images):
            _check(image, position)
        if self.info.preprocess.fit == "crop":
            images = [without_far_ends(image) for image in images]
        if len(images) == 1:
            return self._run(images[0][None])
        answer = np.empty((len(images), len(self.classes)), dtype=np.float32)
        for positions in group_by_size(images):
            answer[positions] = self._run(np.stack([images[i] for i in positions]))
        return answer

    def _run(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = self._session.run(["probabilities"], {"image": batch})[0]
        return result


def _check(image: ImageArray, position: int) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
        raise InputError(
            f"Picture {position} is not a decoded RGB picture.",
            seen=f"shape {shape}, {dtype}",
            accepted="(H, W, 3) uint8, as autodl_ray.images.decode_image returns it",
        )
    if image.size == 0:
        raise InputError(f"Picture {position} has no pixels.", seen=f"shape {image.shape}", accepted="1 x 1 px and up")


def group_by_size(images: Sequence[ImageArray]) -> list[list[int]]:
    """Return the positions of pictures of equal size, in batches bounded by count and bytes."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(position)
    batches: list[list[int]] = []
    for shape, positions in by_shape.items():
        limit = max(1, min(_MAX_BATCH, _MAX_BATCH_BYTES // int(np.prod(shape))))
        batches += [positions[i : i + limit] for i in range(0, len(positions), limit)]
    return batches
