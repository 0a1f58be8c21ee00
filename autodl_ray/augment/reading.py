"""Reading a policy from YAML, with every mistake in one error: its key path, its line and what is near."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.op import Op
from autodl_ray.errors import SpecError, near_names

__all__ = ["Step", "read_steps", "read_yaml"]


@dataclass(frozen=True)
class Step:
    """One operation of a policy, and how often it is done.

    Attributes:
        op: The operation with its parameters.
        probability: In [0, 1].
    """

    op: Op
    probability: float = 1.0


def read_yaml(text: str, *, source: str) -> tuple[Step, ...]:
    """Read the text of a policy file.

    Raises:
        SpecError: It is not YAML, or has mistakes: all of them are listed.
    """
    try:
        document = yaml.safe_load(text)
        lines = dict(_lines(yaml.compose(text, Loader=yaml.SafeLoader), ""))
    except yaml.YAMLError as error:
        raise SpecError(f"{source} is not valid YAML.", seen=str(error).replace("\n", " ")) from error
    return read_steps(document, source=source, lines=lines)


def read_steps(document: object, *, source: str, lines: Mapping[str, int] | None = None) -> tuple[Step, ...]:
    """Read a policy: ``{"policies": [{"transform": {"name": …, "params": {…}}, "probability": …}]}``.

    Raises:
        SpecError: All mistakes, each with its key path (and line where known).
    """
    reader = _Reader(dict(lines or {}), [])
    steps = reader.policy(document)
    if reader.mistakes:
        count = "1 mistake" if len(reader.mistakes) == 1 else f"{len(reader.mistakes)} mistakes"
        raise SpecError(
            f"{source} has {count}:\n" + "\n".join(f"  - {row}" for row in reader.mistakes),
            hint="see jobs/augment.yaml for an example",
        )
    return steps


@dataclass
class _Reader:
    lines: dict[str, int]
    mistakes: list[str]

    def wrong(self, path: str, what: str) -> None:
        line = f" (line {self.lines[path]})" if path in self.lines else ""
        self.mistakes.append(f"{path or '(top)'}{line}: {what}")

    def policy(self, document: object) -> tuple[Step, ...]:
        top = self.mapping(document, "", ("policies",), required="policies")
        rows = top.get("policies", [])
        if not isinstance(rows, list):
            self.wrong("policies", f"must be a list of steps, got {type(rows).__name__}")
            return ()
        found = [self.step(row, f"policies[{i}]") for i, row in enumerate(rows)]
        return tuple(step for step in found if step is not None)

    def step(self, row: object, path: str) -> Step | None:
        keys = self.mapping(row, path, ("transform", "probability"), required="transform")
        probability = self.probability(keys.get("probability", 1.0), f"{path}.probability")
        if "transform" not in keys:
            return None
        op = self.op(keys["transform"], f"{path}.transform")
        return None if op is None else Step(op, probability)

    def probability(self, value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            self.wrong(path, f"must be a number from 0 to 1, got {value!r}")
            return 1.0
        return float(value)

    def op(self, transform: object, path: str) -> Op | None:
        keys = self.mapping(transform, path, ("name", "params"), required="name")
        name = keys.get("name")
        if name is None:
            return None
        kind = CATALOGUE.get(name) if isinstance(name, str) else None
        if kind is None:
            near = near_names(str(name), CATALOGUE) or f"known: {', '.join(CATALOGUE)}"
            self.wrong(f"{path}.name", f"unknown operation {name!r}; {near}")
            return None
        params = keys.get("params") or {}
        if not isinstance(params, dict):
            self.wrong(f"{path}.params", f"must be a mapping, got {type(params).__name__}")
            return None
        return self.build(kind, params, f"{path}.params")

    def build(self, kind: type[Op], params: dict[str, Any], path: str) -> Op | None:
        try:
            return kind(**{str(key): value for key, value in params.items()})
        except ValidationError as error:
            for key in dict.fromkeys(str(e["loc"][0]) for e in error.errors()):
                if key in kind.model_fields:
                    wanted = kind.model_fields[key].description
                    self.wrong(f"{path}.{key}", f"must be {wanted}; got {params[key]!r}")
                else:
                    near = near_names(key, kind.model_fields) or f"known: {', '.join(kind.model_fields) or 'none'}"
                    self.wrong(f"{path}.{key}", f"unknown parameter of {kind.__name__}; {near}")
            return None

    def mapping(self, value: object, path: str, known: tuple[str, ...], *, required: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.wrong(path, f"must be a mapping with {' and '.join(known)}, got {type(value).__name__}")
            return {}
        prefix = f"{path}." if path else ""
        for key in value:
            if key not in known:
                near = near_names(str(key), known) or f"known: {', '.join(known)}"
                self.wrong(f"{prefix}{key}", f"unknown key; {near}")
        if required not in value:
            self.wrong(path, f"the key {required!r} is missing")
        return value


def _lines(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, key.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{path}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{i}]")
