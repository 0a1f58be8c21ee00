"""Push and pull: to a real S3 server and to a folder, interrupted, damaged, and over a long link."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from autodl_ray.artifacts import Store
from autodl_ray.data.objects import Packs, writer
from autodl_ray.data.versions import Refs, open_version
from autodl_ray.data.versions.pull import pull
from autodl_ray.data.versions.push import Moved, push
from autodl_ray.data.versions.remote import Remote, hidden
from autodl_ray.data.versions.verify import verify
from autodl_ray.errors import DatasetError, StoreError
from autodl_ray.runtime import Context, SilentProgress
from tests.data.conftest import MakeFolder, make_context, write_picture
from tests.data.versions.conftest import BUCKET, address, http_call, take
from tests.slow_link import slow_link


@pytest.fixture(params=["s3", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty remote."""
    if request.param == "folder":
        return str(tmp_path / "remote")
    return address(request.getfixturevalue("s3_port"), f"set-{tmp_path.name}")


def send(context: Context, place: str, ref: str = "latest", *, force: bool = False) -> Moved:
    entry = Refs(context.store).resolve(ref)
    return push(entry, store=context.store, remote=Remote(place), progress=SilentProgress(), force=force)


def get(store: Store, place: str, ref: str = "latest", *, force: bool = False) -> Moved:
    return pull(ref, store=store, remote=Remote(place), progress=SilentProgress(), force=force)


def is_whole(store: Store) -> bool:
    return not verify(Refs(store).entries(), store=store, progress=SilentProgress()).faults


def remote_files(place: str) -> dict[str, int]:
    remote = Remote(place)
    selector = pafs.FileSelector(remote.root, recursive=True)
    return {i.path.removeprefix(remote.root + "/"): i.size for i in remote.fs.get_file_info(selector) if i.is_file}


def test_there_and_back(make_folder: MakeFolder, context: Context, tmp_path: Path, place: str) -> None:
    root = make_folder({"a": 8, "b": 8})
    take(root, context, tag="raw", message="as it came")
    assert send(context, place).moved == 16
    other = Store(tmp_path / "other")
    moved = get(other, place, "raw")
    assert (moved.moved, moved.files) == (16, 16)
    here, there = open_version("raw", store=context.store), open_version("raw", store=other)
    assert (here.id, here.artifact.id) == (there.id, there.artifact.id)
    assert all(there.train.read(i) == (root / path).read_bytes() for i, path in enumerate(there.train.paths))
    assert Refs(other).resolve("raw") == Refs(context.store).resolve("raw")
    assert is_whole(other)
    before = remote_files(place)
    assert (send(context, place).moved, get(other, place, "raw").moved) == (0, 0)
    assert remote_files(place) == before


def test_only_what_is_missing_is_moved(
    make_folder: MakeFolder, context: Context, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 10, "b": 10})
    take(root, context)
    send(context, place)
    other = Store(tmp_path / "other")
    get(other, place)
    write_picture(root / "a" / "a 3.png", 700)
    write_picture(root / "b" / "new.png", 701)
    take(root, context)
    assert send(context, place).moved == 2
    assert get(other, place).moved == 2
    assert is_whole(other)
    fresh = make_context(tmp_path / "third")
    take(root, fresh)  # the same pictures, packed otherwise
    write_picture(root / "b" / "newer.png", 702)
    take(root, fresh)
    assert send(fresh, place).moved == 1


