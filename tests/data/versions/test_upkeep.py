"""Verifying, repairing and cleaning up a store."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from autodl_ray.data.objects import Packs, PackWriter, writer, writing_packs
from autodl_ray.data.objects.pack import pack_name, read_pack_index, write_pack_index
from autodl_ray.data.versions import Refs, open_version
from autodl_ray.data.versions.gc import Collected, collect
from autodl_ray.data.versions.push import push
from autodl_ray.data.versions.remote import Remote
from autodl_ray.data.versions.repair import repair_store
from autodl_ray.data.versions.verify import Verified, verify
from autodl_ray.errors import StoreError
from autodl_ray.runtime import Context, SilentProgress
from tests.data.conftest import MakeFolder, write_picture
from tests.data.versions.conftest import take


def check(context: Context) -> Verified:
    return verify(Refs(context.store).entries(), store=context.store, progress=SilentProgress())


def clean(context: Context, *, grace_s: float = 0, dry_run: bool = False, forget: tuple[str, ...] = ()) -> Collected:
    return collect(context.store, progress=SilentProgress(), dry_run=dry_run, grace_s=grace_s, forget=forget)


def age(packs: Packs, seconds: float) -> None:
    for path in packs.folder.iterdir():
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def flip(path: Path, position: int = 10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_whole_store(make_folder: MakeFolder, context: Context) -> None:
    take(make_folder({"a": 8, "b": 8}), context)
    found = check(context)
    assert (found.faults, found.packs, found.blobs) == ((), 1, 16)


@pytest.mark.parametrize("damage", ["byte", "short", "long", "gone", "index", "artifact"])
def test_damage_is_found_and_repaired(
    make_folder: MakeFolder, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(writer, "PACK_BYTES", 2000)
    entry = take(make_folder({"a": 12, "b": 12}), context).entry
    remote = str(tmp_path / "remote")
    push(entry, store=context.store, remote=Remote(remote), progress=SilentProgress())
    packs = Packs(context.store)
    name = packs.names()[0]
    if damage == "byte":
        flip(packs.path(name))
    elif damage == "short":
        packs.path(name).write_bytes(packs.path(name).read_bytes()[:-5])
    elif damage == "long":
        packs.path(name).write_bytes(packs.path(name).read_bytes() + b"more")
    elif damage == "gone":
        packs.path(name).unlink()
    elif damage == "index":
        flip(packs.index_path(name), 40)
    else:
        flip(Path(context.store.root) / entry.key / "index.parquet")
    found = check(context)
    said = " ".join(fault.reason for fault in found.faults)
    expected = {
        "byte": "1 of 6 blobs are damaged",
        "short": "1 of 6 blobs are damaged",
        "long": "bytes instead of",
        "gone": "the pack is gone",
        "index": "index of a pack is damaged",
        "artifact": "file of the artifact is truncated or was changed",
    }
    assert expected[damage] in said
    assert damage == "artifact" or "of 24 files are not whole: " in said
    fetched = repair_store([entry], found, store=context.store, address=remote, progress=SilentProgress())
    assert fetched == {"byte": 1, "short": 1, "long": 0, "gone": 6, "index": 6, "artifact": 0}[damage]
    assert check(context).faults == ()
    assert len(open_version("latest", store=context.store).train) == 16


def test_a_repair_that_the_remote_cannot_do_keeps_what_is_whole(
    make_folder: MakeFolder, context: Context, tmp_path: Path
) -> None:
    entry = take(make_folder({"a": 8, "b": 8}), context).entry
    packs = Packs(context.store)
    flip(packs.path(packs.names()[0]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="1 pictures of the version are not at the remote"):
        repair_store(
            [entry], check(context), store=context.store, address=str(tmp_path / "empty"), progress=SilentProgress()
        )
    found = check(context)
    assert [fault.reason for fault in found.faults] == ["1 of 16 files are not whole: a/a 0.png"]
    assert found.blobs == 15


def test_what_no_version_needs_is_deleted_after_its_time(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 6, "b": 6})
    first = take(root, context, tag="first").entry
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        write_picture(path, 500 + number)
    take(root, context)
    packs = Packs(context.store)
    assert len(packs.names()) == 2
    done = clean(context, dry_run=True)
    assert (done.deleted, done.freed_bytes) == ((), 0)
    would = clean(context, dry_run=True, forget=(first.version,))
    assert len(would.deleted) == 1
    assert len(packs.names()) == 2
    assert Refs(context.store).resolve("first").version == first.version
    waits = clean(context, grace_s=3600, forget=(first.version,))
    assert (len(waits.waiting), len(packs.names())) == (1, 2)
    assert Refs(context.store).tags() == {}
    age(packs, 7200)
    done = clean(context, grace_s=3600)
    assert (len(done.deleted), done.kept_bytes) == (1, packs.path(packs.names()[0]).stat().st_size)
    assert len(packs.names()) == 1
    assert check(context).faults == ()


def test_a_pack_that_is_mostly_dead_is_rewritten(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 10, "b": 10})
    first = take(root, context).entry
    for i in range(6):
        (root / "a" / f"a {i}.png").unlink()
        (root / "b" / f"b {i}.png").unlink()
    take(root, context)
    packs = Packs(context.store)
    old = packs.names()[0]
    age(packs, 7200)
    done = clean(context, grace_s=3600, forget=(first.version,))
    assert done.rewritten == (old,)
    assert len(packs.names()) == 2  # a training may be reading the old one
    assert clean(context, grace_s=3600).rewritten == ()
    assert check(context).faults == ()
    age(packs, 7200)
    assert clean(context, grace_s=3600).deleted == (old,)
    assert check(context).faults == ()
    assert clean(context).rewritten == ()


def test_a_pack_that_is_used_again_is_kept(make_folder: MakeFolder, context: Context) -> None:
    """A snapshot that finds its blobs in a dead pack, and is not listed yet, keeps the pack from gc."""
    root = make_folder({"a": 4, "b": 4})
    first = take(root, context).entry
    packs = Packs(context.store)
    age(packs, 7200)
    Refs(context.store).forget(first.version)
    data = (root / "a" / "a 0.png").read_bytes()
    with writing_packs(context.store) as again:
        assert again.has(hashlib.sha256(data).hexdigest())
    assert clean(context, grace_s=3600).waiting == tuple(packs.names())
    assert take(root, context).added == 0
    assert check(context).faults == ()


def test_cleaning_waits_for_a_version_that_is_being_made(context: Context) -> None:
    packs = Packs(context.store)
    order: list[str] = []
    with packs.using():
        with packs.using():  # many may
            pass
        with pytest.raises(StoreError, match="The packs are in use"), packs.cleaning(wait_s=0.1):
            pass

        def cleaner() -> None:
            with packs.cleaning(wait_s=10):
                order.append("cleaned")

        thread = threading.Thread(target=cleaner)
        thread.start()
        time.sleep(0.2)
        order.append("made")
    thread.join()
    assert order == ["made", "cleaned"]


def test_gc_stops_when_it_cannot_know(make_folder: MakeFolder, context: Context) -> None:
    entry = take(make_folder({"a": 4, "b": 4}), context).entry
    (Path(context.store.root) / entry.key / "manifest.json").unlink()
    with pytest.raises(StoreError, match="index of the version is gone"):
        clean(context)
    assert len(Packs(context.store).names()) == 1


def test_leftovers_of_killed_writers_go(context: Context) -> None:
    packs = Packs(context.store)
    (packs.folder / ".123.part").write_bytes(b"x" * 100)
    packs.path("ab" * 32).write_bytes(b"x" * 50)
    assert clean(context, grace_s=3600).leftovers == 0
    done = clean(context)
    assert (done.leftovers, done.freed_bytes) == (2, 150)
    assert list(packs.folder.iterdir()) == []


def test_a_second_copy_is_deleted_only_when_the_first_is_whole(make_folder: MakeFolder, context: Context) -> None:
    take(make_folder({"a": 4, "b": 4}), context)
    packs = Packs(context.store)
    name = packs.names()[0]
    index = read_pack_index(packs.index_path(name))
    extra = b"dead"
    longer = [*index, (hashlib.sha256(extra).digest(), len(extra))]
    packs.path(pack_name(longer)).write_bytes(packs.path(name).read_bytes() + extra)
    write_pack_index(packs.index_path(pack_name(longer)), longer)
    flip(packs.path(name))
    with pytest.raises(StoreError, match="A pack is damaged; nothing more was deleted"):
        clean(context)
    assert len(packs.names()) == 2
    flip(packs.path(name))
    assert clean(context).deleted == (pack_name(longer),)


def test_two_writers_of_one_blob(context: Context) -> None:
    packs = Packs(context.store)
    data = b"the same"
    digest = hashlib.sha256(data).hexdigest()
    one, two = PackWriter(packs), PackWriter(packs)
    for each in (one, two):
        assert not each.has(digest)
        each.add(digest, data)
        assert each.has(digest)
        each.close()
        each.discard()
    assert len(packs.names()) == 1
    assert packs.read(packs.locate()[bytes.fromhex(digest)]) == data
