"""Reading a spec: from YAML or a mapping, all mistakes in one error with their key paths and lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from autodl_ray.errors import SpecError
from autodl_ray.spec.explain import explain
from autodl_ray.spec.sections import ExperimentSpec

__all__ = ["difference", "load_spec", "parse_spec", "spec_digest", "with_overrides"]


def load_spec(path: str | Path, overrides: Mapping[str, Any] | None = None) -> ExperimentSpec:
    """Read and validate a YAML spec.

    Args:
        path: The YAML file.
        overrides: Dotted keys laid over the file, e.g. ``{"train.lr": 1e-3}``.

    Raises:
        SpecError: The file is missing, is not YAML, or has unknown keys or bad values (all of them listed).
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            "The spec cannot be read.", seen=f"{file}: {error}", hint="write one with `autodl spec init`"
        ) from error
    try:
        lines = _lines(text)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        raise SpecError("The spec is not valid YAML.", seen=" ".join(str(error).split())) from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SpecError("The spec must be a mapping of sections.", seen=type(document).__name__)
    return parse_spec(with_overrides(document, overrides or {}), lines=lines, source=str(file))


def parse_spec(
    document: Mapping[str, Any], *, lines: Mapping[str, int] | None = None, source: str = "the spec"
) -> ExperimentSpec:
    """Validate a mapping as an ExperimentSpec.

    Raises:
        SpecError: Every mistake with its key path (and line where known), near names suggested.
    """
    try:
        return ExperimentSpec.model_validate(document)
    except ValidationError as error:
        message = explain(error, ExperimentSpec, lines=lines or {}, source=source)
        raise SpecError(message, hint="see `autodl spec init`") from error


def with_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``document`` with dotted keys replaced."""
    merged: dict[str, Any] = json.loads(json.dumps(dict(document), default=str))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        place = merged
        for parent in parents:
            child = place.setdefault(parent, {})
            if not isinstance(child, dict):
                raise SpecError(f"{key} cannot be set: {parent} is not a section.", seen=child)
            place = child
        place[last] = value
    return merged


def spec_digest(spec: BaseModel) -> str:
    """Return a sha256 (hex) over the spec's canonical JSON; field order and file layout do not matter."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the keys in which two documents differ, as ``train.lr: 0.001 → 0.01``."""
    rows: list[str] = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if left == right:
            continue
        path = f"{prefix}{key}"
        if isinstance(left, dict) and isinstance(right, dict):
            rows.extend(difference(left, right, f"{path}."))
        else:
            rows.append(f"{path}: {left!r} → {right!r}")
    return rows


def _lines(text: str) -> dict[str, int]:
    """Map each dotted key of a YAML document to its line, counted from 1.

    Raises:
        SpecError: A key is given twice (YAML would silently keep the last), or a mapping contains itself.
    """
    found: dict[str, int] = {}

    def walk(node: yaml.Node, prefix: str, above: tuple[yaml.Node, ...]) -> None:
        if any(node is other for other in above):
            raise SpecError("The spec contains itself.", seen=f"{prefix.rstrip('.')}: an alias of what it lies in")
        if not isinstance(node, yaml.MappingNode):
            return
        here: dict[str, int] = {}
        for key, value in node.value:
            path, line = f"{prefix}{key.value}", key.start_mark.line + 1
            if path in here and key.value != "<<":
                raise SpecError(f"{path} is given twice.", seen=f"lines {here[path]} and {line}", hint="keep one")
            here[path] = line
            walk(value, f"{path}.", (*above, node))
        found.update(here)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, "", ())
    return found