def test_an_interrupted_push_goes_on(
    make_folder: MakeFolder, context: Context, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PACK_BYTES", 1500)
    take(make_folder({"a": 12, "b": 12}), context)
    names = Packs(context.store).names()
    remote = Remote(place)
    for name in names[:3]:  # as a push leaves it that ended between two packs, or between a pack and its index
        remote.write(f"objects/packs/{name}.pack", Packs(context.store).path(name).read_bytes())
    remote.write(f"objects/packs/{names[0]}.idx", Packs(context.store).index_path(names[0]).read_bytes())
    with pytest.raises(DatasetError, match="holds no version"):
        get(Store(tmp_path / "early"), place)
    sent: list[str] = []
    original = Remote.write

    def counted(self: Remote, key: str, data: bytes) -> None:
        sent.append(key)
        original(self, key, data)

    monkeypatch.setattr(Remote, "write", counted)
    send(context, place)
    packs = [key for key in sent if key.endswith(".pack")]
    assert len(packs) == len(names) - 3
    assert sent.index(next(key for key in sent if "refs" in key)) > max(sent.index(key) for key in packs)
    assert get(Store(tmp_path / "other"), place).moved == 24


def test_an_interrupted_pull_goes_on(
    make_folder: MakeFolder, context: Context, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PACK_BYTES", 1500)
    take(make_folder({"a": 12, "b": 12}), context)
    send(context, place)
    packs = Packs(context.store)
    remote = Remote(place)
    last = packs.names()[-1]
    whole = packs.path(last).read_bytes()
    remote.write(f"objects/packs/{last}.pack", whole[:-1] + bytes([whole[-1] ^ 1]))
    other = Store(tmp_path / "other")
    with pytest.raises(StoreError, match="A pack at the remote is damaged; what is whole was kept"):
        get(other, place)
    assert Refs(other).entries() == []
    kept = len(Packs(other).locate())
    assert kept > 0
    remote.write(f"objects/packs/{last}.pack", whole)
    assert get(other, place).moved == 24 - kept
    assert is_whole(other)


def test_tags_are_not_stolen(make_folder: MakeFolder, context: Context, tmp_path: Path, place: str) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = take(root, context, tag="best").entry
    send(context, place)
    write_picture(root / "a" / "a 0.png", 99)
    other = make_context(tmp_path / "other")
    second = take(root, other, tag="best").entry
    assert send(other, place).notes == ("the tag best stays with another version at the remote (--force moves it)",)
    assert get(other.store, place, "best").notes == ("the tag best stays with another version here (--force moves it)",)
    assert Refs(other.store).resolve("best").version == second.version
    assert send(other, place, force=True).notes == ()
    assert get(context.store, place, second.version[:8], force=True).notes == ()
    assert Refs(context.store).resolve("best").version == second.version
    assert {entry.version for entry in Refs(context.store).entries()} == {first.version, second.version}


def test_what_cannot_be_moved(make_folder: MakeFolder, context: Context, tmp_path: Path, s3_port: int) -> None:
    root = make_folder({"a": 4, "b": 4})
    take(root, context, copy=False)
    with pytest.raises(DatasetError, match="there is nothing to push"):
        send(context, str(tmp_path / "r"))
    take(root, context)
    with pytest.raises(StoreError, match="The remote could not be written") as no_bucket:
        send(context, address(s3_port).replace(BUCKET, "no-such-bucket"))
    assert "key:secret" not in str(no_bucket.value)
    assert "no-such-bucket" in str(no_bucket.value)
    with pytest.raises(StoreError, match="address of the remote is not understood"):
        Remote("gopher://x")
    with pytest.raises(DatasetError, match="holds no version"):
        get(Store(tmp_path / "o"), str(tmp_path / "nothing"))
    packs = Packs(context.store)
    path = packs.path(packs.names()[0])
    data = path.read_bytes()
    path.write_bytes(b"?" + data[1:])
    with pytest.raises(StoreError, match="A pack is damaged here; it was not sent"):
        send(context, str(tmp_path / "r"))
    assert not list((tmp_path / "r").rglob("*.pack"))


def test_credentials_are_not_shown() -> None:
    assert hidden("s3://key:secret@b/p?region=x") == "s3://…@b/p?region=x"
    assert "abc" not in hidden("s3://b/p?secret_key=abc&region=x")
    assert hidden("s3://b/p?region=x") == "s3://b/p?region=x"


def test_many_streams_beat_one(context: Context, tmp_path: Path, s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 ms and 32 kB on the way a connection, against one plain PUT and one plain GET of all bytes at once."""
    monkeypatch.setattr(writer, "PACK_BYTES", 2**19)
    root = tmp_path / "photos"
    for i in range(40):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (root / "ab"[i % 2] / f"{i}.jpg").write_bytes(os.urandom(130_000))
    take(root, context)
    everything = b"".join(path.read_bytes() for path in root.rglob("*.jpg"))
    with slow_link(s3_port, round_trip_s=0.02, window=2**15) as port:
        one_put = seconds(lambda: http_call(port, "PUT", f"/{BUCKET}/one", everything))
        ours_put = seconds(lambda: send(context, address(port, "long")))
        one_get = seconds(lambda: http_call(port, "GET", f"/{BUCKET}/one"))
        ours_get = seconds(lambda: get(Store(tmp_path / "other"), address(port, "long")))
    assert one_put / ours_put > 1.8, (one_put, ours_put)
    assert one_get / ours_get > 1.8, (one_get, ours_get)
    assert is_whole(Store(tmp_path / "other"))


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
