"""A run at one moment, drawn for a terminal, or said in one line where there is none."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autodl_ray.cli.console import human_seconds
from autodl_ray.cli.runs.common import params_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from autodl_ray.cli.runs.following import Live, Snapshot

__all__ = ["drawn", "facts_text", "line", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 48
_LIVE_IN_LINE = 2


def sparkline(values: Sequence[float], width: int = _SPARKS) -> str:
    """Draw numbers as blocks, lowest to highest; more than ``width`` are averaged into so many.

    Example:
        >>> sparkline([0, 1, 2, 3])
        '▁▃▆█'
    """
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return ""
    size = max(1.0, len(known) / width)
    edges = [round(i * size) for i in range(min(width, len(known)) + 1)]
    means = [sum(part) / len(part) for a, b in itertools.pairwise(edges) if (part := known[a:b])]
    low, span = min(means), max(means) - min(means) or 1.0
    return "".join(_BLOCKS[round((len(_BLOCKS) - 1) * (v - low) / span)] for v in means)


def facts_text(facts: Mapping[str, float]) -> str:
    """Write the newest metrics of a training in one line; what is not known is left out."""
    shown = {
        "loss": "loss {:.4g}",
        "accuracy": "accuracy {:.3f}",
        "lr": "lr {:.2g}",
        "grad_norm": "gradient {:.3g}",
        "images_per_s": "{:,.0f} images/s",
        "cpu_percent": "cpu {:.0f} %",
        "rss_mb": "memory {:,.0f} MB",
        "object_store_mb": "object store {:,.0f} MB",
        "gpu_percent": "gpu {:.0f} %",
        "gpu_memory_mb": "gpu memory {:,.0f} MB",
        "gpu_power_w": "{:.0f} W",
        "gpu_temperature_c": "{:.0f} °C",
        "disk_free_gb": "disk {:,.0f} GB free",
    }
    parts = [text.format(facts[name]) for name, text in shown.items() if name in facts]
    if "data_wait" in facts:
        parts.append(f"data wait {100 * facts['data_wait']:.0f} %")
    if "eta_s" in facts:
        parts.append(f"{human_seconds(facts['eta_s'])} left")
    return ", ".join(parts)


def line(seen: Snapshot) -> str:
    """Say a run in one line."""
    parts = [f"{seen.run}: {seen.stage}", human_seconds(seen.seconds)]
    if seen.counts:
        parts.append(_counts_text(seen.counts))
    if seen.best is not None:
        parts.append(f"best {seen.metric} {seen.best.value:.4f} ({seen.best.name})")
    parts += [": ".join(x for x in (_place(one), facts_text(one.facts)) if x) for one in seen.live[:_LIVE_IN_LINE]]
    return " · ".join(parts)


def drawn(seen: Snapshot) -> RenderableType:
    """Draw a run: what it does, its best trials, and the curves of those that run."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [_heading(seen)]
    if seen.trials:
        parts.append(_table(seen))
    for one in seen.live:
        parts.append(Text(_place(one), style="bold"))
        parts.append(Text("  " + facts_text(one.facts)))
        if len(one.losses) > 1:
            parts.append(Text(f"  loss     {sparkline(one.losses)}  {one.losses[0]:.3g} → {one.losses[-1]:.3g}"))
        if len(one.scores) > 1:
            name = seen.metric.replace("_", "-")
            parts.append(Text(f"  {name:<8} {sparkline(one.scores)}  {one.scores[0]:.3f} → {one.scores[-1]:.3f}"))
    return Group(*parts)


def _heading(seen: Snapshot) -> Any:
    from rich.text import Text

    budget = "" if seen.budget_s is None else f" of {human_seconds(seen.budget_s)}"
    counts = f"  ·  {_counts_text(seen.counts)}" if seen.counts else ""
    clock = time.strftime("%H:%M:%S", time.localtime(seen.when))
    return Text.assemble(
        (seen.run, "bold"), f"  {seen.stage}  ·  {human_seconds(seen.seconds)}{budget}{counts}  ·  {clock}"
    )


def _table(seen: Snapshot) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    score = seen.metric.replace("_", "-")
    for name in ("trial", "status", "epoch", score, "settings"):
        table.add_column(name, justify="right" if name in ("epoch", score) else "left", no_wrap=True)
    for trial in seen.trials:
        epochs = f"{trial.epoch}/{trial.epochs}" if trial.epochs else str(trial.epoch)
        value = "–" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(trial.name, trial.status, epochs, value, params_text(trial.params))
    return table


def _place(one: Live) -> str:
    steps = f"/{one.steps}" if one.steps else ""
    return f"{one.name} epoch {one.epoch} step {one.step}{steps}"


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items())
