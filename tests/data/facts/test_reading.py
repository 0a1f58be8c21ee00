"""Reading pictures once: what is remembered, for how long, and from where."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from autodl_ray.data.facts.memory import Memory
from autodl_ray.data.facts.reading import read_facts, read_pictures
from autodl_ray.data.formats import read
from autodl_ray.data.records import Listing, Range, Record
from autodl_ray.runtime import Context
from tests.data.conftest import MakeFolder, write_picture


def known(listing: Listing, context: Context, *, decode: bool) -> int:
    """How many pictures would not be read again."""
    found = Memory.load(context.store, listing.root).match(listing.records, decode=decode)
    return sum(fact is not None for fact in found)


def stamp(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@pytest.fixture
def listing(make_folder: MakeFolder, context: Context) -> Listing:
    root = make_folder({"a": 5, "b": 5})
    (root / "b" / "b 0.png").write_bytes(b"no picture")
    time.sleep(0.15)  # files that were just written are not remembered
    return read(root, cache=context.store.folder("cache/formats"))


def test_a_hash_is_no_decoding(listing: Listing, context: Context) -> None:
    hashed = read_facts(listing, decode=False, context=context)
    assert [(f.width, f.height, f.problem, f.decoded) for f in hashed] == [(0, 0, "", False)] * 10
    assert (known(listing, context, decode=False), known(listing, context, decode=True)) == (10, 0)
    decoded = read_facts(listing, context=context)
    assert [(f.width, f.height) for f in decoded].count((12, 8)) == 9
    assert [f.problem for f in decoded if f.problem] == ["This is not a picture."]
    assert [f.sha256 for f in decoded] == [f.sha256 for f in hashed]
    assert known(listing, context, decode=True) == 10
    assert read_facts(listing, decode=False, context=context) == decoded


def test_a_file_that_was_just_written_is_not_remembered(listing: Listing, context: Context) -> None:
    write_picture(listing.root / "a" / "a 1.png", 77)
    fresh = read(listing.root, cache=context.store.folder("cache/formats"))
    read_facts(fresh, context=context)
    assert known(fresh, context, decode=True) == 9


def test_only_what_is_there_is_remembered(listing: Listing, context: Context) -> None:
    read_facts(listing, context=context)
    (listing.root / "a" / "a 0.png").unlink()
    rest = read(listing.root, cache=context.store.folder("cache/formats"))
    assert len(read_facts(rest, context=context)) == 9
    assert len(Memory.load(context.store, listing.root)) == 9


def test_ranges_of_one_file(context: Context, tmp_path: Path) -> None:
    one, two = (write_picture(tmp_path / f"{i}.png", i).read_bytes() for i in range(2))
    tar = tmp_path / "set" / "p.tar"
    tar.parent.mkdir()
    tar.write_bytes(b"head" + one + two)
    os.utime(tar, (1, 1))
    time.sleep(0.15)
    places = [Range("p.tar", 4, len(one)), Range("p.tar", 4 + len(one), len(two)), Range("p.tar", 8, 10**6)]
    records = [Record(str(i), "a", where=place, stamp=stamp(tar)) for i, place in enumerate(places)]
    listing = Listing(tar.parent, "tar", records)
    facts = read_facts(listing, context=context)
    assert [(f.width, f.bytes) for f in facts[:2]] == [(12, len(one)), (12, len(two))]
    assert facts[2].problem == "The file cannot be read: the file ends before the picture does."
    assert known(listing, context, decode=True) == 3
    moved = records[0]._replace(where=Range("p.tar", 5, len(one)))
    assert known(Listing(tar.parent, "tar", [moved]), context, decode=True) == 0


def test_a_file_that_grew_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 10)
    record = Record("a.png", "a", stamp=stamp(path))
    path.write_bytes(b"x" * 5000)
    (reading,) = read_pictures(Listing(tmp_path, "f", [record]), [0], decode=False)
    assert (reading.data, reading.facts.bytes) == (b"x" * 5000, 5000)


def test_few_pictures_are_in_memory_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes(3 * 2**20))
    read_by: list[int] = []

    class Counting(list[Record]):
        def __getitem__(self, i: object) -> Record:  # type: ignore[override]
            assert isinstance(i, int)
            read_by.append(i)
            return super().__getitem__(i)

    records = Counting([Record("large.png", "a", stamp=stamp(path))] * 200)
    readings = read_pictures(Listing(tmp_path, "f", records), range(200), decode=False)
    next(readings)
    time.sleep(0.3)
    assert max(read_by) < 100
    assert sum(1 for _ in readings) == 199
