"""What a sweep keeps on the disk while it runs: a folder for each trial that may still matter, and no more."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Workspace"]

WEIGHTS = "best.safetensors"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Workspace:
    """The working files of one sweep.

    Attributes:
        folder: ``work/KEY`` of the run: one folder a trial, and the weights of the best trial that has ended.
        journal: ``RUN/KEY.journal.jsonl``.
    """

    folder: Path
    journal: Path

    def trial(self, trial: str) -> Path:
        """Return the folder of a trial."""
        return self.folder / trial

    def weights(self, trial: str) -> Path | None:
        """Return the weights of a trial's best epoch, where they are still kept."""
        path = self.trial(trial) / WEIGHTS
        return path if path.is_file() else None

    def keep_only(self, best: str | None, ended: set[str], *, also: Collection[str] = ()) -> None:
        """Delete the folders of the ``ended`` trials but of the best one and of ``also``, and their checkpoints.

        What an error left to read (``error.txt``) stays.
        """
        for trial in ended:
            folder = self.trial(trial)
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                if path.name == "error.txt" or ((trial == best or trial in also) and path.name == WEIGHTS):
                    continue
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            with contextlib.suppress(OSError):  # not empty: something of it is kept
                folder.rmdir()

    def begin_anew(self) -> None:
        """Set the journal aside (numbered) and delete the working files."""
        number = 1
        while (aside := self.journal.with_suffix(f".{number}.jsonl")).exists():
            number += 1
        with contextlib.suppress(FileNotFoundError):
            self.journal.rename(aside)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete the working files; the journal stays, so that the sweep can be given more trials."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the last sweep of the run takes "work" along
            self.folder.parent.rmdir()
