"""Bringing data sets into a store: the same with Ray and without, once, and again from where it was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from autodl_ray.artifacts import Store
from autodl_ray.cli import app
from autodl_ray.cli.console import Console
from autodl_ray.data.formats import read
from autodl_ray.data.ingest import chunks_of, ingest
from autodl_ray.data.objects import Packs
from autodl_ray.errors import StoreError
from autodl_ray.runtime.cluster import ClusterInfo
from tests.data.conftest import write_picture
from tests.data.formats.makers import MAKERS


def blobs(store: Store) -> set[bytes]:
    packs = Packs(store)
    return {packs.read(blob) for blob in packs.locate().values()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(40):
        write_picture(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number % 30)
    time.sleep(0.12)  # what was read within 0.1 s of its writing is not remembered
    return tmp_path / "photos"


@pytest.mark.parametrize("use_ray", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_every_picture_is_in_a_pack_once(
    folder: Path, tmp_path: Path, use_ray: bool, request: pytest.FixtureRequest
) -> None:
    if use_ray:
        request.getfixturevalue("ray_cluster")
    store = Store(tmp_path / "store")
    listing = read(folder, cache=tmp_path / "cache")
    seen: list[tuple[int, int]] = []
    done = ingest(
        listing, store=store, chunk_bytes=2000, use_ray=use_ray, done=lambda count, total: seen.append((count, total))
    )
    assert [fact.sha256 for fact in done.facts] == [
        hashlib.sha256(listing.read(record)).hexdigest() for record in listing.records
    ]
    assert blobs(store) == {listing.read(record) for record in listing.records}
    assert len(blobs(store)) == 30
    assert (done.read, done.tasks > 3) == (40, True)
    assert done.added >= 30  # two tasks at once may both write the same bytes
    assert seen[-1] == (40, 40)
    again = ingest(listing, store=store, use_ray=use_ray)
    assert (again.added, again.read, again.tasks) == (0, 0, 0)
    assert again.facts == done.facts


def test_what_was_stopped_goes_on(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    listing = read(folder, cache=tmp_path / "cache")

    def stop(count: int, total: int) -> None:
        if count >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(listing, store=store, chunk_bytes=2000, done=stop, use_ray=False)
    half = len(blobs(store))
    assert 0 < half < 30
    done = ingest(listing, store=store, chunk_bytes=2000, use_ray=False)
    assert done.added == 30 - half
    assert blobs(store) == {listing.read(record) for record in listing.records}


def test_a_picture_that_cannot_be_read_is_a_row_with_its_problem(folder: Path, tmp_path: Path) -> None:
    listing = read(folder, cache=tmp_path / "cache")
    (folder / listing.records[3].path).unlink()
    done = ingest(listing, store=Store(tmp_path / "store"), use_ray=False)
    assert len(done.facts) == 40
    assert done.facts[3].problem == "The file cannot be read: No such file or directory."
    assert not done.facts[3].sha256


@pytest.mark.parametrize("case", ["parquet", "idx", "webdataset"])
def test_parts_of_files(case: str, tmp_path: Path) -> None:
    truth = MAKERS[case][1](tmp_path / "data", ("cat", "dog"))
    listing = read(tmp_path / "data", cache=tmp_path / "cache")
    store = Store(tmp_path / "store")
    ingest(listing, store=store, use_ray=False)
    shutil.rmtree(tmp_path / "data")
    assert blobs(store) == truth.pictures.keys()


def test_chunks_hold_every_position_once(folder: Path, tmp_path: Path) -> None:
    listing = read(folder, cache=tmp_path / "cache")
    positions = list(range(0, 40, 3))
    chunks = list(chunks_of(listing, positions, store=Store(tmp_path / "s"), decode=False, chunk_bytes=1500))
    assert [position for chunk in chunks for position in chunk.positions] == positions
    assert len(chunks) > 2
    assert all(chunk.records == tuple(listing.records[i] for i in chunk.positions) for chunk in chunks)


@pytest.mark.ray
def test_a_snapshot_with_ray_is_the_same_version(
    folder: Path, tmp_path: Path, ray_cluster: ClusterInfo, capfd: pytest.CaptureFixture[str]
) -> None:
    versions = []
    for number, options in enumerate(([], ["--ray"])):
        words = ["data", "snapshot", str(folder), "--json", "--store", str(tmp_path / f"store {number}"), *options]
        with closing(Console(json_output=True)) as console:
            app()(words, standalone_mode=False, obj=console)
        versions.append(json.loads(capfd.readouterr().out))
    assert versions[0]["version"] == versions[1]["version"]
    assert [version["copied"] for version in versions] == [30, 0]  # the ingest has copied them
    assert blobs(Store(tmp_path / "store 0")) == blobs(Store(tmp_path / "store 1"))


@pytest.mark.ray
def test_an_error_of_a_task_is_told_as_it_is(folder: Path, tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    store = Store(tmp_path / "store")
    listing = read(folder, cache=tmp_path / "cache")
    Packs(store)
    packs = tmp_path / "store" / "objects" / "packs"
    shutil.rmtree(packs)
    packs.write_text("no folder")
    with pytest.raises(StoreError):
        ingest(listing, store=store, use_ray=True)


def test_a_store_that_is_far_is_refused(folder: Path, tmp_path: Path) -> None:
    listing = read(folder, cache=tmp_path / "cache")
    with pytest.raises(StoreError, match="local store"):
        ingest(listing, store=Store("mock://somewhere"), use_ray=False)
