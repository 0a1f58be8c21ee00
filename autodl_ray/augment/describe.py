"""What there is to augment with, described: families, parameters with their types, ranges and defaults, examples."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.augment.presets import TABLE_DOCS
from autodl_ray.augment.ready import READY
from autodl_ray.errors import InputError, near_names

__all__ = ["Entry", "Parameter", "entries", "find_entry"]


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: As a policy file writes it.
        type: Such as ``number`` or ``[number, number]``.
        range: Such as ``0 to 1`` or ``edge, fill``; empty where it has none.
        default: As a policy file would write it.
        doc: What it means.
    """

    name: str
    type: str
    range: str
    default: str
    doc: str


@dataclass(frozen=True)
class Entry:
    """One operation, ready policy or way to mix a batch.

    Attributes:
        name: As a policy file writes it.
        family: geometry, colour, blur, noise, weather, dropout, quality, mixing or policy.
        moves_boxes: Whether positions change, and boxes and masks with them.
        doc: One line.
        parameters: In the order of the class.
        example: YAML that works as it stands.
    """

    name: str
    family: str
    moves_boxes: bool
    doc: str
    parameters: tuple[Parameter, ...]
    example: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def entries() -> tuple[Entry, ...]:
    """Return everything, by family and name; ready policies and mixing last."""
    ops = sorted(CATALOGUE.items(), key=lambda item: (item[1].family, item[0]))
    return (
        *(_entry(name, kind, kind.family, kind.moves_pixels, _step_example) for name, kind in ops),
        *_mixing(),
        *(_table_entry(name, doc) for name, doc in TABLE_DOCS.items()),
        *(_entry(name, kind, "policy", kind.moves_pixels, _ready_example) for name, kind in READY.items()),
    )


def find_entry(name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        InputError: There is none; near names are suggested.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise InputError(
            "There is no such augmentation.",
            seen=name,
            accepted="a name that `autodl augment list` shows",
            hint=near_names(name, known) or near_names(name.title(), known) or "autodl augment list",
        )
    return known[name]


def _entry(name: str, kind: type[BaseModel], family: str, moves: bool, example: Any) -> Entry:
    doc = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    params = {k: v for k, v in _defaults(kind).items() if v is not None}
    return Entry(name, family, moves, doc, tuple(_parameters(kind)), example(name, params))


def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_validate({}).model_dump(mode="json")


def _parameters(kind: type[BaseModel]) -> Iterator[Parameter]:
    schema = kind.model_json_schema()
    defaults = _defaults(kind)
    for name, field in kind.model_fields.items():
        type_, range_ = _described(schema["properties"][name])
        yield Parameter(name, type_, range_, _flow(defaults[name]), field.description or "")


def _described(schema: Mapping[str, Any]) -> tuple[str, str]:
    """Return type and range of a JSON schema, in words."""
    if "anyOf" in schema:
        parts = [_described(part) for part in schema["anyOf"]]
        return " or ".join(type_ for type_, _ in parts), "; ".join(dict.fromkeys(r for _, r in parts if r))
    if "enum" in schema:
        return "one of", ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return "one of", str(schema["const"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        types, ranges = zip(*(_described(item) for item in items), strict=True)
        inner = ", ".join(types) if "prefixItems" in schema else f"{types[0]}, …"
        return f"[{inner}]", "; ".join(dict.fromkeys(r for r in ranges if r))
    return {"boolean": "true or false", "integer": "whole number", "null": "none"}.get(kind, kind), _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low = next((f"{word}{schema[k]:g}" for k, word in _LOW.items() if k in schema), "")
    high = next((f"{word}{schema[k]:g}" for k, word in _HIGH.items() if k in schema), "")
    if low and high:
        return f"{low} to {high}"
    return low or high


_LOW = {"minimum": "", "exclusiveMinimum": "above "}
_HIGH = {"maximum": "", "exclusiveMaximum": "below "}


def _flow(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6)).removesuffix("\n").removesuffix("\n...")


def _step_example(name: str, params: dict[str, Any]) -> str:
    inside = f"\n      params: {_flow(params)}" if params else ""
    return f"policies:\n  - transform:\n      name: {name}{inside}\n    probability: 0.5\n"


def _ready_example(name: str, params: dict[str, Any]) -> str:
    return f"policies:\n  - policy: {name}\n    params: {_flow(params)}\n"


def _table_entry(name: str, doc: str) -> Entry:
    """A policy without parameters of its own; its example is a file that does the same."""
    example = yaml.safe_dump(AugmentPolicy.parse(name).to_document(), sort_keys=False, default_flow_style=None)
    return Entry(name, "policy", True, doc, (), example)


def _mixing() -> tuple[Entry, ...]:
    rows = (
        ("MixUp", "mixup", "Blend each picture of a batch with another, and their labels (Zhang et al. 2018)."),
        ("CutMix", "cutmix", "Put a rectangle of another picture of the batch onto each, and mix the labels by area "
         "(Yun et al. 2019)."),
    )  # fmt: skip
    return tuple(_mixing_entry(*row) for row in rows)


def _mixing_entry(name: str, key: str, doc: str) -> Entry:
    alpha = Parameter(
        key, "number", "0 to 10", "0.0", "alpha of the Beta distribution of the shares; 0: off. A field of train"
    )
    return Entry(name, "mixing", False, doc, (alpha,), f"train:\n  {key}: {0.2 if key == 'mixup' else 1.0}\n")
