"""How many epochs a search needs to find what random search finds, on learning curves of real data sets.

    python -m tests.benchmarks.search_efficiency [--quick] [--only curves+freeze_thaw ...] [--json F] [--plot F]

Data: the surrogate of LCBench in ``../shared/data/lcbench-surrogate`` (seven settings of a network, validation accuracy
after each of 50 epochs, 34 tasks). The tasks are the first 20 of the sorted names; strategies were developed on the
other 14. Reference: random search with whole trials for 2,500 epochs, same seed. Figure: the share of those epochs
until the best value of any epoch is that of the reference's end; 1.0 when that does not happen within 2,500 epochs.

Goals: the best combination has a mean of at most 0.25 and a median of at most 0.15; with a portfolio of the other
tasks' sweeps first, 0.15 and 0.08. The shipped strategies and schedulers are driven by the shipped engine; nothing but
the training itself and the file of the journal is replaced.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.efficiency_sweeps import (
    EPOCHS,
    REFERENCE_EPOCHS,
    Cell,
    Surrogate,
    earlier_sweep,
    run_cell,
)

TEST_TASKS, SEEDS = 20, 10
COMBINATIONS = (
    "random+none",
    "random+asha",
    "random+asha_promotion",
    "random+median",
    "random+curve_stop",
    "random+freeze_thaw",
    "qmc+none",
    "tpe+none",
    "tpe+asha",
    "tpe+asha_promotion",
    "tpe+freeze_thaw",
    "gp+none",
    "gp+freeze_thaw",
    "cmaes+none",
    "bayes+none",
    "bayes+freeze_thaw",
    "curves+none",
    "curves+asha",
    "curves+asha_promotion",
    "curves+median",
    "curves+curve_stop",
    "curves+freeze_thaw",
    "portfolio+none",
    "portfolio+asha_promotion",
    "portfolio+freeze_thaw",
)


def main() -> None:
    """Measure, print the table, write what was asked for."""
    given = _arguments()
    surrogate = Surrogate.open(given.data)
    tasks = tuple(given.tasks or surrogate.tasks[:TEST_TASKS])
    seeds = tuple(given.seeds or range(SEEDS))
    if given.quick:
        tasks, seeds = tasks[:4], seeds[:2]
    cells = [Cell(c, t, s, given.workers) for c in given.only or COMBINATIONS for t in tasks for s in seeds]
    started = time.time()
    known: dict[str, Any] = json.loads(given.json.read_text())["cells"] if given.resume and given.json.exists() else {}
    todo = [cell for cell in cells if cell.name not in known]
    for cell, result in _results(given.data, todo, given.processes):
        known[cell.name] = result
        if given.json:
            given.json.write_text(json.dumps({"cells": known}))
    table = summarise(cells, known)
    print(_text(table, len(tasks), len(seeds)))
    print(f"{len(todo)} searches in {time.time() - started:.0f} s, {given.processes} processes")
    if given.json:
        given.json.write_text(json.dumps({"tasks": tasks, "seeds": seeds, "table": table, "cells": known}))
    if given.plot:
        plot(cells, known, given.plot)


def summarise(cells: list[Cell], results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean, median and their 95 % intervals over tasks and seeds (both drawn anew), by combination."""
    import numpy as np

    table = {}
    for combination in dict.fromkeys(cell.combination for cell in cells):
        mine = [cell for cell in cells if cell.combination == combination]
        tasks = sorted({cell.task for cell in mine})
        shares = np.array([[results[c.name]["share"] for c in mine if c.task == task] for task in tasks])
        rng = np.random.default_rng(0)
        drawn = [
            shares[rng.integers(len(tasks), size=(len(tasks), 1)), rng.integers(shares.shape[1], size=shares.shape)]
            for _ in range(2000)
        ]
        table[combination] = {
            "mean": float(shares.mean()),
            "mean_interval": [float(v) for v in np.quantile([d.mean() for d in drawn], [0.025, 0.975])],
            "median": float(np.median(shares)),
            "median_interval": [float(v) for v in np.quantile([np.median(d) for d in drawn], [0.025, 0.975])],
            "never": float((shares >= 1.0).mean()),
            "by_task": {task: float(row.mean()) for task, row in zip(tasks, shares, strict=True)},
            "trials": float(np.mean([results[c.name]["trials"] for c in mine])),
            "seconds": float(np.mean([results[c.name]["seconds"] for c in mine])),
        }
    return table


