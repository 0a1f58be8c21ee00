"""A few pictures inside a bundle with the answers they got where it was made: what a service tries before it serves."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodl_ray.errors import BundleError
from autodl_ray.images import ImageArray, decode_image

__all__ = ["PROBES_FILE", "Probes", "read_probes", "small_enough", "write_probes"]

PROBES_FILE = "probes.npz"
_SIDE = 128


@dataclass(frozen=True)
class Probes:
    """Pictures and answers.

    Attributes:
        images: N pictures (H, W, 3) uint8.
        probabilities: (N, C) float32, of the variant that the bundle serves.
    """

    images: tuple[ImageArray, ...]
    probabilities: npt.NDArray[np.float32]


def small_enough(image: ImageArray) -> ImageArray:
    """Scale a picture down to at most 128 px a side, so that probes weigh little."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture)


def write_probes(folder: str | Path, probes: Probes) -> None:
    """Write ``probes.npz`` into the folder of a candidate or bundle that is being made."""
    files = {f"image_{i}": np.frombuffer(_png(image), np.uint8) for i, image in enumerate(probes.images)}
    with (Path(folder) / PROBES_FILE).open("wb") as file:
        np.savez(file, probabilities=probes.probabilities.astype(np.float32), **files)  # type: ignore[arg-type]


def read_probes(folder: str | Path) -> Probes | None:
    """Read the probes of a bundle; None when it holds none.

    Raises:
        BundleError: The file is damaged.
    """
    path = Path(folder) / PROBES_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            probabilities = file["probabilities"].astype(np.float32)
            images = tuple(decode_image(file[f"image_{i}"].tobytes()) for i in range(len(probabilities)))
    except Exception as error:  # zipfile, numpy and Pillow each raise their own
        raise BundleError("The probes of the bundle are damaged.", seen=f"{path}: {error}") from error
    return Probes(images, probabilities)


def _png(image: ImageArray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
