"""Balanced epochs of the stream: the same in every mode, for every number of workers, after a resume."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import TrainSamples, ValSamples
from autodl_ray.data.samples import write_digits
from autodl_ray.data.stream import StreamSource, execution
from autodl_ray.images import Preprocess
from tests.data.stream.streams import taken

SCALE = 9  # 72 px a side: photos, not tiny pictures


@pytest.fixture(autouse=True)
def no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of the session may have started Ray: most of these are about a process without it."""
    if request.node.get_closest_marker("ray") is None:
        monkeypatch.setattr(execution, "ray_is_on", lambda: False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainSamples, ValSamples]:
    """Zeros in plenty, a few ones, and four twos."""
    root = write_digits(tmp_path_factory.mktemp("digits"), n=600, scale=SCALE)
    names = [sorted(p.relative_to(root).as_posix() for p in root.glob(f"{c}/*.png")) for c in "012"]
    train = [*names[0][:40], *names[1][:10], *names[2][:4]]
    val = [path for paths in names for path in paths[-5:]]
    kinds = []
    for kind, paths in ((TrainSamples, train), (ValSamples, val)):
        labels = np.array([int(path[0]) for path in paths], dtype=np.int64)
        kinds.append(kind(Path(root), np.arange(len(paths)), tuple(paths), labels, ("0", "1", "2")))
    return kinds[0], kinds[1]


def make(parts: tuple[TrainSamples, ValSamples], *, kept: bool) -> StreamSource:
    return StreamSource.make(*parts, Preprocess(size=16), seed=3, memory_limit_bytes=2**30 if kept else 0)


@pytest.mark.parametrize("kept", [True, False])
def test_classes_come_alike_and_a_repeated_sample_looks_different(
    parts: tuple[TrainSamples, ValSamples], kept: bool
) -> None:
    epochs = taken(make(parts, kept=kept), balanced=True)
    for epoch in epochs:
        assert len(epoch) == 54
        assert all(abs(count - 18) <= 1 for count in Counter(label for _, label, _ in epoch).values())
        looks = defaultdict(list)
        for sample, _, digest in epoch:
            looks[sample].append(digest)
        assert all(4 <= len(looks[sample]) <= 5 for sample in range(50, 54))
        assert all(len(set(digests)) == len(digests) for digests in looks.values())
    assert epochs[0] != epochs[1]


def test_kept_and_read_again_are_the_same(parts: tuple[TrainSamples, ValSamples]) -> None:
    kept, read = (taken(make(parts, kept=kept), balanced=True) for kept in (True, False))
    assert kept == read
    again = make(parts, kept=True)
    assert taken(again, balanced=True) == taken(again, balanced=True) == kept  # filled by the first two epochs


@pytest.mark.parametrize("kept", [True, False])
def test_a_first_look_is_the_one_without_balance(parts: tuple[TrainSamples, ValSamples], kept: bool) -> None:
    source = make(parts, kept=kept)
    plain = {sample: digest for sample, _, digest in taken(source, stop=1)[0]}
    first: dict[int, str] = {}
    for sample, _, digest in taken(source, stop=1, balanced=True)[0]:
        first.setdefault(sample, digest)
    assert all(plain[sample] == digest for sample, digest in first.items())


@pytest.mark.parametrize("kept", [True, False])
def test_workers_and_resumes_get_the_same_epoch(parts: tuple[TrainSamples, ValSamples], kept: bool) -> None:
    source = make(parts, kept=kept)
    whole = taken(source, balanced=True)
    assert taken(source, balanced=True, start=1) == whole[1:]
    assert taken(source, balanced=True, start=1, skip_batches=2) == [whole[1][32:]]
    for world in (2, 3):
        ranks = [taken(source, stop=1, balanced=True, rank=rank, world_size=world)[0] for rank in range(world)]
        assert sorted(row for rank in ranks for row in rank) == sorted(whole[0])
        assert max(map(len, ranks)) - min(map(len, ranks)) <= 4


def test_tiny_pictures_are_balanced_without_the_broken_ones(tmp_path: Path) -> None:
    root = write_digits(tmp_path, n=300)
    names = [sorted(p.relative_to(root).as_posix() for p in root.glob(f"{c}/*.png")) for c in "01"]
    paths = [*names[0][:20], *names[1][:5]]
    (root / paths[0]).write_bytes(b"")
    labels = np.array([int(path[0]) for path in paths], dtype=np.int64)
    train = TrainSamples(root, np.arange(25), tuple(paths), labels, ("0", "1"))
    source = StreamSource.make(train, ValSamples(root, np.arange(2), tuple(paths[1:3]), labels[1:3], ("0", "1")),
                               Preprocess(size=8), seed=0)  # fmt: skip
    (epoch,) = taken(source, stop=1, balanced=True)
    counts = Counter(sample for sample, _, _ in epoch)
    assert len(epoch) == 24
    assert 0 not in counts
    assert all(counts[sample] in (2, 3) for sample in range(20, 25))


@pytest.mark.parametrize("kept", [True, False])
def test_validation_is_as_it_is(parts: tuple[TrainSamples, ValSamples], kept: bool) -> None:
    source = make(parts, kept=kept)
    taken(source, stop=1, balanced=True)
    assert np.concatenate([batch.ids for batch in source.val_batches(batch_size=4)]).tolist() == list(range(15))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_what_threads_give(parts: tuple[TrainSamples, ValSamples], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(execution, "ray_is_on", lambda: False)
        expected = taken(make(parts, kept=False), balanced=True)
    for kept in (True, False):
        source = make(parts, kept=kept)
        assert taken(source, balanced=True) == expected
        ranks = [taken(source, start=1, balanced=True, rank=rank, world_size=2)[0] for rank in range(2)]
        assert sorted(row for rank in ranks for row in rank) == sorted(expected[1])
