"""Throughput over batch sizes, a panel for each number of threads, a line for each engine and file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autodl_ray.errors import InputError
from autodl_ray.export.bench.grid import BenchRow

__all__ = ["SUFFIXES", "write_plot"]

SUFFIXES = (".png", ".svg", ".pdf")


def write_plot(rows: Sequence[BenchRow], path: Path, *, title: str) -> None:
    """Draw the table into a file.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    threads = sorted({row.threads for row in rows})
    figure = Figure(figsize=(1.0 + 4.5 * max(1, len(threads)), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(1, len(threads)), squeeze=False, sharey=True)[0]
    for panel, count in zip(panels, threads, strict=False):
        here = [row for row in rows if row.threads == count]
        for label in dict.fromkeys(row.label for row in here):
            line = sorted((r.batch, r.images_per_s) for r in here if r.label == label)
            style = "--" if label.startswith("torch") else "-"
            panel.plot([b for b, _ in line], [v for _, v in line], style, marker="o", markersize=4, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({row.batch for row in here}), [str(b) for b in sorted({row.batch for row in here})])
        panel.set_xlabel("pictures a call")
        panel.set_title(f"{count} thread{'s' if count > 1 else ''}", fontsize=10)
        panel.grid(alpha=0.3)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("pictures a second")
    panels[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise InputError("The plot cannot be written.", seen=f"{path}: {error}", hint="choose --plot") from error
