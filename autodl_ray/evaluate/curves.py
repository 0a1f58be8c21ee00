"""How training went: which curves there are, in the page and as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autodl_ray.evaluate.charts import Chart, line_chart, sheet_png, sheet_svg
from autodl_ray.evaluate.figures import chart_svg

__all__ = ["curve_charts", "curve_figures", "write_curves"]

_CHARTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("loss by epoch", {"loss": "validation loss", "train_loss": "training loss"}),
    (
        "scores by epoch",
        {"accuracy": "validation accuracy", "train_accuracy": "training accuracy", "macro_f1": "macro-F1"},
    ),
    ("learning rate by epoch", {"lr": "learning rate"}),
    ("gradient norm by epoch", {"grad_norm": "gradient norm"}),
    ("speed by epoch", {"images_per_s": "images/s"}),
    ("share of the time spent waiting for data", {"data_wait": "waiting for data, share"}),
)


def curve_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return the charts for which the epochs' rows have at least two values."""
    charts = (line_chart(rows, series, label=label) for label, series in _CHARTS)
    return [chart for chart in charts if chart is not None]


def curve_figures(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return the charts for the page, in its colours."""
    return [chart_svg(chart) for chart in curve_charts(rows)]


def write_curves(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write ``curves.svg`` and ``curves.png``; nothing for a model without curves."""
    charts = curve_charts(rows)
    if not charts:
        return []
    svg, png = folder / "curves.svg", folder / "curves.png"
    svg.write_text(sheet_svg(charts), encoding="utf-8")
    png.write_bytes(sheet_png(charts))
    return [svg, png]
