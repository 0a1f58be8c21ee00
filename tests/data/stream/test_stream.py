"""The stream without Ray: kept pictures and threads give the same batches, once an epoch, again after a resume."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream import StreamSource, execution
from autodl_ray.errors import DatasetError
from autodl_ray.images import Preprocess, decode_image, fit_image
from tests.data.stream.streams import digits_version, taken

PREPROCESS = Preprocess(size=8)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of the session may have started Ray: these are about a process without it."""
    monkeypatch.setattr(execution, "ray_is_on", lambda: False)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return digits_version(tmp_path_factory.mktemp("digits"))


def make(version: DatasetVersion, *, kept: bool, preprocess: Preprocess = PREPROCESS, seed: int = 3) -> StreamSource:
    limit = 2**30 if kept else 0
    source = StreamSource.make(version.train, version.val, preprocess, seed=seed, memory_limit_bytes=limit)
    assert source.is_streamed is not kept
    return source


@pytest.mark.parametrize("augment", ["none", "light", "strong"])
@pytest.mark.parametrize("size", [8, 20])
def test_both_modes_give_the_same_pixels(version: DatasetVersion, augment: str, size: int) -> None:
    preprocess = Preprocess(size=size, fit="pad")
    one, two = (taken(make(version, kept=kept, preprocess=preprocess), augment) for kept in (True, False))
    assert one == two
    labels = dict(zip(version.train.ids.tolist(), version.train.labels.tolist(), strict=True))
    for epoch in one:
        assert sorted(i for i, _, _ in epoch) == sorted(labels)
        assert all(labels[i] == y for i, y, _ in epoch)


@pytest.mark.parametrize("kept", [True, False])
def test_epochs_differ_in_order_and_pixels(version: DatasetVersion, kept: bool) -> None:
    first, second = taken(make(version, kept=kept))
    assert [i for i, _, _ in first] != [i for i, _, _ in second]
    pixels = {i: digest for i, _, digest in first}
    changed = sum(pixels[i] != digest for i, _, digest in second)
    assert changed > 0.8 * len(first)


@pytest.mark.parametrize("kept", [True, False])
def test_resuming_gives_what_an_unbroken_run_gives(version: DatasetVersion, kept: bool) -> None:
    source = make(version, kept=kept)
    whole = taken(source, stop=3)
    assert taken(source, start=1, stop=3) == whole[1:]
    assert taken(source, start=1, stop=3, skip_batches=2) == [whole[1][32:], whole[2]]
    assert taken(make(version, kept=kept, seed=4), stop=1) != whole[:1]


