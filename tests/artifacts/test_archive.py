"""A bundle in one zip: opened like a folder, the same bytes twice, and refused when anything in it is not as it was."""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from autodl_ray.artifacts import archive, open_artifact
from autodl_ray.artifacts.archive import is_archive, unpacked, write_archive
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.artifacts.manifest import is_safe_name
from autodl_ray.errors import BundleError
from autodl_ray.models.predictor import Predictor
from autodl_ray.serve.bundles import check_bundles
from tests.serve.tiny import make_bundle


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


@pytest.fixture
def zipped(folder: Path, tmp_path: Path) -> Path:
    write_archive(folder, tmp_path / "colours.zip")
    return tmp_path / "colours.zip"


def kept() -> list[Path]:
    return [p for p in Path(tempfile.gettempdir()).rglob("*") if p.is_file()]


def rewritten(source: Path, target: Path, **changes: bytes | None) -> Path:
    """Copy a zip with some files changed, added or (None) left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        files = {i.filename: old.read(i) for i in old.infolist()}
        files.update({k: v for k, v in changes.items() if v is not None})
        for name, data in files.items():
            if changes.get(name, data) is not None:
                new.writestr(name, data)
    return target


def test_a_zip_is_opened_like_a_folder(folder: Path, zipped: Path) -> None:
    assert is_archive(zipped)
    assert not is_archive(folder)
    _, wanted = open_bundle(folder)
    artifact, info = open_bundle(zipped)
    assert info == wanted
    picture = np.full((5, 4, 3), (220, 30, 20), np.uint8)
    assert Predictor.open(zipped)([picture]).argmax() == Predictor.open(folder)([picture]).argmax() == 2
    assert open_bundle(zipped)[0].path == artifact.path  # unpacked once
    assert stat.S_IMODE(artifact.path.parent.stat().st_mode) == 0o700
    served = check_bundles([f"mine={zipped}"])[0]
    assert (served.name, served.folder) == ("mine", artifact.path)


def test_equal_folders_give_equal_zips(folder: Path, zipped: Path, tmp_path: Path) -> None:
    write_archive(folder, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".again")] == []


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_every_file_is_checked(folder: Path, zipped: Path, tmp_path: Path, name: str, how: str) -> None:
    data = (folder / name).read_bytes()
    at = data.index(b'"seed": 0') + 8 if name == "manifest.json" else len(data) // 2
    changed = {
        "flipped": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "truncated": data[: len(data) // 2],
        "missing": None,
    }[how]
    bad = rewritten(zipped, tmp_path / "bad.zip", **{name: changed})
    with pytest.raises(BundleError) as caught:
        open_bundle(bad)
    assert str(caught.value).count("\n") <= 3
    assert caught.value.exit_code == 2
    if changed is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(changed)
    with pytest.raises(BundleError):
        open_bundle(folder)


def test_a_truncated_or_foreign_zip(zipped: Path, tmp_path: Path) -> None:
    raw = zipped.read_bytes()
    for size in (0, 10, len(raw) // 2, len(raw) - 5):
        (tmp_path / "cut.zip").write_bytes(raw[:size])
        with pytest.raises(BundleError, match="The archive is damaged"):
            open_bundle(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match="no whole artifact in this archive"):
        open_bundle(tmp_path / "other.zip")
    assert kept() == []


def test_a_flipped_byte_anywhere_never_goes_unnoticed(folder: Path, zipped: Path, tmp_path: Path) -> None:
    raw = zipped.read_bytes()
    wanted = open_bundle(folder)[1]
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), 60):
        (tmp_path / "flipped.zip").write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        try:
            artifact, info = open_bundle(tmp_path / "flipped.zip")
        except BundleError:
            continue
        assert info == wanted  # a byte that says nothing, such as the date of a file
        assert artifact.file("model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:evil.txt", "a\\evil.txt", "./evil.txt", "a//evil.txt"]
)
def test_names_that_lead_out_of_the_folder(zipped: Path, tmp_path: Path, name: str) -> None:
    assert not is_safe_name(name)
    bad = rewritten(zipped, tmp_path / "bad.zip", **{name: b"x"})
    with pytest.raises(BundleError, match="holds what no bundle holds"):
        open_bundle(bad)
    assert kept() == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_manifest_that_names_a_file_outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = {"sha256": "0" * 64, "bytes": 1}
    manifest["seal"] = ""
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="names files outside its folder"):
        open_artifact(folder)


def test_a_compression_that_no_bundle_has(zipped: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped) as old, zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        start = new.getinfo("manifest.json").header_offset + 60
    raw = (tmp_path / "lzma.zip").read_bytes()
    (tmp_path / "lzma.zip").write_bytes(raw[:start] + bytes(40) + raw[start + 40 :])  # an error of lzma's own
    with pytest.raises(BundleError, match="holds what no bundle holds") as caught:
        open_bundle(tmp_path / "lzma.zip")
    assert "compression 14" in str(caught.value)


def test_links_surplus_and_twins(zipped: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for bad, name in (("link.zip", link), ("more.zip", "more.txt")):
        rewritten(zipped, tmp_path / bad)
        with zipfile.ZipFile(tmp_path / bad, "a") as target:
            target.writestr(name, "model.onnx")
        with pytest.raises(BundleError, match="holds what no bundle holds"):
            open_bundle(tmp_path / bad)
    rewritten(zipped, tmp_path / "twice.zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "twice.zip", "a") as target:
        target.writestr("bundle.json", "{}")
    with pytest.raises(BundleError, match="two files of one name"):
        open_bundle(tmp_path / "twice.zip")


def test_sizes_are_bounded(zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(BundleError, match="holds what no bundle holds") as caught:
        open_bundle(zipped)
    assert "at most 1,000" in str(caught.value)
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    with pytest.raises(BundleError, match="holds what no bundle holds") as caught:
        open_bundle(zipped)
    assert "at most 2" in str(caught.value)


def test_a_file_that_unpacks_to_more_than_it_says(folder: Path, zipped: Path, tmp_path: Path) -> None:
    bomb = rewritten(zipped, tmp_path / "bomb.zip", **{"model.onnx": bytes(50_000_000)})
    with pytest.raises(BundleError, match="truncated or was changed"):
        open_bundle(bomb)
    assert kept() == []


def test_a_taken_temporary_folder_is_not_used(zipped: Path) -> None:
    import os

    taken = Path(tempfile.gettempdir()) / f"autodl-bundles-{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)  # anybody could have put a model there
    found = unpacked(zipped)
    assert taken not in found.parents
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700


def test_what_a_cleaner_took_is_unpacked_again(zipped: Path) -> None:
    found = unpacked(zipped)
    (found / "model.onnx").unlink()
    assert unpacked(zipped) == found
    open_bundle(zipped)
