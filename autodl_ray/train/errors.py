"""What can befall a training that says nothing about its configuration."""

from __future__ import annotations

from autodl_ray.errors import StageError

__all__ = ["WorkerLost", "is_out_of_memory"]

_OUT_OF_MEMORY = ("low on memory", "Memory on the node", "OutOfMemoryError")


class WorkerLost(StageError):
    """Workers of a training are gone, more often than it was started again; what was saved is kept.

    The configuration is not to blame: a trial that ends with this is not to be scored as a bad one.

    Args:
        what: One sentence: what happened.
        oom: Whether Ray ended the process because the machine ran out of memory.
        seen: The reason that Ray gives.
        accepted: What would have been accepted.
        hint: What to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        oom: bool = False,
        seen: object = None,
        accepted: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, seen=seen, accepted=accepted, hint=hint)
        self.oom = oom


def is_out_of_memory(reason: str) -> bool:
    """Whether Ray's reason for the end of a process is its memory monitor.

    (A process that the kernel killed has no such reason: Ray's text for it names the kernel's OOM killer among other
    things that may have happened.)
    """
    return any(words in reason for words in _OUT_OF_MEMORY)
