"""The report's figures of the search: history, settings of every trial, and importance, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = ["history_svg", "importance_svg", "parallel_svg", "search_figures"]

Rows = Sequence[Mapping[str, Any]]

_MOST_LINES = 300
_STYLE = "max-width:100%;height:auto"


def search_figures(search: Mapping[str, Any]) -> list[Markup]:
    """Return the figures that the facts of a search allow; [] for a run without one."""
    trials = [t for t in search.get("trials", ()) if _finite(t.get("value"))]
    if len(trials) < 2:
        return []
    name = str(search.get("metric", "score")).replace("_", "-")
    found = [
        history_svg(trials, mode=str(search.get("mode", "max")), label=name),
        parallel_svg(trials, search.get("space") or {}, mode=str(search.get("mode", "max")), label=name),
        importance_svg(search.get("importance") or (), label=name),
    ]
    return [figure for figure in found if figure is not None]


def history_svg(trials: Rows, *, mode: str, label: str) -> Markup:
    """Draw the value of each trial in the order of proposal, and the best so far.

    Args:
        trials: Rows with ``trial``, ``value``, ``status``.
        mode: ``max`` or ``min``.
        label: Of the metric.
    """
    left, top, width, height = 52.0, 26.0, 400.0, 190.0
    values = [float(t["value"]) for t in trials]
    low, high = min(values), max(values)
    span = high - low or 1.0

    def place(i: int, value: float) -> tuple[float, float]:
        return left + width * i / max(len(values) - 1, 1), top + height * (1 - (value - low) / span)

    parts = [_text(left, 15, f"validation {label} by trial; the line is the best so far", anchor="start")]
    for value in (low, (low + high) / 2, high):
        y = place(0, value)[1]
        parts.append(_line(left, y, left + width, y, "var(--line)"))
        parts.append(_text(left - 6, y + 4, f"{value:.3g}", anchor="end"))
    best = values[0]
    path: list[tuple[float, float]] = []
    for i, (trial, value) in enumerate(zip(trials, values, strict=True)):
        best = max(best, value) if mode == "max" else min(best, value)
        x, y = place(i, value)
        title = f"{trial.get('trial')}: {value:.4f}, {trial.get('status')}"
        parts.append(_dot(x, y, "var(--blue)" if trial.get("status") == "finished" else "var(--soft)", title))
        path += [(x, path[-1][1])] if path else []
        path.append(place(i, best))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    parts.append(f'<polyline points="{points}" fill="none" stroke="var(--orange)" stroke-width="2"/>')
    return _svg(left + width + 12, top + height + 14, f"{label} of each trial", parts)


def parallel_svg(trials: Rows, space: Mapping[str, Any], *, mode: str, label: str) -> Markup | None:
    """Draw each trial as a line over its settings, the best ones strong; None with fewer than two settings.

    Args:
        trials: Rows with ``trial``, ``params``, ``value``.
        space: The ranges by field; ``log`` decides the axis.
        mode: ``max`` or ``min``.
        label: Of the metric.
    """
    names = sorted({name for t in trials for name in t["params"]})
    if len(names) < 2:
        return None
    left, top, step, height = 40.0, 40.0, 92.0, 190.0
    axes = {n: _places([t["params"][n] for t in trials if n in t["params"]], space.get(n) or {}) for n in names}
    order = sorted(trials, key=lambda t: float(t["value"]), reverse=mode == "min")[-_MOST_LINES:]
    parts = [_text(left, 15, f"settings of every trial; the darker, the better its {label}", anchor="start")]
    for rank, trial in enumerate(order):
        title = f"{trial['trial']}: {float(trial['value']):.4f}"
        run: list[tuple[float, float]] = []
        for i, name in enumerate([*names, ""]):
            if name in trial["params"]:
                run.append((left + step * i, top + height * (1 - axes[name][repr(trial["params"][name])])))
            elif run:  # a setting that this trial does not have breaks its line
                parts.append(_stroke(run, (rank + 1) / len(order), title))
                run = []
    for i, name in enumerate(names):
        x = left + step * i
        parts.append(_line(x, top, x, top + height, "var(--soft)"))
        parts.append(_text(x, top + height + 16, name[:14], anchor="middle", title=name))
        ends = [t["params"][name] for t in trials if name in t["params"]]
        for value in {repr(v): v for v in _ends(ends, axes[name])}.values():
            y = top + height * (1 - axes[name][repr(value)])
            parts.append(_text(x + 4, y - 3, f"{value:.3g}" if _finite(value) else str(value)[:12], anchor="start"))
    return _svg(left + step * len(names), top + height + 26, "settings of every trial", parts)


def importance_svg(rows: Rows, *, label: str) -> Markup | None:
    """Draw the importance of each setting as a bar with its spread; None without one."""
    if not rows:
        return None
    left, top, width, gap = 130.0, 34.0, 300.0, 26.0
    parts = [_text(6, 15, f"how much each setting mattered for {label}", anchor="start")]
    for i, row in enumerate(rows):
        y = top + gap * i
        name = f"{row['name']} *" if row.get("when") else str(row["name"])
        low, high = (width * min(1.0, max(0.0, float(row[end]))) for end in ("low", "high"))
        parts.append(_text(left - 8, y + 10, name[:20], anchor="end", title=name))
        parts.append(_bar(left, y, width * float(row["value"])))
        parts.append(_line(left + low, y + 7, left + high, y + 7, "var(--ink)"))
    return _svg(left + width + 14, top + gap * len(rows) + 4, "importance of the settings", parts)


def _places(values: Sequence[Any], domain: Mapping[str, Any]) -> dict[str, float]:
    """Return repr of a value → its height in [0, 1] on the axis."""
    if domain.get("type") == "choice" or not all(_finite(v) for v in values):
        words = [repr(v) for v in sorted(set(values), key=lambda v: (not _finite(v), v if _finite(v) else 0, str(v)))]
        return {word: (i + 0.5) / len(words) for i, word in enumerate(words)}
    use_log = bool(domain.get("log")) and min(values) > 0
    scaled = {repr(v): math.log(v) if use_log else float(v) for v in values}
    low, high = min(scaled.values()), max(scaled.values())
    return {key: (v - low) / (high - low) if high > low else 0.5 for key, v in scaled.items()}


def _ends(values: Sequence[Any], places: Mapping[str, float]) -> list[Any]:
    if all(_finite(v) for v in values):
        return [min(values, key=lambda v: places[repr(v)]), max(values, key=lambda v: places[repr(v)])]
    return list(values)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(label)}" style="{_STYLE}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, *, anchor: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="var(--soft)">'
        f"{inner}{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(title)}</title></circle>'


def _stroke(points: Sequence[tuple[float, float]], strength: float, title: str) -> str:
    """A trial's line, or a dot where its neighbours on both sides are missing; strength is its rank in (0, 1]."""
    if len(points) == 1:
        return _dot(*points[0], "var(--blue)", title)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="var(--blue)" stroke-width="{0.8 + 1.6 * strength**4:.2f}" '
        f'stroke-opacity="{0.08 + 0.8 * strength**3:.2f}"><title>{escape(title)}</title></polyline>'
    )


def _bar(x: float, y: float, width: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1.0):.1f}" height="14" rx="3" fill="var(--blue)" '
        'fill-opacity="0.6"/>'
    )
