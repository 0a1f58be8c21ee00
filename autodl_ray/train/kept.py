"""The weights of a training's best epochs: ``best.safetensors``, ``best-2.safetensors`` …, and an index of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autodl_ray.artifacts import write_atomic
from autodl_ray.models.classifier import save_weights

__all__ = ["BEST", "INDEX", "BestWeights", "Kept"]

BEST, INDEX = "best.safetensors", "best.json"

_BY_EPOCH = ".best"


@dataclass(frozen=True)
class Kept:
    """A kept epoch: 1-based, and what orders it (larger is better)."""

    epoch: int
    rank: tuple[float, float]

    @property
    def order(self) -> tuple[float, float, int]:
        """Sorts the best first; of equals the earlier one."""
        return (-self.rank[0], -self.rank[1], self.epoch)


class BestWeights:
    """At most ``keep`` files of weights in ``folder``, the best one always under the same name.

    The truth is a file an epoch in a hidden folder; the names by place are links to those files, made again after
    every change. So a kill at any moment leaves ``best.safetensors`` whole, and a resumed training can go back to
    what its checkpoint knew.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.entries: tuple[Kept, ...] = ()

    def wants(self, rank: tuple[float, float], epoch: int) -> bool:
        """Whether an epoch of this rank would be kept."""
        return Kept(epoch, rank) in self._with(Kept(epoch, rank))

    def add(self, model: nn.Module, rank: tuple[float, float], epoch: int) -> None:
        """Keep the weights, where they are good enough; what they displace is deleted by :meth:`settle`."""
        entries = self._with(Kept(epoch, rank))
        if Kept(epoch, rank) not in entries:
            return
        save_weights(model, self._file(epoch))
        self.entries = entries
        self._name_by_place()

    def settle(self) -> None:
        """Delete what no entry names; called when the entries are in a checkpoint."""
        wanted = {self._file(entry.epoch).name for entry in self.entries}
        with contextlib.suppress(OSError):
            for path in (self.folder / _BY_EPOCH).iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    def restore(self, entries: Sequence[Kept]) -> None:
        """Go back to the entries of a checkpoint; those whose file is gone are left out."""
        self.entries = tuple(entry for entry in entries if self._file(entry.epoch).is_file())
        if not self.entries:
            return  # the files by place, if there are any, are what there is
        self._name_by_place()
        self.settle()

    def recall(self) -> None:
        """Go back to what the index says, where there is no checkpoint to tell."""
        try:
            rows = json.loads((self.folder / INDEX).read_text())
            self.restore([Kept(int(row["epoch"]), (float(row["rank"][0]), float(row["rank"][1]))) for row in rows])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return  # there is none, or it is not readable: the training finds its best epochs again

    def _with(self, new: Kept) -> tuple[Kept, ...]:
        others = [entry for entry in self.entries if entry.epoch != new.epoch]
        return tuple(sorted([*others, new], key=lambda entry: entry.order)[: self.keep])

    def _file(self, epoch: int) -> Path:
        return self.folder / _BY_EPOCH / f"epoch-{epoch}.safetensors"

    def _place(self, index: int) -> Path:
        return self.folder / (BEST if index == 0 else f"best-{index + 1}.safetensors")

    def _name_by_place(self) -> None:
        for index, entry in enumerate(self.entries):
            _same_file(self._file(entry.epoch), self._place(index))
        index = len(self.entries)
        while self._place(index).exists():
            self._place(index).unlink(missing_ok=True)
            index += 1
        rows = [
            {"file": self._place(i).name, "epoch": entry.epoch, "rank": list(entry.rank)}
            for i, entry in enumerate(self.entries)
        ]
        write_atomic(self.folder / INDEX, json.dumps(rows) + "\n", durable=False)


def _same_file(source: Path, target: Path) -> None:
    """Let ``target`` be ``source``, from one moment to the next: a hard link, or a copy where there are none."""
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
