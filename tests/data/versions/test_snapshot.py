"""Snapshots: taken, listed, tagged, opened and written out again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from autodl_ray.artifacts import Store
from autodl_ray.data import run
from autodl_ray.data.facts.reading import read_facts
from autodl_ray.data.formats import read
from autodl_ray.data.objects import Packs, writer
from autodl_ray.data.records import Box, Listing, Record
from autodl_ray.data.versions import Refs, keep_snapshot, open_listing, open_version, snapshot, store_blobs
from autodl_ray.data.versions.checkout import checkout
from autodl_ray.data.versions.diff import Change, diff_rows
from autodl_ray.data.versions.opening import artifact_of, rows_of
from autodl_ray.errors import DatasetError, RunInterrupted, SpecError, StoreError
from autodl_ray.runtime import Context, SilentProgress
from autodl_ray.spec import DataSpec, SplitSpec
from tests.data.conftest import MakeFolder, make_context, write_picture
from tests.data.versions.conftest import take


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_version_opens_without_its_folder(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 8, "b": 8})
    done = take(root, context, tag="raw", message="as it came")
    before = contents(root)
    shutil.rmtree(root)
    assert (done.new, done.added) == (True, 16)
    for ref in ("raw", "version:raw", "latest", done.entry.version, done.entry.version[:6]):
        version = open_version(ref, store=context.store)
        assert version.id == done.entry.version
    assert (len(version.train), len(version.val), version.test.size) == (12, 2, 2)
    assert all(version.train.read(i) == before[path] for i, path in enumerate(version.train.paths))
    for path in Path(context.store.root).rglob("*"):
        assert not path.is_file() or str(root.parent).encode() not in path.read_bytes()


def test_a_moved_store_still_opens(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    take(make_folder({"a": 4, "b": 4}), context, tag="raw")
    moved = Path(context.store.root).rename(tmp_path / "elsewhere")
    assert open_version("raw", store=Store(moved)).train.read(0)


def test_unchanged_and_changed(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 8, "b": 8})
    first = take(root, context)
    again = take(root, context)
    assert (again.new, again.added, again.entry) == (False, 0, first.entry)
    write_picture(root / "a" / "a 0.png", 99)
    shutil.copy(root / "a" / "a 1.png", root / "a" / "twin.png")
    second = take(root, context)
    assert (second.new, second.added, second.entry.parent) == (True, 1, first.entry.version)
    write_picture(root / "a" / "a 0.png", 0)
    (root / "a" / "twin.png").unlink()
    back = take(root, context)
    assert (back.entry.version, back.new, back.entry.parent) == (first.entry.version, False, second.entry.version)
    assert Refs(context.store).resolve("latest").version == first.entry.version
    assert [e.version for e in Refs(context.store).entries()] == [second.entry.version, first.entry.version]
    elsewhere = take(shutil.copytree(root, tmp_path / "copy"), make_context(tmp_path / "other"))
    assert elsewhere.entry.version == first.entry.version


def test_the_id_of_a_snapshot_and_of_a_run_are_one(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 8, "b": 8})
    (root / "a" / "a 3.png").write_bytes(b"no picture")
    version = run(DataSpec(path=str(root)), context=context)
    assert take(root, context).entry.version == version.id


def test_a_run_of_a_version_looks_at_its_pictures(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 8, "b": 8})
    (root / "a" / "a 3.png").write_bytes(b"no picture")
    entry = take(root, context, tag="raw").entry
    from_folder = run(DataSpec(path=str(root)), context=context)
    shutil.rmtree(root)
    assert open_version("raw", store=context.store).image_size == (0, 0)
    version = run(DataSpec(path="version:raw"), context=context)
    assert (version.id, version.image_size) == (entry.version, (12, 8))
    assert version.train.paths == from_folder.train.paths
    assert "a/a 3.png" not in version.train.paths
    assert version.artifact.path == run(DataSpec(path="version:raw"), context=context).artifact.path
    with pytest.raises(DatasetError, match="no such version"):
        run(DataSpec(path="version:nix"), context=context)


def test_tags(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 4, "b": 4})
    refs = Refs(context.store)
    with pytest.raises(DatasetError, match="holds no version"):
        refs.resolve("latest")
    first = take(root, context, tag="raw")
    take(root, context, tag="raw")
    write_picture(root / "a" / "a 0.png", 99)
    with pytest.raises(StoreError, match="tag 'raw' is taken") as caught:
        take(root, context, tag="raw")
    assert first.entry.short in str(caught.value)
    assert "--force" in str(caught.value)
    second = take(root, context, tag="raw", force=True)
    assert refs.resolve("raw").version == second.entry.version
    for name in ("latest", "abcdef12", "a b", "", "../x", "x" * 65):
        with pytest.raises(SpecError, match="no name for a tag"):
            refs.tag(name, first.entry.version)
    with pytest.raises(DatasetError, match="no such version") as unknown:
        refs.resolve("rav")
    assert "did you mean 'raw'" in str(unknown.value)
    with pytest.raises(DatasetError, match="6 or more digits"):
        refs.resolve(first.entry.version[:5])
    refs.untag("raw")
    with pytest.raises(DatasetError, match="no such tag"):
        refs.untag("raw")


def test_without_a_copy(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 4, "b": 4})
    done = take(root, context, copy=False)
    assert Packs(context.store).names() == []
    with pytest.raises(DatasetError, match=r"were not copied into the store \(--no-copy\)"):
        open_version("latest", store=context.store)
    with_copy = take(root, context)
    assert (with_copy.entry.version, with_copy.added, with_copy.new) == (done.entry.version, 8, False)
    assert take(root, context, copy=False, message="again").entry.version == done.entry.version
    assert open_version("latest", store=context.store).train.read(0)


def test_what_cannot_be_kept(make_folder: MakeFolder, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 4, "b": 4})
    listing = read(root, cache=context.store.folder("cache"))
    (root / "a" / "a 1.png").unlink()
    with pytest.raises(DatasetError, match="1 files cannot be read") as caught:
        snapshot(listing, split=SplitSpec(), context=context)
    assert "a/a 1.png" in str(caught.value)
    context.stop.set()
    write_picture(root / "a" / "a 1.png", 1)
    for i in range(80):
        write_picture(root / "a" / f"more {i}.png", 100 + i)
    with pytest.raises(RunInterrupted):
        take(root, context)
    context.stop.clear()
    assert Refs(context.store).entries() == []


def test_rows_of_another_kind_are_kept_with_their_pictures(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 6, "b": 6})
    first = take(root, context, copy=False)
    rows = rows_of(artifact_of(first.entry, store=context.store))
    listing = read(root, cache=context.store.folder("cache"))
    kept = [row._replace(label="b") if row.path == "a/a 0.png" else row for row in rows if row.path != "b/b 5.png"]
    assert store_blobs(listing, kept[:3], context=context) == 3
    done = keep_snapshot(kept, listing=listing, classes=["a", "b"], findings={}, context=context, name="clean", tag="c")
    assert done.added == 8
    diff = diff_rows(rows, rows_of(artifact_of(done.entry, store=context.store)))
    assert diff.removed == ("b/b 5.png",)
    assert diff.relabelled == (Change("a/a 0.png", "a/a 0.png", "a", "b"),)
    write_picture(root / "b" / "b 5.png", 77)
    with pytest.raises(DatasetError, match="A picture changed while the version was made") as caught:
        store_blobs(read(root, cache=context.store.folder("cache")), rows, context=context)
    assert "b/b 5.png" in str(caught.value)


def test_diff_of_moved_and_changed_pictures(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    before = rows_of(artifact_of(take(root, context).entry, store=context.store))
    (root / "train/a/a 0.png").rename(root / "train/b/from a.png")
    (root / "train/a/a 1.png").rename(root / "val/a/from train.png")
    (root / "train/b/b 0.png").rename(root / "train/b/renamed.png")
    (root / "train/b/b 1.png").unlink()
    write_picture(root / "train/b/b 2.png", 300)
    write_picture(root / "train/b/new.png", 301)
    after = rows_of(artifact_of(take(root, context).entry, store=context.store))
    diff = diff_rows(before, after)
    assert diff.relabelled == (Change("train/b/from a.png", "train/a/a 0.png", "a", "b"),)
    assert diff.resplit == (Change("val/a/from train.png", "train/a/a 1.png", "train", "val"),)
    assert diff.moved == (Change("train/b/renamed.png", "train/b/b 0.png"),)
    assert diff.content == (Change("train/b/b 2.png", "train/b/b 2.png"),)
    assert (diff.added, diff.removed, diff.boxes) == (("train/b/new.png",), ("train/b/b 1.png",), ())
    assert diff_rows(before, before).is_empty
    boxed = [row._replace(boxes=(Box("a", 0, 0, 1, 1),)) for row in before[:1]] + before[1:]
    assert diff_rows(before, boxed).counts["boxes"] == 1


def test_checkout(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 6, "b": 6})
    entry = take(root, context).entry
    out = tmp_path / "out"

    def go(folder: Path = out, *, force: bool = False) -> tuple[int, int, int]:
        done = checkout(entry, folder, store=context.store, progress=SilentProgress(), force=force)
        return done.written, done.equal, done.others

    assert go() == (12, 0, 0)
    assert contents(out) == contents(root)
    assert all(path.stat().st_nlink == 1 for path in out.rglob("*.png"))
    (out / "a" / "mine.txt").write_text("mine")
    (out / "a" / "a 0.png").unlink()
    assert go() == (1, 11, 1)
    (out / "a" / "a 1.png").write_bytes(b"changed")
    (out / "a" / "a 2.png").unlink()
    with pytest.raises(DatasetError, match="1 files in the folder have other bytes than the version") as caught:
        go()
    assert "a/a 1.png" in str(caught.value)
    assert not (out / "a" / "a 2.png").exists()
    assert go(force=True) == (2, 10, 1)
    assert contents(out) == {**contents(root), "a/mine.txt": b"mine"}


def test_checkout_never_leaves_its_folder(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 4, "b": 4})
    entry = take(root, context).entry
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(outside)
    with pytest.raises(DatasetError, match="A link or a file is where a folder has to be"):
        checkout(entry, out, store=context.store, progress=SilentProgress(), force=True)
    (out / "a").unlink()
    (out / "a").mkdir()
    victim = outside / "victim"
    victim.write_text("safe")
    (out / "a" / "a 0.png").symlink_to(victim)
    checkout(entry, out, store=context.store, progress=SilentProgress(), force=True)
    assert victim.read_text() == "safe"
    assert not (out / "a" / "a 0.png").is_symlink()


@pytest.mark.parametrize("path", ["../x.png", "/x.png", "a/../../x.png", "a/\0.png"])
def test_a_version_with_a_path_that_leads_out(
    make_folder: MakeFolder, context: Context, tmp_path: Path, path: str
) -> None:
    root = make_folder({"a": 4, "b": 4})
    listing = read(root, cache=context.store.folder("cache"))
    row = rows_of(artifact_of(take(root, context).entry, store=context.store))[0]
    listing.records[0] = listing.records[0]._replace(path=path)
    evil = keep_snapshot(
        [row._replace(path=path)], listing=listing, classes=["a"], findings={}, context=context, name="e"
    )
    with pytest.raises(DatasetError, match="leads out of the folder"):
        checkout(evil.entry, tmp_path / "o" / "o", store=context.store, progress=SilentProgress())
    assert not (tmp_path / "o").exists()


def test_annotations_come_back_with_a_checkout(context: Context, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(4):
        write_picture(root / f"{i}.png", i)
    (root / "boxes.json").write_text('{"boxes": []}')
    records = [
        Record(f"{i}.png", boxes=(Box("cell", 0, 0, 2, 2),), split=split, stamp=_stamp(root / f"{i}.png"))
        for i, split in enumerate(("train", "train", "val", "test"))
    ]
    listing = Listing(root, "coco", records, ("cell",), metadata=("boxes.json",))
    entry = snapshot(listing, split=SplitSpec(), context=context).entry
    checkout(entry, tmp_path / "out", store=context.store, progress=SilentProgress())
    assert contents(tmp_path / "out") == contents(root)
    opened = open_listing("latest", store=context.store)
    assert [(r.path, r.boxes, r.split) for r in opened.records] == [(r.path, r.boxes, r.split) for r in records]
    facts = read_facts(opened, context=context)
    assert [(f.width, f.height, f.problem) for f in facts] == [(12, 8, "")] * 4


def _stamp(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def test_many_packs(make_folder: MakeFolder, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_BYTES", 1000)
    root = make_folder({"a": 20, "b": 20})
    take(root, context)
    packs = Packs(context.store)
    assert len(packs.names()) > 8
    version = open_version("latest", store=context.store)
    assert all(version.train.read(i) == (root / p).read_bytes() for i, p in enumerate(version.train.paths))
    assert not [path for path in packs.folder.iterdir() if path.name.startswith(".")]


def test_a_blob_that_was_lost_is_stored_again(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 4, "b": 4})
    entry = take(root, context).entry
    packs = Packs(context.store)
    packs.path(packs.names()[0]).unlink()
    with pytest.raises(StoreError, match="8 pictures of the version are missing from the packs") as caught:
        open_version("latest", store=context.store)
    assert f"autodl data verify {entry.short} --repair REMOTE" in str(caught.value)
    assert take(root, context).added == 8
    assert open_version("latest", store=context.store).train.read(0)


def test_a_pipe_in_place_of_a_file_does_not_hang(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 4, "b": 4})
    listing = read(root, cache=context.store.folder("cache"))
    (root / "a" / "a 1.png").unlink()
    os.mkfifo(root / "a" / "a 1.png")
    facts = read_facts(listing, context=context)
    assert facts[1].problem


def test_a_damaged_entry_is_named(make_folder: MakeFolder, context: Context) -> None:
    take(make_folder({"a": 4, "b": 4}), context)
    refs = Refs(context.store)
    path = next(refs.history.glob("*.json"))
    document = json.loads(path.read_text())
    evil = json.dumps({**document, "key": "../../elsewhere"})
    for text in ("{", json.dumps({"version": "x"}), "[]", evil):
        path.write_text(text)
        with pytest.raises(StoreError, match="record of a version is damaged"):
            refs.entries()
