"""report.html: the report as one page that needs nothing beside itself."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autodl_ray.evaluate import figures
from autodl_ray.evaluate.curves import curve_figures
from autodl_ray.evaluate.report import EvaluationReport
from autodl_ray.evaluate.search_figures import search_figures
from autodl_ray.evaluate.tables import Mistake

__all__ = ["render_html"]

_MAX_ROWS = 100
_OWN_DATASET_KEYS = ("id", "name", "train", "val", "test", "skipped", "classes", "num_classes", "sizes", "counts")
_INT8_LABELS = {"accuracy": "validation_accuracy", "images_per_s": "pictures_per_s", "bytes": "size_bytes"}
_OWN_MODEL_KEYS = ("name", "version", "source", "id")


def render_html(report: EvaluationReport, *, worst: Sequence[tuple[Mistake, str]], num_mistakes: int) -> str:
    """Return the page.

    Args:
        report: What was measured.
        worst: Mistakes with the data URI of their picture, worst first.
        num_mistakes: How many there are in all.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=_percent, value=_value, label=_label, size=_size)
    source = importlib.resources.files("autodl_ray.evaluate").joinpath("report.html.j2").read_text(encoding="utf-8")
    scores = report.scores
    return environment.from_string(source).render(
        r=report,
        s=scores,
        worst=worst,
        num_mistakes=num_mistakes,
        accuracy_figure=figures.interval_svg(scores.accuracy, scores.baseline.accuracy),
        f1_figure=figures.interval_svg(scores.macro_f1, None),
        confusion=figures.confusion_svg(scores.confusion_matrix, scores.classes),
        reliability=figures.reliability_svg(scores.calibration),
        curve_figures=curve_figures(report.curves),
        search_figures=search_figures(report.search),
        limits=_limits(report.search),
        leaderboard=_table(report.leaderboard[:_MAX_ROWS], source=report.model.get("source")),
        int8=_int8(report),
        model_facts={k: v for k, v in report.model.items() if k not in _OWN_MODEL_KEYS},
        dataset_facts={k: v for k, v in report.dataset.items() if k not in _OWN_DATASET_KEYS},
        made_facts={k: v for k, v in report.made.items() if k not in ("packages", "judged_file")},
        train_counts=report.dataset.get("counts", {}).get("train"),
        confidence_digits=0 if float(100 * report.confidence).is_integer() else 1,
        confidence_note=_confidence_note(report),
        fewer_mistakes=_fewer_mistakes(report),
    )


def _limits(search: Mapping[str, Any]) -> dict[str, Any] | None:
    """Columns and cells of the Pareto table; None without limits."""
    limits = search.get("limits")
    return {**limits, "table": _table(limits["rows"], source=None)} if limits else None


def _confidence_note(report: EvaluationReport) -> str:
    scores = report.scores
    mean = sum(b.count * b.confidence for b in scores.calibration) / scores.num_images
    gap = mean - scores.accuracy.value
    says = f"On average it says {_percent(mean, 0)} and is right {_percent(scores.accuracy.value, 0)} of the time"
    if abs(gap) < 0.02:
        return f"{says}: well matched."
    word, meaning = (
        ("over-confident", "a high probability promises too much")
        if gap > 0
        else ("under-confident", "it is right more often than it says")
    )
    return f"{says}: {word}, {meaning}."


def _fewer_mistakes(report: EvaluationReport) -> float | None:
    """Share of the baseline's mistakes that the model does not make; None when it is no better."""
    baseline = 1 - report.scores.baseline.accuracy
    mine = 1 - report.scores.accuracy.value
    return 1 - mine / baseline if baseline > 0 and mine < baseline else None


def _int8(report: EvaluationReport) -> dict[str, Any] | None:
    """Rows FP32 against INT8: what the export measured, and the scores on the test split where both were judged."""
    facts = {k: v for k, v in (report.int8 or {}).items() if v is not None}
    columns: dict[str, dict[str, Any]] = {
        name: {_INT8_LABELS.get(k, k): v for k, v in facts.pop(name).items()}
        for name in ("fp32", "int8")
        if isinstance(facts.get(name), Mapping)
    }
    judged = str(report.made["judged_file"])
    for variant in report.variants:
        columns.setdefault(judged, {}).update(
            test_accuracy=report.scores.accuracy.value,
            test_macro_f1=report.scores.macro_f1.value,
            pictures_per_s_here=report.images_per_s,
        )
        columns.setdefault(variant.name, {}).update(
            test_accuracy=variant.accuracy,
            test_macro_f1=variant.macro_f1,
            pictures_per_s_here=variant.images_per_s,
            same_answer_on_test=variant.same_answer,
        )
    if not facts and not columns:
        return None
    keys = list(dict.fromkeys(k for column in columns.values() for k in column))
    rows = [(key, [columns[name].get(key) for name in columns]) for key in keys]
    kept, reason = facts.pop("kept", None), facts.pop("reason", "")
    facts.update(facts.pop("conditions", {}))
    return {"names": list(columns), "rows": rows, "facts": facts, "kept": kept, "reason": reason}


def _table(rows: Sequence[Mapping[str, Any]], *, source: object) -> dict[str, Any] | None:
    """Columns and cells; the row of the judged model is marked by ``chosen``, or by its ``source``."""
    if not rows:
        return None
    chosen = [bool(row.get("chosen")) or (source is not None and row.get("source") == source) for row in rows]
    columns = [key for key in dict.fromkeys(k for row in rows for k in row) if key != "chosen"]
    return {
        "columns": columns,
        "rows": [
            {"chosen": is_chosen, "cells": [row.get(c) for c in columns]}
            for row, is_chosen in zip(rows, chosen, strict=True)
        ],
    }


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


def _size(number: float) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def _label(key: object) -> str:
    words = str(key).removesuffix("_bytes").replace("_per_s", "/s")
    return words.replace("_", " ").replace("macro f1", "macro-F1")


def _value(value: object, key: object = "") -> str:
    """Show one value as a person reads it; the key decides the unit (shares, bytes, rates)."""
    name = str(key)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value, name)
    if isinstance(value, Mapping):
        return _joined([f"{_label(k)} {_value(v, k)}" for k, v in value.items()])
    if isinstance(value, list | tuple):
        return " × ".join(map(str, value)) + " px" if name == "image_size" else _joined([_value(v, key) for v in value])
    return str(value)


def _joined(parts: Sequence[str], limit: int = 12) -> str:
    more = f" … ({len(parts)} in all)" if len(parts) > limit else ""
    return (", ".join(parts[:limit]) or "–") + more


def _number(value: int | float, name: str) -> str:
    if not math.isfinite(value):
        return "–"
    if "bytes" in name:
        return _size(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 and "seed" not in name else str(value)
    if ("accuracy" in name or "f1" in name or "same_answer" in name or name == "agreement") and 0 <= value <= 1:
        return _percent(value)
    if "_per_s" in name or name.endswith("_s") or "seconds" in name:
        return f"{value:,.1f}"
    return f"{value:.4g}"
