"""The picture of a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.data.formats.cached import Pack, content_key, keep_pack
from autodl_ray.data.formats.names import is_safe, picture_suffix
from autodl_ray.data.formats.table_rows import PARQUET_BUFFER, Columns, Header
from autodl_ray.data.formats.walk import Finder, Tree
from autodl_ray.data.records import Range, Stamp
from autodl_ray.errors import DatasetError
from autodl_ray.images import IMAGE_SUFFIXES

__all__ = ["PICTURE_FOLDERS", "Pictures", "Source"]

PICTURE_FOLDERS = ("", "images", "img", "imgs", "JPEGImages")
"""Where beside a table its pictures may lie."""


@dataclass(frozen=True)
class Source:
    """A table file and what its columns mean.

    Attributes:
        path: The file.
        header: Its columns.
        columns: What they mean.
    """

    path: Path
    header: Header
    columns: Columns


class Pictures:
    """Finds the picture of a row: a file that it names, or bytes in the table.

    Args:
        source: The table.
        tree: The folder that it lies in.
        finder: Of the pictures in it.
        cache: Folder where the bytes of pictures are kept.
        taken: Names that pictures have already.
        problem: Takes a place and what is wrong there.
    """

    def __init__(
        self,
        source: Source,
        tree: Tree,
        finder: Finder,
        *,
        cache: Path,
        taken: Container[str],
        problem: Callable[[str, str], None],
    ) -> None:
        self._source, self._tree, self._finder, self._taken, self._problem = source, tree, finder, taken, problem
        self._name = source.path.relative_to(tree.root).as_posix()
        self._pack = _pack(source, cache) if source.columns.image else None
        self._heads = self._pack.heads() if self._pack else []
        base = self._name.rpartition("/")[0]
        stem = source.path.name.split(".", 1)[0]
        self._folders = [f"{base}/{folder}".strip("/") for folder in (*PICTURE_FOLDERS, stem, f"images/{stem}")]

    def find(self, number: int, row: dict[str, Any]) -> tuple[str, Range | None, Stamp] | None:
        """Return name, place and stamp of the picture of a row; None when it has none, which is told.

        Args:
            number: Of the row: its line, or for Parquet its position, from 1.
            row: Its cells by column.

        Raises:
            DatasetError: The table is damaged.
        """
        columns = self._source.columns
        if self._pack is not None:
            return self._held(self._pack, number, row)
        value = row.get(columns.path or "")
        if not isinstance(value, str | int) or not str(value).strip():
            self._problem(f"{self._name}:{number}", "the row names no picture")
            return None
        path = self._named(str(value).strip())
        if path is None:
            self._problem(f"{self._name}:{number}", f"there is no picture {str(value)[:200]!r}")
            return None
        return path, None, self._tree.pictures[path]

    def _named(self, value: str) -> str | None:
        root = f"{self._tree.root}/"
        value = value.removeprefix(root)
        # A path from another machine, or one that leads out, is looked for by the end that lies here.
        plain = "/".join(part for part in value.replace("\\", "/").split("/") if part not in ("", ".", ".."))
        return self._finder.find(plain, self._folders) if plain else None

    def _held(self, pack: Pack, number: int, row: dict[str, Any]) -> tuple[str, Range | None, Stamp] | None:
        position = number - 1
        length = int(pack.lengths[position])
        suffix = picture_suffix(self._heads[position])
        if length < 0 or suffix is None:
            what = "the row holds no picture" if length < 0 else "the bytes are no picture of a kind that is known"
            self._problem(f"{self._name}:{number}", what)
            return None
        columns = self._source.columns
        nested = row.get(columns.image or "")
        name = row.get(columns.path or "") or (nested.get("path") if isinstance(nested, dict) else None)
        name = name.replace("\\", "/").lstrip("/") if isinstance(name, str) else ""
        if name and not name.lower().endswith(IMAGE_SUFFIXES):
            name += suffix
        if not is_safe(name) or name in self._taken:  # the files of each split often count from 0
            name = f"{self._source.path.name.rsplit('.', 1)[0]}/{position:08d}{suffix}"
        return name, Range(pack.file, int(pack.offsets[position]), length), pack.stamp


def _pack(source: Source, cache: Path) -> Pack:
    column = str(source.columns.image)
    key = f"{content_key(source.path, cache)}-{column.encode().hex()[:32]}"
    leaf = f"{column}.bytes" if column in source.header.nested else column
    return keep_pack(cache, key, lambda: _blobs(source.path, leaf))


def _blobs(path: Path, leaf: str) -> Iterator[bytes | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=64, columns=[leaf]):
                column = batch.column(0)
                if "." in leaf and pa.types.is_struct(column.type):
                    column = column.field("bytes")
                yield from column.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError("A Parquet file cannot be read.", seen=f"{path.name}: {error}") from error
