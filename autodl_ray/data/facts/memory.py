"""What was found when files were read, remembered in the store as long as the files stay the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts import Store, write_atomic
from autodl_ray.data.columns import digest_column, digests_of, flag_column, number_column, numbers_of, text_column
from autodl_ray.data.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Memory", "PictureFacts"]

_SCHEMA = b"autodl facts 3"
_STAMPS = ("size", "mtime", "ctime", "inode", "offset", "length")
_INODE = 2**63 - 1


class PictureFacts(NamedTuple):
    """What was found when the bytes of a picture were read.

    Attributes:
        sha256: Of the bytes, 64 hex digits; empty when they could not be read.
        width: Of the upright picture, in pixels; 0 when it was not, or could not be, decoded.
        height: Of the upright picture, in pixels; 0 when it was not, or could not be, decoded.
        bytes: How many they are.
        problem: Why it is no usable picture; empty when it is one, or when it was not decoded.
        decoded: Whether it was tried to decode it.
    """

    sha256: str
    width: int
    height: int
    bytes: int
    problem: str = ""
    decoded: bool = False


class Memory:
    """The facts of earlier readings of one folder, in one Arrow file of the store.

    A picture is unchanged while its path, the size, times (ns) and inode of its file, and its place in that file
    are the same.
    """

    def __init__(self, path: Path | None, table: pa.Table | None) -> None:
        self._path = path
        self._table = table

    @classmethod
    def load(cls, store: Store, root: Path) -> Memory:
        """Read what is remembered of ``root``; nothing where the store is far, or the file damaged."""
        if not store.is_local:
            return cls(None, None)
        import pyarrow as pa

        name = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = store.folder("cache") / f"facts-{name}.arrow"
        try:
            table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
            table.validate(full=True)
            usable = (table.schema.metadata or {}).get(b"schema") == _SCHEMA and table.schema.equals(_schema())
        except (OSError, pa.ArrowException):
            usable = False
        return cls(path, table if usable else None)

    def __len__(self) -> int:
        return 0 if self._table is None else int(self._table.num_rows)

    def match(self, records: Sequence[Record], *, decode: bool) -> list[PictureFacts | None]:
        """Return the facts of each unchanged picture; None where it is to be read.

        Args:
            records: With their stamps as they are now.
            decode: Whether only facts from a decoding (by this Pillow) count.
        """
        if self._table is None or not len(self) or not records:
            return [None] * len(records)
        table = self._table
        row_of = {path: i for i, path in enumerate(table.column("path").to_pylist())}
        rows = np.fromiter((row_of.get(r.path, -1) for r in records), np.int64, len(records))
        remembered = np.stack([numbers_of(table, name) for name in _STAMPS], axis=1)
        same = (rows >= 0) & (remembered[rows] == _stamps(records)).all(axis=1)
        if decode:
            this_pillow = (table.schema.metadata or {}).get(b"pillow") == _pillow()
            same &= numbers_of(table, "decoded")[rows] & this_pillow
        digests = digests_of(table, "sha256")
        columns = [table.column(name).to_pylist() for name in ("width", "height", "bytes", "problem", "decoded")]
        facts = list(map(PictureFacts, digests, *columns))
        return [facts[row] if known else None for row, known in zip(rows.tolist(), same.tolist(), strict=True)]

    def save(self, records: Sequence[Record], facts: Sequence[PictureFacts]) -> None:
        """Remember the facts of these pictures, and of no others."""
        if self._path is None:
            return
        import pyarrow as pa

        stamps = _stamps(records)
        columns = [text_column([record.path for record in records])]
        columns += [number_column(stamps[:, i]) for i in range(len(_STAMPS))]
        columns.append(digest_column([fact.sha256 for fact in facts]))
        columns += [number_column([fact.width for fact in facts], "int32")]
        columns += [number_column([fact.height for fact in facts], "int32")]
        columns += [number_column([fact.bytes for fact in facts])]
        columns += [text_column([fact.problem for fact in facts]), flag_column([fact.decoded for fact in facts])]
        schema = _schema().with_metadata({b"schema": _SCHEMA, b"pillow": _pillow()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        write_atomic(self._path, sink.getvalue().to_pybytes())


def _stamps(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    """(N, 6) int64: the four numbers of the file's stamp, and the place in the file."""
    rows = [(*r.stamp[:3], r.stamp[3] & _INODE, *((0, -1) if r.where is None else r.where[1:])) for r in records]
    return np.array(rows, dtype=np.int64).reshape(-1, len(_STAMPS))


def _pillow() -> bytes:
    import PIL

    return PIL.__version__.encode()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = {"path": pa.string()}
    kinds |= dict.fromkeys(_STAMPS, pa.int64())
    kinds |= {"sha256": pa.binary(32), "width": pa.int32(), "height": pa.int32(), "bytes": pa.int64()}
    kinds |= {"problem": pa.string(), "decoded": pa.bool_()}
    return pa.schema(list(kinds.items()))
