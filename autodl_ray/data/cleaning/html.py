"""The report of a check as one page with pictures, which needs nothing beside itself."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image

from autodl_ray.data.cleaning.findings import KINDS, Finding, Report
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.errors import DatasetError
from autodl_ray.images import decode_image

__all__ = ["render_html"]

_SHOWN = 60
_TOGETHER = 6
_NAMED = 20
_TOTAL_CHARS = 12_000_000
_SIDE = 160
_TINY = 64


@dataclass(frozen=True)
class _Card:
    """A finding with the pictures that are shown of it: (path, data URI or empty, whether it is tiny, its class)."""

    finding: Finding
    pictures: tuple[tuple[str, str, bool, str], ...]
    hidden: int


@dataclass(frozen=True)
class _Section:
    kind: str
    title: str
    sure: str
    severity: str
    total: int
    cards: tuple[_Card, ...]


def render_html(report: Report, subject: Subject) -> str:
    """Return the page: per kind the surest 60 findings with small copies of their pictures, at most 12 MB in all.

    Args:
        report: What was found.
        subject: In what; the pictures that are shown are read again.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = importlib.resources.files("autodl_ray.data.cleaning").joinpath("report.html.j2").read_text("utf-8")
    thumbnails = _Thumbnails(subject)
    sections = [_section(kind, report.of(kind), thumbnails) for kind in report.counts()]
    return environment.from_string(source).render(
        r=report,
        name=PurePath(report.source).name or report.source,  # the page may be passed on: no path of this machine
        sections=sections,
        severities=report.by_severity(),
        num_classes=len(report.classes),
        left_out=thumbnails.left_out,
        total_s=sum(report.seconds.values()),
    )


def _section(kind: str, found: Sequence[Finding], thumbnails: _Thumbnails) -> _Section:
    usual = KINDS[kind]
    cards = tuple(_card(item, thumbnails) for item in found[:_SHOWN])
    gravest = min(found, key=lambda item: ("error", "warning", "info").index(item.severity)).severity
    return _Section(kind, usual.title, usual.sure, gravest, len(found), cards)


def _card(item: Finding, thumbnails: _Thumbnails) -> _Card:
    shown = () if item.kind in ("unlisted", "no_boxes") else item.paths[:_TOGETHER]
    pictures = [(path, *thumbnails.of(path, item), thumbnails.label(path)) for path in shown]
    pictures += [(path, "", False, "") for path in item.paths[len(shown) : _NAMED]]
    return _Card(item, tuple(pictures), max(0, len(item.paths) - _NAMED))


class _Thumbnails:
    """Small copies as data URIs, each made once, until they are too much for one page."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._made: dict[tuple[str, int | None], tuple[str, bool]] = {}
        self._chars = 0
        self.left_out = 0

    def label(self, path: str) -> str:
        """Return the class of a picture; empty where it has none."""
        position = self._subject.position.get(path)
        return "" if position is None else self._subject.listing.records[position].label or ""

    def of(self, path: str, item: Finding) -> tuple[str, bool]:
        """Return the data URI, empty where there is none, and whether the picture is tiny."""
        key = (path, item.box)
        if key not in self._made:
            if self._chars > _TOTAL_CHARS:
                self.left_out += 1
                return "", False
            self._made[key] = self._make(path, item.box)
            self._chars += len(self._made[key][0])
        return self._made[key]

    def _make(self, path: str, box: int | None) -> tuple[str, bool]:
        position = self._subject.position.get(path)
        if position is None or self._subject.facts[position].problem:
            return "", False
        record = self._subject.listing.records[position]
        try:
            picture = Image.fromarray(decode_image(self._subject.listing.read(record), at_least=_SIDE))
        except (DatasetError, OSError):  # unreadable after all, or gone since it was checked
            return "", False
        fact = self._subject.facts[position]
        scale = picture.width / max(fact.width, 1)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        scale *= picture.width / max(fact.width * scale, 1)
        if box is not None and record.boxes:
            _draw(picture, [float(value) * scale for value in record.boxes[box][1:5]])
        buffer = io.BytesIO()
        tiny = max(picture.size) <= _TINY
        picture.save(buffer, "JPEG", quality=92 if tiny else 75, **({"subsampling": 0} if tiny else {"optimize": True}))
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), tiny


def _draw(picture: Image.Image, edges: Sequence[float]) -> None:
    from PIL import ImageDraw

    left, right = sorted((edges[0], edges[2]))
    top, bottom = sorted((edges[1], edges[3]))
    if all(abs(value) < 1e6 for value in edges):
        ImageDraw.Draw(picture).rectangle((left - 2, top - 2, right + 2, bottom + 2), outline=(230, 40, 40), width=2)
