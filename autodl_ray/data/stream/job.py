"""Decoding and augmenting a block of samples: the one function that tasks and threads run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.augment import AugmentPolicy, Scene
from autodl_ray.augment.fitting import fit_scene
from autodl_ray.augment.op import Boxes
from autodl_ray.data.stream.blocks import Block, BlockData, BoxRows
from autodl_ray.data.stream.decoded import Decoded, Picture
from autodl_ray.data.stream.order import augment_seed
from autodl_ray.data.stream.pictures import Pictures
from autodl_ray.errors import DatasetError
from autodl_ray.images import ImageArray, Preprocess, decode_image, image_size

__all__ = ["Job", "augmented", "fill_of", "imported", "train_detail"]

_LEAST_DETAIL = 128  # above what the policies take for a tiny picture (64 px), which they treat otherwise


def train_detail(preprocess: Preprocess) -> int:
    """Return the pixels a side that a training picture is decoded to at least: the same in every mode."""
    return max(2 * preprocess.size, _LEAST_DETAIL)


@dataclass(frozen=True)
class Job:
    """Everything that a task needs to make any block.

    Attributes:
        pictures: Where the bytes are.
        preprocess: Size and fit rule of the result.
        augment: What is done to each picture; None: validation, the picture exactly as evaluation sees it.
        seed: Root seed of the augmentation.
        at_least: Pixels a side that large JPEGs are decoded to; None: their own size.
    """

    pictures: Pictures
    preprocess: Preprocess
    augment: AugmentPolicy | None
    seed: int
    at_least: int | None

    def decode(self, positions: npt.NDArray[np.int64]) -> Decoded:
        """Read and decode pictures, to be kept."""
        return Decoded.of(list(self._read(positions)))

    def run(self, block: Block, where: npt.NDArray[np.int32] | None = None, *kept: Decoded) -> BlockData:
        """Make the pictures of a block.

        Args:
            block: Which.
            where: (N, 2) which of ``kept``, and which row of it, holds each picture; None: read the files.
            kept: Decoded pictures.
        """
        rows = [] if where is None else where.tolist()
        found = self._read(block.positions) if where is None else (kept[of].picture(row) for of, row in rows)
        size = self.preprocess.size
        images = np.empty((len(block.positions), size, size, 3), dtype=np.uint8)
        failed: dict[int, str] = {}
        boxes: list[tuple[Boxes, npt.NDArray[np.int64]]] = []
        for row, picture in enumerate(found):
            if isinstance(picture, str):
                failed[row], images[row], scene = picture, 0, _no_scene()
            else:
                scene = self._finish(self._scene(picture, int(block.positions[row])), block, row)
                images[row] = scene.image
            if scene.boxes is not None and scene.labels is not None:
                boxes.append((scene.boxes, scene.labels))
        return BlockData(images, failed, None if self.pictures.boxes is None else _box_rows(boxes))

    def _read(self, positions: npt.NDArray[np.int64]) -> Iterator[Picture | str]:
        with self.pictures.reader() as reader:
            for position in positions.tolist():
                yield _or_reason(lambda position=position: self._decode(reader.read(position)))  # type: ignore[misc]

    def _decode(self, data: bytes) -> Picture:
        image = decode_image(data, at_least=self.at_least)
        if self.pictures.boxes is None:
            return Picture(image)
        width, height = image_size(data)
        return Picture(image, (image.shape[1] / width, image.shape[0] / height))

    def _scene(self, picture: Picture, position: int) -> Scene:
        if self.pictures.boxes is None:
            return Scene(picture.image)
        coords, labels = self.pictures.boxes.of(position)
        return Scene(picture.image, boxes=coords * np.array(picture.scale * 2, dtype=np.float32), labels=labels)

    def _finish(self, scene: Scene, block: Block, row: int) -> Scene:
        size, fit, fill = self.preprocess.size, self.preprocess.fit, fill_of(self.preprocess)
        if self.augment is None or self.augment.is_empty:
            return fit_scene(scene, size=size, fit=fit, fill=fill)
        seed = augment_seed(
            self.seed,
            epoch=block.epoch,
            sample_id=int(self.pictures.ids[block.positions[row]]),
            occurrence=int(block.occurrences[row]),
        )
        return self.augment.apply_scene(scene, size=size, fit=fit, rng_seed=seed, fill=fill)


def _no_scene() -> Scene:
    return Scene(np.zeros((0, 0, 3), np.uint8), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))


def _box_rows(boxes: Sequence[tuple[Boxes, npt.NDArray[np.int64]]]) -> BoxRows:
    """Put the boxes of pictures together."""
    starts = np.cumsum([0, *(len(labels) for _, labels in boxes)], dtype=np.int64)
    coords = np.concatenate([coords for coords, _ in boxes]).astype(np.float32)
    return BoxRows(coords, np.concatenate([labels for _, labels in boxes]).astype(np.int64), starts)


def _or_reason(make: Callable[[], Picture]) -> Picture | str:
    try:
        return make()
    except DatasetError as error:
        return error.what
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def imported() -> None:
    """Nothing: a task that runs it has imported this module."""


def augmented(image: ImageArray, augment: AugmentPolicy, *, preprocess: Preprocess, rng_seed: int) -> ImageArray:
    """Augment a decoded picture for the network: (S, S, 3) uint8."""
    return augment.apply(image, size=preprocess.size, fit=preprocess.fit, rng_seed=rng_seed, fill=fill_of(preprocess))


def fill_of(preprocess: Preprocess) -> tuple[int, int, int]:
    """Return the mean as a colour: what lies outside the picture is 0 for the network."""
    red, green, blue = (round(255 * value) for value in preprocess.mean)
    return (red, green, blue)
