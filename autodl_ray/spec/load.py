"""Reading a spec: from YAML or a mapping, all mistakes in one error with their key paths and lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from autodl_ray.errors import SpecError, near_names
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
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError("The spec is not valid YAML.", seen=str(error).replace("\n", " ")) from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SpecError("The spec must be a mapping of sections.", seen=type(document).__name__)
    return parse_spec(with_overrides(document, overrides or {}), lines=_lines(text), source=str(file))


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
        raise SpecError(_explain(error, lines or {}, source), hint="see `autodl spec init`") from error


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


def _explain(error: ValidationError, lines: Mapping[str, int], source: str) -> str:
    rows = [_row(e, lines) for e in error.errors()]
    mistakes = "1 mistake" if len(rows) == 1 else f"{len(rows)} mistakes"
    return f"{source} has {mistakes}:\n" + "\n".join(f"  - {row}" for row in rows)


def _row(error: Any, lines: Mapping[str, int]) -> str:
    path = ".".join(str(p) for p in error["loc"]) or "(top)"
    line = f" (line {lines[path]})" if path in lines else ""
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = near_names(str(error["loc"][-1]), known)
        return f"{path}{line}: unknown key; {near or 'known: ' + ', '.join(known)}"
    message = error["msg"].removeprefix("Value error, ")
    seen = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
    return f"{path}{line}: {message[:1].lower()}{message[1:]}{seen}"


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    section: type[BaseModel] = ExperimentSpec
    for key in loc:
        field = section.model_fields.get(str(key))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)


def _lines(text: str) -> dict[str, int]:
    """Map each dotted key of a YAML document to its line, counted from 1."""
    found: dict[str, int] = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                path = f"{prefix}{key.value}"
                found[path] = key.start_mark.line + 1
                walk(value, f"{path}.")

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, "")
    return found
