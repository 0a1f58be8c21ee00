"""From a validation error to lines a person can act on: key path, line, what is accepted, near names."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from autodl_ray.errors import SpecError, near_names

__all__ = ["explain", "validated"]

_M = TypeVar("_M", bound=BaseModel)


def explain(error: ValidationError, root: type[BaseModel], *, lines: Mapping[str, int], source: str) -> str:
    """List every mistake once; the alternatives of one field (a number or ``auto``) become one row.

    Args:
        error: What pydantic found.
        root: The model that was validated.
        lines: Dotted key → line in the file.
        source: Name of the file, or ``the spec``.
    """
    places: dict[str, list[Any]] = {}
    sections: dict[str, type[BaseModel] | None] = {}
    for mistake in error.errors():
        path, section = _place(mistake["loc"], root)
        places.setdefault(path, []).append(mistake)
        sections[path] = section
    rows = [_row(path, found, sections[path], lines) for path, found in places.items()]
    count = "1 mistake" if len(rows) == 1 else f"{len(rows)} mistakes"
    return f"{source} has {count}:\n" + "\n".join(f"  - {row}" for row in rows)


def validated(kind: type[_M], value: Any, *, what: str) -> _M:
    """Return ``value`` (JSON-like) as a model, or say in one line what is wrong with it.

    Args:
        kind: The model.
        value: What was given.
        what: First sentence of the error.

    Raises:
        SpecError: It is not valid.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SpecError(what, seen="; ".join(reasons)) from error


def _row(path: str, mistakes: Sequence[Any], section: type[BaseModel] | None, lines: Mapping[str, int]) -> str:
    where = f"{path} (line {lines[path]})" if path in lines else path or "(top)"
    return f"{where}: {_message(mistakes, section)}"


def _message(mistakes: Sequence[Any], section: type[BaseModel] | None) -> str:
    first = mistakes[0]
    if first["type"] == "extra_forbidden":
        known = list(section.model_fields) if section else []
        return f"unknown key; {near_names(str(first['loc'][-1]), known) or 'known: ' + ', '.join(known)}"
    if first["type"] == "missing":
        return "is required"
    if first["type"] == "model_type":
        return f"must be a section with keys of its own, got {first['input']!r}"
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _tag(first)
    if len(mistakes) > 1:
        accepted = [m["msg"].removeprefix("Input should be ").split(", ")[0] for m in mistakes]
        return f"should be {' or '.join(dict.fromkeys(accepted))}, got {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    seen = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{message[:1].lower()}{message[1:]}{seen}"


def _tag(mistake: Any) -> str:
    tags = ["float", "int", "choice"]
    given = mistake.get("ctx", {}).get("tag")
    if given is None:
        return f"needs a type: one of {', '.join(tags)}, got {mistake['input']!r}"
    hint = near_names(str(given), tags)
    return f"unknown type {given!r}; {hint or 'known: ' + ', '.join(tags)}"


def _place(loc: Sequence[int | str], root: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted key in the document, and the section in which its last key lies.

    pydantic puts the alternatives of a union into the location (``train.lr.literal['auto']``); the document
    has no such keys, so they are left out.
    """
    parts: list[str] = []
    kind: Any = root
    section: type[BaseModel] | None = None
    for key in loc:
        kind = _bare(kind)
        if _is_union(kind):
            kind = _alternative(kind, str(key))
            continue
        parts.append(str(key))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = kind
            field = kind.model_fields.get(str(key))
            kind = field.annotation if field else None
        else:
            section = None
            kind = get_args(kind)[-1] if get_args(kind) else None
    return ".".join(parts), section


def _bare(kind: Any) -> Any:
    """Strip ``Annotated`` and ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if _is_union(kind):
        others = [a for a in get_args(kind) if a is not type(None)]
        if len(others) == 1:
            return _bare(others[0])
    return kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _alternative(union: Any, tag: str) -> Any:
    for kind in map(_bare, get_args(union)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get("type")
            if field is not None and field.default == tag:
                return kind
    return None
