"""What is tried next when workers of a training are gone: as many again, fewer, or with less memory; pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

from autodl_ray.train.errors import WorkerLost

__all__ = ["Attempt", "Lost", "Restarts", "share_of"]

_LIMIT = 3  # losses in a row between which nothing was saved
_ALL_IN_ALL = 20
_BACKOFF_S = (0.5, 2.0, 5.0)


@dataclass(frozen=True)
class Attempt:
    """How a group is started.

    Attributes:
        num_workers: Processes.
        micro_batch: Samples that each holds at a time; None: its whole share of the batch.
    """

    num_workers: int
    micro_batch: int | None


@dataclass(frozen=True)
class Lost:
    """Why a group ended before its training did.

    Attributes:
        reason: In one line.
        oom: Memory ran out.
        settled: The workers have written down themselves with how much less they go on.
        warned: The workers were told to leave (a spot machine's SIGTERM, a drained node) and saved before they did.
    """

    reason: str
    oom: bool = False
    settled: bool = False
    warned: bool = False


def share_of(batch_size: int, num_workers: int) -> int:
    """Return the samples of the largest share of a batch.

    Example:
        >>> share_of(32, 3)
        11
    """
    return -(-batch_size // num_workers)


@dataclass
class Restarts:
    """Counts the losses of one training, and decides how it goes on.

    Attributes:
        batch_size: Samples a step, over all workers; stays what it is.
        wanted: Workers that are asked for.
        micro_batch: The most samples that a worker may hold at a time; None: as many as it has.
        notes: One line for every loss.
    """

    batch_size: int
    wanted: int
    micro_batch: int | None = None
    notes: list[str] = field(default_factory=list)
    _in_a_row: int = 0
    _halved: bool = False

    def attempt(self, placed: int) -> Attempt:
        """Return how to start with the workers that found a place.

        Fewer workers than wanted have larger shares: they accumulate, so that none needs more memory than before.
        """
        usual = share_of(self.batch_size, self.wanted)
        limit = self.micro_batch if self.micro_batch is not None else (usual if placed < self.wanted else None)
        return Attempt(placed, limit)

    def after(self, lost: Lost, attempt: Attempt, *, saved: bool) -> float:
        """Take note of a loss; return the seconds to wait before the next start.

        Args:
            lost: What happened.
            attempt: With which it happened.
            saved: Whether a checkpoint was written since the start: then it gets on, however slowly.

        Raises:
            WorkerLost: It happened too often.
        """
        self._in_a_row = 0 if saved else self._in_a_row + 1
        said = self._answer(lost, attempt)
        self.notes.append(f"{lost.reason}: {said}")
        if self._in_a_row > _LIMIT or len(self.notes) > _ALL_IN_ALL or (lost.oom and said.startswith("not")):
            raise WorkerLost(
                f"Workers of the training were lost {len(self.notes)} times.",
                oom=lost.oom,
                seen=lost.reason,
                hint="lower train.micro_batch_size or train.batch_size"
                if lost.oom
                else "run the same line again to go on from the last checkpoint",
            )
        return _BACKOFF_S[min(self._in_a_row, len(_BACKOFF_S) - 1)]

    def _answer(self, lost: Lost, attempt: Attempt) -> str:
        if lost.settled:
            return "the training goes on with smaller micro-batches"
        if not lost.oom:
            return "the training goes on from its last checkpoint"
        held = attempt.micro_batch or share_of(self.batch_size, attempt.num_workers)
        if self._halved or held <= 1:
            return "not tried again with still less memory"
        self._halved, self.micro_batch = True, held // 2
        return f"the training goes on with {self.micro_batch} samples at a time instead of {held}"
