"""The validation split that a bundle was chosen by, looked up from where the bundle lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Artifact, Store, ValSamples, open_artifact
from autodl_ray.errors import AutoDLError, BundleError, DatasetError

__all__ = ["validation_split"]

_RUN_JSON = "run.json"


def validation_split(bundle: Path, dataset_id: str, data: Path | None = None) -> ValSamples | None:
    """Find the data set version of a bundle in its store, and the pictures where its run found them.

    Args:
        bundle: ``STORE/RUN/bundle``; elsewhere there is no store to look into.
        dataset_id: As the bundle records it.
        data: Folder of the photos, where they have moved.

    Returns:
        The split, whose first picture was read; None where the version or the pictures are not to be found.

    Raises:
        DatasetError: ``data`` was given, and the photos of the version are not below it.
    """
    run = bundle.resolve().parent
    artifacts = _versions(run.parent, dataset_id)
    root = data or _root_of(run)
    if not artifacts or root is None:
        if data is not None:
            raise DatasetError(
                "The data set version of the bundle is not in its store.",
                seen=f"{dataset_id}, looked for in {run.parent}/datasets",
                accepted="a bundle that lies where `autodl run` wrote it",
            )
        return None
    from autodl_ray.data import load_version

    failures: list[Exception] = []
    for artifact in artifacts:
        try:
            samples = load_version(artifact, root).val
            samples.read(0)
            return samples
        except (AutoDLError, OSError) as error:
            failures.append(error)
    if data is None:
        return None
    raise DatasetError(
        "The photos that the model was trained on are not here.", seen=f"{data}: {failures[0]}", hint="check --data"
    ) from failures[0]


def _versions(store: Path, dataset_id: str) -> list[Artifact]:
    """Return what the store keeps of a version: it may have been read from a folder, a tar and a snapshot."""
    found = []
    for manifest in sorted((store / "datasets").glob("*/manifest.json")):
        try:
            artifact = open_artifact(manifest.parent)
        except BundleError:  # what became of another version is no matter here
            continue
        if artifact.meta.get("version") == dataset_id:
            found.append(artifact)
    return found


def _root_of(run: Path) -> Path | None:
    try:
        document: dict[str, Any] = json.loads((run / _RUN_JSON).read_text(encoding="utf-8"))
        address = str(document["spec"]["data"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    from autodl_ray.data.objects import Packs
    from autodl_ray.data.stage import VERSION_PREFIX

    path = Packs(Store(run.parent)).folder if address.startswith(VERSION_PREFIX) else Path(address).expanduser()
    return path if path.is_dir() else None
