"""The plots of a search: how the best value came about, what each setting did, and which of them mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray.errors import InputError, StageError, StoreError
from autodl_ray.pipeline.history.importance import ImportanceReport, importance
from autodl_ray.pipeline.history.runs import RunHistory
from autodl_ray.pipeline.history.trials import SweepHistory, TrialHistory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_history", "draw_importance", "draw_parallel", "draw_slices", "save", "write_plots"]

_BLUE, _ORANGE, _GREY = "#2563eb", "#ea580c", "#9ca3af"


def write_plots(run: RunHistory, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw every plot of the run's search, each as PNG and SVG.

    Returns:
        The files, and a line for each plot that could not be drawn.

    Raises:
        StageError: The run has no trial with a value.
        StoreError: A file cannot be written.
    """
    sweep = run.search()
    if sweep is None or not _known(sweep):
        raise StageError("There is no trial with a value to draw.", seen=run.name)
    figures = {"history": draw_history(sweep), "parallel": draw_parallel(sweep), "slices": draw_slices(sweep)}
    notes = [f"no plot of {name}: no setting was searched" for name, figure in figures.items() if figure is None]
    try:
        figures["importance"] = draw_importance(importance(sweep))
    except StageError as error:
        notes.append(f"no plot of importance: {error.what}")
    files = []
    for name, figure in figures.items():
        for kind in ("png", "svg") if figure is not None else ():
            assert figure is not None
            files.append(save(figure, folder / f"{name}.{kind}"))
    return files, notes


def save(figure: Figure, file: Path) -> Path:
    """Write a figure as its name says.

    Raises:
        InputError: The name ends neither in .png nor in .svg.
        StoreError: The file cannot be written.
    """
    if file.suffix.lower() not in (".png", ".svg"):
        raise InputError("A plot is written as .png or .svg.", seen=file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise StoreError("The plot could not be written.", seen=f"{file}: {error}") from error
    return file


def draw_history(sweep: SweepHistory) -> Figure:
    """Draw the value of each trial in the order of proposal, and the best so far."""
    figure, axes = _figure(7.0, 4.0)
    known = _known(sweep)
    numbers = [_number(trial) for trial, _ in known]
    values = [value for _, value in known]
    colours = [_BLUE if trial.status == "finished" else _GREY for trial, _ in known]
    axes.scatter(numbers, values, c=colours, s=22)
    choose = max if sweep.mode == "max" else min
    best = [choose(values[: i + 1]) for i in range(len(values))]
    axes.step(numbers, best, where="post", color=_ORANGE, label="best so far")
    axes.scatter([], [], c=_BLUE, s=22, label="finished")
    axes.scatter([], [], c=_GREY, s=22, label="stopped early, paused or failed")
    axes.set(xlabel="trial", ylabel=_metric(sweep), title="history of the search")
    axes.legend(frameon=False)
    return figure


def draw_parallel(sweep: SweepHistory) -> Figure | None:
    """Draw each trial as a line over its settings, coloured by its value; None when nothing was searched.

    A setting that a trial does not have breaks its line.
    """
    names, known = _names(sweep), _known(sweep)
    if not names:
        return None
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = _figure(max(6.0, 1.6 * len(names) + 2), 4.5)
    values = [value for _, value in known]
    norm = Normalize(min(values), max(values))
    places = {name: _Axis.of(name, known, sweep) for name in names}
    for trial, value in sorted(known, key=lambda row: row[1], reverse=sweep.mode == "min"):
        heights = [places[n].place(trial.params[n]) if n in trial.params else math.nan for n in names]
        axes.plot(range(len(names)), heights, color=colormaps["viridis"](norm(value)), alpha=0.75, linewidth=1.2,
                  marker="o", markersize=3)  # fmt: skip
    for x, name in enumerate(names):
        axes.axvline(x, color=_GREY, linewidth=0.8, zorder=0)
        for height, text in places[name].ticks():
            axes.text(x + 0.03, height, text, fontsize=7, color="#4b5563", va="center")
    axes.set(yticks=[], ylim=(-0.06, 1.06), title="settings of every trial")
    axes.set_xticks(range(len(names)), names, rotation=15)
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, label=_metric(sweep))
    return figure