@pytest.mark.parametrize("kept", [True, False])
def test_workers_get_the_slices_of_the_same_batches(version: DatasetVersion, kept: bool) -> None:
    source = make(version, kept=kept)
    whole = taken(source, stop=1)[0]
    ranks = [taken(source, stop=1, rank=rank, world_size=2)[0] for rank in range(2)]
    together = [row for step in range(0, len(whole), 16) for part in ranks for row in part[step // 2 : step // 2 + 8]]
    assert together[: len(whole) // 16 * 16] == whole[: len(whole) // 16 * 16]
    assert sorted(ranks[0] + ranks[1]) == sorted(whole)


@pytest.mark.parametrize("kept", [True, False])
def test_a_smaller_side(version: DatasetVersion, kept: bool) -> None:
    source = make(version, kept=kept)
    for augment in ("none", "light"):
        epochs = source.train_epochs(start=0, stop=1, batch_size=16, augment=AugmentPolicy.parse(augment), image_size=6)
        batch = next(next(epochs))
        assert batch.images.shape == (16, 6, 6, 3)
        assert batch.images.flags.writeable
        assert batch.images.flags.c_contiguous


@pytest.mark.parametrize("kept", [True, False])
def test_validation_is_whole_and_plain(version: DatasetVersion, kept: bool) -> None:
    preprocess = Preprocess(size=11)
    source = make(version, kept=kept, preprocess=preprocess)
    batches = list(source.val_batches(batch_size=7))
    assert np.array_equal(np.concatenate([b.ids for b in batches]), version.val.ids)
    assert np.array_equal(np.concatenate([b.labels for b in batches]), version.val.labels)
    plain = [fit_image(decode_image(version.val.read(i)), size=11, fit="stretch") for i in range(len(version.val))]
    assert np.array_equal(np.concatenate([b.images for b in batches]), np.stack(plain))
    parts = [b.ids for rank in range(2) for b in source.val_batches(batch_size=7, rank=rank, world_size=2)]
    assert np.array_equal(np.concatenate(parts), version.val.ids)


def test_the_test_split_is_refused(version: DatasetVersion, tmp_path: Path) -> None:
    test = version.test.open(tmp_path / "opened.json", purpose="a test")
    with pytest.raises(DatasetError, match="training stream does not take this split") as caught:
        StreamSource.make(test, version.val, PREPROCESS, seed=0)  # type: ignore[arg-type]
    assert "TestSamples" in str(caught.value)
    with pytest.raises(DatasetError, match="validation stream does not take"):
        StreamSource.make(version.train, test, PREPROCESS, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [True, False])
def test_a_picture_that_breaks_costs_that_picture_only(tmp_path: Path, kept: bool) -> None:
    version = digits_version(tmp_path)
    broken, gone = version.train.paths[3], version.train.paths[5]
    before = None if kept else taken(make(version, kept=False), stop=1)[0]
    (version.train.root / broken).write_bytes(b"not a picture")
    (version.train.root / gone).unlink()
    source = make(version, kept=kept)
    rows = taken(source, stop=1)[0]
    lost = {int(version.train.ids[3]), int(version.train.ids[5])}
    assert {i for i, _, _ in rows} == set(version.train.ids.tolist()) - lost
    assert source.unreadable == {
        broken: "This is not a picture.",
        gone: "The file cannot be read: No such file or directory.",
    }
    if before is not None:
        assert rows == [row for row in before if row[0] not in lost]


@pytest.mark.parametrize("kept", [True, False])
def test_too_many_broken_pictures(tmp_path: Path, kept: bool) -> None:
    version = digits_version(tmp_path)
    for path in version.train.paths[:40]:
        (version.train.root / path).write_bytes(b"")
    with pytest.raises(DatasetError, match="pictures could not be read") as caught:
        taken(make(version, kept=kept))
    assert "at most 20%" in str(caught.value)


def test_pickling_keeps_the_stream(version: DatasetVersion) -> None:
    for kept in (True, False):
        source = make(version, kept=kept)
        assert taken(pickle.loads(pickle.dumps(source))) == taken(source)


def test_dropping_the_stream_ends_its_threads(version: DatasetVersion) -> None:
    for kept in (True, False):
        epochs = make(version, kept=kept).train_epochs(
            start=0, stop=1000, batch_size=16, augment=AugmentPolicy.parse("light")
        )
        next(next(epochs))
        del epochs
    ends = time.monotonic() + 5
    while time.monotonic() < ends and any(t.name.startswith(("feed", "stream")) for t in threading.enumerate()):
        time.sleep(0.05)
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("feed", "stream"))]


def test_an_epoch_may_be_left_early(version: DatasetVersion) -> None:
    source = make(version, kept=True)
    whole = taken(source)
    epochs = source.train_epochs(start=0, stop=2, batch_size=16, augment=AugmentPolicy.parse("light"))
    next(next(epochs))
    assert [int(i) for batch in next(epochs) for i in batch.ids] == [i for i, _, _ in whole[1]]


def test_what_is_known_beforehand(version: DatasetVersion) -> None:
    source = make(version, kept=True)
    assert (source.num_train, source.num_val, source.num_classes) == (len(version.train), len(version.val), 10)
    assert source.steps_per_epoch(16) == len(
        list(next(source.train_epochs(start=0, stop=1, batch_size=16, augment=AugmentPolicy.parse("none"))))
    )
    assert source.cpus_needed == 0
