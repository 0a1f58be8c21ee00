"""Photos in the stream: kept or not, in files or in a tar, with Ray or without it, the batches are the same."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.augment import AugmentPolicy
from autodl_ray.data.stream import Batch, StreamSource, execution
from autodl_ray.data.stream.blocks import BlockData
from autodl_ray.errors import DatasetError
from autodl_ray.images import Preprocess, decode_image, fit_image
from tests.data.stream.streams import box_splits, in_tar, photo_splits, taken

PREPROCESS = Preprocess(size=40)
Splits = tuple[TrainSamples, ValSamples]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return photo_splits(tmp_path_factory.mktemp("photos"))


@pytest.fixture(params=["threads", pytest.param("ray", marks=pytest.mark.ray)])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Without Ray and with it."""
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    else:
        monkeypatch.setattr(execution, "ray_is_on", lambda: False)
    return str(request.param)


def make(splits: Splits, *, kept: bool, preprocess: Preprocess = PREPROCESS) -> StreamSource:
    limit = 2**28 if kept else 0
    source = StreamSource.make(*splits, preprocess, seed=5, memory_limit_bytes=limit)
    assert source.is_streamed is not kept
    assert source.cpus_needed > 0
    return source


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("augment", ["none", "light"])
def test_kept_photos_are_those_that_are_decoded_again(photos: Splits, augment: str, tmp_path: Path) -> None:
    streamed = taken(make(photos, kept=False), augment, stop=3)
    kept = make(photos, kept=True)
    assert taken(kept, augment, stop=3) == streamed
    assert taken(kept, augment, start=2, stop=3, skip_batches=1) == [streamed[2][16:]]
    assert taken(pickle.loads(pickle.dumps(kept)), augment, stop=1) == streamed[:1]
    packed = in_tar(photos[0], tmp_path / "shard.tar")
    for keep in (True, False):
        assert taken(make((packed, photos[1]), kept=keep), augment, stop=3) == streamed
    for epoch in streamed:
        assert sorted(i for i, _, _ in epoch) == photos[0].ids.tolist()
    different = len({digest for epoch in streamed for _, _, digest in epoch})
    assert different == 50 if augment == "none" else different > 140


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kept", [True, False])
def test_a_smaller_side_has_the_pixels_of_every_mode(photos: Splits, kept: bool) -> None:
    expected = taken(make(photos, kept=False), stop=2, image_size=24)
    assert taken(make(photos, kept=kept), stop=2, image_size=24) == expected


@pytest.mark.usefixtures("runner")
def test_no_file_is_read_after_the_first_epoch(tmp_path: Path) -> None:
    splits = photo_splits(tmp_path)
    expected = taken(make(splits, kept=False), stop=3)
    source = make(splits, kept=True)
    assert taken(source, stop=1) == expected[:1]
    validation = [batch.images for batch in source.val_batches(batch_size=4)]
    shutil.rmtree(splits[0].root)
    assert taken(source, start=1, stop=3) == expected[1:]
    again = [batch.images for batch in source.val_batches(batch_size=4)]
    assert np.array_equal(np.concatenate(validation), np.concatenate(again))
    assert source.unreadable == {}


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("packed", [True, False])
def test_what_breaks_between_epochs_costs_that_picture_only(tmp_path: Path, packed: bool) -> None:
    train, val = photo_splits(tmp_path)
    if packed:
        train = in_tar(train, tmp_path / "shard.tar")
    source = make((train, val), kept=False)
    whole = taken(source, stop=3)
    if packed:
        assert train.where is not None
        with (tmp_path / "shard.tar").open("r+b") as file:
            file.seek(int(train.where.offset[4]))
            file.write(bytes(50))
    else:
        (train.root / train.paths[4]).unlink()
    lost = int(train.ids[4])
    assert taken(source, start=1, stop=3) == [[row for row in epoch if row[0] != lost] for epoch in whole[1:]]
    assert list(source.unreadable) == [train.paths[4]]


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kept", [True, False])
def test_a_broken_photo_at_the_start(tmp_path: Path, kept: bool) -> None:
    splits = photo_splits(tmp_path)
    train, val = splits
    (train.root / train.paths[2]).write_bytes(b"no picture")
    (val.root / val.paths[1]).unlink()
    source = make(splits, kept=kept)
    for epoch in taken(source, stop=2):
        assert {i for i, _, _ in epoch} == set(train.ids.tolist()) - {int(train.ids[2])}
    ids = [int(i) for batch in source.val_batches(batch_size=3) for i in batch.ids]
    assert ids == [int(i) for i in val.ids if i != val.ids[1]]
    assert source.unreadable == {
        train.paths[2]: "This is not a picture.",
        val.paths[1]: "The file cannot be read: No such file or directory.",
    }


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_worker_count_sees_every_row_once(photos: Splits, kept: bool, world_size: int) -> None:
    source = make(photos, kept=kept)
    ranks = [taken(source, rank=rank, world_size=world_size, batch_size=12) for rank in range(world_size)]
    for epoch in range(2):
        assert sorted(i for rank in ranks for i, _, _ in rank[epoch]) == photos[0].ids.tolist()
    parts = [source.val_batches(batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = [batch for part in parts for batch in part]
    assert [int(i) for batch in batches for i in batch.ids] == photos[1].ids.tolist()
    plain = [fit_image(decode_image(photos[1].read(i)), size=40, fit="stretch") for i in range(len(photos[1]))]
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), np.stack(plain))


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kept", [True, False])
def test_an_epoch_without_its_rows_is_an_error(photos: Splits, kept: bool) -> None:
    epochs = list(
        make(photos, kept=kept).train_epochs(start=0, stop=2, batch_size=8, augment=AugmentPolicy.parse("light"))
    )
    with pytest.raises(DatasetError, match="Epoch 0 of the stream ended after 0 of 50 pictures"):
        list(epochs[0])


