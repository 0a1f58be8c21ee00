"""Line charts laid out once, as plain shapes: drawn by the page in its colours, and as SVG and PNG files."""

from __future__ import annotations

import html
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["COLOURS", "Chart", "Dot", "Stroke", "Words", "line_chart", "sheet_png", "sheet_svg"]

COLOURS: Mapping[str, str] = {
    "ink": "#17202b",
    "soft": "#5c6875",
    "line": "#e2e6eb",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
}
"""Of files. The three of curves are from Okabe and Ito's palette, which people with any colour vision tell apart."""

_SERIES = ("blue", "orange", "green")
_DASHES: tuple[tuple[float, float] | None, ...] = (None, (7.0, 4.0), (2.0, 3.5))
_MANY_DOTS = 40
_WIDTH, _HEIGHT, _LEFT, _TOP = 360.0, 170.0, 52.0, 34.0


@dataclass(frozen=True)
class Stroke:
    """A line through points; ``dash``: lengths of dash and gap."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float
    dash: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    colour: str


@dataclass(frozen=True)
class Words:
    """A line of text; ``anchor``: ``start``, ``middle`` or ``end`` of it is at x."""

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: str = "middle"
    colour: str = "soft"


@dataclass(frozen=True)
class Chart:
    """A chart of some width and height (px), with what is drawn, back to front."""

    width: float
    height: float
    label: str
    shapes: tuple[Stroke | Dot | Words, ...]


def line_chart(rows: Sequence[Mapping[str, Any]], series: Mapping[str, str], *, label: str) -> Chart | None:
    """Lay out columns of ``rows`` over ``epoch``; None when no column has two finite values.

    Args:
        rows: Rows with ``epoch``.
        series: Column → name in the legend; at most three, each with a colour and dashes of its own.
        label: What the chart shows.
    """
    points = {key: _points(rows, key) for key in series}
    points = {key: found for key, found in points.items() if len(found) > 1}
    if not points:
        return None
    xs = [x for found in points.values() for x, _ in found]
    ys = [y for found in points.values() for _, y in found]
    ticks = _ticks(min(ys), max(ys))
    x_low, x_span, y_low, y_span = min(xs), max(xs) - min(xs) or 1.0, ticks[0], ticks[-1] - ticks[0]

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * (x - x_low) / x_span, _TOP + _HEIGHT * (1 - (y - y_low) / y_span)

    shapes: list[Stroke | Dot | Words] = []
    for tick in ticks:
        y = place(x_low, tick)[1]
        shapes.append(Stroke(((_LEFT, y), (_LEFT + _WIDTH, y)), "line", 1.0))
        shapes.append(Words(_LEFT - 7, y + 4, f"{tick:.3g}", 11.0, "end"))
    for epoch in _whole(x_low, max(xs)):
        shapes.append(Words(place(epoch, y_low)[0], _TOP + _HEIGHT + 18, str(epoch), 11.0))
    at = _LEFT + 2
    for number, (key, found) in enumerate(points.items()):
        colour, dash = _SERIES[number % len(_SERIES)], _DASHES[number % len(_DASHES)]
        dots = [place(x, y) for x, y in found]
        shapes.append(Stroke(tuple(dots), colour, 2.2, dash))
        if len(dots) <= _MANY_DOTS:
            shapes += [Dot(x, y, 2.6, colour) for x, y in dots]
        shapes += _legend(at, series[key], colour, dash)
        at += 42 + 5.7 * len(series[key])
    shapes.append(Words(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 36, "epoch"))
    return Chart(_LEFT + _WIDTH + 14, _TOP + _HEIGHT + 44, label, tuple(shapes))


def sheet_svg(charts: Sequence[Chart], *, columns: int = 2) -> str:
    """Return charts side by side as one SVG file that needs nothing beside itself."""
    width, height, places = _sheet(charts, columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="system-ui, sans-serif">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for chart, (x, y) in zip(charts, places, strict=True):
        parts.append(f'<g transform="translate({x:g} {y:g})"><title>{html.escape(chart.label)}</title>')
        parts += [_svg_shape(shape) for shape in chart.shapes]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def sheet_png(charts: Sequence[Chart], *, columns: int = 2, scale: int = 2) -> bytes:
    """Return charts side by side as a PNG of ``scale`` pixels a px, on white."""
    from PIL import Image, ImageDraw

    width, height, places = _sheet(charts, columns)
    fine = 2 * scale  # lines are drawn at twice the size and made smaller, which smooths them
    picture = Image.new("RGB", (round(width) * fine, round(height) * fine), "white")
    pen = ImageDraw.Draw(picture)
    for chart, place in zip(charts, places, strict=True):
        for shape in chart.shapes:
            if not isinstance(shape, Words):
                _draw(pen, shape, place, fine)
    picture = picture.reduce(2)
    pen = ImageDraw.Draw(picture)
    for chart, place in zip(charts, places, strict=True):
        for shape in chart.shapes:
            if isinstance(shape, Words):
                _write(pen, shape, place, scale)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _sheet(charts: Sequence[Chart], columns: int) -> tuple[float, float, list[tuple[float, float]]]:
    wide, tall, gap = max(c.width for c in charts), max(c.height for c in charts), 12.0
    columns = min(columns, len(charts))
    places = [(gap + (i % columns) * (wide + gap), gap + (i // columns) * (tall + gap)) for i in range(len(charts))]
    lines = -(-len(charts) // columns)
    return gap + columns * (wide + gap), gap + lines * (tall + gap), places


def _legend(x: float, name: str, colour: str, dash: tuple[float, float] | None) -> list[Stroke | Dot | Words]:
    return [Stroke(((x, 14.0), (x + 20, 14.0)), colour, 2.2, dash), Words(x + 26, 18, name, 12.0, "start", "ink")]


def _svg_shape(shape: Stroke | Dot | Words) -> str:
    colour = COLOURS[shape.colour]
    if isinstance(shape, Words):
        return (
            f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size:g}" text-anchor="{shape.anchor}" '
            f'fill="{colour}">{html.escape(shape.text)}</text>'
        )
    if isinstance(shape, Dot):
        return f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:g}" fill="{colour}"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    dash = f' stroke-dasharray="{shape.dash[0]:g} {shape.dash[1]:g}"' if shape.dash else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{shape.width:g}" '
        f'stroke-linejoin="round"{dash}/>'
    )


def _draw(pen: ImageDraw, shape: Stroke | Dot, place: tuple[float, float], scale: float) -> None:
    colour = COLOURS[shape.colour]
    if isinstance(shape, Dot):
        x, y, r = (place[0] + shape.x) * scale, (place[1] + shape.y) * scale, shape.radius * scale
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        return
    for piece in [shape.points] if shape.dash is None else _dashed(shape.points, shape.dash):
        points = [((place[0] + x) * scale, (place[1] + y) * scale) for x, y in piece]
        pen.line(points, fill=colour, width=round(shape.width * scale), joint="curve")


def _dashed(
    points: Sequence[tuple[float, float]], dash: tuple[float, float]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Cut a line into dashes, each within one of its segments."""
    pieces, at, period = [], 0.0, sum(dash)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while done < length:
            within = (at + done) % period
            step = min(length - done, max((dash[0] if within < dash[0] else period) - within, 1e-3))
            if within < dash[0]:
                a, b = done / length, (done + step) / length
                pieces.append(((x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0))))
            done += step
        at += length
    return pieces


def _write(pen: ImageDraw, words: Words, place: tuple[float, float], scale: float) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=words.size * scale)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
    at = ((place[0] + words.x) * scale, (place[1] + words.y) * scale)
    pen.text(at, words.text, fill=COLOURS[words.colour], font=font, anchor=anchor)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    pairs = [(row.get("epoch"), row.get(key)) for row in rows]
    return [
        (float(x), float(y))
        for x, y in pairs
        if isinstance(x, int | float) and isinstance(y, int | float) and math.isfinite(x) and math.isfinite(y)
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose [low, high], about four steps apart."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _whole(low: float, high: float) -> list[int]:
    step = max(1, math.ceil((high - low) / 8))
    return list(range(math.ceil(low), math.floor(high) + 1, step))
