"""The other workers of a training: none in a process of its own, or a gloo / NCCL group; the loop cannot tell."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from autodl_ray.train.slices import independent_samples

__all__ = ["Alone", "Group", "Peers", "StepVote"]


@dataclass(frozen=True)
class StepVote:
    """What the workers tell each other before a step.

    Attributes:
        samples: Of this worker's slice; agreed: of the global batch.
        smallest: Agreed: of the smallest slice.
        loss: Of the step before, added up over this worker's samples; agreed: over those of all. It is told one step
            late because that costs no message of its own.
        leave: Agreed: whether any worker was told to leave. The training is saved as it is, and goes on elsewhere.
        total_steps: Planned steps of the whole training; agreed: those of rank 0.
        stop: Whether to stop; agreed: whether any worker wants to.
    """

    samples: int
    total_steps: int
    stop: bool
    smallest: int = 0
    loss: float = 0.0
    leave: bool = False


class Peers(Protocol):
    """How the loop speaks with the other workers."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module whose backward pass averages gradients over the workers."""
        ...

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Wrap the forward and backward pass of a micro-batch: only the ``last`` of a step averages gradients."""
        ...

    def agree(self, vote: StepVote) -> StepVote:
        """Return what all workers agree on."""
        ...

    def mean(self, value: float) -> float:
        """Average a number over the workers."""
        ...

    def gather(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Concatenate the rows of all workers, in the order of ranks, on every worker."""
        ...


class Alone:
    """No other workers."""

    rank = 0
    world_size = 1

    def __init__(self, leaving: Callable[[], bool] | None = None) -> None:
        self._leaving = leaving or _stays
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model itself."""
        return model

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Do nothing: there is nobody to average with."""
        return nullcontext()

    def agree(self, vote: StepVote) -> StepVote:
        """Agree with oneself."""
        leave = self._leaving()
        return StepVote(vote.samples, vote.total_steps, vote.stop, smallest=vote.samples, loss=vote.loss, leave=leave)

    def mean(self, value: float) -> float:
        """Return the value."""
        return value

    def gather(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the rows."""
        return rows


class Group:
    """The workers of the ``torch.distributed`` group that this process has joined."""

    def __init__(self, device: torch.device, leaving: Callable[[], bool] | None = None) -> None:
        self._leaving = leaving or _stays
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.device = device
        self._wrapped: nn.parallel.DistributedDataParallel | None = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap into DistributedDataParallel; what was wrapped before lets go of its parameters."""
        self._wrapped = None
        gc.collect()  # the reducer's hooks go with it
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        # Norms whose statistics are fixed have nothing to broadcast before every step; gradients are averaged where
        # they lie, without a copy.
        self._wrapped = nn.parallel.DistributedDataParallel(
            model,
            device_ids=ids,
            broadcast_buffers=not independent_samples(model),
            gradient_as_bucket_view=True,
        )
        return self._wrapped

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Leave gradients unaveraged but for the last micro-batch (``no_sync``)."""
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()

    def agree(self, vote: StepVote) -> StepVote:
        """Exchange the votes: one small all-gather."""
        own = [vote.samples, vote.total_steps, vote.stop, vote.loss, self._leaving()]
        votes = self._all([float(value) for value in own])
        return StepVote(
            samples=int(votes[:, 0].sum()),
            total_steps=int(votes[0, 1]),
            stop=bool(votes[:, 2].any()),
            smallest=int(votes[:, 0].min()),
            loss=float(votes[:, 3].sum()),
            leave=bool(votes[:, 4].any()),
        )

    def mean(self, value: float) -> float:
        """Average over the workers."""
        return float(self._all([value]).mean())

    def gather(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Pad to the longest, gather, and cut again."""
        lengths = self._all([float(len(rows))])[:, 0].astype(int)
        padded = torch.zeros(int(lengths.max()), rows.shape[1], device=self.device)
        padded[: len(rows)] = torch.from_numpy(rows).to(self.device)
        parts = [torch.zeros_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded)
        joined = [part[:n].cpu().numpy() for part, n in zip(parts, lengths, strict=True)]
        return cast("npt.NDArray[np.float32]", np.concatenate(joined))

    def _all(self, values: list[float]) -> npt.NDArray[np.float64]:
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        parts = [torch.zeros_like(own) for _ in range(self.world_size)]
        dist.all_gather(parts, own)
        return cast("npt.NDArray[np.float64]", torch.stack(parts).cpu().numpy())


def _stays() -> bool:
    return False