def test_a_task_that_loses_rows_is_an_error(photos: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodl_ray.data.stream.job import Job

    monkeypatch.setattr(execution, "ray_is_on", lambda: False)
    whole = Job.run

    def half(self: Job, *arguments: object) -> BlockData:
        data = whole(self, *arguments)  # type: ignore[arg-type]
        return data.part(slice(0, len(data) // 2))

    monkeypatch.setattr(Job, "run", half)
    with pytest.raises(DatasetError, match="pictures of a block came back"):
        taken(make(photos, kept=False), stop=1)


@pytest.mark.usefixtures("runner")
def test_what_does_not_fit_is_not_kept(photos: Splits) -> None:
    for limit, kept in ((2**28, True), (2_000_000, False)):
        source = StreamSource.make(*photos, PREPROCESS, seed=5, memory_limit_bytes=limit)
        assert source.is_streamed is not kept
        assert len(list(source.val_batches(batch_size=4))) == 3


@pytest.mark.usefixtures("runner")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_boxes_stay_around_their_colours(tmp_path: Path, kept: bool, fit: str) -> None:
    splits = box_splits(tmp_path)
    source = make(splits, kept=kept, preprocess=Preprocess(size=64, fit=fit))  # type: ignore[arg-type]
    plain = list(source.val_batches(batch_size=3))
    augmented = [
        batch
        for epoch in source.train_epochs(start=0, stop=2, batch_size=7, augment=AugmentPolicy.parse("light"))
        for batch in epoch
    ]
    assert sum(check_boxes(batch) for batch in plain) == 3 * 7
    assert sum(check_boxes(batch) for batch in augmented) > 2 * 3 * 21 * 0.7
    other = make(splits, kept=not kept, preprocess=source.preprocess)
    epochs = other.train_epochs(start=0, stop=2, batch_size=7, augment=AugmentPolicy.parse("light"))
    for one, two in zip(augmented, [batch for epoch in epochs for batch in epoch], strict=True):
        assert one.boxes is not None
        assert two.boxes is not None
        assert all(np.array_equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))


def check_boxes(batch: Batch) -> int:
    """Compare each box with where its colour is; return how many there are."""
    assert batch.boxes is not None
    assert batch.box_labels is not None
    found = 0
    for image, boxes, labels in zip(batch.images.astype(int), batch.boxes, batch.box_labels, strict=True):
        assert boxes.dtype == np.float32
        assert boxes.shape == (len(labels), 4)
        for box, label in zip(boxes, labels, strict=True):
            others = np.delete(image, label, axis=2).max(axis=2)
            rows, columns = np.nonzero(image[..., label] - others > 50)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(box - around).max() <= 2.5, (box, around)
            found += 1
    return found


def test_pictures_without_boxes_have_none(photos: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "ray_is_on", lambda: False)
    assert next(make(photos, kept=True).val_batches(batch_size=4)).boxes is None
