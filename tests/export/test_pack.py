"""A packed bundle: it runs in an environment with onnxruntime, numpy and Pillow alone, and answers as it did here."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.artifacts.manifest import MANIFEST, read_manifest
from autodl_ray.artifacts.smoke import smoke_difference, smoke_pictures
from autodl_ray.errors import BundleError, InputError
from autodl_ray.export import CandidateInputs, Formats, write_bundle
from autodl_ray.export.pack import RUNNER, pack
from autodl_ray.export.runner.predict import Model
from autodl_ray.images import decode_image
from autodl_ray.models.predictor import Predictor
from autodl_ray.spec import ServeSpec
from tests.export.tiny import context_in

NEEDED = ("onnxruntime", "numpy", "pillow")


@pytest.fixture(scope="module")
def bundle(candidate: Artifact, inputs: CandidateInputs, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    context = context_in(tmp_path_factory.mktemp("packing"))
    formats = Formats(("tensorrt",), inputs.val)
    return write_bundle(candidate, report=None, serve=ServeSpec(), context=context, formats=formats)


@pytest.fixture(scope="module")
def packed(bundle: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(bundle.path, folder / "model")
    pack(bundle.path, folder / "model.zip")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A turned JPEG, a transparent PNG, a 16-bit PNG, a CMYK JPEG, an animation and no picture."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = smoke_pictures()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures[0]).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.dstack([pictures[1], pictures[1][:, :, :1]])).save(folder / "clear.png")
    Image.fromarray(pictures[2][:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(pictures[3]).convert("CMYK").save(folder / "ink.jpg")
    first, second = (Image.fromarray(p) for p in (pictures[2], pictures[2][::-1]))
    first.save(folder / "moving.gif", save_all=True, append_images=[second])
    (folder / "text.jpg").write_text("no picture")
    return folder


def test_what_is_packed(bundle: Artifact, packed: Path) -> None:
    names = {p.relative_to(packed / "model").as_posix() for p in (packed / "model").rglob("*") if p.is_file()}
    assert {"predict.py", "__main__.py", "requirements.txt", "README.md", "MODEL_CARD.md"} < names
    assert {"model.int8.onnx", "labels.json", "preprocess.json", "parity.json", "metrics.json", "smoke.json"} < names
    assert not names & {"model.onnx", "model.safetensors"}
    assert not [n for n in names if n.startswith("formats/")]
    requirements = (packed / "model" / "requirements.txt").read_text().split()
    assert requirements == [f"{name}>={importlib.metadata.version(name)}" for name in NEEDED]
    for file in (packed / "model").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), flags=re.MULTILINE)
        assert set(imported) <= {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime", "cv2", RUNNER}, file
    _, info = open_bundle(packed / "model")
    assert (info.variants, info.default_variant, info.formats) == ({"int8": "model.int8.onnx"}, "int8", {})
    assert info.version == open_bundle(bundle.path)[1].version


def test_a_pack_is_a_bundle(bundle: Artifact, packed: Path) -> None:
    pictures = smoke_pictures()
    wanted = Predictor.open(bundle.path)(pictures)
    for path in (packed / "model", packed / "model.zip"):
        predictor = Predictor.open(path)
        np.testing.assert_array_equal(predictor(pictures), wanted)
        document = json.loads(open_bundle(path)[0].file("smoke.json").read_text())
        assert smoke_difference(document, "int8", predictor)[0] < 1e-5


def test_equal_bundles_are_packed_equally(bundle: Artifact, packed: Path, tmp_path: Path) -> None:
    pack(bundle.path, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (packed / "model.zip").read_bytes()
    pack(packed / "model.zip", tmp_path / "twice")  # of a pack
    assert open_bundle(tmp_path / "twice")[1] == open_bundle(packed / "model")[1]
    smaller = pack(bundle.path, tmp_path / "float.zip", variant="fp32")
    assert smaller.variant == "fp32"
    assert open_bundle(tmp_path / "float.zip")[1].variants == {"fp32": "model.onnx"}


def test_what_is_refused(bundle: Artifact, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        pack(bundle.path, tmp_path / "full")
    with pytest.raises(BundleError, match="no fp32 variant"):
        pack(packed / "model", tmp_path / "other", variant="fp32")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(InputError, match="There is a folder of that name"):
        pack(bundle.path, tmp_path / "folder.zip")
    with pytest.raises(InputError, match="Nothing can be written there"):
        pack(bundle.path, tmp_path / "full" / "mine.txt" / "deep" / "model.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.zip", "full"]


def test_the_versions_are_those_that_made_the_model(bundle: Artifact, tmp_path: Path) -> None:
    made = shutil.copytree(bundle.path, tmp_path / "elsewhere")
    manifest = read_manifest((made / MANIFEST).read_text(), "here")
    other = manifest.model_copy(update={"packages": {"onnxruntime": "1.20.0", "numpy": "2.0.0"}, "seal": ""})
    (made / MANIFEST).write_text(other.model_copy(update={"seal": other.expected_seal()}).to_json())
    pack(made, tmp_path / "model")
    assert (tmp_path / "model" / "requirements.txt").read_text().split() == [
        "onnxruntime>=1.20.0",
        "numpy>=2.0.0",
        "pillow",
    ]
    assert open_bundle(tmp_path / "model")[0].manifest.packages == other.packages


def test_a_changed_manifest_is_noticed_by_the_program(packed: Path, tmp_path: Path) -> None:
    assert Model(packed / "model").variant == "int8"
    changed = shutil.copytree(packed / "model", tmp_path / "model")
    manifest = json.loads((changed / MANIFEST).read_text())
    for document in ({**manifest, "seed": 1}, {k: v for k, v in manifest.items() if k != "files"}, [1]):
        (changed / MANIFEST).write_text(json.dumps(document))
        with pytest.raises(BundleError, match=r"manifest\.json was changed"):
            Model(changed)
    raw = bytearray((packed / "model.zip").read_bytes())
    for found in re.finditer(rb"PK\x01\x02", bytes(raw)):
        raw[found.start() + 8] |= 1  # says that the file is encrypted
    (tmp_path / "odd.zip").write_bytes(raw)
    with pytest.raises(BundleError, match="missing or damaged"):
        Model(tmp_path / "odd.zip")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees onnxruntime, numpy and Pillow, and nothing else of this one."""
    folder = tmp_path_factory.mktemp("bare")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    site = next((folder / "lib").glob("python*/site-packages"))
    for name in NEEDED:
        distribution = importlib.metadata.distribution(name)
        tops = {Path(str(f)).parts[0] for f in distribution.files or () if ".." not in Path(str(f)).parts}
        for top in tops - {"__pycache__"}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


