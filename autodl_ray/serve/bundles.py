"""Which bundles are to be served, under which names: checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.artifacts.archive import is_archive
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import BundleError, InputError

__all__ = ["ServedBundle", "check_bundles"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class ServedBundle:
    """A whole bundle and the name it is served under.

    Attributes:
        name: Of the model in URLs and answers.
        version: Of the bundle.
        folder: Where it lies.
        classes: Class names.
        model_bytes: Size of the model file that a replica loads.
        settings: Settings of the HTTP service that the bundle carries (a ``ServeSpec`` as JSON), or None.
    """

    name: str
    version: str
    folder: Path
    classes: tuple[str, ...]
    model_bytes: int
    settings: dict[str, object] | None


def check_bundles(bundles: Sequence[str | Path]) -> tuple[ServedBundle, ...]:
    """Hash the files of every bundle and read what it is.

    Args:
        bundles: ``FOLDER`` or ``NAME=FOLDER``; the first is the default model.

    Raises:
        BundleError: One is damaged, truncated, of a newer schema, or no bundle.
        InputError: Two have the same name, or a name cannot stand in a URL.
    """
    found: dict[str, ServedBundle] = {}
    for text in bundles:
        bundle = _check(str(text))
        if bundle.name in found:
            raise InputError(
                "Two bundles have the same name.",
                seen=f"{bundle.name}: {found[bundle.name].folder} and {bundle.folder}",
                hint=f"name one of them: {bundle.name}-2={bundle.folder}",
            )
        found[bundle.name] = bundle
    return tuple(found.values())


def _check(text: str) -> ServedBundle:
    name, separator, rest = text.partition("=")
    named = bool(separator) and not Path(text).exists()
    folder = Path(rest if named else text).expanduser().resolve()
    if not folder.is_dir() and not is_archive(folder):
        raise BundleError(
            "There is no such bundle.",
            seen=str(folder),
            accepted="a folder or a zip, or NAME=FOLDER",
            hint="give the folder that a finished run printed, e.g. runs/NAME/bundle",
        )
    artifact, info = open_bundle(folder)
    name = name if named else info.name
    if not _NAME.fullmatch(name):
        raise InputError(
            "The name of the model cannot stand in a URL.",
            seen=name,
            accepted="letters, digits, '.', '_' and '-'",
            hint=f"name it: NAME={text}",
        )
    size = artifact.file(info.variants[info.default_variant]).stat().st_size
    return ServedBundle(name, info.version, artifact.path, info.classes, size, info.serve)
