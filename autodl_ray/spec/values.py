"""What the sections share: their base, and values that people write with a unit."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Bytes", "Epochs", "Seconds", "Section", "Word", "parse_bytes", "parse_seconds", "yaml_word"]

Word = str | int | float | bool

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_seconds(value: object) -> object:
    """Read ``90``, ``"90s"``, ``"10m"``, ``"1h30m"`` as seconds; anything else is left for the validator.

    Example:
        >>> parse_seconds("1h30m")
        5400.0
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration; write 90s, 10m or 1h30m")
    if not isinstance(value, str):
        return value
    text = value.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?(e\d+)?", text):  # YAML reads 1e3 as text
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if parts and "".join(n + u for n, u in parts) == text:
        return sum(float(n) * _UNITS[u] for n, u in parts)
    raise ValueError(f"{value!r} is not a duration; write 90s, 10m or 1h30m")


def parse_bytes(value: object) -> object:
    """Read ``2000000``, ``"2GB"``, ``"500 MiB"`` as bytes; anything else is left for the validator.

    Example:
        >>> parse_bytes("2GB")
        2000000000
    """
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?i?b?)", value.strip().lower().replace(" ", ""))
    if found is None or found[2] not in _SIZES:
        raise ValueError(f"{value!r} is not a size; write 500MB or 2GB")
    return round(float(found[1]) * _SIZES[found[2]])


def yaml_word(value: object) -> object:
    """Give back the words that YAML took for something else: ``off`` (False) and ``32`` (a number)."""
    if value is False:
        return "off"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Epochs = Annotated[int, Field(ge=1)] | Literal["auto"]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, numbers finite."""

    # validate_default: a default of 4 and a written 4 are the same number, and so the same digest
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
