"""Reading text, lines, JSON and XML that others wrote, with a cap on everything."""

from __future__ import annotations

import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autodl_ray.data.formats.walk import nfc
from autodl_ray.errors import DatasetError

__all__ = [
    "MAX_JSON",
    "MAX_LABEL",
    "MAX_LINE",
    "MAX_RECORDS",
    "MAX_TEXT",
    "as_label",
    "as_number",
    "parse_json",
    "parse_xml",
    "read_capped",
    "read_json",
    "read_lines",
    "read_text",
]

MAX_JSON = 2**30
"""Bytes of a JSON file."""
MAX_TEXT = 64 * 2**20
"""Bytes of any other text that is read at once."""
MAX_LINE = 2**20
"""Bytes of a line."""
MAX_RECORDS = 50_000_000
"""Records in one file."""
MAX_LABEL = 512
"""Characters of the name of a class."""
_PIECE = 2**20
_MAX_XML = 8 * 2**20
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)["']""")
_KNOWN_ENCODINGS = re.compile(rb"(?i)utf-?8|us-ascii|ascii|iso-8859-\d+|windows-125\d")


def read_capped(path: Path, most: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        DatasetError: It cannot be read, or is larger than ``most`` bytes.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(min(size, most) + 1)
            while size <= most and (more := stream.read(min(most, _PIECE))):  # it grew, or has no size
                data += more
                if len(data) > most:
                    break
    except OSError as error:
        raise DatasetError("A file cannot be read.", seen=f"{path.name}: {error.strerror}") from error
    if len(data) > most or size > most:
        raise DatasetError("A file is too large.", seen=path.name, accepted=f"at most {most:,} bytes")
    return data


def read_text(path: Path, most: int = MAX_TEXT) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        DatasetError: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        return read_capped(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError("A file is not UTF-8.", seen=f"{path.name}: {error.reason} at {error.start}") from error


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, with their ends.

    Raises:
        DatasetError: It cannot be read, is not UTF-8, or a line is longer than MAX_LINE.
    """
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), start=1):
                if len(raw) > MAX_LINE:
                    raise DatasetError(
                        "A line is too long.",
                        seen=f"{path.name}, line {number}",
                        accepted=f"at most {MAX_LINE:,} bytes",
                    )
                if b"\0" in raw:
                    raise DatasetError("A file is not text.", seen=f"{path.name}, line {number}: a zero byte")
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError("A file is not UTF-8.", seen=f"{path.name}: {error.reason}", accepted="UTF-8") from error
    except OSError as error:
        raise DatasetError("A file cannot be read.", seen=f"{path.name}: {error.strerror}") from error


def parse_json(text: str | bytes, name: str) -> Any:
    """Return what a JSON text says.

    Raises:
        DatasetError: It is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DatasetError("A JSON file is nested too deep.", seen=name) from error
    except ValueError as error:  # also UnicodeDecodeError, and integers of absurd length
        raise DatasetError("A file is not JSON.", seen=f"{name}: {error}") from error


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """Return what a JSON file says.

    Raises:
        DatasetError: It cannot be read, is too large, or is not JSON.
    """
    return parse_json(read_capped(path, most), path.name)


def parse_xml(data: bytes, name: str) -> ElementTree.Element:
    """Return the root of an XML document that declares no document type, and so no entities and no other files.

    Raises:
        DatasetError: It is too large, not XML, or declares a document type.
    """
    if len(data) > _MAX_XML:
        raise DatasetError("An XML file is too large.", seen=name, accepted=f"at most {_MAX_XML:,} bytes")
    declared = _ENCODING.search(data[:200])
    # An encoding that is not a superset of ASCII could hide a DOCTYPE from the next test.
    if b"\0" in data or (declared and not _KNOWN_ENCODINGS.fullmatch(declared[1])):
        raise DatasetError("An XML file has an encoding that is not accepted.", seen=name, accepted="UTF-8")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DatasetError(
            "An XML file declares a document type or entities.", seen=name, accepted="plain elements", hint="remove it"
        )
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DatasetError("A file is not XML.", seen=f"{name}: {error}") from error


def as_number(value: Any) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_label(value: Any) -> str | None:
    """Return the name of a class (a text, or a whole number), or None for what can be none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        return None
    label = nfc(str(value).strip())
    return label if label and len(label) <= MAX_LABEL and label.isprintable() else None
