"""The curves of a training: in the page, and as files that need nothing beside themselves."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autodl_ray.evaluate.charts import COLOURS, Stroke, Words, line_chart, sheet_png
from autodl_ray.evaluate.curves import curve_charts, curve_figures, write_curves

SVG = "{http://www.w3.org/2000/svg}"


def rows(epochs: int = 6, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "epoch": e, "loss": 1 / e, "train_loss": 1.2 / e, "accuracy": 1 - 0.5 / e, "macro_f1": 0.9 - 0.4 / e,
            "train_accuracy": 1 - 0.6 / e, "lr": 1e-3 / e, "grad_norm": 2.0 + e, "images_per_s": 30.0 + e,
            "data_wait": 0.01 * e, **more,
        }
        for e in range(1, epochs + 1)
    ]  # fmt: skip


def test_every_curve_of_the_contract_is_drawn() -> None:
    words = {shape.text for chart in curve_charts(rows()) for shape in chart.shapes if isinstance(shape, Words)}
    assert {
        "validation loss", "training loss", "validation accuracy", "training accuracy", "macro-F1", "learning rate",
        "gradient norm", "images/s", "waiting for data, share",
    } <= words  # fmt: skip


def test_what_a_training_does_not_know_is_left_out() -> None:
    few = [{"epoch": e, "accuracy": e / 4, "loss": math.nan} for e in (1, 2, 3)]
    charts = curve_charts(few)
    assert [chart.label for chart in charts] == ["scores by epoch"]
    assert not any("macro-F1" in str(figure) for figure in curve_figures(few))
    assert curve_charts(rows(1)) == []
    assert curve_charts([]) == []


def test_points_lie_where_the_values_are() -> None:
    chart = line_chart([{"epoch": 1, "a": 0.0}, {"epoch": 2, "a": 1.0}, {"epoch": 3, "a": 0.5}], {"a": "A"}, label="x")
    assert chart is not None
    curve = next(s for s in chart.shapes if isinstance(s, Stroke) and s.colour == "blue" and len(s.points) == 3)
    (x1, y1), (x2, y2), (x3, y3) = curve.points
    assert x3 - x2 == x2 - x1 > 0
    assert y1 - y2 > 0, "up is more"
    assert math.isclose(y3, (y1 + y2) / 2)


def test_series_differ_by_colour_and_by_dashes() -> None:
    chart = line_chart(rows(), {"accuracy": "a", "train_accuracy": "b", "macro_f1": "c"}, label="x")
    assert chart is not None
    curves = [s for s in chart.shapes if isinstance(s, Stroke) and len(s.points) == 6]
    assert len({s.colour for s in curves}) == len({s.dash for s in curves}) == 3
    luminance = {c: sum(int(COLOURS[c][i : i + 2], 16) * w for i, w in ((1, 0.3), (3, 0.6), (5, 0.1))) for c in COLOURS}
    assert luminance["green"] - luminance["blue"] > 20, "told apart in grey too"


def test_the_files_need_nothing_beside_themselves(tmp_path: Path) -> None:
    svg, png = write_curves(tmp_path, rows(epochs=30))
    tree = ET.fromstring(svg.read_text())
    assert tree.tag == f"{SVG}svg"
    assert len(tree.findall(f"{SVG}g")) == 6
    assert not re.search(r"href|url\(|var\(|<script|<style", svg.read_text())
    assert {c.lower() for c in re.findall(r"#[0-9a-fA-F]{6}", svg.read_text())} <= {*COLOURS.values(), "#ffffff"}
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 1500


def test_the_picture_shows_the_curves() -> None:
    chart = line_chart(rows(), {"loss": "validation loss", "train_loss": "training loss"}, label="loss")
    assert chart is not None
    pixels = np.asarray(Image.open(io.BytesIO(sheet_png([chart]))).convert("RGB")).astype(int)
    for name in ("blue", "orange"):
        colour = np.array([int(COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)])
        assert (abs(pixels - colour).sum(axis=2) < 12).sum() > 300, name
    assert (pixels.min(axis=2) == 255).mean() > 0.7, "on white"


def test_nothing_is_written_without_curves(tmp_path: Path) -> None:
    assert write_curves(tmp_path, []) == []
    assert list(tmp_path.iterdir()) == []


def test_names_and_labels_are_escaped(tmp_path: Path) -> None:
    chart = line_chart(rows(), {"loss": "<b>&"}, label="<i>")
    assert chart is not None
    from autodl_ray.evaluate.charts import sheet_svg
    from autodl_ray.evaluate.figures import chart_svg

    for text in (sheet_svg([chart]), str(chart_svg(chart))):
        assert "<b>" not in text
        assert "<i>" not in text
        ET.fromstring(text)
