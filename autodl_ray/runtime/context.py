"""What every stage is given beside its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.runtime.clock import Budget
from autodl_ray.runtime.progress import Progress
from autodl_ray.runtime.stop import StopFlag

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """The surroundings of a stage.

    Attributes:
        store: Where artifacts are kept.
        run: Name of the run; its artifacts have keys ``RUN/…`` and its working files lie in ``folder``.
        seed: Root seed of everything random.
        budget: Wall-clock of the whole run.
        progress: Where to report.
        stop: Whether the user asked to finish.
        disk_limit: Most bytes that the run and its Ray may take; None: no limit.
    """

    store: Store
    run: str
    seed: int
    budget: Budget
    progress: Progress
    stop: StopFlag
    disk_limit: int | None = None

    @property
    def folder(self) -> Path:
        """Local working folder of the run."""
        return self.store.folder(self.run)

    def key(self, name: str) -> str:
        """Return the store key of the run's artifact ``name``."""
        return f"{self.run}/{name}"
