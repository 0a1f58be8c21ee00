"""Where the bytes of a split's pictures are, in arrays that every task maps without a copy."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import LearningSamples, check_learning
from autodl_ray.artifacts.dataset import BoxTable

__all__ = ["Pictures", "Reader"]

_OPEN_FILES = 32


@dataclass(frozen=True)
class Pictures:
    """A split as tasks need it: no Python object a sample, so that unpickling it costs the same for any size.

    Attributes:
        root: Folder that the files are below.
        ids: (N,) int64 of the split.
        names: (bytes of all names,) uint8: the distinct files, relative to ``root``, one after the other.
        ends: (files + 1,) int64, where each name begins and the last one ends.
        file: (N,) int32 which file; None: sample i is the whole file i.
        offset: (N,) int64 in bytes, or None.
        length: (N,) int64 in bytes, -1 to the end; or None.
        boxes: Objects of the pictures, or None.
    """

    root: Path
    ids: npt.NDArray[np.int64] = field(repr=False)
    names: npt.NDArray[np.uint8] = field(repr=False)
    ends: npt.NDArray[np.int64] = field(repr=False)
    file: npt.NDArray[np.int32] | None = field(default=None, repr=False)
    offset: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    length: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    boxes: BoxTable | None = field(default=None, repr=False)

    @classmethod
    def of(cls, samples: LearningSamples) -> Pictures:
        """Describe a split.

        Raises:
            DatasetError: It is the test split.
        """
        check_learning(samples, use="The stream")
        root, where = Path(samples.root), samples.where
        # Not an Arrow array: making the first one of a process imports pandas, 0.3 s before the first batch.
        names = [os.fsencode(name) for name in (samples.paths if where is None else where.files)]
        text = np.frombuffer(b"".join(names), dtype=np.uint8)
        ends = np.cumsum([0, *(len(name) for name in names)], dtype=np.int64)
        if where is None:
            return cls(root, samples.ids, text, ends, boxes=samples.boxes)
        return cls(root, samples.ids, text, ends, where.file, where.offset, where.length, samples.boxes)

    def name(self, file: int) -> str:
        """Return the name of a file."""
        return os.fsdecode(self.names[self.ends[file] : self.ends[file + 1]].tobytes())

    def reader(self) -> Reader:
        """Return a reader, to be closed; as a context manager it closes itself."""
        return Reader(self)


class Reader:
    """Reads pictures; the files that several of them share are opened once."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._root = f"{pictures.root}/"
        self._open: dict[int, int] = {}

    def read(self, position: int) -> bytes:
        """Return the bytes of a picture, as ``Samples.read`` does.

        Raises:
            OSError: The file cannot be read.
        """
        of = self._pictures
        if of.file is None or of.offset is None or of.length is None:
            with open(self._path(position), "rb", buffering=0) as file:
                return file.read()
        handle = self._handle(int(of.file[position]))
        offset, length = int(of.offset[position]), int(of.length[position])
        return os.pread(handle, os.fstat(handle).st_size - offset if length < 0 else length, offset)

    def _handle(self, file: int) -> int:
        if file not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self.close()
            self._open[file] = os.open(self._path(file), os.O_RDONLY)
        return self._open[file]

    def _path(self, file: int) -> str:
        return self._root + self._pictures.name(file)  # pathlib costs more than opening the file

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
