"""`autodl augment`: the list, one operation, a preview and a measurement, with their errors."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from autodl_ray.augment import CATALOGUE, AugmentPolicy
from autodl_ray.augment.describe import entries
from autodl_ray.augment.presets import PRESETS, TABLE_DOCS
from autodl_ray.cli import app
from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError
from autodl_ray.spec.sections import TrainSpec

FAMILIES = {"geometry", "colour", "blur", "noise", "weather", "dropout", "quality", "mixing", "policy"}


def autodl(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in this process and return what it printed; its errors are raised."""
    with closing(Console(json_output="--json" in arguments)) as console:
        app()(["augment", *arguments], standalone_mode=False, obj=console)
    return capfd.readouterr().out


def document(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(autodl(capfd, *arguments, "--json"))
    return made


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_list_names_everything_by_family(capfd: pytest.CaptureFixture[str]) -> None:
    rows = document(capfd, "list")["augmentations"]
    assert {row["name"] for row in rows} == {*CATALOGUE, *PRESETS, "MixUp", "CutMix"} - {"none"}
    assert {row["family"] for row in rows} == FAMILIES
    families = [row["family"] for row in rows]
    assert len(list(dict.fromkeys(families))) == len([f for i, f in enumerate(families) if f != families[i - 1]])
    assert all(row["moves_boxes"] == CATALOGUE[row["name"]].moves_pixels for row in rows if row["name"] in CATALOGUE)
    out = autodl(capfd, "list", "--family", "mixing")
    assert "2 augmentations" in out
    assert "CutMix" in out
    assert "HorizontalFlip" not in out


def test_every_entry_is_fully_described_and_its_example_works() -> None:
    for entry in entries():
        assert entry.doc.endswith((".", ")")), entry.name
        for parameter in entry.parameters:
            assert parameter.type, (entry.name, parameter)
            assert parameter.doc, (entry.name, parameter)
            assert parameter.default != "", (entry.name, parameter)
        example = yaml.safe_load(entry.example)
        if entry.family == "mixing":
            TrainSpec.model_validate(example["train"])
        elif entry.name in TABLE_DOCS:
            assert AugmentPolicy.from_document(example).text == AugmentPolicy.parse(entry.name).text
        else:
            assert len(AugmentPolicy.from_document(example).steps) == 1


def test_one_operation(capfd: pytest.CaptureFixture[str]) -> None:
    shown = document(capfd, "show", "RandomRotate")
    assert shown["family"] == "geometry"
    assert shown["moves_boxes"] is True
    by_name = {row["name"]: row for row in shown["parameters"]}
    assert by_name["degrees"]["type"] == "number or [number, …]"
    assert by_name["border"]["range"] == "edge, fill"
    out = autodl(capfd, "show", "GaussianBlur")
    for text in ("GaussianBlur (blur): Blur", "sigma", "[0.1, 2.0]", "policies:", "params: {sigma: [0.1, 2.0]}"):
        assert text in out
    assert "train:\n  mixup: 0.2" in autodl(capfd, "show", "MixUp")
    assert document(capfd, "show", "rand_augment")["parameters"][1]["range"] == "0 to 30"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "GausianBlur"), "did you mean 'GaussianBlur'"),
        (("show", "gaussianblur"), "did you mean 'GaussianBlur'"),
        (("show", "zzz"), "autodl augment list"),
        (("list", "--family", "colours"), "geometry"),
        (("preview", "lihgt", "{photo}"), "did you mean 'light'"),
        (("preview", "light", "no.jpg"), "The picture cannot be read."),
        (("preview", "light", "{folder}"), "The picture cannot be read."),
        (("preview", "light", "{photo}", "--fit", "zoom"), "stretch, crop, pad"),
        (("preview", "light", "{photo}", "--boxes", "1,2,3"), "x1,y1,x2,y2 with 0 <= x1 < x2 <= 90"),
        (("preview", "light", "{photo}", "--boxes", "1,2,100,5"), "This is no box of the picture."),
        (("preview", "light", "{photo}", "-o", "{photo}/x.png"), "cannot be written"),
        (("bench", "GausianBlur"), "did you mean 'GaussianBlur'"),
    ],
)
def test_mistakes(capfd: pytest.CaptureFixture[str], photo: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as caught:
        autodl(capfd, *(a.format(photo=photo, folder=photo.parent) for a in arguments))
    assert said in str(caught.value)


def test_a_preview_is_a_sheet_of_versions(capfd: pytest.CaptureFixture[str], photo: Path) -> None:
    out = photo.parent / "sheets" / "out.png"
    arguments = ("preview", "strong", str(photo), "-o", str(out), "--count", "12", "--size", "64")
    made = document(capfd, *arguments)
    assert made == {
        "file": str(out),
        "policy": "strong",
        "digest": AugmentPolicy.parse("strong").digest,
        "versions": 12,
    }
    with Image.open(out) as sheet:
        assert sheet.size == (5 * 70 + 6, 3 * 86 + 6)
    first = out.read_bytes()
    document(capfd, *arguments)
    assert out.read_bytes() == first
    document(capfd, *arguments, "--seed", "1")
    assert out.read_bytes() != first
    document(capfd, *arguments, "--boxes", "10,10,60,50")
    assert out.read_bytes() != first


def test_a_measurement(capfd: pytest.CaptureFixture[str], photo: Path) -> None:
    every = document(capfd, "bench", "--seconds", "0.01")
    assert (every["height"], every["width"]) == (256, 256)
    assert [row["name"] for row in every["speeds"]] == list(CATALOGUE)
    assert all(row["images_per_s"] > 1 for row in every["speeds"])
    policy = document(capfd, "bench", "light", "--image", str(photo), "--seconds", "0.05")
    assert policy["height"] == 60
    assert policy["speeds"][0]["images_per_s"] > 100


def test_a_measurement_beside_albumentations(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("albumentations")
    rows = document(capfd, "bench", "HorizontalFlip", "--seconds", "0.02", "--albumentations")["speeds"]
    assert rows[0]["albumentations_images_per_s"] > 100
    rows = document(capfd, "bench", "Sharpness", "--seconds", "0.02", "--albumentations")["speeds"]
    assert rows[0]["albumentations_images_per_s"] is None
