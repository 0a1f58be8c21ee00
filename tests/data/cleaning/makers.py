"""Small data sets with known faults."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.facts.reading import PictureFacts, read_facts
from autodl_ray.data.formats import read
from autodl_ray.data.records import Box, Listing, Record
from autodl_ray.runtime import Context


def facts(content: str, *, size: tuple[int, int] = (100, 80), problem: str = "") -> PictureFacts:
    """Facts of a picture whose bytes are ``content``."""
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return PictureFacts(sha256, 0 if problem else size[0], 0 if problem else size[1], len(content), problem, True)


def subject_of(
    pictures: Mapping[str, tuple[str, str | None]],
    *,
    splits: Mapping[str, Split] | None = None,
    problems: Mapping[str, str] | None = None,
    classes: tuple[str, ...] = (),
) -> Subject:
    """A data set without files: path → (content, label)."""
    bad = problems or {}
    records = [Record(path, label) for path, (_, label) in sorted(pictures.items())]
    known = [facts(pictures[r.path][0], problem=bad.get(r.path, "")) for r in records]
    return Subject(Listing(Path("nowhere"), "test", records, classes), known, splits or {})


def boxed(boxes: Mapping[str, Sequence[Box]], *, classes: tuple[str, ...] = ()) -> Subject:
    """A data set of pictures of 100 × 80 px with boxes."""
    records = [Record(path, None, tuple(found)) for path, found in sorted(boxes.items())]
    return Subject(Listing(Path("nowhere"), "test", records, classes), [facts(r.path) for r in records])


def scene(number: int, *, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with edges and detail that is like no other number's."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(40, 215, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int16)
    for _ in range(14):
        x, y = int(rng.integers(0, size[0] - 12)), int(rng.integers(0, size[1] - 12))
        w, h = int(rng.integers(4, 40)), int(rng.integers(4, 30))
        pixels[y : y + h, x : x + w] = rng.integers(0, 255, 3)
    pixels += rng.integers(-12, 13, pixels.shape[:2])[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def save(picture: Image.Image, path: Path, *, quality: int = 92) -> Path:
    """Write a picture; a JPEG by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **({"quality": quality} if path.suffix == ".jpg" else {}))
    return path


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after a JPEG of that quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def opened(folder: Path, context: Context, splits: Mapping[str, Split] | None = None) -> Subject:
    """Read a folder as a subject."""
    listing = read(folder, cache=context.store.folder("cache/formats"))
    given = {record.path: record.split for record in listing.records if record.split is not None}
    return Subject(listing, read_facts(listing, context=context), given if splits is None else splits)
