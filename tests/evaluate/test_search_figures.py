"""The report's section on the search: its figures hold every trial, and text is escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from autodl_ray.evaluate.search_figures import history_svg, search_figures

TRIALS: list[dict[str, Any]] = [
    {"trial": "t0000", "params": {"lr": 0.01, "optimizer": "sgd", "momentum": 0.9}, "value": 0.5, "status": "finished"},
    {"trial": "t0001", "params": {"lr": 0.1, "optimizer": "adamw"}, "value": 0.4, "status": "stopped"},
    {"trial": "t0002", "params": {"lr": 0.001, "optimizer": "<b>"}, "value": 0.7, "status": "finished"},
    {"trial": "t0003", "params": {"lr": 0.001, "optimizer": "sgd"}, "value": None, "status": "failed"},
]


def tags(svg: str, name: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter() if e.tag == name]


def test_the_figures_show_every_trial_that_has_a_value() -> None:
    space = {"lr": {"type": "float", "log": True}, "optimizer": {"type": "choice"}}
    rows = [{"name": "lr", "value": 0.8, "low": 0.5, "high": 0.9}, {"name": "momentum", "value": 0.2, "low": 0.0,
            "high": 0.4, "when": {"optimizer": ["sgd"]}}]  # fmt: skip
    facts = {"metric": "accuracy", "mode": "max", "space": space, "trials": TRIALS, "importance": rows}
    history, parallel, importance = search_figures(facts)
    assert len(tags(history, "circle")) == 3
    assert [len(tags(parallel, kind)) for kind in ("polyline", "circle")] == [1, 4]  # two trials have no momentum
    assert len(tags(importance, "rect")) == 2
    assert "momentum *" in importance
    assert "<b>" not in parallel
    assert "t0003" not in history


def test_the_line_is_the_best_so_far() -> None:
    svg = history_svg(TRIALS[:3], mode="max", label="accuracy")
    points = [tuple(map(float, p.split(","))) for p in tags(svg, "polyline")[0].attrib["points"].split()]
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)  # on a screen, up is less


def test_without_a_search_there_is_nothing_to_draw() -> None:
    assert search_figures({}) == []
    assert search_figures({"trials": TRIALS[:1]}) == []
