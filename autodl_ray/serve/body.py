"""Reading a request's body: never more than the cap, and pictures from a raw body or a multipart form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

__all__ = ["MAX_FILES", "Upload", "read_body", "read_uploads"]

MAX_FILES = 64
"""Most pictures in one request."""


@dataclass(frozen=True)
class Upload:
    """One picture of a request: its bytes, and its file name when it came with one."""

    data: bytes
    filename: str | None = None


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read the whole body, and stop at the cap.

    Raises:
        HTTPException: 413, as soon as the declared or the received size is above ``max_bytes``.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


async def read_uploads(request: Request, *, max_bytes: int) -> tuple[list[Upload], bool]:
    """Read the pictures of a request.

    Args:
        request: Either a multipart form (field names are free) or the bytes of one picture.
        max_bytes: Cap of the whole body.

    Returns:
        The pictures, and whether they came as a form.

    Raises:
        HTTPException: 413 above the cap; 400 for a form that is damaged, has no file or too many.
    """
    body = await read_body(request, max_bytes=max_bytes)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return [Upload(body)], False
    return await _parse_form(request, body), True


async def _parse_form(request: Request, body: bytes) -> list[Upload]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(
        request.headers,
        stream(),  # type: ignore[arg-type]  # typed as a generator, used as an iterator
        max_files=MAX_FILES,
        max_fields=MAX_FILES,
        max_part_size=len(body) + 1,
    )
    parser.spool_max_size = len(body) + 1  # nothing of a request is written to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The multipart form is not usable: {error.message}") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        if not files:
            raise HTTPException(400, "The form holds no file. Send a picture as a file, e.g. curl -F file=@a.jpg URL")
        return [Upload(file.file.read(), file.filename or None) for file in files]
    finally:
        await form.close()


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"The request is too large. At most {max_bytes / 1e6:g} MB are accepted.")
