"""Faults that are seen in the pixels: looks, near duplicates; and the memory of what was measured."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.cleaning import measures as measures_module
from autodl_ray.data.cleaning.findings import Finding
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.looks import blur_of
from autodl_ray.data.cleaning.measures import Measures, measure
from autodl_ray.data.cleaning.near import similar_hashes
from autodl_ray.data.cleaning.rows import RowMemory
from autodl_ray.data.samples import write_digits
from autodl_ray.errors import RunInterrupted
from autodl_ray.images import decode_image
from autodl_ray.runtime import Context
from tests.data.cleaning.makers import opened, recompressed, save, scene


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(24):
        save(scene(number), tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number:02d}.jpg")
    return tmp_path / "photos"


def found_in(folder: Path, context: Context, splits: dict[str, Split] | None = None) -> list[Finding]:
    report = inspect(opened(folder, context, splits), source="photos", context=context, fast=True)
    return [item for item in report.findings if item.kind not in ("small_class", "imbalance")]


def test_pictures_that_look_right_give_no_findings(photos: Path, context: Context) -> None:
    assert found_in(photos, context) == []


def test_each_odd_look_is_found_and_nothing_else(photos: Path, context: Context) -> None:
    planted = {
        "blank": Image.new("RGB", (160, 120), (120, 130, 140)),
        "dark": scene(100).point(lambda v: v // 8),
        "bright": scene(101).point(lambda v: 255 if v > 80 else 243),
        "blurred": scene(102).filter(ImageFilter.GaussianBlur(4)),
        "odd_size": scene(103, size=(1600, 1200)),
        "odd_aspect": scene(104, size=(400, 60)),
    }
    for kind, picture in planted.items():
        save(picture, photos / "cat" / f"{kind}.png")
    found = found_in(photos, context)
    assert {(item.kind, item.paths[0]) for item in found} >= {(kind, f"cat/{kind}.png") for kind in planted}
    extra = {(item.kind, item.paths) for item in found if item.paths != (f"cat/{item.kind}.png",)}
    assert extra <= {("odd_aspect", ("cat/odd_size.png",)), ("odd_size", ("cat/odd_aspect.png",))}
    assert all(0.5 <= item.sure <= 1 for item in found)
    (blank,) = [item for item in found if item.kind == "blank"]
    assert (blank.action, blank.drop, blank.sure) == ("drop", ("cat/blank.png",), 1.0)


def test_one_pixel_of_difference_is_no_odd_size(photos: Path, context: Context) -> None:
    save(scene(200, size=(161, 121)), photos / "cat" / "z.png")
    assert found_in(photos, context) == []


def test_blur_grows_with_the_blur() -> None:
    def of(radius: float) -> float:
        picture = scene(7).convert("L").filter(ImageFilter.GaussianBlur(radius))
        return blur_of(np.asarray(picture, dtype=np.float32))

    values = [of(radius) for radius in (0, 0.5, 1, 2, 3)]
    assert values == sorted(values)
    assert values[0] < 0.4
    assert values[-1] > 0.7
    assert blur_of(np.zeros((64, 64), dtype=np.float32)) == 1.0


@pytest.mark.parametrize("how", ["jpeg", "half", "brighter", "cropped"])
def test_a_picture_that_was_saved_again_is_nearly_the_same(photos: Path, context: Context, how: str) -> None:
    one = scene(3)
    again = {
        "jpeg": recompressed(one, 30),
        "half": one.resize((80, 60)),
        "brighter": one.point(lambda v: min(255, int(v * 1.12))),
        "cropped": one.crop((2, 1, 158, 119)),
    }[how]
    save(again, photos / "cat" / "again.png")
    found = [item for item in found_in(photos, context) if item.kind.startswith("near")]
    assert [(item.kind, item.paths) for item in found] == [("near_duplicate", ("cat/03.jpg", "cat/again.png"))]
    assert found[0].sure >= 0.85


def test_near_pictures_with_different_labels_and_across_splits(photos: Path, context: Context) -> None:
    save(recompressed(scene(3), 40), photos / "dog" / "again.png")
    save(recompressed(scene(5), 40), photos / "cat" / "again.png")
    subject = opened(photos, context)
    splits: dict[str, Split] = dict.fromkeys(subject.position, "train")
    splits["cat/05.jpg"] = "test"
    found = [item for item in found_in(photos, context, splits) if item.kind.startswith("near")]
    assert {(item.kind, item.paths, item.drop) for item in found} == {
        ("near_conflict", ("cat/03.jpg", "dog/again.png"), ()),
        ("near_leak", ("cat/05.jpg", "cat/again.png"), ("cat/again.png",)),
    }


def test_handwritten_digits_are_alike_but_not_the_same(tmp_path: Path, context: Context) -> None:
    found = found_in(write_digits(tmp_path / "digits", n=400), context)
    assert [item.kind for item in found] == []


def test_identical_pictures_are_not_also_nearly_the_same(photos: Path, context: Context) -> None:
    (photos / "cat" / "again.jpg").write_bytes((photos / "cat" / "03.jpg").read_bytes())
    assert [item.kind for item in found_in(photos, context)] == ["duplicate"]


def test_similar_hashes_are_those_that_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    for row in range(100):  # neighbours at 0 to 9 bits
        bits = rng.choice(64, size=row % 10, replace=False)
        flips = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
        hashes[200 + row] = hashes[row] ^ flips
    brute = {(a, b) for a, b in combinations(range(300), 2) if bin(int(hashes[a] ^ hashes[b])).count("1") <= 6}
    assert len(brute) >= 60
    assert {(a, b) for a, b in similar_hashes(hashes).tolist()} == brute


def test_crowded_hashes_stay_cheap() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)  # share six of seven bands
    assert 20_000 < len(similar_hashes(hashes)) <= 20_000 * 20


def test_a_second_check_decodes_nothing(
    photos: Path, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = measure(opened(photos, context), range(24), backbone=None, context=context)
    moved = photos.rename(tmp_path / "moved")  # what is remembered belongs to the content, not to the place
    (moved / "cat" / "copy.jpg").write_bytes((moved / "dog" / "00.jpg").read_bytes())
    decoded = []

    def counted(data: bytes, *, at_least: int | None = None) -> object:
        decoded.append(len(data))
        return decode_image(data, at_least=at_least)

    monkeypatch.setattr(measures_module, "decode_image", counted)
    again, failed = measure(opened(moved, context), range(25), backbone=None, context=context)
    assert (decoded, failed) == ([], {})
    rows = [row for row, record in enumerate(opened(moved, context).listing.records) if "copy" not in record.path]
    np.testing.assert_array_equal(again.take(rows).copies, first.copies)
    np.testing.assert_array_equal(again.take(rows).hashes, first.hashes)


def test_a_picture_that_fails_when_it_is_decoded_whole_costs_itself_alone(photos: Path, context: Context) -> None:
    subject = opened(photos, context)
    (photos / "cat" / "01.jpg").write_bytes(b"no picture any more")
    (photos / "cat" / "03.jpg").unlink()
    report = inspect(subject, source="photos", context=context, fast=True)
    assert [item.paths for item in report.of("unreadable")] == [("cat/01.jpg",), ("cat/03.jpg",)]
    assert "This is not a picture" in report.of("unreadable")[0].reason
    assert "No such file" in report.of("unreadable")[1].reason


def test_a_stop_keeps_what_was_measured(photos: Path, context: Context) -> None:
    subject = opened(photos, context)
    context.stop.set()
    with pytest.raises(RunInterrupted, match="Stopped while pictures were measured"):
        measure(subject, range(24), backbone=None, context=context)
    context.stop.clear()
    parts = [part for part in (context.store.folder("cache/cleaning")).rglob("keys.npy")]
    assert sum(len(np.load(part)) for part in parts) >= 16


def test_damaged_and_foreign_parts_of_the_memory_are_passed_over(tmp_path: Path) -> None:
    memory = RowMemory(tmp_path)
    contents = [f"{number:064x}" for number in range(4)]
    memory.add(contents[:2], {"values": np.array([[1.0], [2.0]], dtype=np.float32)})
    memory.add(contents[2:], {"values": np.array([[3.0], [4.0]], dtype=np.float32)})
    memory.add(contents[2:], {"values": np.array([[3.0, 9.0], [4.0, 9.0]], dtype=np.float32)})
    for part in tmp_path.iterdir():
        if np.load(part / "values.npy")[0, 0] == 1.0:
            (part / "values.npy").write_bytes(b"damaged")
    values = np.zeros((4, 1), dtype=np.float32)
    known = memory.load(contents, {"values": values})
    assert known.tolist() == [False, False, True, True]
    assert values[:, 0].tolist() == [0.0, 0.0, 3.0, 4.0]
    assert not RowMemory(None).load(contents, {"values": values}).any()


def test_an_empty_set_of_measures_can_be_cut() -> None:
    assert Measures.empty(3, 5).take([1]).deep.shape == (1, 5)
