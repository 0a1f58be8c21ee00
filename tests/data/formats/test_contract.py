"""What every format holds to: reading, unpacking, odd input and round trips."""

from __future__ import annotations

import io
import random
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from autodl_ray.data.formats import FORMATS, detect, read, write
from autodl_ray.data.formats.walk import stamp_of
from autodl_ray.data.records import Box, Listing, Record
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import MAKERS, Truth, content, picture, put

LABELS = ("cat", unicodedata.normalize("NFD", "café noir"))
NFC_LABELS = tuple(unicodedata.normalize("NFC", label) for label in LABELS)
WRITABLE = [name for name, one in FORMATS.items() if one.write is not None]
Make = Callable[..., Truth]


def as_nfc(truth: Truth) -> dict[bytes, tuple[str | None, str | None, tuple[Box, ...] | None]]:
    """Return what a listing must say: labels in NFC."""

    def nfc(text: str | None) -> str | None:
        return None if text is None else unicodedata.normalize("NFC", text)

    return {
        data: (nfc(label), split, None if boxes is None else tuple(b._replace(label=nfc(b.label) or "") for b in boxes))
        for data, (label, split, boxes) in truth.pictures.items()
    }


def equal_boxes(a: tuple[Box, ...] | None, b: tuple[Box, ...] | None, *, within: float) -> bool:
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(
        x.label == y.label and all(abs(p - q) <= within for p, q in zip(x[1:5], y[1:5], strict=True))
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("case", MAKERS)
class TestEveryFormat:
    """The one class of tests that every format passes."""

    def make(self, case: str, root: Path, labels: tuple[str, ...] = LABELS) -> Truth:
        root.mkdir(parents=True, exist_ok=True)
        return MAKERS[case][1](root, labels)

    def test_it_is_recognised(self, case: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data")
        found = detect(tmp_path / "data", cache=tmp_path / "cache")
        assert found.format == MAKERS[case][0]
        assert found.why
        assert 0 < found.confidence <= 1
        assert found.not_understood == ()
        put(tmp_path / "data" / "README.md", "hello")
        assert detect(tmp_path / "data", cache=tmp_path / "cache").not_understood == ("README.md",)

    def test_reading(self, case: str, tmp_path: Path) -> None:
        truth = self.make(case, tmp_path / "data")
        listing = read(tmp_path / "data", cache=tmp_path / "cache")
        assert listing.format == MAKERS[case][0]
        assert content(listing) == {
            data: (label, split, boxes) for data, (label, split, boxes) in as_nfc(truth).items()
        }
        assert not listing.problems
        assert not listing.passed_over
        assert listing.task == (
            "detection" if any(b is not None for _, _, b in truth.pictures.values()) else listing.task
        )

    def test_paths_and_stamps(self, case: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data")
        listing = read(tmp_path / "data", cache=tmp_path / "cache")
        paths = [record.path for record in listing.records]
        assert paths == sorted(set(paths))
        for record in listing.records:
            held = record.path if record.where is None else record.where.file
            assert record.stamp == stamp_of((listing.root / held).stat())
            assert not held.startswith("/")
            assert not record.path.startswith("/")
        assert all((listing.root / name).is_file() for name in listing.metadata)

    def test_reading_again_is_equal(self, case: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data")
        first = read(tmp_path / "data", cache=tmp_path / "cache")
        assert read(tmp_path / "data", cache=tmp_path / "cache") == first
        assert read(tmp_path / "data", cache=tmp_path / "cache", format=first.format).records == first.records

    @pytest.mark.parametrize("kind", ["zip", "gztar"])
    def test_an_archive_reads_like_its_folder(self, case: str, kind: str, tmp_path: Path) -> None:
        truth = self.make(case, tmp_path / "outer" / "inner")
        archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "outer")
        listing = read(archive, cache=tmp_path / "cache")
        assert content(listing) == as_nfc(truth)
        assert detect(archive, cache=tmp_path / "cache").opened.startswith("zip" if kind == "zip" else "tar")

    def test_hidden_files_are_no_part_of_it(self, case: str, tmp_path: Path) -> None:
        truth = self.make(case, tmp_path / "data")
        put(tmp_path / "data" / ".DS_Store", b"\0\1")
        put(tmp_path / "data" / ".hidden" / "x.png", picture(99))
        put(tmp_path / "data" / "__MACOSX" / "x.png", picture(98))
        assert content(read(tmp_path / "data", cache=tmp_path / "cache")) == as_nfc(truth)

    def test_other_files_are_counted(self, case: str, tmp_path: Path) -> None:
        truth = self.make(case, tmp_path / "data")
        put(tmp_path / "data" / "notes.md", "hello")
        put(tmp_path / "data" / "stray.png", picture(99))
        listing = read(tmp_path / "data", cache=tmp_path / "cache")
        assert {d: v for d, v in content(listing).items() if d in truth.pictures} == as_nfc(truth)
        said = sum(listing.passed_over.values()) + len(listing.problems) + len(listing.records) - len(truth.pictures)
        assert said == 2, listing.passed_over

    def test_links_that_lead_out_are_refused(self, case: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data")
        put(tmp_path / "secret.png", picture(9))
        (tmp_path / "data" / "out.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(DatasetError, match="leads out of the data folder"):
            read(tmp_path / "data", cache=tmp_path / "cache")

    def test_classes_that_differ_by_case_are_refused(self, case: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data", ("cat", "Cat"))
        with pytest.raises(DatasetError, match="differ only by case or Unicode form"):
            read(tmp_path / "data", cache=tmp_path / "cache")

    def test_an_empty_folder_is_refused(self, case: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError) as caught:
            FORMATS[MAKERS[case][0]].read(tmp_path, tmp_path / "cache")
        assert caught.value.exit_code == 2
        with pytest.raises(DatasetError, match="does not exist"):
            read(tmp_path / "nowhere", cache=tmp_path / "cache")

    def test_damaged_files_give_an_error_or_problems(self, case: str, tmp_path: Path) -> None:
        """Every file but the pictures is cut off, emptied and changed at random places."""
        self.make(case, tmp_path / "data")
        whole = len(read(tmp_path / "data", cache=tmp_path / "cache").records)
        files = [p for p in (tmp_path / "data").rglob("*") if p.is_file() and p.suffix not in (".png", ".jpg")]
        rng = random.Random(0)
        for file in files[:4]:
            original = file.read_bytes()
            for damaged in _damages(original, rng):
                file.write_bytes(damaged)
                try:
                    listing = read(tmp_path / "data", cache=tmp_path / "cache")
                except DatasetError as error:
                    assert error.what  # noqa: PT017
                else:
                    assert len(listing.records) <= whole + 1
            file.write_bytes(original)

    @pytest.mark.parametrize("target", WRITABLE)
    def test_round_trip(self, case: str, target: str, tmp_path: Path) -> None:
        self.make(case, tmp_path / "data")
        source = read(tmp_path / "data", cache=tmp_path / "cache")
        if not (FORMATS[target].boxes if source.task == "detection" else FORMATS[target].labels):
            with pytest.raises(DatasetError, match="cannot hold"):
                write(source, format=target, folder=tmp_path / "out")
            assert not (tmp_path / "out").exists()
            return
        done = write(source, format=target, folder=tmp_path / "out")
        again = read(tmp_path / "out", cache=tmp_path / "cache")
        assert (done.pictures, done.format) == (len(source.records), target)
        _check_equal(source, again, target)
        write(again, format=target, folder=tmp_path / "twice")
        twice = read(tmp_path / "twice", cache=tmp_path / "cache")
        assert [record.path for record in twice.records] == [record.path for record in again.records]
        _check_equal(again, twice, target)


def _damages(original: bytes, rng: random.Random) -> list[bytes]:
    changed = []
    for _ in range(12):
        data = bytearray(original)
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        changed.append(bytes(data))
    return [b"", original[: len(original) // 2], original[:-3], b"\xff\xfe" + original, *changed]


def _check_equal(source: Listing, again: Listing, target: str) -> None:
    """Boxes are exact, but in YOLO, which divides by the size of the picture and has no flags."""
    assert len(again.records) == len(source.records)
    if source.classes and target != "imagefolder" and target != "voc" and target != "parquet":
        assert again.classes == source.classes
    read_again = {_pixels_or_bytes(source, again.read(record)): record for record in again.records}
    for record in source.records:
        other: Record = read_again[_pixels_or_bytes(source, source.read(record))]
        assert (other.label, other.split) == (record.label, record.split)
        if target == "yolo":
            assert equal_boxes(record.boxes, other.boxes, within=1e-3)
        else:
            assert other.boxes == record.boxes
    assert not again.problems


def _pixels_or_bytes(source: Listing, data: bytes) -> bytes:
    if source.format == "idx":
        return Image.open(io.BytesIO(data)).tobytes()
    return data


def test_the_formats_are_all_here() -> None:
    assert {name for name, _ in MAKERS.values()} == FORMATS.keys() - {"parquet"}
    assert set(WRITABLE) == {"imagefolder", "coco", "yolo", "voc", "parquet"}
