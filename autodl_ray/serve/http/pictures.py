"""The pictures of a request: raw bytes, a multipart form, or JSON with base64 or addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from autodl_ray.errors import DatasetError
from autodl_ray.serve.answers import reason
from autodl_ray.serve.http.answers import Refusal, one_line
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.fetch import Fetcher, Room

__all__ = ["Picture", "Pictures", "read_pictures"]

Shape = Literal["one", "file", "many", "instances"]


@dataclass(frozen=True)
class Picture:
    """One picture of a request.

    Attributes:
        data: Its bytes.
        filename: When it came with one.
        fault: Why there are no bytes; None: there are.
    """

    data: bytes
    filename: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Pictures:
    """All pictures of a request, and how they came, which decides on the form of the answer.

    Attributes:
        items: At least one.
        shape: ``one`` picture, one ``file`` of a form, ``many``, or ``instances`` as of TensorFlow Serving.
        options: Fields of the JSON beside the pictures.
    """

    items: tuple[Picture, ...]
    shape: Shape
    options: dict[str, Any]


async def read_pictures(call: Call, body: bytes, *, max_pictures: int, fetcher: Fetcher | None) -> Pictures:
    """Take the pictures out of a body.

    Args:
        call: Its Content-Type tells a form and JSON from the bytes of a picture; any other type is a picture.
        body: Of the request.
        max_pictures: Most that are accepted.
        fetcher: For addresses; None: they are refused.

    Raises:
        Refusal: 400, the form or the JSON is damaged, holds no picture or too many.
    """
    kind = call.headers.get(b"content-type", b"")[:19].lower()
    if kind.startswith(b"application/json"):
        return await _of_json(body, max_pictures, fetcher)
    if not kind.startswith(b"multipart/form-data"):
        return Pictures((Picture(body),), "one", {})
    items = await _of_form(call, body, max_pictures)
    return Pictures(items, "file" if len(items) == 1 else "many", {})


async def _of_form(call: Call, body: bytes, max_pictures: int) -> tuple[Picture, ...]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    headers = Headers({"content-type": call.header(b"content-type")})
    parser = MultiPartParser(
        headers,
        stream(),  # type: ignore[arg-type]  # typed as a generator, used as an iterator
        max_files=max_pictures,
        max_fields=max_pictures,
        max_part_size=len(body) + 1,
    )
    parser.spool_max_size = len(body) + 1  # nothing of a request is written to the disk
    try:
        form = await parser.parse()
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) < len(parser._files_to_close_on_error):
            raise Refusal(400, "The multipart form is truncated: a file in it has no end.")
        if not files:
            raise Refusal(400, "The form holds no file. Send a picture as a file, e.g. curl -F file=@a.jpg URL")
        return tuple(Picture(file.file.read(), file.filename or None) for file in files)
    except MultiPartException as error:
        raise Refusal(400, f"The multipart form is not usable: {error.message}") from error
    except (ValueError, LookupError, AttributeError) as error:  # of its headers: an unknown charset, no name, …
        raise Refusal(400, "The multipart form is not usable: one of its headers is damaged.") from error
    finally:
        for opened in parser._files_to_close_on_error:  # one without an end is in no form, and would stay open
            opened.close()


async def _of_json(body: bytes, max_pictures: int, fetcher: Fetcher | None) -> Pictures:
    document = _object(body)
    lists = [name for name in ("images", "instances") if name in document]
    singles = [name for name in ("image", "url", "b64") if name in document]
    if len(lists) + len(singles) != 1:
        raise Refusal(400, 'The JSON has one of "image" (base64), "images" (a list of them), "url" and "instances".')
    options = {name: value for name, value in document.items() if name in ("top_k", "heatmap")}
    if singles:
        entry = document["image"] if singles == ["image"] else {singles[0]: document[singles[0]]}
        return Pictures((await _of_entry(entry, fetcher),), "one", options)
    entries = document[lists[0]]
    if not isinstance(entries, list) or not 0 < len(entries) <= max_pictures:
        raise Refusal(400, f'"{lists[0]}" is a list of 1 to {max_pictures} pictures.')
    room = None if fetcher is None else fetcher.room()
    items = await asyncio.gather(*(_of_entry(entry, fetcher, room) for entry in entries))
    return Pictures(tuple(items), "many" if lists == ["images"] else "instances", options)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise Refusal(400, f"The body is a JSON object with a picture, got {one_line(document)}.")
    return document


async def _of_entry(entry: Any, fetcher: Fetcher | None, room: Room | None = None) -> Picture:
    """Return the picture that one entry stands for: base64, a data URL, ``{"b64": …}`` or ``{"url": …}``."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, value),) = entry.items()
        if name == "url" and isinstance(value, str):
            return await _fetched(value, fetcher, room)
        entry = value if name == "b64" else _nested(value) if name in ("image_bytes", "image") else None
    if not isinstance(entry, str):
        return Picture(b"", fault='A picture in JSON is a base64 string, {"b64": …} or {"url": …}.')
    if entry.startswith("data:"):
        entry = entry.partition(",")[2]
    try:
        return Picture(base64.b64decode(entry, validate=True))
    except (binascii.Error, ValueError) as error:
        return Picture(b"", fault=f"This is not base64: {error}.")


def _nested(value: Any) -> Any:
    return value.get("b64") if isinstance(value, dict) else value


async def _fetched(url: str, fetcher: Fetcher | None, room: Room | None) -> Picture:
    if fetcher is None:
        return Picture(b"", fault="This service fetches no addresses (it would with --allow-urls): send the picture.")
    try:
        return Picture(await fetcher.fetch(url, room), url[:200])
    except DatasetError as error:
        return Picture(b"", url[:200], reason(error))
