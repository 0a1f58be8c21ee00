"""Checkpoints of a training: tensors and plain data only, written atomically, the one before kept as a fall-back."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from autodl_ray.errors import StoreError

__all__ = ["BEST", "LAST", "PREVIOUS", "load_checkpoint", "save_checkpoint"]

LAST, PREVIOUS, BEST = "last.pt", "last.prev.pt", "best.safetensors"

WORTH_SYNCING = 2**20
"""Bytes from which a checkpoint is forced to the disk. Only a power cut needs that: a small training is sooner done
again than it is synced in every epoch."""

_FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``last.pt``; what was there becomes ``last.prev.pt``.

    A kill at any moment leaves at least one whole checkpoint.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    temporary = folder / f".{LAST}.tmp"
    try:
        with temporary.open("wb") as stream:
            stream.write(buffer.getbuffer())
            stream.flush()
            if buffer.getbuffer().nbytes >= WORTH_SYNCING:
                os.fsync(stream.fileno())
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / PREVIOUS)
        temporary.replace(folder / LAST)
    except OSError as error:
        raise StoreError(
            "The checkpoint could not be written.",
            seen=f"{folder}: {error}",
            hint="free some space or choose another store with --store, then run the same line again",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Read the newest whole checkpoint.

    Returns:
        The state, or None when there is none; and a note when a damaged one had to be passed over.
    """
    note: str | None = None
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile, pickle, EOF and runtime errors by where it was cut
            note = f"the checkpoint {name} is damaged ({type(error).__name__}); the one before it is used"
            continue
        if state.get("format") == _FORMAT:
            return state, note
        note = f"the checkpoint {name} is of another version; it is not used"
    return None, note
