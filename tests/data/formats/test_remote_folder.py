"""A folder on an S3 server: fetched once, brought up to date, and fetched on after a stop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from autodl_ray.data.formats import detect, read, remote_folder
from autodl_ray.data.formats.remote_folder import fetch_folder, is_remote
from autodl_ray.errors import DatasetError, StoreError
from tests.data.formats.makers import content, imagefolder, make_tar, picture, voc


@dataclass
class Bucket:
    """A bucket on the server."""

    client: Any
    name: str
    address: str

    def uri(self, prefix: str = "photos") -> str:
        return f"s3://{self.name}/{prefix}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def put_folder(self, folder: Path, prefix: str = "photos") -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real S3 server in a thread."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    """An empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3", endpoint_url=f"http://{server}", region_name="us-east-1")
    name = f"bucket-{abs(hash(request.node.name))}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name, server)


def test_only_what_is_missing_or_changed_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    truth = imagefolder(tmp_path / "data", ("cat", "dog"))
    bucket.put_folder(tmp_path / "data")
    seen: list[tuple[int, int]] = []
    first = fetch_folder(bucket.uri(), tmp_path / "cache", done=lambda count, total: seen.append((count, total)))
    assert (first.files, first.fetched, first.removed) == (8, 8, 0)
    assert first.bytes == sum(map(len, truth.pictures))
    assert seen == [(i, 8) for i in range(1, 9)]
    again = fetch_folder(bucket.uri(), tmp_path / "cache")
    assert (again.folder, again.files, again.fetched) == (first.folder, 8, 0)

    bucket.put("photos/train/cat/p 0.png", picture(77) + b"another size")
    bucket.put("photos/train/dog/new.png", picture(78))
    bucket.client.delete_object(Bucket=bucket.name, Key="photos/train/cat/p 2.png")
    (first.folder / "val" / "cat" / "p 4.png").write_bytes(b"changed here")
    third = fetch_folder(bucket.uri(), tmp_path / "cache")
    assert (third.files, third.fetched, third.removed) == (8, 3, 1)
    assert (third.folder / "train/cat/p 0.png").read_bytes().endswith(b"another size")
    assert (third.folder / "val/cat/p 4.png").read_bytes() == picture(4)
    assert not (third.folder / "train/cat/p 2.png").exists()


def test_reading_it_like_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    truth = voc(tmp_path / "data", ("cat", "dog"))
    bucket.put_folder(tmp_path / "data")
    found = detect(bucket.uri(), cache=tmp_path / "cache")
    assert (found.format, found.opened) == (
        "voc",
        "remote folder, 19 of 19 files fetched",
    )
    shutil.rmtree(tmp_path / "data")
    listing = read(bucket.uri(), cache=tmp_path / "cache")
    assert content(listing) == truth.pictures
    assert listing.notes[0] == "remote folder, 0 of 19 files fetched"


def test_an_archive_on_a_store(bucket: Bucket, tmp_path: Path) -> None:
    make_tar(tmp_path / "x.tar.gz", {f"{'ab'[n % 2]}/{n}.png": picture(n) for n in range(6)}, "w:gz")
    bucket.put("packed/photos.tar.gz", (tmp_path / "x.tar.gz").read_bytes())
    assert len(read(bucket.uri("packed"), cache=tmp_path / "cache").records) == 6


def test_addresses_of_cos(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("photos/a/1.png", picture(1))
    uri = bucket.uri().replace("s3://", "cos://") + "&addressing=path"
    assert fetch_folder(uri, tmp_path / "cache").files == 1
    assert fetch_folder(uri.replace("cos://", "oss://key:se%2Fcret@"), tmp_path / "other").files == 1
    files, base = remote_folder._connect("cos://photos-1250000000/a/b?region=ap-guangzhou")
    assert base == "photos-1250000000/a/b"
    assert files.region == "ap-guangzhou"
    for wrong, message in (("cos://b/x", "the region is missing"), ("cos://b/x?region=r&no=1", "unknown options: no")):
        with pytest.raises(DatasetError, match="not usable") as caught:
            fetch_folder(wrong, tmp_path / "cache")
        assert message in str(caught.value)


def test_a_bucket_for_everyone(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="photos/a/1.png", Body=picture(1), ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert fetch_folder(f"{bucket.uri()}&anonymous=true", tmp_path / "cache").files == 1


def test_a_fetch_that_was_stopped_goes_on(bucket: Bucket, tmp_path: Path) -> None:
    imagefolder(tmp_path / "data", ("cat", "dog"))
    bucket.put_folder(tmp_path / "data")

    def stop(count: int, total: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_folder(bucket.uri(), tmp_path / "cache", threads=1, done=stop)
    left = next((tmp_path / "cache" / "remote").iterdir())
    (left / "train" / ".fetch-killed").write_bytes(b"half a file")
    done = fetch_folder(bucket.uri(), tmp_path / "cache")
    assert done.files == 8
    assert 0 < done.fetched <= 5
    assert done.removed == 0
    assert not list(done.folder.rglob(".fetch-*"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a/../b.png"], "cannot be a file here|cannot be fetched|cannot be listed"),
        (["a//b.png"], "cannot be a file here|holds no files"),
        (["a/b\\c.png"], "cannot be a file here"),
        (["a", "a/b.png"], "is a file and a folder"),
    ],
)
def test_names_that_are_no_files(bucket: Bucket, tmp_path: Path, keys: list[str], message: str) -> None:
    for key in keys:
        bucket.put(f"photos/{key}", b"x")
    with pytest.raises(DatasetError, match=message):
        fetch_folder(bucket.uri(), tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_not_there(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be listed|holds no files") as caught:
        read(bucket.uri("nothing"), cache=tmp_path / "cache")
    assert bucket.name in str(caught.value)
    uri = f"s3://key:hidden@no-such-bucket/x?endpoint_override={bucket.address}&scheme=http&region=us-east-1"
    with pytest.raises(DatasetError, match="cannot be listed"):
        read(uri, cache=tmp_path / "cache")
    with pytest.raises(DatasetError, match="address of a remote folder is not usable") as caught:
        read("s3://key:hidden@bucket/x?no_such_option=1", cache=tmp_path / "cache")
    assert "hidden" not in str(caught.value)


def test_a_file_that_changes_meanwhile_is_no_half_file(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("photos/a/1.png", picture(1))
    listed = remote_folder._list

    def changed_after(uri: str, files: Any, base: str) -> Any:
        found = listed(uri, files, base)
        bucket.put("photos/a/1.png", picture(1) + b"longer")
        return found

    monkeypatch.setattr(remote_folder, "_list", changed_after)
    with pytest.raises(StoreError, match="cannot be fetched") as caught:
        fetch_folder(bucket.uri(), tmp_path / "cache")
    assert "it was changed meanwhile" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_remote() -> None:
    assert is_remote("s3://bucket/x")
    assert is_remote("cos://bucket/x?endpoint_override=cos.ap-guangzhou.myqcloud.com")
    assert not is_remote("photos/")
    assert not is_remote(Path("s3"))
