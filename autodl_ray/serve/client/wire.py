"""What both clients share: a picture becomes bytes, pictures become a request, an answer becomes words."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import quote

from autodl_ray.errors import InputError
from autodl_ray.serve.client.words import (
    Heatmap,
    ModelFacts,
    Prediction,
    Probability,
    RequestRefused,
    ServiceUnavailable,
)
from autodl_ray.serve.settings import API_KEY_VARIABLE

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Asked",
    "Picture",
    "as_answer",
    "at_least_one",
    "batches",
    "bytes_of",
    "chance",
    "failure",
    "in_order",
    "models_of",
    "prediction_of",
    "predictions_of",
    "request_of",
]

Picture: TypeAlias = Any
"""Bytes, a path, an open file, a Pillow image, an array (H, W, 3) uint8, or a web address the service may fetch."""

_T = TypeVar("_T")
_BATCH_BYTES = 8_000_000  # of one request: below the cap that services have by default, and soon sent


@dataclass(frozen=True)
class Asked:
    """What is asked of the service, for one picture or many.

    Attributes:
        model: Name; None: the service's default.
        version: Of the model; None: as the service decides.
        top_k: Classes in the answer.
        heatmap: Whether to say where the model looks.
    """

    model: str | None = None
    version: str | None = None
    top_k: int = 5
    heatmap: bool = False

    @property
    def path(self) -> str:
        """Path and query."""
        options = f"?top_k={self.top_k}" + ("&heatmap=true" if self.heatmap else "")
        if self.model is None:
            return f"/predict{options}"
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/v1/models/{quote(self.model, safe='')}{version}:predict{options}"


def bytes_of(picture: Picture) -> bytes | str:
    """Return the file of a picture, or the address it is at.

    Raises:
        InputError: It is none of what is accepted, or the file cannot be read.
    """
    if isinstance(picture, str) and picture.startswith(("http://", "https://")):
        return picture
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except OSError as error:
            raise InputError("The picture cannot be read.", seen=f"{picture}: {error.strerror}") from error
    if hasattr(picture, "read"):
        data = picture.read()
        if isinstance(data, bytes):
            return data
    return _encoded(picture)


def batches(pictures: Iterable[bytes | str], size: int) -> Iterator[list[bytes | str]]:
    """Yield pictures by at most ``size`` and 8 MB; an address stands alone."""
    batch: list[bytes | str] = []
    weight = 0
    for picture in pictures:
        alone = isinstance(picture, str)
        if batch and (alone or len(batch) >= size or weight + len(picture) > _BATCH_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(picture)
        weight += len(picture)
        if alone:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def request_of(pictures: Sequence[bytes | str]) -> dict[str, Any]:
    """Return the body of a request as httpx takes it."""
    if len(pictures) > 1:
        return {"files": [("file", (str(i), picture)) for i, picture in enumerate(pictures)]}
    (picture,) = pictures
    if isinstance(picture, str):
        return {"json": {"url": picture}}
    return {"content": picture, "headers": {"content-type": "application/octet-stream"}}


def predictions_of(response: httpx.Response, count: int) -> list[Prediction | RequestRefused]:
    """Read a 200: one answer per picture, ``count`` of them; a picture that was refused is the error it would raise.

    Raises:
        ServiceUnavailable: It is no such answer: something else answers there.
    """

    def read(document: Any) -> list[Prediction | RequestRefused]:
        entries = document.get("results", [document])
        if len(entries) != count:
            raise ValueError("answers for other pictures")
        return [_prediction(entry, document, response) for entry in entries]

    return _read(response, read)


def prediction_of(response: httpx.Response) -> Prediction:
    """Read the 200 of one picture.

    Raises:
        RequestRefused: The picture was refused.
        ServiceUnavailable: It is no such answer.
    """
    (found,) = predictions_of(response, 1)
    if isinstance(found, RequestRefused):
        raise found
    return found


def models_of(response: httpx.Response) -> list[ModelFacts]:
    """Read the 200 that lists models.

    Raises:
        ServiceUnavailable: It is no such answer.
    """
    return _read(response, lambda document: [ModelFacts.of(entry) for entry in document["models"]])


def as_answer(refused: RequestRefused, pictures: Sequence[bytes | str]) -> list[Prediction | RequestRefused]:
    """Return the refusal of a request as the answer for its only picture.

    Raises:
        RequestRefused: There were several pictures, or it was not refused for what the picture is.
    """
    if len(pictures) > 1 or refused.status not in (400, 413):
        raise refused
    return [refused]


def in_order(
    parts: Iterable[Sequence[Prediction | RequestRefused]], on_error: str
) -> list[Prediction | RequestRefused]:
    """Put the answers of several requests together.

    Raises:
        RequestRefused: The first that is among them, with ``on_error="raise"``.
    """
    found = [answer for part in parts for answer in part]
    if on_error == "raise" and (bad := next((a for a in found if isinstance(a, RequestRefused)), None)):
        raise bad
    return found


def at_least_one(**counts: int) -> None:
    """Check what counts something.

    Raises:
        InputError: One is below 1.
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is a whole number, 1 or more.", seen=count)