def run(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(a) for a in arguments]
    return subprocess.run([str(python), *words], capture_output=True, text=True, cwd=cwd, timeout=120, env={})


@pytest.mark.slow
def test_it_runs_in_a_bare_environment(bare: Path, bundle: Artifact, packed: Path, photos: Path) -> None:
    for name in ("torch", "ray", "autodl_ray", "onnx", "pydantic", "cv2", "scipy"):
        done = run(bare, "-c", f"import {name}", cwd=photos)
        assert f"No module named '{name}'" in done.stderr, f"{name} is there: the environment is not bare"
    files = sorted(p.name for p in photos.iterdir())
    readable = [f for f in files if f != "text.jpg"]
    wanted = Predictor.open(bundle.path)([decode_image((photos / f).read_bytes()) for f in readable])
    for program in (packed / "model" / "predict.py", packed / "model.zip"):
        done = run(bare, "-W", "error", program, *files, "--json", "--top-k", 3, cwd=photos)
        assert done.returncode == 2, done.stderr
        document = json.loads(done.stdout)
        assert document["failed"] == 1
        rows = {row["file"]: row for row in document["predictions"]}
        assert rows["text.jpg"]["error"] == "This is not a picture."
        classes = open_bundle(bundle.path)[1].classes
        for file, row in zip(readable, wanted, strict=True):
            seen = {t["class"]: t["probability"] for t in rows[file]["top"]}
            np.testing.assert_allclose([seen[c] for c in classes], row, atol=1e-6)
        tested = run(bare, program, "--self-test", cwd=photos)
        assert tested.stdout.startswith("self-test passed"), tested.stderr


@pytest.mark.slow
def test_a_damaged_pack_says_so_in_the_bare_environment(bare: Path, packed: Path, tmp_path: Path, photos: Path) -> None:
    for name in ("model.int8.onnx", "bundle.json", "manifest.json", "smoke.json"):
        with zipfile.ZipFile(packed / "model.zip") as source:
            files = {i.filename: source.read(i) for i in source.infolist()}
        files[name] = files[name][: len(files[name]) // 2]
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as target:
            for key, data in files.items():
                target.writestr(key, data)
        done = run(bare, tmp_path / "bad.zip", "--self-test", cwd=photos)
        assert done.returncode == 2, name
        assert done.stderr.startswith("error: "), name
        assert "Traceback" not in done.stderr
    done = run(bare, packed / "model.zip", cwd=photos)
    assert done.returncode == 2
    assert "give some pictures" in done.stderr
