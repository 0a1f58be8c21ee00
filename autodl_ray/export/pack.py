"""A bundle packed to be run elsewhere: its files and a small program that needs onnxruntime, numpy and Pillow."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autodl_ray.artifacts import Artifact, write_atomic
from autodl_ray.artifacts.archive import write_archive
from autodl_ray.artifacts.bundle import BUNDLE_JSON, MODEL_FILES, WEIGHTS_FILE, BundleInfo, Variant, open_bundle
from autodl_ray.artifacts.manifest import MANIFEST, Manifest
from autodl_ray.artifacts.smoke import SMOKE_JSON, smoke_document
from autodl_ray.errors import BundleError, InputError
from autodl_ray.export.placing import refuse_closed

__all__ = ["RUNNER", "Packed", "pack"]

RUNNER = "autodl_runner"
"""Name of the package with the program."""

_PACKAGE = Path(__file__).parents[1]
_SOURCES = {
    "errors.py": "errors.py",
    "images.py": "images.py",
    "smoke.py": "artifacts/smoke.py",
    "preprocess.py": "export/runner/preprocess.py",
    "predict.py": "export/runner/predict.py",
}
_RENAMED = {
    "autodl_ray.artifacts.smoke": f"{RUNNER}.smoke",
    "autodl_ray.errors": f"{RUNNER}.errors",
    "autodl_ray.images": f"{RUNNER}.images",
}
_NEEDS = ("onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        path: The folder or zip.
        variant: Of the model file in it.
        bytes: Size on the disk.
        files: How many files.
    """

    path: Path
    variant: Variant
    bytes: int
    files: int


def pack(bundle: str | Path, target: Path, *, variant: Literal["auto", "fp32", "int8"] = "auto") -> Packed:
    """Write a folder or a zip that runs alone, and is a bundle itself; equal bundles give equal files.

    Args:
        bundle: A bundle: a folder or a zip.
        target: A new folder, or a file that ends in ``.zip`` (which is replaced).
        variant: The one model file that is kept; ``auto``: the one that the bundle serves.

    Raises:
        BundleError: The bundle is damaged or has no such variant.
        InputError: The folder is there already and holds something, has the name of the zip, or cannot be written.
    """
    artifact, info = open_bundle(bundle, verify=True)
    chosen: Variant = info.default_variant if variant == "auto" else variant
    if chosen not in info.variants:
        raise BundleError(
            f"The bundle has no {chosen} variant.",
            seen=f"{bundle}: {', '.join(info.variants)}",
            accepted=f"auto, {', '.join(info.variants)}",
        )
    if target.suffix.lower() == ".zip" and target.is_dir():
        raise InputError("There is a folder of that name.", seen=str(target), hint="give another name.zip")
    if target.suffix.lower() != ".zip" and target.exists() and (target.is_file() or any(target.iterdir())):
        raise InputError("The folder is not empty.", seen=str(target), hint="give a new folder, or a name.zip")
    refuse_closed(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".autodl-pack-", dir=target.parent) as staging:
        folder = Path(staging) / "pack"
        folder.mkdir()
        _fill(folder, artifact, info, chosen)
        if target.suffix.lower() == ".zip":
            write_archive(folder, target)
        else:
            if target.exists():
                target.rmdir()
            shutil.move(folder, target)
            folder = target
        files = [p for p in folder.rglob("*") if p.is_file()]
        size = target.stat().st_size if target.is_file() else sum(p.stat().st_size for p in files)
    return Packed(target, chosen, size, len(files))


def _fill(folder: Path, artifact: Artifact, info: BundleInfo, variant: Variant) -> None:
    """Copy what is needed, add the program, and write a manifest over all of it."""
    others = {MODEL_FILES[v] for v in info.variants if v != variant}
    formats = {name for name in artifact.manifest.files if name.startswith("formats/")}
    program = {name for name in artifact.manifest.files if name.startswith(f"{RUNNER}/")}
    artifact.copy_files(folder, without=others | formats | program | {WEIGHTS_FILE, BUNDLE_JSON})
    record = BundleInfo.model_validate(
        {**info.model_dump(), "variants": {variant: info.variants[variant]}, "default_variant": variant, "formats": {}}
    )
    (folder / BUNDLE_JSON).write_text(record.to_json(), encoding="utf-8")
    if not (folder / SMOKE_JSON).exists():
        _write_smoke(folder, artifact, info, variant)
    _write_program(folder, record, artifact.manifest.packages)
    old = artifact.manifest
    sealed = Manifest.of(
        folder,
        kind="bundle",
        spec_digest=old.spec_digest,
        inputs={**old.inputs, "packed": artifact.id},
        seed=old.seed,
        meta=old.meta,
        packages=old.packages,  # of where the model was made
    )
    write_atomic(folder / MANIFEST, sealed.to_json())


def _write_smoke(folder: Path, artifact: Artifact, info: BundleInfo, variant: Variant) -> None:
    from autodl_ray.models.predictor import Predictor

    predictor = Predictor.open(artifact.path, variant=variant, verify=False)
    (folder / SMOKE_JSON).write_text(json.dumps(smoke_document({variant: predictor}), indent=1) + "\n")


def _write_program(folder: Path, info: BundleInfo, packages: Mapping[str, str]) -> None:
    package = folder / RUNNER
    package.mkdir()
    (package / "__init__.py").write_text('"""The program of a packed model."""\n')
    for name, source in _SOURCES.items():
        (package / name).write_text(_renamed((_PACKAGE / source).read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "predict.py").write_text(_launcher(in_zip=False))
    (folder / "__main__.py").write_text(_launcher(in_zip=True))
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(packages)))
    (folder / "README.md").write_text(_readme(info), encoding="utf-8")


def _renamed(source: str) -> str:
    """Let a module of this package import its like from the packed one."""
    for old, new in _RENAMED.items():
        source = re.sub(rf"\b{re.escape(old)}\b", new, source)
    return source


def _launcher(*, in_zip: bool) -> str:
    what = "Runs the program of this zip: python NAME.zip photo.jpg" if in_zip else "Runs: python predict.py photo.jpg"
    return f'''"""{what}"""

import sys
from pathlib import Path

from {RUNNER}.predict import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
'''


def _requirements(packages: Mapping[str, str]) -> list[str]:
    """The versions that the model was checked with where it was made, and newer ones."""
    return [f"{name}>={packages[name]}" if name in packages else name for name in _NEEDS]


def _readme(info: BundleInfo) -> str:
    return f"""# {info.name} {info.version}

{len(info.classes)} classes; see `MODEL_CARD.md`, where there is one, for what is known of the model.

    pip install -r requirements.txt
    python predict.py photo.jpg --top-k 3
    python predict.py --self-test        # every file is whole, and made pictures are answered as they were

As a zip it runs without being unpacked: `python {info.name}.zip photo.jpg`. In a program:

    from {RUNNER}.images import decode_image
    from {RUNNER}.predict import Model
    model = Model(".")
    probabilities = model([decode_image(open("photo.jpg", "rb").read())])[0]
    print(model.classes[probabilities.argmax()])

`preprocess.json` says what happens to a picture before the network (it lies inside the ONNX file), and
`{RUNNER}/preprocess.py` does the same in numpy, for runtimes that cannot hold it.
"""
