"""A damaged bundle is refused with one clear error, whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autodl_ray.artifacts import Store
from autodl_ray.artifacts.bundle import BundleInfo, open_bundle
from autodl_ray.artifacts.manifest import file_record
from autodl_ray.errors import BundleError
from autodl_ray.models.predictor import Predictor
from tests.serve.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


def _truncate(folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-7])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def _edit(folder: Path, name: str, change: Callable[[dict[str, object]], None]) -> None:
    """Change a JSON document, and (for bundle.json) its record in the manifest, so that only the content is wrong."""
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = file_record(folder / name).model_dump()
        manifest["seal"] = ""  # as if it had been written so
        (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated model": (_truncate, "truncated or was changed"),
    "one flipped bit": (_flip, "truncated or was changed"),
    "missing model": (lambda f: (f / "model.onnx").unlink(), "is missing"),
    "missing record": (lambda f: (f / "bundle.json").unlink(), "is missing"),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), "no whole artifact"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text('{"schema'), "manifest is damaged"),
    "newer manifest": (lambda f: _edit(f, "manifest.json", lambda d: d.update(schema_version=99)), "newer schema"),
    "newer record": (lambda f: _edit(f, "bundle.json", lambda d: d.update(schema_version=99)), "newer schema"),
    "record of another shape": (
        lambda f: _edit(f, "bundle.json", lambda d: d.pop("classes")),
        "bundle.json is damaged",
    ),
    "default that is not there": (
        lambda f: _edit(f, "bundle.json", lambda d: d.update(default_variant="int8")),
        "bundle.json is damaged",
    ),
    "file outside": (
        lambda f: _edit(f, "bundle.json", lambda d: d.update(variants={"fp32": "../../model.onnx"})),
        "no such file",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(bundle: Path, name: str) -> None:
    Predictor.open(bundle)
    damage, message = DAMAGE[name]
    damage(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        Predictor.open(bundle)
    assert str(bundle) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_newer_schema_says_what_to_do(bundle: Path) -> None:
    _edit(bundle, "bundle.json", lambda d: d.update(schema_version=99))
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert "schema_version 99" in str(caught.value)
    assert "up to 1" in str(caught.value)
    assert "upgrade autodl_ray" in str(caught.value)


def test_folders_that_are_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "empty", tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="no whole artifact here") as caught:
            Predictor.open(path)
        assert "runs/NAME/bundle" in str(caught.value)


def test_another_artifact_is_no_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.write("run/report", kind="evaluation", spec_digest="", inputs={}, seed=0) as writer:
        (writer.path / "report.json").write_text("{}")
    with pytest.raises(BundleError, match="This artifact is no model") as caught:
        Predictor.open(tmp_path / "run" / "report")
    assert "evaluation" in str(caught.value)


def test_a_model_that_is_no_onnx(bundle: Path) -> None:
    _truncate(bundle)
    with pytest.raises(BundleError, match="cannot be loaded"):
        Predictor.open(bundle, verify=False)


def test_a_bundle_may_be_moved(bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(bundle, moved)
    assert Predictor.open(moved).name == "colours"


def test_the_record_survives_json(bundle: Path) -> None:
    _, info = open_bundle(bundle)
    assert BundleInfo.model_validate_json(info.to_json()) == info
