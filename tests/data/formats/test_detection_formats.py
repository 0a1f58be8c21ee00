"""Pascal VOC, COCO and YOLO as people publish them, with their faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.data.formats import detect, read
from autodl_ray.data.formats.coco import read_coco
from autodl_ray.data.formats.reading import parse_xml
from autodl_ray.data.formats.voc import read_voc
from autodl_ray.data.formats.yolo import read_yolo
from autodl_ray.data.records import Box, Listing
from autodl_ray.errors import DatasetError
from tests.data.formats.makers import picture, put

OBJECT = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>4</ymax></bndbox></object>"


def annotation(*objects: str) -> str:
    return f"<annotation>{''.join(objects)}</annotation>"


class TestVoc:
    def test_xml_beside_its_picture(self, tmp_path: Path) -> None:
        put(tmp_path / "d" / "train" / "a.png", picture(0))
        put(tmp_path / "d" / "train" / "a.xml", annotation(OBJECT.format(3)))
        found = detect(tmp_path / "d", cache=tmp_path)
        assert (found.format, found.why) == ("voc", "XML files beside their pictures in train")
        assert read(tmp_path / "d", cache=tmp_path).records[0].boxes == (Box("cat", 1, 2, 3, 4),)

    def test_faults_are_listed_and_empty_boxes_are_kept(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c", "lonely"):
            put(tmp_path / "JPEGImages" / f"{name}.png", picture(ord(name[0])))
        put(tmp_path / "Annotations" / "a.xml", annotation(OBJECT.format(1), OBJECT.format("x"), "<object/>"))
        put(tmp_path / "Annotations" / "b.xml", "<annotation>")
        put(tmp_path / "Annotations" / "c.xml", '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "y">]><annotation/>')
        put(tmp_path / "Annotations" / "gone.xml", annotation())
        put(tmp_path / "Annotations" / "other.xml", "<something/>")
        listing = read_voc(tmp_path)
        assert [(r.path, r.boxes) for r in listing.records] == [("JPEGImages/a.png", (Box("cat", 1, 2, 1, 4),))]
        assert [(p.path, p.reason.split(":")[0]) for p in listing.problems] == [
            ("Annotations/a.xml", "Object 2 has no name, or no box of four numbers."),
            ("Annotations/a.xml", "Object 3 has no name, or no box of four numbers."),
            ("Annotations/b.xml", "A file is not XML. Annotations/b.xml"),
            ("Annotations/c.xml", "An XML file declares a document type or entities. Annotations/c.xml"),
            ("Annotations/gone.xml", "There is no picture for this XML file."),
            ("JPEGImages/b.png", "The picture has no usable XML file."),
            ("JPEGImages/c.png", "The picture has no usable XML file."),
            ("JPEGImages/lonely.png", "The picture has no usable XML file."),
        ]
        assert listing.passed_over == {"XML files that are no annotation": 1}

    def test_lists(self, tmp_path: Path) -> None:
        for name in ("a", "b b", "c"):
            put(tmp_path / "JPEGImages" / f"{name}.png", picture(ord(name[0])))
            put(tmp_path / "Annotations" / f"{name}.xml", annotation(OBJECT.format(3)))
        put(tmp_path / "ImageSets" / "Main" / "trainval.txt", "a \nb b\n")
        put(tmp_path / "ImageSets" / "Main" / "cat_train.txt", "a  1\nb b -1\n")
        listing = read_voc(tmp_path)
        assert [record.split for record in listing.records] == ["train", "train", None]
        assert listing.notes == [
            "lists of ImageSets/Main that are not used: cat_train",
            "1 pictures are in no list of ImageSets/Main: JPEGImages/c.png",
        ]
        put(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
        put(tmp_path / "ImageSets" / "Main" / "test.txt", "a\nc\n")
        listing = read_voc(tmp_path)
        assert [record.split for record in listing.records] == ["train", None, "test"]
        assert "a is already in" in listing.problems[0].reason

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
            (b'<?xml version="1.0" encoding="utf-16"?><a/>', "encoding that is not accepted"),
            (
                '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><a/>'.encode("utf-16"),
                "encoding that is not accepted",
            ),
            (b'<?xml version="1.0" encoding="cp037"?>' + "<!DOCTYPE x><a/>".encode("cp037"), "not accepted"),
            (b"<a>" + b"x" * (8 * 2**20) + b"</a>", "too large"),
            (b"<a>" * 100_000, "is not XML"),
            (b"", "is not XML"),
        ],
        ids=["external", "utf-16", "utf-16 hidden", "ebcdic hidden", "large", "deep", "empty"],
    )
    def test_xml_that_is_refused(self, data: bytes, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            parse_xml(data, "x.xml")


class TestCoco:
    def make(self, root: Path, **changed: Any) -> Listing:
        for number in range(3):
            put(root / "images" / f"{number}.png", picture(number))
        document = {
            "images": [{"id": n, "file_name": f"{n}.png"} for n in range(3)],
            "annotations": [
                {"id": 1, "image_id": 0, "category_id": 18, "bbox": [1.5, 2, 3, 4], "iscrowd": 1,
                 "segmentation": [[1]]},
                {"id": 2, "image_id": 2, "category_id": 90, "bbox": [17.4, 0, 90.8, 1]},
            ],
            "categories": [{"id": 90, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "never seen"}],
        } | changed  # fmt: skip
        put(root / "annotations" / "instances.json", json.dumps(document))
        return read_coco(root)

    def test_ids_crowds_and_pictures_without_annotations(self, tmp_path: Path) -> None:
        listing = self.make(tmp_path)
        assert listing.classes == ("dog", "never seen", "cat")
        assert [record.boxes for record in listing.records] == [
            (Box("dog", 1.5, 2, 4.5, 6, crowd=True),),
            (),
            (Box("cat", 17.4, 0, 108.2, 1),),
        ]
        assert listing.notes == ["1 pictures have no annotation: there is nothing in them"]
        assert listing.passed_over == {"outlines of objects": 1}
        assert [record.split for record in listing.records] == [None] * 3

    def test_faults_are_listed(self, tmp_path: Path) -> None:
        listing = self.make(
            tmp_path,
            images=[{"id": 0, "file_name": "0.png"}, {"id": 0, "file_name": "1.png"}, {"id": 2, "file_name": "no.png"},
                    {"id": 3}, {"id": 4, "file_name": "../../x.png"}],
            annotations=[{"id": 1, "image_id": 0, "category_id": 5, "bbox": [1, 2, 3, 4]},
                         {"id": 2, "image_id": 0, "category_id": 90, "bbox": [1, 2, 3]},
                         {"id": 3, "image_id": 0, "category_id": 90, "bbox": [1, 2, 1e999, 3]},
                         {"id": 4, "image_id": 77, "category_id": 90, "bbox": [1, 2, 3, 4]}],
        )  # fmt: skip
        assert [(record.path, record.boxes) for record in listing.records] == [("images/0.png", ())]
        assert [problem.reason for problem in listing.problems] == [
            "annotation 1 of no category that is declared",
            "annotation 2 without a box of four numbers",
            "annotation 3 without a box of four numbers",
            "a picture without an id of its own: {'id': 0, 'file_name': '1.png'}",
            "the picture of annotations/instances.json is not there",
            "picture 3 has no file_name",
            "the picture of annotations/instances.json is not there",
            "1 annotations of pictures that the file does not name",
        ]
        assert listing.passed_over == {"pictures that no COCO file names": 2}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[]", "No COCO file|no JSON object"),
            ('{"images": [], "annotations": [], "categories": []}', "names no pictures"),
            ('{"images": [1], "annotations": []}', "no list of objects"),
            ('{"images": [{}], "annotations": [', "is not JSON"),
            ("[" * 100_000, "nested too deep|is not JSON"),
        ],
    )
    def test_files_that_are_refused(self, tmp_path: Path, text: str, message: str) -> None:
        put(tmp_path / "x.json", text)
        with pytest.raises(DatasetError, match=message):
            read_coco(tmp_path / "x.json")

    def test_a_file_in_each_split_folder(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            put(tmp_path / "d" / split / f"{split}.png", picture(len(split)))
            images = [{"id": 1, "file_name": f"{split}.png"}]
            rows = [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4]}]
            document = {"images": images, "annotations": rows, "categories": [{"id": 0, "name": "cat"}]}
            put(tmp_path / "d" / split / "_annotations.coco.json", json.dumps(document))
        assert detect(tmp_path / "d", cache=tmp_path).format == "coco"
        listing = read(tmp_path / "d", cache=tmp_path)
        assert [(r.path, r.split) for r in listing.records] == [
            ("train/train.png", "train"),
            ("valid/valid.png", "val"),
        ]
        one = read(tmp_path / "d" / "valid" / "_annotations.coco.json", cache=tmp_path)
        assert [record.path for record in one.records] == ["valid.png"]


class TestYolo:
    def make(self, root: Path, lines: str, yaml: str | None = "names: [cat, dog]\n") -> Listing:
        put(root / "images" / "a.png", picture(0))
        put(root / "images" / "b.png", picture(1))
        put(root / "labels" / "a.txt", lines)
        if yaml is not None:
            put(root / "data.yaml", yaml)
        return read_yolo(root)

    def test_boxes_outlines_and_nothing(self, tmp_path: Path) -> None:
        listing = self.make(tmp_path, "0 0.5 0.5 1 1\n1 0 0 0.5 0 0.5 0.5\n\n")
        assert listing.records[0].boxes == (Box("cat", 0, 0, 12, 8), Box("dog", 0, 0, 6, 4))
        assert listing.records[1].boxes == ()
        assert listing.notes == [
            "1 pictures have no label file: there is nothing in them",
            "1 outlines became the boxes around them",
        ]
        assert listing.classes == ("cat", "dog")

    def test_lines_that_cannot_be_used_are_listed(self, tmp_path: Path) -> None:
        lines = "0 0.5 0.5 1 1\n2 0.5 0.5 1 1\n0 a b c d\n0 1 2 3\n0 1 2 3 4 5\n-1 1 1 1 1\n0 nan 1 1 1\n0.5 1 1 1 1\n"
        listing = self.make(tmp_path, lines)
        assert len(listing.records[0].boxes or ()) == 1
        assert [(p.path, p.reason.split(":")[0]) for p in listing.problems] == [
            ("labels/a.txt:2", "class 2 has no name"),
            ("labels/a.txt:3", "no line of numbers"),
            ("labels/a.txt:4", "4 numbers; a box has 5, an outline 7 or more"),
            ("labels/a.txt:5", "6 numbers; a box has 5, an outline 7 or more"),
            ("labels/a.txt:6", "no line of numbers"),
            ("labels/a.txt:7", "no line of numbers"),
            ("labels/a.txt:8", "no line of numbers"),
        ]

    def test_names_from_classes_txt_or_none(self, tmp_path: Path) -> None:
        listing = self.make(tmp_path, "1 0.5 0.5 1 1\n", yaml=None)
        assert listing.records[0].boxes == (Box("1", 0, 0, 12, 8),)
        assert "they are called by their numbers" in listing.notes[0]
        put(tmp_path / "classes.txt", "cat\ndog\n")
        assert detect(tmp_path, cache=tmp_path).format == "yolo"
        assert read_yolo(tmp_path).records[0].boxes == (Box("dog", 0, 0, 12, 8),)

    def test_lists_of_pictures_and_paths_of_another_machine(self, tmp_path: Path) -> None:
        put(tmp_path / "lists" / "train.txt", "./images/a.png\nimages/gone.png\n")
        yaml = "path: /content/x\ntrain: lists/train.txt\nval: /content/x/images/b.png\nnames: {0: cat}\n"
        listing = self.make(tmp_path, "0 0.5 0.5 1 1\n", yaml)
        assert [(record.path, record.split) for record in listing.records] == [("images/a.png", "train")]
        reasons = {problem.reason for problem in listing.problems}
        assert "there is no picture 'images/gone.png'" in reasons
        assert "there are no pictures at '/content/x/images/b.png'" in reasons
        assert listing.passed_over["pictures that data.yaml does not name"] == 1

    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ("names: [a, a]\n", "class name is there twice"),
            ("names: [a, A]\n", "differ only by case"),
            ("names: 3\n", "class names are not usable"),
            ("names: {x: a}\n", "class names are not usable"),
            ("- a\n", "has no keys"),
            ("names: [a\n", "is not YAML"),
            ("x: &x [1]\ny: [*x, *x]\nnames: [a]\n", "repeats parts of itself"),
            ("train: nowhere\nnames: [a]\n", "names no folder with pictures"),
            ("!!python/object/apply:os.system ['true']\n", "is not YAML"),
        ],
    )
    def test_data_yaml_that_is_refused(self, tmp_path: Path, yaml: str, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            self.make(tmp_path, "0 0.5 0.5 1 1\n", yaml)

    def test_a_picture_whose_size_is_not_known(self, tmp_path: Path) -> None:
        put(tmp_path / "images" / "c.png", b"no picture")
        put(tmp_path / "labels" / "c.txt", "0 0.5 0.5 1 1\n")
        listing = self.make(tmp_path, "0 0.5 0.5 1 1\n")
        assert [record.path for record in listing.records] == ["images/a.png", "images/b.png"]
        assert listing.problems[0].path == "images/c.png"
        assert "size of the picture is not known" in listing.problems[0].reason
