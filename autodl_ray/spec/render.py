"""Writing a spec: the complete, commented YAML with its defaults, and the JSON Schema."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autodl_ray.spec.sections import DataSpec, ExperimentSpec

__all__ = ["json_schema", "render_spec"]

_HEADER = """\
# An experiment of autodl_ray: every key with its default. Delete what you do not change.
# Check it with `autodl spec validate FILE`, run it with `autodl run --spec FILE`.
"""


def render_spec(spec: ExperimentSpec | None = None) -> str:
    """Return the spec as YAML in which every key has a comment; it loads back as the same spec."""
    shown = spec or ExperimentSpec(data=DataSpec(path="photos/"))
    return _HEADER + "\n".join(_section(shown, 0)) + "\n"


def json_schema() -> str:
    """Return the JSON Schema of a spec, for editors that check YAML while it is typed."""
    return json.dumps(ExperimentSpec.model_json_schema(), indent=2)


def _section(section: BaseModel, depth: int) -> list[str]:
    pad = "  " * depth
    rows: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            doc = (type(value).__doc__ or "").strip().splitlines()[0]
            rows += ["", f"{pad}# {doc}"] if depth == 0 else [f"{pad}# {doc}"]
            rows += [f"{pad}{name}:", *_section(value, depth + 1)]
        elif isinstance(value, dict) and value:
            rows.append(f"{pad}{name}:")
            rows += [f"{pad}  {k}: {_inline(v)}" for k, v in value.items()]
        else:
            comment = _comment(field)
            rows.append(f"{pad}{name}: {_inline(value)}" + (f"  # {comment}" if comment else ""))
    return rows


def _inline(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = {k: v for k, v in value.model_dump(mode="json").items() if v != {}}
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def _comment(field: FieldInfo) -> str:
    parts = [field.description or "", _accepted(field)]
    return "; ".join(p for p in parts if p)


def _accepted(field: FieldInfo) -> str:
    choices = [c for a in _alternatives(field.annotation) if get_origin(a) is Literal for c in get_args(a)]
    if choices and len(choices) > 1 and choices != [1]:
        return " | ".join(str(c) for c in choices)
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    found = [*field.metadata, *(m for a in _alternatives(field.annotation) for m in _metadata(a))]
    return ", ".join(f"{signs[type(m)][0]} {getattr(m, signs[type(m)][1])}" for m in found if type(m) in signs)


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, type(int | str)):
        return [x for a in get_args(annotation) for x in _alternatives(a)]
    return [annotation]


def _metadata(annotation: Any) -> list[Any]:
    """Constraints of one alternative, e.g. ``Annotated[int, Field(ge=1)]``."""
    extras = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return [m for extra in extras for m in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
