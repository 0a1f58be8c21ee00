"""The record that makes a folder an artifact: what it is, from what it came, and the hash of every file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autodl_ray.errors import BundleError

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "FileRecord",
    "Manifest",
    "file_record",
    "is_safe_name",
    "package_versions",
    "read_manifest",
]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_PACKAGES = ("autodl_ray", "ray", "torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "pillow")

Kind = Literal["dataset", "features", "candidate", "sweep", "training", "evaluation", "bundle"]


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """The last file that is written of an artifact; where it is, the artifact is whole.

    Attributes:
        schema_version: Of this record; a newer one is refused.
        kind: What the artifact is.
        id: sha256 over kind, spec digest, inputs, files and meta: equal content has an equal id.
        spec_digest: Of the part of the spec that made it.
        inputs: Name → id of the artifacts it was made from.
        files: Relative path → hash and size.
        packages: Versions that made it.
        seed: Root seed.
        meta: Small facts of this kind, as JSON.
        seal: sha256 over everything else in the manifest, so that a changed one is noticed; empty in older ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA_VERSION
    kind: Kind
    id: str
    spec_digest: str
    inputs: dict[str, str]
    files: dict[str, FileRecord]
    packages: dict[str, str]
    seed: int
    meta: dict[str, Any]
    seal: str = ""

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        kind: Kind,
        spec_digest: str,
        inputs: dict[str, str],
        seed: int,
        meta: dict[str, Any],
        packages: dict[str, str] | None = None,
    ) -> Manifest:
        """Describe the files that lie in ``folder`` now; without ``packages``, those that are installed made them."""
        files = {
            p.relative_to(folder).as_posix(): file_record(p)
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p != folder / MANIFEST
        }
        content = {
            "kind": kind,
            "spec": spec_digest,
            "inputs": inputs,
            "files": {k: v.sha256 for k, v in files.items()},
            "meta": meta,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        unsealed = cls(
            kind=kind,
            id=digest[:32],
            spec_digest=spec_digest,
            inputs=inputs,
            files=files,
            packages=package_versions() if packages is None else packages,
            seed=seed,
            meta=meta,
        )
        return cls.model_validate({**unsealed.model_dump(), "seal": unsealed.expected_seal()})

    def expected_seal(self) -> str:
        """Return what ``seal`` is where nothing was changed."""
        content = self.model_dump(mode="json", exclude={"seal"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the record as indented JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def file_record(path: Path) -> FileRecord:
    """Hash one file."""
    with path.open("rb") as stream:
        return FileRecord(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide a result."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_manifest(text: str, where: str) -> Manifest:
    """Parse a manifest.

    Raises:
        BundleError: It is damaged, or of a newer schema than this version reads.
    """
    try:
        document = json.loads(text)
        version = document["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            "The manifest is damaged.", seen=f"{where}: {error}", hint="delete this folder and make the artifact again"
        ) from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise BundleError(
            "The artifact is of a newer schema than this version reads.",
            seen=f"{where}: schema_version {version}",
            accepted=f"schema_version up to {SCHEMA_VERSION}",
            hint="upgrade autodl_ray",
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleError(
            "The manifest is damaged.",
            seen=f"{where}: {error.errors()[0]['msg']}",
            hint="delete this folder and make the artifact again",
        ) from error
    outside = [name for name in manifest.files if not is_safe_name(name)]
    if outside:
        raise BundleError(
            "The manifest names files outside its folder.", seen=f"{where}: {outside[0]}", hint="do not use this folder"
        )
    return manifest


def is_safe_name(name: str) -> bool:
    """Whether a name is a relative path that stays inside its folder, on every system.

    Example:
        >>> is_safe_name("formats/openvino/model.xml"), is_safe_name("../model.onnx")
        (True, False)
    """
    parts = PurePosixPath(name).parts
    plain = bool(parts) and "/".join(parts) == name and len(name) < 512
    return plain and not name.startswith("/") and not {"..", "."} & set(parts) and not set(name) & set("\\:\0\n")
