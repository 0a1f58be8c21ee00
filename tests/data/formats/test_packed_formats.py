"""IDX and WebDataset: pictures that are parts of files."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray.data.formats import detect, read
from autodl_ray.data.formats.idx import read_idx
from autodl_ray.data.formats.webdataset import read_webdataset
from autodl_ray.data.records import Box
from autodl_ray.errors import DatasetError
from autodl_ray.images import decode_image
from tests.data.formats.makers import content, idx, make_tar, picture, put, webdataset


def pixels_file(pixels: np.ndarray, kind: int = 8) -> bytes:
    return bytes((0, 0, kind, pixels.ndim)) + b"".join(n.to_bytes(4, "big") for n in pixels.shape) + pixels.tobytes()


class TestIdx:
    def make(self, root: Path, images: bytes, labels: bytes = pixels_file(np.array([1, 0], dtype=np.uint8))) -> Path:
        put(root / "train-images-idx3-ubyte", images)
        put(root / "train-labels-idx1-ubyte", labels)
        return root

    def test_pixels_are_what_they_were(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4), dtype=np.uint8)
        listing = read_idx(self.make(tmp_path / "d", pixels_file(pixels)), tmp_path / "cache")
        assert [(r.path, r.label, r.split) for r in listing.records] == [
            ("train/00000000.pgm", "1", "train"),
            ("train/00000001.pgm", "0", "train"),
        ]
        for record, own in zip(listing.records, pixels, strict=True):
            decoded = decode_image(listing.read(record))
            assert (decoded == own[:, :, None]).all()
        assert listing.notes == ["no classes.txt names the classes: they are called by their numbers"]

    def test_colour(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
        put(tmp_path / "d" / "x-images-idx4-ubyte.gz", gzip.compress(pixels_file(pixels)))
        put(tmp_path / "d" / "x-labels-idx1-ubyte.gz", gzip.compress(pixels_file(np.array([1, 0], dtype=np.uint8))))
        listing = read(tmp_path / "d", cache=tmp_path / "cache")
        assert [record.path for record in listing.records] == ["x/00000000.ppm", "x/00000001.ppm"]
        assert (decode_image(listing.read(listing.records[1])) == pixels[1]).all()

    def test_the_pack_is_written_once_and_the_same_everywhere(self, tmp_path: Path) -> None:
        idx(tmp_path / "d", ("cat", "dog"))
        first = read(tmp_path / "d", cache=tmp_path / "one")
        packs = sorted((tmp_path / "one" / "packs").glob("*/blobs"))
        times = [path.stat().st_mtime_ns for path in packs]
        assert read(tmp_path / "d", cache=tmp_path / "one") == first
        assert [path.stat().st_mtime_ns for path in packs] == times
        read(tmp_path / "d", cache=tmp_path / "two")
        for path in packs:
            assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (pixels_file(np.zeros((3, 5, 4), np.uint8)), None, "do not fit"),
            (pixels_file(np.zeros((2, 5, 4), np.uint8))[:-1], None, "ends too early"),
            (pixels_file(np.zeros((2, 5, 4), np.uint8)) + b"x", None, "goes on after its last picture"),
            (pixels_file(np.zeros((2, 5, 4), np.float32), kind=13), None, "no IDX file of bytes"),
            (pixels_file(np.zeros((2, 0, 4), np.uint8)), None, "shape that is not accepted"),
            (bytes((0, 0, 8, 3)) + b"\0\0\0\2" + b"\xff" * 8, None, "shape that is not accepted"),
            (b"", None, "ends too early"),
            (pixels_file(np.zeros((2, 5, 4), np.uint8)), pixels_file(np.zeros((2, 2), np.uint8)), "no IDX file"),
            (pixels_file(np.zeros((2, 5, 4), np.uint8)), b"\0\0\x08\1\0\0\0\2\0", "ends too early"),
        ],
    )
    def test_files_that_are_refused(self, tmp_path: Path, images: bytes, labels: bytes | None, message: str) -> None:
        made = self.make(tmp_path / "d", images) if labels is None else self.make(tmp_path / "d", images, labels)
        with pytest.raises(DatasetError, match=message):
            read_idx(made, tmp_path / "cache")
        assert not list((tmp_path / "cache" / "packs").glob("*/*"))

    def test_names(self, tmp_path: Path) -> None:
        self.make(tmp_path, pixels_file(np.zeros((2, 5, 4), np.uint8)))
        put(tmp_path / "classes.txt", "zero\n")
        with pytest.raises(DatasetError, match="A label has no name"):
            read_idx(tmp_path, tmp_path / ".cache")
        put(tmp_path / "classes.txt", "zero\nzero\n")
        with pytest.raises(DatasetError, match="class names are not usable"):
            read_idx(tmp_path, tmp_path / ".cache")
        put(tmp_path / "classes.txt", "T-shirt/top\nCoat\n")
        assert read_idx(tmp_path, tmp_path / ".cache").classes == ("T-shirt/top", "Coat")

    def test_a_file_of_labels_that_is_missing(self, tmp_path: Path) -> None:
        put(tmp_path / "d" / "train-images-idx3-ubyte", b"")
        with pytest.raises(DatasetError, match="no file of pictures with its file of labels"):
            read_idx(tmp_path / "d", tmp_path / "cache")


class TestWebDataset:
    def test_it_is_read_in_place(self, tmp_path: Path) -> None:
        truth = webdataset(tmp_path / "d", ("cat", "dog"))
        listing = read(tmp_path / "d" / "train-000.tar", cache=tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        record = listing.records[0]
        assert record.where is not None
        assert (record.path, record.where.file, record.split) == ("train-000/0000.png", "train-000.tar", "train")
        data = (tmp_path / "d" / "train-000.tar").read_bytes()
        assert data[record.where.offset :][: record.where.length] in truth.pictures

    def test_a_compressed_shard_is_unpacked_to_a_plain_tar_first(self, tmp_path: Path) -> None:
        members = {"a.jpg": picture(0, kind="JPEG"), "a.cls": b"0", "b.jpg": picture(1, kind="JPEG"), "b.cls": b"1"}
        make_tar(tmp_path / "train.tar.gz", members, "w:gz")
        found = detect(tmp_path / "train.tar.gz", cache=tmp_path / "cache")
        assert (found.format, found.opened) == ("webdataset", "tar, decompressed")
        listing = read(tmp_path / "train.tar.gz", cache=tmp_path / "cache")
        assert content(listing) == {members["a.jpg"]: ("0", "train", None), members["b.jpg"]: ("1", "train", None)}

    def test_labels_and_what_is_left_out(self, tmp_path: Path) -> None:
        members = {
            "x/a.jpg": picture(0), "x/a.cls": b" 3\n", "x/a.seg.png": b"", "x/a.npy": b"",
            "b.png": picture(1), "b.json": b'{"label": "cat", "text": "c"}', "b.txt": b"a photo of a cat",
            "c.png": picture(2), "c.txt": "caf\u00e9".encode(),
            "d.png": picture(3), "d.json": json.dumps({"objects": [[1, 2, 3, 4, "dog"], [1]]}).encode(),
            "e.png": picture(4), "f.cls": b"1", "g.png": picture(5), "g.cls": b"\xff", "g.jpg": picture(6),
            "../h.png": picture(7), "/i.png": picture(8), ".hidden.png": picture(9),
        }  # fmt: skip
        make_tar(tmp_path / "s.tar", members)
        listing = read_webdataset(tmp_path / "s.tar")
        assert [(r.path, r.label, r.boxes) for r in listing.records] == [
            ("s/b.png", "cat", None),
            ("s/c.png", "caf\u00e9", None),
            ("s/d.png", None, (Box("dog", 1, 2, 3, 4),)),
            ("s/x/a.jpg", "3", None),
        ]
        assert {problem.path: problem.reason for problem in listing.problems} == {
            "s.tar: d.json": "box 2 cannot be read: [1]",
            "s/e.png": "The sample has no label that can be read.",
            "s.tar: g.cls": "The text is not UTF-8, or no JSON.",
            "s.tar: g.jpg": "The sample has another picture already.",
            "s/g.png": "The sample has no label that can be read.",
            "s.tar: '../h.png'": "The name leads out of the tar, or cannot be written down.",
            "s.tar: '/i.png'": "The name leads out of the tar, or cannot be written down.",
        }
        assert listing.passed_over == {
            "members of kind .seg.png": 1,
            "members of kind .npy": 1,
            "samples without a picture": 1,
        }

    def test_captions_are_noticed(self, tmp_path: Path) -> None:
        members = {}
        for number in range(30):
            members[f"{number:02d}.png"] = picture(number % 3)
            members[f"{number:02d}.txt"] = f"a photo of thing {number}".encode()
        make_tar(tmp_path / "s.tar", members)
        assert "look like captions" in read_webdataset(tmp_path / "s.tar").notes[0]

    def test_links_and_devices_in_a_tar_are_no_pictures(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "s.tar", "w") as tar:
            for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.CHRTYPE), ("c.png", tarfile.LNKTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                tar.addfile(info)
            info = tarfile.TarInfo("a.cls")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
        with pytest.raises(DatasetError, match="No tar holds pictures with labels"):
            read_webdataset(tmp_path / "s.tar")

    def test_a_tar_that_is_cut_off(self, tmp_path: Path) -> None:
        webdataset(tmp_path / "d", ("cat", "dog"))
        shard = tmp_path / "d" / "train-000.tar"
        whole = shard.read_bytes()
        broken = whole[:2048] + b"x" * 512 + whole[2560:]  # the header of the second sample
        for damaged in (whole[:700], whole[:1024], whole[:1300], whole[:1536], broken):
            shard.write_bytes(damaged)
            with pytest.raises(DatasetError, match=r"ends too early|A tar is damaged"):
                read_webdataset(shard)

    def test_a_tar_of_class_folders_is_unpacked(self, tmp_path: Path) -> None:
        make_tar(tmp_path / "photos.tar", {f"{'ab'[n % 2]}/{n}.png": picture(n) for n in range(4)})
        found = detect(tmp_path / "photos.tar", cache=tmp_path / "cache")
        assert (found.format, found.opened) == ("imagefolder", "tar archive, unpacked")


def test_idx_becomes_png_without_loss(tmp_path: Path) -> None:
    from autodl_ray.data.formats import write

    idx(tmp_path / "d", ("cat", "dog"))
    source = read(tmp_path / "d", cache=tmp_path / "cache")
    write(source, format="imagefolder", folder=tmp_path / "out")
    again = read(tmp_path / "out", cache=tmp_path / "cache")
    assert all(record.path.endswith(".png") for record in again.records)
    pixels = sorted(np.asarray(Image.open(io.BytesIO(again.read(record)))).tobytes() for record in again.records)
    assert pixels == sorted(source.read(record)[len(b"P5 4 5 255\n") :] for record in source.records)
