"""What a sweep keeps on the disk while it runs: a folder for each trial that may still matter, and no more."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Workspace", "free_paused"]

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


def free_paused(run: Path) -> None:
    """Delete the checkpoints of all paused trials of a run; those that go on later are made again from the beginning.

    Safe beside a running sweep: who is paused stands in the journal, the same seed makes the same epochs again, and the
    weights of the best epochs stay.
    """
    for journal in run.glob("*.journal.jsonl"):
        folder = Workspace(run / "work" / journal.name.removesuffix(".journal.jsonl"), journal)
        for trial in _paused(journal):
            for path in folder.trial(trial).glob("last*.pt"):
                path.unlink(missing_ok=True)


def _paused(journal: Path) -> list[str]:
    """The trials whose last event is that they were paused."""
    last: dict[str, str] = {}
    for line in journal.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line may be half written
            event = json.loads(line)
            last[event["trial"]] = event["event"]
    return [trial for trial, event in last.items() if event == "paused"]
