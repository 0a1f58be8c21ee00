"""Reading a policy from YAML, with every mistake in one error: its key path, its line and what is near."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.nodes import Chain, Node, OneOf, Ready, SomeOf, Step
from autodl_ray.augment.op import Op
from autodl_ray.augment.ready import READY
from autodl_ray.errors import SpecError, near_names

__all__ = ["MOST_CHARS", "MOST_DEPTH", "MOST_STEPS", "Parts", "read_parts", "read_yaml"]

MOST_CHARS = 1_000_000
"""Characters of a policy file."""
MOST_DEPTH = 12
"""Levels of steps within steps."""
MOST_STEPS = 10_000
"""Values in a policy, aliases counted as often as they come."""

M = TypeVar("M", bound=BaseModel)

_KINDS = ("transform", "one_of", "some_of", "policies", "policy")


@dataclass(frozen=True)
class Parts:
    """What a policy file holds.

    Attributes:
        steps: Of ``policies``.
        tiny_steps: Of ``tiny_policies``, for pictures of at most 64 px a side; None: the same.
    """

    steps: tuple[Node, ...]
    tiny_steps: tuple[Node, ...] | None = None


def read_yaml(text: str, *, source: str) -> Parts:
    """Read the text of a policy file.

    Raises:
        SpecError: It is not YAML, too large, or has mistakes: all of them are listed.
    """
    if len(text) > MOST_CHARS:
        raise SpecError(f"{source} is too large for a policy.", accepted=f"at most {MOST_CHARS:,} characters")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(node, "", left=[MOST_STEPS], depth=0))
        document = yaml.safe_load(text)
    except SpecError as error:
        raise SpecError(f"{source} {error.what}", accepted=error.accepted) from error
    except RecursionError as error:
        raise SpecError(f"{source} is nested too deep.", accepted=f"at most {MOST_DEPTH} levels of steps") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # Besides its own errors PyYAML lets through what int(), float() and datetime() make of odd words.
        raise SpecError(f"{source} is not valid YAML.", seen=str(error).replace("\n", " ")[:500]) from error
    return read_parts(document, source=source, lines=lines)


def read_parts(document: object, *, source: str, lines: Mapping[str, int] | None = None) -> Parts:
    """Read a policy that is data: ``{"policies": [step, …], "tiny_policies": [step, …]}``.

    A step is a mapping with one of ``transform``, ``one_of``, ``some_of``, ``policies`` and ``policy``, and a
    ``probability``; see jobs/augment.yaml.

    Raises:
        SpecError: All mistakes, each with its key path (and line where known).
    """
    reader = _Reader(dict(lines or {}), [])
    parts = reader.top(document)
    if reader.mistakes:
        count = "1 mistake" if len(reader.mistakes) == 1 else f"{len(reader.mistakes)} mistakes"
        raise SpecError(
            f"{source} has {count}:\n" + "\n".join(f"  - {row}" for row in reader.mistakes),
            hint="see jobs/augment.yaml for an example, and `autodl augment list` for the operations",
        )
    return parts


@dataclass
class _Reader:
    lines: dict[str, int]
    mistakes: list[str]

    def wrong(self, path: str, what: str) -> None:
        line = f" (line {self.lines[path]})" if path in self.lines else ""
        self.mistakes.append(f"{path or '(top)'}{line}: {what}")

    def top(self, document: object) -> Parts:
        if not isinstance(document, dict):
            self.wrong("", f"must be a mapping with policies, got {type(document).__name__}")
            return Parts(())
        keys = self.mapping(document, "", ("policies", "tiny_policies"), required=("policies",))
        steps = self.steps(keys.get("policies", []), "policies", depth=1)
        if "tiny_policies" not in keys:
            return Parts(steps)
        return Parts(steps, self.steps(keys["tiny_policies"], "tiny_policies", depth=1))

    def steps(self, rows: object, path: str, *, depth: int, at_least: int = 0) -> tuple[Node, ...]:
        return tuple(node for node, _ in self.weighted(rows, path, depth=depth, at_least=at_least, weights=False))

    def weighted(
        self, rows: object, path: str, *, depth: int, at_least: int = 1, weights: bool = True
    ) -> list[tuple[Node, float]]:
        if depth > MOST_DEPTH:
            self.wrong(path, f"nested too deep; at most {MOST_DEPTH} levels")
            return []
        if not isinstance(rows, list | tuple):
            self.wrong(path, f"must be a list of steps, got {type(rows).__name__}")
            return []
        if len(rows) < at_least:
            self.wrong(path, "must hold at least one step")
        extra = ("weight",) if weights else ()
        found: list[tuple[Node, float]] = []
        for i, row in enumerate(rows):
            node = self.step(row, f"{path}[{i}]", depth=depth, extra=extra)
            weight = self.weight(row, f"{path}[{i}].weight") if weights else 1.0
            if node is not None:
                found.append((node, weight))
        return found

    def step(self, row: object, path: str, *, depth: int, extra: tuple[str, ...]) -> Node | None:
        kinds = [kind for kind in _KINDS if isinstance(row, dict) and kind in row]
        kind = kinds[0] if kinds else "transform"
        known = (kind, *(("params",) if kind == "policy" else ()), "probability", *extra)
        others = tuple(k for k in _KINDS if k != kind) if len(kinds) != 1 else ()
        keys = self.mapping(row, path, known, required=(kind,) if kinds else _KINDS, silent=others)
        if len(kinds) > 1:
            self.wrong(path, f"is one step of {' and '.join(kinds)} at once; write one step each")
        probability = self.probability(keys.get("probability", 1.0), f"{path}.probability")
        if not kinds:
            return None
        inner, below = keys[kind], f"{path}.{kind}"
        if kind == "transform":
            op = self.operation(inner, below)
            return None if op is None else Step(op, probability)
        if kind == "policy":
            return self.ready(inner, keys.get("params", {}), path, probability)
        if kind == "policies":
            return Chain(self.steps(inner, below, depth=depth + 1, at_least=1), probability)
        if kind == "some_of":
            return self.some_of(inner, below, probability, depth=depth + 1)
        pairs = self.weighted(inner, below, depth=depth + 1)
        return OneOf(tuple(node for node, _ in pairs), tuple(weight for _, weight in pairs), probability)

    def probability(self, value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.wrong(path, f"must be a number from 0 to 1, got {_shown(value)}")
            return 1.0
        return float(value)

    def weight(self, row: object, path: str) -> float:
        value = row.get("weight", 1.0) if isinstance(row, dict) else 1.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
            self.wrong(path, f"must be a number above 0 and at most 1,000,000, got {_shown(value)}")
            return 1.0
        return float(value)

    def some_of(self, inner: object, path: str, probability: float, *, depth: int) -> Node | None:
        keys = self.mapping(inner, path, ("n", "steps", "replace"), required=("n", "steps"))
        if not keys:
            return None
        again = keys.get("replace", False)
        if not isinstance(again, bool):
            self.wrong(f"{path}.replace", f"must be true or false, got {_shown(again)}")
        steps = self.steps(keys.get("steps", []), f"{path}.steps", depth=depth, at_least=1) if "steps" in keys else ()
        rows = keys.get("steps")
        most = len(rows) if isinstance(rows, list | tuple) and again is not True else 100
        low, high = self.counts(keys["n"], f"{path}.n", most) if "n" in keys else (0, 0)
        return SomeOf(steps, low, high, again is True, probability)

    def counts(self, value: object, path: str, most: int) -> tuple[int, int]:
        pair = list(value) if isinstance(value, list | tuple) else [value, value]
        whole = [n for n in pair if isinstance(n, int) and not isinstance(n, bool)]
        if len(pair) == len(whole) == 2 and 0 <= whole[0] <= whole[1] <= most:
            return whole[0], whole[1]
        self.wrong(path, f"must be a whole number from 0 to {most}, or [low, high] of such, got {_shown(value)}")
        return 0, 0

    def operation(self, transform: object, path: str) -> Op | None:
        keys = self.mapping(transform, path, ("name", "params"), required=("name",))
        if "name" not in keys:
            return None
        kind = self.find(keys["name"], f"{path}.name", CATALOGUE, "operation")
        return None if kind is None else self.build(kind, keys.get("params", {}), f"{path}.params")

    def ready(self, name: object, params: object, path: str, probability: float) -> Node | None:
        kind = self.find(name, f"{path}.policy", READY, "ready policy")
        recipe = None if kind is None else self.build(kind, params, f"{path}.params")
        return None if recipe is None else Ready(recipe, probability)

    def find(self, name: object, path: str, table: Mapping[str, type[M]], what: str) -> type[M] | None:
        kind = table.get(name) if isinstance(name, str) else None
        if kind is None:
            near = near_names(str(name)[:80], table) or f"known: {', '.join(table)}"
            self.wrong(path, f"unknown {what} {_shown(name)}; {near}")
        return kind

    def build(self, kind: type[M], params: object, path: str) -> M | None:
        if params is None:
            params = {}
        if not isinstance(params, dict):
            self.wrong(path, f"must be a mapping, got {type(params).__name__}")
            return None
        given = {str(key): value for key, value in params.items()}
        try:
            return kind.model_validate(given)
        except ValidationError as error:
            found: dict[str, str] = {}
            for row in error.errors():
                found.setdefault(str(row["loc"][0]) if row["loc"] else "", row["msg"])
            for key, message in found.items():
                self.misfit(kind, key, message, given, path)
            return None

    def misfit(self, kind: type[BaseModel], key: str, message: str, given: dict[str, Any], path: str) -> None:
        fields = kind.model_fields
        if not key:  # of the parameters together
            self.wrong(path, f"{message.removeprefix('Value error, ')}; got {_shown(given)}")
        elif key not in fields:
            near = near_names(key[:80], fields) or f"known: {', '.join(fields) or 'none'}"
            self.wrong(f"{path}.{key}", f"unknown parameter of {_name_of(kind)}; {near}")
        else:
            wanted = fields[key].description or message
            got = f"got {_shown(given[key])}" if key in given else "it is missing"
            self.wrong(f"{path}.{key}", f"must be {wanted}; {got}")

    def mapping(
        self,
        value: object,
        path: str,
        known: tuple[str, ...],
        *,
        required: tuple[str, ...],
        silent: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Check the keys of a mapping; of ``required`` the first that is missing is named, with the others."""
        if not isinstance(value, dict):
            self.wrong(path, f"must be a mapping with {' and '.join(known)}, got {type(value).__name__}")
            return {}
        prefix = f"{path}." if path else ""
        accepted = tuple(dict.fromkeys((*known, *silent)))
        for key in value:
            if key not in accepted:
                near = near_names(str(key)[:80], accepted) or f"known: {', '.join(known)}"
                self.wrong(f"{prefix}{_key(key)}", f"unknown key; {near}")
        if required == _KINDS:
            self.wrong(path, f"the key 'transform' is missing (or one of {', '.join(_KINDS[1:])})")
            return value
        for key in required:
            if key not in value:
                self.wrong(path, f"the key {key!r} is missing")
        return value


def _name_of(kind: type[BaseModel]) -> str:
    return str(getattr(kind, "name", None) or kind.__name__)


def _key(key: object) -> str:
    return key if isinstance(key, str) else repr(key)


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return f"a number of about 10^{int(math.log10(abs(value)))}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _lines(node: yaml.Node | None, path: str, *, left: list[int], depth: int) -> Iterator[tuple[str, int]]:
    """Yield the key paths of a document and their lines (from 1); refuse what does not end."""
    left[0] -= 1
    if left[0] < 0:
        raise SpecError("holds too much.", accepted=f"at most {MOST_STEPS:,} values, aliases counted each time")
    if depth > 8 * MOST_DEPTH:
        raise SpecError("is nested too deep.", accepted=f"at most {MOST_DEPTH} levels of steps")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, key.start_mark.line + 1
            yield from _lines(value, below, left=left, depth=depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{path}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{i}]", left=left, depth=depth + 1)
