"""What some pictures of the training split look like, for the bundle: looked at for a third of a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from autodl_ray.artifacts import TrainSamples
from autodl_ray.artifacts.reference import Reference, picture_statistics
from autodl_ray.export.pictures import decoded
from autodl_ray.seeding import rng_for

__all__ = ["make_reference"]

_MOST, _LEAST = 500, 32  # pictures
_LIMIT_S = 0.3


def make_reference(
    train: TrainSamples, answers: Mapping[str, Any], *, seed: int, limit_s: float = _LIMIT_S
) -> Reference | None:
    """Look at pictures of the training split in random order, as they are served: from whole files, not augmented.

    Args:
        train: The split; its original files are read.
        answers: On the validation split, from the parity check.
        seed: Of the run.
        limit_s: After which no more than 32 pictures are looked at; 500 are the most.

    Returns:
        The reference; None of an empty split.
    """
    drawn = rng_for(seed, "reference").permutation(len(train))[:_MOST].tolist()
    until, rows = time.monotonic() + limit_s, []
    for _, pictures in decoded(train, drawn, chunk=8):
        rows += [picture_statistics(picture) for picture in pictures]
        if time.monotonic() > until and len(rows) >= _LEAST:
            break
    return Reference.of(rows, answers) if rows else None
