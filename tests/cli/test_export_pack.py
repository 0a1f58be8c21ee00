"""`autodl export` and `autodl pack`, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autodl_ray.data import formats
from autodl_ray.data.stage import run as make_version
from autodl_ray.data.versions.snapshot import snapshot
from autodl_ray.errors import DatasetError, InputError
from autodl_ray.export import CandidateInputs, make_candidate, write_bundle
from autodl_ray.export.formats import known_format
from autodl_ray.export.placing import refuse_foreign
from autodl_ray.images import Preprocess
from autodl_ray.models.predictor import Predictor
from autodl_ray.pipeline.finding import validation_split
from autodl_ray.pipeline.record import RunRecord
from autodl_ray.spec import DataSpec, ExperimentSpec, ExportSpec, ServeSpec, SplitSpec
from tests.export.tiny import CLASSES, context_in, fitted, make_shapes


def autodl(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(a) for a in arguments]
    return subprocess.run([sys.executable, "-m", "autodl_ray", *words], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporting")
    shapes = make_shapes(folder / "shapes", train=24, val=12)
    rule = Preprocess(16, "crop", (0.4, 0.5, 0.6), (0.25, 0.3, 0.2))
    inputs = CandidateInputs(
        model=fitted(shapes, rule, steps=8),
        model_name="small_cnn",
        preprocess=rule,
        classes=CLASSES,
        train=shapes.train,
        val=shapes.val,
        dataset_id="d" * 32,
        source="train",
        with_int8=False,
    )
    context = context_in(folder / "store")
    candidate = make_candidate(ExportSpec(int8="off"), inputs, key="shapes/candidates/train", context=context)
    return write_bundle(candidate, report=None, serve=ServeSpec(), context=context).path


def test_export_without_the_photos(bundle: Path, tmp_path: Path) -> None:
    words = ("export", bundle, "--to", "torchscript", "--to", "tensorrt", "--to", "safetensors", "--out", tmp_path)
    done = autodl(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["checked_on"] == "48 made pictures (the photos were not found: give --data)"
    assert [row["format"] for row in document["formats"]] == ["torchscript", "tensorrt", "safetensors"]
    assert all(row["agreement"] == 1.0 and row["max_difference"] < 1e-5 for row in document["formats"])
    record = json.loads((tmp_path / "torchscript" / "export.json").read_text())
    assert set(record["parity"]["by_batch"]) == {"1", "3", "32"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["safetensors", "tensorrt", "torchscript"]
    script = (tmp_path / "tensorrt" / "build.sh").read_text()
    assert "--minShapes=pixels:" in script
    assert subprocess.run(["sh", "-n", tmp_path / "tensorrt" / "build.sh"], check=False).returncode == 0
    compile((tmp_path / "tensorrt" / "build.py").read_text(), "build.py", "exec")


def test_what_export_refuses(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "torchscript").mkdir()
    (tmp_path / "torchscript" / "mine.txt").write_text("x")
    done = autodl("export", bundle, "--to", "torchscript", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The folder holds something else.")
    assert [p.name for p in tmp_path.rglob("*")] == ["torchscript", "mine.txt"]
    with pytest.raises(InputError, match="There is a file of that name"):
        refuse_foreign(tmp_path / "torchscript" / "mine.txt", ["openvino"])
    with pytest.raises(InputError, match="Nothing can be written there"):
        refuse_foreign(tmp_path / "torchscript" / "mine.txt" / "out", ["openvino"])
    with pytest.raises(InputError, match="There is no such format") as caught:
        known_format("torchscrpt")
    assert "did you mean 'torchscript'" in str(caught.value)
    with pytest.raises(DatasetError, match="is not in its store"):
        validation_split(bundle, "d" * 32, tmp_path)


def test_pack(bundle: Path, tmp_path: Path) -> None:
    done = autodl("pack", bundle, "--out", tmp_path / "model.zip")
    assert done.returncode == 0, done.stderr
    assert f"run it    python {tmp_path}/model.zip PHOTO.jpg" in done.stdout
    assert Predictor.open(tmp_path / "model.zip").name == "shapes"
    (tmp_path / "model.zip").write_bytes((tmp_path / "model.zip").read_bytes()[:-40])
    again = autodl("predict", tmp_path / "model.zip", tmp_path)
    assert again.returncode == 2
    assert "error: The archive is damaged." in again.stderr


def test_the_photos_of_no_store(bundle: Path) -> None:
    assert validation_split(bundle, "d" * 32) is None


def test_the_photos_of_a_store_beside_a_damaged_version(tmp_path: Path) -> None:
    photos = make_shapes(tmp_path / "photos", train=24, val=12).train.root
    context = context_in(tmp_path / "store")
    version = make_version(DataSpec(path=str(photos)), context=context)
    bundle = tmp_path / "store" / "shapes" / "bundle"
    RunRecord(context.store.folder("shapes")).begin(ExperimentSpec(data=DataSpec(path=str(photos))), version.id)
    damaged = tmp_path / "store" / "datasets" / "0"  # is looked at first
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    found = validation_split(bundle, version.id)
    assert found is not None
    assert found.paths == version.val.paths
    moved = photos.rename(tmp_path / "moved")
    assert validation_split(bundle, version.id) is None
    again = validation_split(bundle, version.id, moved)
    assert again is not None
    assert again.read(0) == (moved / found.paths[0]).read_bytes()
    with pytest.raises(DatasetError, match="trained on are not here"):
        validation_split(bundle, version.id, tmp_path / "store")


def test_the_photos_of_a_snapshot(tmp_path: Path) -> None:
    photos = make_shapes(tmp_path / "photos", train=24, val=12).train.root
    context = context_in(tmp_path / "store")
    listing = formats.read(str(photos), cache=context.store.folder("cache/formats"))
    snapshot(listing, split=SplitSpec(), context=context, tag="shapes")
    spec = DataSpec(path="version:shapes")
    version = make_version(spec, context=context)
    RunRecord(context.store.folder("shapes")).begin(ExperimentSpec(data=spec), version.id)
    shutil.rmtree(photos)
    found = validation_split(tmp_path / "store" / "shapes" / "bundle", version.id)
    assert found is not None
    assert [found.read(i) for i in range(len(found))] == [version.val.read(i) for i in range(len(version.val))]
