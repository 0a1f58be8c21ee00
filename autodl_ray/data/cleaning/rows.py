"""Rows of numbers by the content of a picture, kept between checks: what was measured once is not measured again."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["RowMemory"]

Arrays = dict[str, npt.NDArray[np.generic]]
_KEYS = "keys.npy"


class RowMemory:
    """Arrays whose rows belong to contents (sha256), in parts that are written once and never changed.

    A part is a folder that appears whole by a rename, so that several checks may add parts at the same time. What is
    read is mapped into memory and only the rows that are wanted are copied. A damaged part is as good as none.

    Args:
        folder: Where the parts are; None: nothing is remembered.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, contents: Sequence[str], empty: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_]:
        """Fill the rows of ``empty`` that are known.

        Args:
            contents: N hashes (hex), one a row.
            empty: Arrays with N rows, by name; they are written into.

        Returns:
            (N,) whether the row was known.
        """
        known = np.zeros(len(contents), dtype=np.bool_)
        wanted: dict[bytes, list[int]] = {}
        for row, content in enumerate(contents):
            wanted.setdefault(bytes.fromhex(content), []).append(row)
        for part in self._parts():
            try:
                keys = np.load(part / _KEYS)
                arrays = {name: np.load(part / f"{name}.npy", mmap_mode="r") for name in empty}
            except (OSError, ValueError):
                continue
            pairs = [(row, i) for i, key in enumerate(keys) for row in wanted.get(key.tobytes(), ()) if not known[row]]
            if not pairs or any(a.shape[1:] != empty[n].shape[1:] or len(a) != len(keys) for n, a in arrays.items()):
                continue
            rows, sources = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
            for name, array in arrays.items():
                empty[name][rows] = array[sources]
            known[rows] = True
        return known

    def add(self, contents: Sequence[str], arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Keep rows; what cannot be written is measured again the next time."""
        if self._folder is None or not contents:
            return
        name = uuid.uuid4().hex[:12]
        hidden = self._folder / f".{name}"
        try:
            hidden.mkdir(parents=True)
            for key, array in arrays.items():
                np.save(hidden / f"{key}.npy", array)
            np.save(hidden / _KEYS, np.frombuffer(b"".join(map(bytes.fromhex, contents)), np.uint8).reshape(-1, 32))
            hidden.rename(self._folder / name)
        except OSError:
            shutil.rmtree(hidden, ignore_errors=True)

    def _parts(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(p for p in self._folder.iterdir() if not p.name.startswith("."))
