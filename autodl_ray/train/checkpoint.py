"""Checkpoints of a training: tensors and plain data only, hashed, written atomically, the one before as a fall-back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from autodl_ray.errors import StoreError
from autodl_ray.train.kept import BEST, BestWeights, Kept

__all__ = ["BEST", "LAST", "PREVIOUS", "Checkpoints", "load_checkpoint"]

LAST, PREVIOUS = "last.pt", "last.prev.pt"

WORTH_SYNCING = 2**20
"""Bytes from which a checkpoint is forced to the disk. Only a power cut needs that: a small training is sooner done
again than it is synced in every epoch."""

_MAGIC = b"autodl checkpoint 2\n"  # then the SHA-256 of all that follows (32 bytes), then what torch.save wrote
_KEPT = "kept weights"


class Checkpoints:
    """The checkpoints in the folder of one training: the last one, the one before, and the weights of the best epochs.

    Args:
        folder: Of this training alone.
        keep: Weights of so many best epochs are kept.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()))
        >>> checkpoints.save({"step": 3})
        >>> checkpoints.load()
        ({'step': 3}, ())
    """

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        self.folder = folder
        self.best = BestWeights(folder, keep)

    def load(self) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Read the newest whole checkpoint, and go back to the best weights that it knew.

        Returns:
            The state on the CPU, or None when there is none; and notes on what had to be passed over.
        """
        notes: list[str] = []
        state = _newest(self.folder, notes)
        if state is None:
            self.best.recall()  # the training is made again: the same epochs give the same weights
            return None, tuple(notes)
        kept = state.pop(_KEPT, [])
        self.best.restore([Kept(int(epoch), (float(a), float(b))) for epoch, a, b in kept])
        return state, tuple(notes)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``last.pt``; what was there becomes ``last.prev.pt``.

        A kill at any moment leaves at least one whole checkpoint, and so does a full disk.

        Args:
            state: Tensors, numbers, strings, None, and dicts, lists and tuples of them.

        Raises:
            StoreError: It could not be written; the checkpoint before is as it was.
        """
        _write(self.folder, {**state, _KEPT: [(entry.epoch, *entry.rank) for entry in self.best.entries]})
        self.best.settle()

    def wants(self, *, rank: tuple[float, float], epoch: int) -> bool:
        """Whether :meth:`keep_best` would keep the weights of an epoch of this rank."""
        return self.best.wants(rank, epoch)

    def keep_best(self, model: nn.Module, *, rank: tuple[float, float], epoch: int) -> None:
        """Keep the weights when they are among the best so far: ``best.safetensors``, ``best-2.safetensors`` …

        To be called before :meth:`save`, which writes down what is kept.

        Args:
            model: Whose state_dict is written.
            rank: Orders the epochs, larger is better (:func:`autodl_ray.train.result.rank_of`).
            epoch: 1-based; the same epoch again replaces what was kept of it.

        Raises:
            StoreError: They could not be written; what was kept before is as it was.
        """
        try:
            self.best.add(model, rank, epoch)
        except (OSError, SafetensorError) as error:
            raise _unwritten("The weights of the best epoch", self.folder, error) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Read the newest whole checkpoint, and change nothing; the note says what had to be passed over."""
    notes: list[str] = []
    state = _newest(folder, notes)
    if state is not None:
        state.pop(_KEPT, None)
    return state, "; ".join(notes) or None


def _write(folder: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with buffer.getbuffer() as payload:
        try:
            _put(folder, payload)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not (folder / PREVIOUS).exists():
                raise _unwritten("The checkpoint", folder, error) from error
            # A full disk: the fall-back gives its place to what is newer; the last one stays until that is whole.
            (folder / PREVIOUS).unlink(missing_ok=True)
            try:
                _put(folder, payload)
            except OSError as again:
                raise _unwritten("The checkpoint", folder, again) from again


def _put(folder: Path, payload: memoryview) -> None:
    temporary = folder / f".{LAST}.tmp"
    try:
        with temporary.open("wb", buffering=0) as stream:
            for part in (_MAGIC + hashlib.sha256(payload).digest(), payload):
                _write_all(stream.fileno(), part)
            if payload.nbytes >= WORTH_SYNCING:
                os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            (folder / LAST).replace(folder / PREVIOUS)
        temporary.replace(folder / LAST)
    finally:
        temporary.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _newest(folder: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return the newest whole state; append to ``notes`` what had to be passed over."""
    for name, instead in ((LAST, "the one before it is used"), (PREVIOUS, "the training begins anew")):
        try:
            data = memoryview((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:
            notes.append(f"the checkpoint {name} cannot be read ({error.strerror}); {instead}")
            continue
        start = len(_MAGIC) + hashlib.sha256().digest_size
        if data[: len(_MAGIC)] != _MAGIC:
            notes.append(f"the checkpoint {name} is damaged or of another version; {instead}")
        elif hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
            notes.append(f"the checkpoint {name} is damaged (its SHA-256 differs); {instead}")
        else:
            try:
                state: dict[str, Any] = torch.load(io.BytesIO(data[start:]), map_location="cpu", weights_only=True)
                return state
            except Exception as error:  # whole, but of a torch that wrote what this one does not read
                notes.append(f"the checkpoint {name} cannot be read ({type(error).__name__}: {error}); {instead}")
    if notes and not notes[-1].endswith("anew"):
        notes[-1] = notes[-1].replace("the one before it is used", "there is none before it: the training begins anew")
    return None


def _unwritten(what: str, folder: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{what} could not be written.",
        seen=f"{folder}: {error}",
        accepted="a disk with room; what was saved before is kept",
        hint="free some space or choose another store with --store, then run the same line again",
    )
