"""The stream on Ray: the same batches as without it, beside training that reserves nearly everything."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream import STREAM_CPUS, StreamSource, execution
from autodl_ray.errors import DatasetError
from autodl_ray.images import Preprocess
from autodl_ray.train.config import FitConfig
from autodl_ray.train.launch import launch
from tests.data.stream.streams import digits_version, photo_splits, taken

pytestmark = pytest.mark.ray
PREPROCESS = Preprocess(size=8)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return digits_version(tmp_path_factory.mktemp("digits"))


def make(version: DatasetVersion, *, kept: bool) -> StreamSource:
    limit = 2**30 if kept else 0
    source = StreamSource.make(version.train, version.val, PREPROCESS, seed=3, memory_limit_bytes=limit)
    assert source.is_streamed is not kept
    return source


def without_ray(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int, str]]]:
    with monkeypatch.context() as patch:
        patch.setattr(execution, "ray_is_on", lambda: False)
        return taken(make(version, kept=False), stop=3)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_what_threads_give(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_ray(version, monkeypatch)
    streamed = make(version, kept=False)
    assert taken(streamed, stop=3) == expected
    assert taken(streamed, start=2, stop=3, skip_batches=1) == [expected[2][16:]]
    assert taken(make(version, kept=True), stop=3) == expected
    ids = np.concatenate([batch.ids for batch in streamed.val_batches(batch_size=9)])
    assert np.array_equal(ids, version.val.ids)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kept", [True, False])
def test_in_an_actor_that_reserves_all_but_what_the_stream_needs(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    import ray

    source = make(version, kept=kept)
    assert source.cpus_needed == (0 if kept else STREAM_CPUS)

    class Trial:
        def take(self, source: StreamSource) -> Any:
            return taken(source, stop=3)

    cpus = ray.cluster_resources()["CPU"] - STREAM_CPUS  # type: ignore[no-untyped-call]
    remote: Any = ray.remote(num_cpus=cpus)(Trial)
    actor = remote.remote()
    try:
        assert ray.get(actor.take.remote(source), timeout=60) == without_ray(version, monkeypatch)
    finally:
        ray.kill(actor)


@pytest.mark.usefixtures("ray_cluster")
def test_a_broken_picture_in_a_task(tmp_path: Path) -> None:
    version = digits_version(tmp_path)
    source = make(version, kept=False)
    broken = version.train.paths[7]
    (version.train.root / broken).write_bytes(b"")
    assert len(taken(source, stop=1)[0]) == len(version.train) - 1
    assert source.unreadable == {broken: "The picture is empty (0 bytes)."}
    for path in version.train.paths[:60]:
        (version.train.root / path).write_bytes(b"")
    with pytest.raises(DatasetError, match="pictures could not be read"):
        taken(source, stop=1)


@pytest.mark.usefixtures("ray_cluster")
def test_a_closed_stream_stops_its_tasks(version: DatasetVersion) -> None:
    import ray

    epochs = make(version, kept=False).train_epochs(
        start=0, stop=500, batch_size=16, augment=AugmentPolicy.parse("light")
    )
    next(next(epochs))
    epochs.close()  # type: ignore[attr-defined]
    whole = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
    ends = time.monotonic() + 10
    while time.monotonic() < ends and ray.available_resources().get("CPU") != whole:  # type: ignore[no-untyped-call]
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == whole  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kept", [True, False])
def test_photos_in_an_actor_beside_another(tmp_path: Path, kept: bool) -> None:
    import ray

    splits = photo_splits(tmp_path)
    source = StreamSource.make(*splits, Preprocess(size=32), seed=3, memory_limit_bytes=2**28 if kept else 0)
    expected = taken(source, stop=3)

    class Trial:
        def take(self, source: StreamSource) -> Any:
            return taken(source, stop=3)

    cpus = (ray.cluster_resources()["CPU"] - STREAM_CPUS) / 2  # type: ignore[no-untyped-call]
    remote: Any = ray.remote(num_cpus=cpus)(Trial)
    actors = [remote.remote() for _ in range(2)]
    try:
        assert ray.get([actor.take.remote(source) for actor in actors], timeout=60) == [expected, expected]
    finally:
        for actor in actors:
            ray.kill(actor)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_task_is_done_again(tmp_path: Path) -> None:
    import psutil

    splits = photo_splits(tmp_path, train=150)
    source = StreamSource.make(*splits, Preprocess(size=32), seed=3, memory_limit_bytes=0)
    expected = taken(source, stop=20)
    killed: list[int] = []
    rows: list[list[int]] = []
    for epoch in source.train_epochs(start=0, stop=20, batch_size=16, augment=AugmentPolicy.parse("light")):
        rows.append([int(i) for batch in epoch for i in batch.ids])
        for process in psutil.Process().children(recursive=True):
            if len(killed) == 2:
                break
            with suppress(psutil.NoSuchProcess):  # it ended since the list was made
                if process.name() == "ray::_run":
                    process.kill()
                    killed.append(process.pid)
    assert killed
    assert rows == [[i for i, _, _ in epoch] for epoch in expected]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_kept_photos_in_a_worker_group(tmp_path: Path) -> None:
    source = StreamSource.make(*photo_splits(tmp_path), Preprocess(size=32), seed=3, memory_limit_bytes=2**28)
    assert not source.is_streamed
    config = FitConfig(
        model="pixels",
        num_classes=3,
        preprocess=source.preprocess,
        weights="none",
        epochs=2,
        batch_size=12,
        augment="light",
        dropout=0.0,
        precision="32",
    )
    rows: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for workers, found in rows.items():
        launch(
            config,
            source,
            folder=tmp_path / str(workers),
            num_workers=workers,
            resources_per_worker={"CPU": 0.5},
            report=found.append,
            should_stop=lambda: False,
        )
    for one, two in zip(rows[1], rows[2], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert 0 <= two["data_wait"] <= 1