def failure(response: httpx.Response | None, error: Exception | None, *, url: str, tried: int) -> Exception:
    """Return what is raised for an answer other than 200, or for none."""
    if response is None:
        unreachable = ServiceUnavailable(
            "The service does not answer.",
            seen=f"{url}: {type(error).__name__}: {error}; tried {tried} times",
            hint="is it running? autodl serve BUNDLE",
        )
        unreachable.__cause__ = error
        return unreachable
    status, said = response.status_code, _said(response)
    found: RequestRefused | ServiceUnavailable
    if status in (408, 425, 429) or status >= 500:
        found = ServiceUnavailable(
            "The service is too busy." if status == 429 else "The service cannot answer.",
            seen=f"{status}: {said}; tried {tried} times",
        )
    else:
        hint = f"give api_key or api_key_file, or set {API_KEY_VARIABLE}" if status == 401 else None
        found = RequestRefused(said, seen=f"HTTP status {status}", hint=hint)
    found.status, found.request_id = status, response.headers.get("x-request-id")
    return found


def chance() -> float:
    """Return a number in [0, 1), another one in every client: a seed would bring them all back together."""
    return secrets.randbelow(2**32) / 2**32


def _prediction(
    entry: dict[str, Any], document: dict[str, Any], response: httpx.Response
) -> Prediction | RequestRefused:
    request_id = response.headers.get("x-request-id")
    if "error" in entry:
        refused = RequestRefused(entry["error"])
        refused.status, refused.request_id = entry.get("status", 400), request_id
        return refused
    heat = entry.get("heatmap")
    return Prediction(
        classes=tuple(Probability(p["class"], p["probability"]) for p in entry["predictions"]),
        model=document["model"],
        version=document["version"],
        heatmap=None if heat is None else Heatmap(heat["method"], heat["class"], tuple(map(tuple, heat["cells"]))),
        request_id=request_id,
        ms=document["ms"],
    )


def _read(response: httpx.Response, of: Callable[[Any], _T]) -> _T:
    try:
        return of(response.json())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        foreign = ServiceUnavailable("The service cannot answer.", seen=f"{response.status_code}: {_foreign(response)}")
        foreign.status = response.status_code
        raise foreign from error


def _said(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        return _foreign(response)


def _foreign(response: httpx.Response) -> str:
    return f"an answer that is none of autodl_ray's: {response.text[:100]!r}"


def _encoded(picture: Picture) -> bytes:
    """Encode a Pillow image or an array as PNG, which loses nothing."""
    from PIL import Image

    if not isinstance(picture, Image.Image):
        shape, dtype = tuple(getattr(picture, "shape", ())), str(getattr(picture, "dtype", ""))
        if len(shape) != 3 or shape[2] != 3 or dtype != "uint8":
            raise InputError(
                "This is no picture.",
                seen=f"{type(picture).__name__} {shape or ''} {dtype}".strip(),
                accepted="bytes, a path, an open file, a Pillow image, (H, W, 3) uint8, or a web address",
            )
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
