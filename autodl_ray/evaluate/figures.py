"""The report's figures as inline SVG, coloured by the page's CSS variables so that dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from autodl_ray.evaluate.charts import Chart, Dot, Stroke, Words
from autodl_ray.evaluate.report import CalibrationBin, Interval

__all__ = ["chart_svg", "confusion_svg", "interval_svg", "reliability_svg"]

_MAX_CELLS = 200


def _el(tag: str, *children: str, **attributes: object) -> Markup:
    """One element; children that are not Markup are escaped, ``stroke_width`` becomes ``stroke-width``."""
    shown = {k.rstrip("_").replace("_", "-"): _number(v) for k, v in attributes.items()}
    head = "".join(f' {k}="{escape(v)}"' for k, v in shown.items())
    return Markup(f"<{tag}{head}>{''.join(escape(c) for c in children)}</{tag}>")


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _svg(width: float, height: float, label: str, parts: Sequence[str], *, style: str) -> Markup:
    view = f"0 0 {_number(width)} {_number(height)}"
    return _el("svg", *parts, viewBox=view, width=width, height=height, role="img", aria_label=label, style=style)


def _text(x: float, y: float, text: object, *, size: float = 12.0, **attributes: object) -> Markup:
    style = {"fill": "var(--soft)", "font_size": size, "text_anchor": "middle", **attributes}
    return _el("text", str(text), x=x, y=y, **style)


def _short(name: str, limit: int = 16) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def interval_svg(interval: Interval, baseline: float | None) -> Markup:
    """Draw a score from 0 to 1 with its interval, and a tick where the baseline is."""

    def x(share: float) -> float:
        return 4 + 292 * share

    parts = [
        _el("rect", x=x(0), y=12, width=292, height=6, rx=3, fill="var(--line)"),
        _el("rect", x=x(0), y=12, width=x(interval.value) - x(0), height=6, rx=3, fill="var(--blue)", opacity=0.35),
        _el("rect", x=x(interval.low), y=9, width=max(2.0, x(interval.high) - x(interval.low)), height=12, rx=4,
            fill="var(--blue)", opacity=0.55),
        _el("rect", x=x(interval.value) - 1.5, y=5, width=3, height=20, rx=1.5, fill="var(--ink)"),
    ]  # fmt: skip
    if baseline is not None:
        parts.append(_el("rect", x=x(baseline) - 1, y=7, width=2, height=16, fill="var(--orange)"))
    label = f"{interval.value:.3f}, interval {interval.low:.3f} to {interval.high:.3f}"
    return _svg(300, 30, label, parts, style="width:100%;height:auto;display:block")


def confusion_svg(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup | None:
    """Draw the confusion matrix, coloured by the share of the true class; None beyond 200 classes."""
    number = len(classes)
    if number > _MAX_CELLS:
        return None
    cell = 46.0 if number <= 8 else 36.0 if number <= 16 else 27.0 if number <= 40 else max(4.0, 900.0 / number)
    named = number <= 40
    margin = 16 + 7.0 * max(len(_short(c)) for c in classes) if named else 20.0
    top = margin if number > 4 else 34.0
    right = 8.0
    parts: list[str] = []
    for t, row in enumerate(matrix):
        support = sum(row)
        y = top + t * cell
        if named:
            parts.append(_axis_label(classes[t], margin - 8, y + cell / 2 + 4, anchor="end"))
            parts.append(_column_label(classes[t], margin + t * cell + cell / 2, top - 8, turned=number > 4))
        for p, count in enumerate(row):
            if count or named:
                parts += _cell(margin + p * cell, y, cell, count, support, (classes[t], classes[p]), t == p, named)
    parts.append(_el("rect", x=margin, y=top, width=number * cell, height=number * cell, fill="none",
                     stroke="var(--line)"))  # fmt: skip
    size = number * cell
    fits = "max-width:100%;height:auto" if number <= 16 else "max-width:none"
    return _svg(margin + size + right, top + size + 8, "confusion matrix", parts, style=fits)


def _cell(
    x: float,
    y: float,
    size: float,
    count: int,
    support: int,
    names: tuple[str, str],
    is_right: bool,
    named: bool,
) -> list[Markup]:
    share = count / support if support else 0.0
    title = _el("title", f"{names[0]} → {names[1]}: {count} of {support} ({share:.0%})")
    colour = "var(--blue)" if is_right else "var(--red)"
    strength = 0.0 if not count else 0.10 + 0.70 * (share if is_right else math.sqrt(share))
    gap = 1.0 if named else 0.0
    box = _el("rect", title, x=x + gap, y=y + gap, width=size - 2 * gap, height=size - 2 * gap, rx=3 * gap,
              fill=colour if count else "var(--empty)", fill_opacity=round(strength, 3) if count else 1)  # fmt: skip
    if not named or not count:
        return [box]
    font = min(13.0, size * (0.38 if count < 1000 else 0.28))
    weight = 600 if is_right else 500
    ink = _text(x + size / 2, y + size / 2 + font * 0.36, count, size=font, fill="var(--ink)", font_weight=weight,
                pointer_events="none")  # fmt: skip
    return [box, ink]


def _axis_label(name: str, x: float, y: float, *, anchor: str) -> Markup:
    text = _el("tspan", _short(name))
    return _el("text", _el("title", name), text, x=x, y=y, fill="var(--ink)", font_size=12, text_anchor=anchor)


def _column_label(name: str, x: float, y: float, *, turned: bool) -> Markup:
    anchor = "start" if turned else "middle"
    turn = f"rotate(-60 {_number(x)} {_number(y)})" if turned else ""
    text = _el("tspan", _short(name, 16 if turned else 8))
    return _el("text", _el("title", name), text, x=x, y=y, fill="var(--ink)", font_size=12, text_anchor=anchor,
               transform=turn)  # fmt: skip


def reliability_svg(bins: Sequence[CalibrationBin]) -> Markup:
    """Draw accuracy against confidence by bin, and below it how many answers each bin holds."""
    left, top, side, low = 58.0, 10.0, 270.0, 46.0
    parts: list[str] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = top + side * (1 - tick)
        parts.append(_el("line", x1=left, x2=left + side, y1=at, y2=at, stroke="var(--line)"))
        parts.append(_text(left - 7, at + 4, f"{tick:.0%}", size=11, text_anchor="end"))
        parts.append(_text(left + side * tick, top + side + low + 26, f"{tick:.0%}", size=11))
    largest = max((b.count for b in bins), default=1) or 1
    for b in bins:
        if not b.count:
            continue
        x, width = left + side * b.low + 1, side * (b.high - b.low) - 2
        tall = side * b.accuracy
        title = _el("title", f"{b.count} answers, mean confidence {b.confidence:.1%}, right {b.accuracy:.1%}")
        parts.append(_el("rect", title, x=x, y=top + side - tall, width=width, height=max(tall, 1.0), rx=2,
                         fill="var(--blue)", fill_opacity=0.55))  # fmt: skip
        gap_top = top + side * (1 - max(b.confidence, b.accuracy))
        parts.append(_el("rect", x=x + 0.6, y=gap_top, width=width - 1.2,
                         height=max(side * abs(b.confidence - b.accuracy), 0.6), rx=1.5, fill="none",
                         stroke="var(--red)", stroke_width=1.3))  # fmt: skip
        bar = low * b.count / largest
        parts.append(_el("rect", x=x, y=top + side + 8 + low - bar, width=width, height=max(bar, 1.0), rx=1,
                         fill="var(--soft)", fill_opacity=0.5))  # fmt: skip
    parts.append(_el("line", x1=left, y1=top + side, x2=left + side, y2=top, stroke="var(--ink)", stroke_width=1.2,
                     stroke_dasharray="4 4"))  # fmt: skip
    parts.append(_text(left + side / 2, top + side + low + 44, "probability of the answer"))
    parts.append(_text(12, top + side / 2, "share that is right", transform=f"rotate(-90 12 {top + side / 2:.0f})"))
    label = "reliability: the share of right answers by their probability"
    return _svg(left + side + 22, top + side + low + 52, label, parts, style="max-width:100%;height:auto")


def chart_svg(chart: Chart) -> Markup:
    """Draw a chart in the colours of the page."""
    return _svg(
        chart.width,
        chart.height,
        chart.label,
        [_shape(shape) for shape in chart.shapes],
        style="max-width:100%;height:auto",
    )


def _shape(shape: Stroke | Dot | Words) -> Markup:
    colour = f"var(--{shape.colour})"
    if isinstance(shape, Words):
        return _text(
            round(shape.x, 1),
            round(shape.y, 1),
            shape.text,
            size=shape.size,
            text_anchor=shape.anchor,
            fill=colour,
        )
    if isinstance(shape, Dot):
        return _el("circle", cx=round(shape.x, 1), cy=round(shape.y, 1), r=shape.radius, fill=colour)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    dash = {} if shape.dash is None else {"stroke_dasharray": " ".join(f"{d:g}" for d in shape.dash)}
    return _el(
        "polyline",
        points=path,
        fill="none",
        stroke=colour,
        stroke_width=shape.width,
        stroke_linejoin="round",
        **dash,
    )
