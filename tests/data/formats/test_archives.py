"""Archives of strangers: what is taken out, what is refused, and that nothing is written elsewhere."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autodl_ray.data.formats import read
from autodl_ray.data.formats.archives import Limits, decompress, unpack
from autodl_ray.errors import DatasetError, StoreError
from tests.data.formats.makers import make_tar, picture

SMALL = Limits(total_bytes=10 * 2**20, members=100, ratio=20, free_bytes=2**20)


def tar_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(path: Path, *members: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, data)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "in" / "target").mkdir(parents=True)
    return tmp_path / "in" / "target"


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


MEMBERS = (("a/1.txt", b"one"), ("a/b/2.txt", b"two" * 100), ("3.txt", b""), ("./4.txt", b"4"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_plain_files_come_out(tmp_path: Path, target: Path, mode: str) -> None:
    path = tmp_path / "packed"
    archive = zip_of(path, *MEMBERS) if mode == "zip" else tar_of(path, *MEMBERS, mode=mode)
    done = unpack(archive, target)
    assert files_below(target) == {"a/1.txt", "a/b/2.txt", "3.txt", "4.txt"}
    assert (target / "a/b/2.txt").read_bytes() == b"two" * 100
    assert (done.files, done.bytes, dict(done.passed_over)) == (4, 304, {})
    assert all(not path.stat().st_mode & stat.S_ISUID for path in target.rglob("*"))


HOSTILE_NAMES = ["/etc/x", "../x", "a/../../x", "..\\x", "C:\\x", "C:/x", "a/..", "\\x", "x" * 2000]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_out_are_refused(tmp_path: Path, target: Path, name: str, kind: str) -> None:
    path = tmp_path / "packed"
    archive = zip_of(path, (name, b"bad")) if kind == "zip" else tar_of(path, (name, b"bad"))
    with pytest.raises(DatasetError, match=r"leads out of the target folder|name that is not accepted") as caught:
        unpack(archive, target)
    assert "packed: " in str(caught.value)
    assert files_below(tmp_path / "in") == set()


@pytest.mark.parametrize(
    "link",
    [
        special("l", tarfile.SYMTYPE, "/etc"),
        special("l", tarfile.SYMTYPE, "../.."),
        special("a/l", tarfile.SYMTYPE, "../../x"),
        special("l", tarfile.LNKTYPE, "/etc/passwd"),
        special("a/l", tarfile.LNKTYPE, "../x"),
    ],
    ids=lambda info: f"{info.name} {info.linkname}",
)
def test_links_that_lead_out_are_refused(tmp_path: Path, target: Path, link: tarfile.TarInfo) -> None:
    with pytest.raises(DatasetError, match="link that leads out"):
        unpack(tar_of(tmp_path / "x.tar", link, ("l/file", b"through the link")), target)
    assert files_below(tmp_path / "in") == set()


def test_links_in_a_zip(tmp_path: Path, target: Path) -> None:
    with pytest.raises(DatasetError, match="link that leads out"):
        unpack(zip_of(tmp_path / "x.zip", ("l", b"../../outside"), mode=stat.S_IFLNK | 0o777), target)
    unpack(zip_of(tmp_path / "y.zip", ("l", b"inside"), mode=stat.S_IFLNK | 0o777), target)
    assert files_below(target) == set()


def test_a_link_within_becomes_the_file_that_it_names(tmp_path: Path, target: Path) -> None:
    archive = tar_of(
        tmp_path / "x.tar",
        ("a/1.txt", b"one"),
        special("b/hard.txt", tarfile.LNKTYPE, "a/1.txt"),
        special("b/soft.txt", tarfile.SYMTYPE, "../a/1.txt"),
        special("b/folder", tarfile.SYMTYPE, "../a"),
        special("b/later.txt", tarfile.SYMTYPE, "nowhere"),
        ("b/folder/2.txt", b"two"),
    )
    done = unpack(archive, target)
    assert files_below(target) == {"a/1.txt", "b/hard.txt", "b/soft.txt", "b/folder/2.txt"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert (target / "b/soft.txt").read_bytes() == b"one"
    assert dict(done.passed_over) == {"links to folders or to nothing": 2}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, target: Path, kind: bytes) -> None:
    with pytest.raises(DatasetError, match="device or a pipe"):
        unpack(tar_of(tmp_path / "x.tar", special("dev", kind)), target)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a", b"1"), ("a", b"2")], "two members of one name"),
        ([("a", b"1"), ("a/b", b"2")], "for a file and for a folder"),
        ([("a/b", b"1"), ("a", b"2")], "for a file and for a folder|two members of one name"),
        ([(f"{i}", b"") for i in range(101)], "too many members"),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # the archive is made on purpose
def test_other_faults(tmp_path: Path, target: Path, members: list[tuple[str, bytes]], message: str, kind: str) -> None:
    path = tmp_path / "packed"
    archive = zip_of(path, *members) if kind == "zip" else tar_of(path, *members)
    with pytest.raises(DatasetError, match=message):
        unpack(archive, target, limits=SMALL)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path, target: Path, kind: str) -> None:
    zeros = b"\0" * (9 * 2**20)
    path = tmp_path / "bomb"
    archive = zip_of(path, ("z", zeros)) if kind == "zip" else tar_of(path, ("z", zeros), mode="w:gz")
    assert archive.stat().st_size < 2**20
    with pytest.raises(DatasetError, match="unpacks to far more than it holds") as caught:
        unpack(archive, target, limits=SMALL)
    assert "at most 20 for each byte" in str(caught.value)
    assert (target / "z").stat().st_size < 3 * 2**20
    loose = Limits(total_bytes=4 * 2**20, ratio=1e9)
    (target / "z").unlink()
    with pytest.raises(DatasetError, match="too large when unpacked"):
        unpack(archive, target, limits=loose)
    assert (target / "z").stat().st_size <= 4 * 2**20


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path, target: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("z", b"\0" * (9 * 2**20)))
    data = archive.read_bytes().replace((9 * 2**20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    archive.write_bytes(data)
    with pytest.raises(DatasetError):
        unpack(archive, target, limits=SMALL)
    assert sum(path.stat().st_size for path in target.rglob("*")) < 3 * 2**20


def test_a_password_is_told(tmp_path: Path, target: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("z", b"secret"))
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match="has a password"):
        unpack(archive, target)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_damaged_archives_give_an_error_or_files_inside(tmp_path: Path, mode: str) -> None:
    members = [(f"d/{i}.txt", os.urandom(50) * 10) for i in range(20)]
    path = tmp_path / "packed"
    archive = zip_of(path, *members) if mode == "zip" else tar_of(path, *members, mode=mode)
    original, rng = archive.read_bytes(), random.Random(1)
    for number in range(60):
        data = bytearray(original if number % 3 else original[: rng.randrange(1, len(original))])
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        archive.write_bytes(data)
        target = tmp_path / "in" / f"{number}"
        target.mkdir(parents=True)
        try:
            unpack(archive, target, limits=SMALL)
        except DatasetError as error:
            assert error.accepted or error.seen  # noqa: PT017
    assert {path.name for path in tmp_path.iterdir()} == {"packed", "in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {f"{number}" for number in range(60)}


def test_a_tar_whose_end_is_missing_is_no_smaller_tar(tmp_path: Path, target: Path) -> None:
    """Python takes a broken header, or none, for the end: the members behind it would be lost without a word."""
    whole = tar_of(tmp_path / "x.tar", *((f"{n}.txt", b"x" * 100) for n in range(4))).read_bytes()
    for number, damaged in enumerate((whole[:1024], whole[:1300], whole[:1024] + b"y" * 512 + whole[1536:])):
        (tmp_path / "x.tar").write_bytes(damaged)
        (target / f"{number}").mkdir()
        with pytest.raises(DatasetError, match="damaged, or ends too early"):
            unpack(tmp_path / "x.tar", target / f"{number}")


def test_decompress(tmp_path: Path) -> None:
    for mode in ("gz", "bz2", "xz"):
        archive = tar_of(tmp_path / f"x.tar.{mode}", ("a", b"1"), mode=f"w:{mode}")
        decompress(archive, tmp_path / f"{mode}.tar")
        with tarfile.open(tmp_path / f"{mode}.tar", "r:") as plain:
            assert plain.getnames() == ["a"]
    with pytest.raises(DatasetError, match="not compressed with gzip"):
        decompress(tar_of(tmp_path / "x.tar", ("a", b"1")), tmp_path / "y")


def _photos(path: Path) -> Path:
    make_tar(path, {f"{label}/{n}.png": picture(n) for n, label in enumerate(("a", "b", "a", "b"))}, "w:gz")
    return path


def test_an_archive_is_unpacked_once_for_each_content(tmp_path: Path) -> None:
    archive = _photos(tmp_path / "photos.tar.gz")
    first = read(archive, cache=tmp_path / "cache")
    inode = (first.root / first.records[0].path).stat().st_ino
    copy = tmp_path / "copy.tar.gz"
    copy.write_bytes(archive.read_bytes())
    second = read(copy, cache=tmp_path / "cache")
    assert second.root == first.root
    assert (second.root / second.records[0].path).stat().st_ino == inode
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1


def test_a_kill_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    members = {f"{'ab'[n % 2]}/{n}.png": picture(n % 50) + str(n).encode() for n in range(4000)}
    make_tar(tmp_path / "photos.tar.gz", members, "w:gz")
    code = "import pathlib, sys; from autodl_ray.data.formats import read\n"
    code += "read(sys.argv[1], cache=pathlib.Path(sys.argv[2]))"
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "photos.tar.gz", tmp_path / "cache"])
    unpacked = tmp_path / "cache" / "unpacked"
    while child.poll() is None and not list(unpacked.glob(".*/a/*")):
        time.sleep(0.002)
    child.kill()
    assert child.wait() != 0, "the child was too quick for this test"
    assert not list(unpacked.glob("[!.]*"))
    assert len(read(tmp_path / "photos.tar.gz", cache=tmp_path / "cache").records) == 4000
    left = next(unpacked.glob(".*"))
    os.utime(left, (0, 0))
    make_tar(tmp_path / "more.tar.gz", dict(list(members.items())[:9]), "w:gz")
    assert len(read(tmp_path / "more.tar.gz", cache=tmp_path / "cache").records) == 9
    assert not left.exists()  # a day later it is swept


def test_several_at_once_unpack_one_folder(tmp_path: Path) -> None:
    archive = _photos(tmp_path / "photos.tar.gz")
    with ThreadPoolExecutor(4) as pool:
        listings = list(pool.map(lambda _: read(archive, cache=tmp_path / "cache"), range(8)))
    assert all(len(listing.records) == 4 and listing.root == listings[0].root for listing in listings)
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    archive = _photos(tmp_path / "photos.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="damaged"):
        read(archive, cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "unpacked").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match="cache cannot be written"):
        read(_photos(tmp_path / "photos.tar.gz"), cache=tmp_path / "cache")