def draw_slices(sweep: SweepHistory) -> Figure | None:
    """Draw the value over each setting, one panel a setting; None when nothing was searched."""
    names, known = _names(sweep), _known(sweep)
    if not names:
        return None
    from matplotlib.figure import Figure

    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.0 * columns, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        have = [(trial, value) for trial, value in known if name in trial.params]
        raw = [trial.params[name] for trial, _ in have]
        is_text = sweep.space.get(name, {}).get("type") == "choice" or not all(_is_number(v) for v in raw)
        xs: list[Any] = [_words(raw).index(str(v)) if is_text else float(v) for v in raw]
        axes.scatter(xs, [v for _, v in have], c=[_number(t) for t, _ in have], cmap="viridis_r", s=18)
        if not is_text and sweep.space.get(name, {}).get("log") and min(xs) > 0:
            _log_axis(axes, xs)
        if is_text:
            axes.set_xticks(range(len(_words(raw))), _words(raw))
        axes.set(xlabel=name, ylabel=_metric(sweep))
    for axes in list(panels):  # what is left of the grid
        axes.set_visible(False)
    return figure


def draw_importance(report: ImportanceReport) -> Figure:
    """Draw the share of each setting as a bar, with its spread."""
    figure, axes = _figure(6.5, 1.2 + 0.4 * len(report.rows))
    rows = list(reversed(report.rows))
    names = [f"{row.name} *" if row.when else row.name for row in rows]
    spread = [
        [max(0.0, row.value - row.low) for row in rows],
        [max(0.0, row.high - row.value) for row in rows],
    ]
    axes.barh(names, [row.value for row in rows], xerr=spread, color=_BLUE, ecolor=_GREY, capsize=3)
    axes.set(xlim=(0, 1), xlabel=f"share for {report.metric.replace('_', '-')}, {report.trials} trials")
    if any(row.when for row in rows):
        axes.set_title("* among the trials that have it", fontsize=9)
    return figure


class _Axis:
    """One vertical axis of the parallel coordinates: from a value to a height in [0, 1]."""

    def __init__(self, values: Sequence[Any], *, log: bool, is_text: bool) -> None:
        self._words = _words(values) if is_text else []
        numbers = [] if is_text else [float(v) for v in values]
        self._log = log and not is_text and min(numbers) > 0
        self._low, self._high = (self._scaled(min(numbers)), self._scaled(max(numbers))) if numbers else (0.0, 1.0)

    @classmethod
    def of(cls, name: str, known: Sequence[tuple[TrialHistory, float]], sweep: SweepHistory) -> _Axis:
        values = [trial.params[name] for trial, _ in known if name in trial.params]
        domain = sweep.space.get(name, {})
        is_text = domain.get("type") == "choice" or not all(_is_number(v) for v in values)
        return cls(values, log=bool(domain.get("log")), is_text=is_text)

    def place(self, value: Any) -> float:
        if self._words:
            return (self._words.index(str(value)) + 0.5) / len(self._words)
        span = self._high - self._low
        return (self._scaled(float(value)) - self._low) / span if span else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        if self._words:
            return [(self.place(word), word) for word in self._words]
        ends = [math.exp(v) if self._log else v for v in (self._low, self._high)]
        return [(self.place(value), f"{value:.3g}") for value in ends]

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value


def _words(values: Sequence[Any]) -> list[str]:
    """Return the different values as text: numbers in their order, then the others."""
    numbers = sorted({v for v in values if _is_number(v)})
    return list(dict.fromkeys([*map(str, numbers), *sorted({str(v) for v in values if not _is_number(v)})]))


def _log_axis(axes: Any, xs: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter

    low, high = min(xs), max(xs)
    ticks = [low, math.sqrt(low * high), high] if high > low else [low]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # not pyplot: no window and no state that outlives the call

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _known(sweep: SweepHistory) -> list[tuple[TrialHistory, float]]:
    return [(t, v) for t in sweep.trials if (v := t.value(sweep.metric, sweep.mode)) is not None]


def _names(sweep: SweepHistory) -> list[str]:
    return sorted({name for trial, _ in _known(sweep) for name in trial.params})


def _number(trial: TrialHistory) -> int:
    return int(trial.id.lstrip("t") or 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _metric(sweep: SweepHistory) -> str:
    return f"validation {sweep.metric.replace('_', '-')}"