def plot(cells: list[Cell], results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw, against the epochs, the mean distance to the reference's end and the share of searches that reached it."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for place, combination in enumerate(dict.fromkeys(cell.combination for cell in cells)):
        mine = [results[cell.name] for cell in cells if cell.combination == combination]
        style = {"label": combination, "color": plt.get_cmap("tab20")(place % 20), "ls": ("-", "--")[place // 20 % 2]}
        grid = np.array(mine[0]["grid"])
        left.plot(grid, np.mean([r["regret"] for r in mine], axis=0), **style)
        shares = np.array([r["share"] for r in mine])
        right.plot(grid, [(shares * REFERENCE_EPOCHS <= g).mean() for g in grid], **style)
    left.set(xlabel="epochs", ylabel="distance to random's end (of its median trial: 1)", xscale="log", yscale="log")
    right.set(xlabel="epochs", ylabel="share of searches that reached random's end", ylim=(0, 1))
    right.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _results(data: Path, cells: list[Cell], processes: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Run the cells, those of a warm start after the sweeps that they start from."""
    if not cells:
        return
    warm = any(cell.is_warm for cell in cells)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        earlier = pool.map(_earlier, [(data, t) for t in Surrogate.open(data).tasks], chunksize=1) if warm else []
        jobs = [(data, c, [e for e in earlier if c.is_warm and e.name != c.task]) for c in cells]
        yield from pool.imap_unordered(_cell, jobs, chunksize=1)


def _earlier(job: tuple[Path, str]) -> Any:
    return earlier_sweep(Surrogate.open(job[0]), job[1])


def _cell(job: tuple[Path, Cell, Any]) -> tuple[Cell, dict[str, Any]]:
    return job[1], run_cell(Surrogate.open(job[0]), job[1], tuple(job[2]))


def _text(table: Mapping[str, Mapping[str, Any]], tasks: int, seeds: int) -> str:
    rows = [f"share of random's {REFERENCE_EPOCHS} epochs ({tasks} tasks x {seeds} seeds, trials of {EPOCHS} epochs)"]
    rows.append(
        f"{'search+scheduler':26s} {'mean':>5s} {'95 %':>13s} {'median':>7s} {'95 %':>13s} {'never':>6s} {'s':>6s}"
    )
    for name, row in sorted(table.items(), key=lambda item: item[1]["mean"]):
        mean, median = ("{:.2f} to {:.2f}".format(*row[k]) for k in ("mean_interval", "median_interval"))
        rows.append(
            f"{name:26s} {row['mean']:5.3f} {mean:>13s} {row['median']:7.3f} {median:>13s} "
            f"{row['never']:6.1%} {row['seconds']:6.1f}"
        )
    return "\n".join(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[2].parent / "shared"))
    parser.add_argument("--data", type=Path, default=shared / "data" / "lcbench-surrogate")
    parser.add_argument("--quick", action="store_true", help="4 tasks and 2 seeds")
    parser.add_argument("--tasks", nargs="+", help="by OpenML id (default: the first 20 of the sorted ones)")
    parser.add_argument("--seeds", type=int, nargs="+", help=f"default: 0 to {SEEDS - 1}")
    parser.add_argument("--only", nargs="+", metavar="SEARCH+SCHEDULER")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (simulated)")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep what --json holds already")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    if not (given.data / "model.onnx").exists():
        sys.exit(f"{given.data} holds no surrogate; name its folder with --data")
    if given.resume and not given.json:
        parser.error("--resume goes on with the file that --json names")
    return given


if __name__ == "__main__":
    main()
