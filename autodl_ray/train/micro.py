"""Micro-batches: how a batch is cut, what running out of memory looks like, and what is undone after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import StageError
from autodl_ray.models.folding import is_folded

__all__ = ["MICRO", "MicroBatches", "Undo", "is_out_of_memory"]

MICRO = "micro_batch.json"
"""File in a training's folder that says how many samples fit: a later attempt begins with that."""

_CPU_WORDS = ("can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch raises when memory runs out: on a GPU, or on a processor in one of three wordings."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _CPU_WORDS)


@dataclass
class MicroBatches:
    """How many samples a worker holds at a time.

    Attributes:
        folder: Of the training.
        size: At most so many; None: all that a batch has.
    """

    folder: Path
    size: int | None

    @classmethod
    def of(cls, folder: Path, wanted: int | None) -> MicroBatches:
        """Begin with what is wanted, or with less where an earlier attempt ran out of memory."""
        try:
            found: int | None = int(json.loads((folder / MICRO).read_text())["size"])
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        sizes = [size for size in (wanted, found) if size is not None]
        return cls(folder, min(sizes, default=None))

    def cuts(self, samples: int) -> bool:
        """Whether a batch has more than one part."""
        return self.size is not None and self.size < samples

    def cut(self, samples: int) -> list[slice]:
        """Cut a batch; the last part may be smaller."""
        size = samples if self.size is None else self.size
        return [slice(at, min(at + size, samples)) for at in range(0, samples, max(size, 1))]

    def halve(self, samples: int, error: BaseException) -> str:
        """Go on with half as many after memory ran out with a batch of ``samples``; write it down.

        Returns:
            A note for the user.

        Raises:
            StageError: A single sample is too much.
        """
        held = samples if self.size is None else min(self.size, samples)
        if held <= 1:
            raise StageError(
                "One picture alone does not fit into memory.",
                seen=str(error).splitlines()[0] if str(error) else type(error).__name__,
                hint="choose smaller pictures (model.image_size) or a smaller model, or give a trial more memory",
            ) from error
        self.size = held // 2
        write_atomic(self.folder / MICRO, json.dumps({"size": self.size}) + "\n", durable=False)
        return (
            f"memory ran out with {held} pictures at a time; "
            f"gradients are accumulated over micro-batches of {self.size}, batch and learning rate stay"
        )


class Undo:
    """Remembers what a forward pass changes, the statistics of batch norms, so that a failed step can be repeated.

    Args:
        model: The network. Norms whose statistics are fixed cost nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        buffers = [b for m in model.modules() if not is_folded(m) for b in m.buffers(recurse=False)]
        by_type: dict[Any, list[Tensor]] = {}
        for buffer in buffers:
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(now, [torch.empty_like(b) for b in now]) for now in by_type.values()]

    def remember(self) -> None:
        """Copy it."""
        for now, kept in self._pairs:
            torch._foreach_copy_(kept, now)

    def restore(self) -> None:
        """Put it back."""
        for now, kept in self._pairs:
            torch._foreach_copy_(now, kept)
