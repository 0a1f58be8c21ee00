"""`autodl runs show`: the leaderboard of a run, its plan, and what was decided for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodl_ray.cli.console import Console, human_seconds
from autodl_ray.cli.runs.common import (
    Json,
    StoreOption,
    note_problems,
    params_text,
    score_text,
    store_folder,
    when_text,
)

if TYPE_CHECKING:
    from autodl_ray.pipeline.history import RunHistory, SweepHistory, TrialHistory

__all__ = ["add_to", "show"]

Run = Annotated[str, typer.Argument(help="Name of the run: see `autodl runs list`.", show_default=False)]


def add_to(cli: typer.Typer) -> None:
    """Add the verb."""
    cli.command(name="show")(show)


def show(
    context: typer.Context,
    run: Run,
    trials: Annotated[bool, typer.Option("--trials", help="What was decided for each trial, and when.")] = False,
    store: StoreOption = None,
    json_output: Json = False,
) -> None:
    """Show one run: every model that was tried, best first, the plan, and the scores of the delivered file.

    Examples:

        autodl runs show photos-3f2a1c

        autodl runs show photos-3f2a1c --trials
    """
    from autodl_ray.pipeline.history import open_run

    console: Console = context.obj
    history = open_run(store_folder(store), run)
    _head(history, console)
    board = leaderboard(history)
    _board(board, console)
    _plan(history, console)
    if trials:
        for sweep in history.sweeps.values():
            _trials(sweep, console)
    _delivered(history, console)
    note_problems(console, {history.name: history.summary.problems})
    console.result(
        {
            **history.summary.to_json(),
            "leaderboard": board,
            "plan": list(history.decisions),
            "facts": dict(history.facts),
            "delivered": _delivered_facts(history),
            "packages": dict(history.packages),
            **({"trials": {key: _timeline(sweep) for key, sweep in history.sweeps.items()}} if trials else {}),
        }
    )


def leaderboard(history: RunHistory) -> list[dict[str, Any]]:
    """Return the rows of the run, best first; of a run that has not ended, those that its journals hold so far."""
    reasons = {_source(key, trial, sweep): trial for key, sweep in history.sweeps.items() for trial in sweep.trials}
    rows = [dict(row) for row in history.rows]
    if not rows:
        rows = [_row(source, trial, history) for source, trial in reasons.items()]
        sign = -1.0 if history.mode == "max" else 1.0
        rows.sort(key=lambda r: (r[history.summary.metric] is None, sign * (r[history.summary.metric] or 0.0)))
    known = {row["source"] for row in rows}
    for source, trial in reasons.items():  # without an epoch there is nothing to rank, but something to say
        if source not in known and not trial.curve:
            rows.append(_row(source, trial, history))
    for row in rows:
        of_row = reasons.get(row["source"])
        row.setdefault("reason", of_row.reason if of_row else "")
        row["chosen"] = row["source"] == history.summary.winner
    return rows


def _source(key: str, trial: TrialHistory, sweep: SweepHistory) -> str:
    return key if len(sweep.trials) == 1 and not sweep.space else f"{key} {trial.id}"


def _row(source: str, trial: TrialHistory, history: RunHistory) -> dict[str, Any]:
    best = trial.best_row(history.summary.metric, history.mode) or {}
    return {
        "source": source,
        "accuracy": best.get("accuracy"),
        "macro_f1": best.get("macro_f1"),
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "status": trial.status,
        "params": trial.params,
    }


def _head(history: RunHistory, console: Console) -> None:
    run = history.summary
    console.print(f"{run.name}: {run.status}, {human_seconds(run.seconds)}, last written {when_text(run.when)}")
    console.print(f"data      {run.data}  {run.dataset}")
    console.print(f"model     {run.model}   seed {history.spec.get('seed', 0)}")
    console.print()


def _board(board: list[dict[str, Any]], console: Console) -> None:
    columns = ["model", "accuracy", "macro F1", "epochs", "time", "status", "judged", "settings"]
    rows = [
        [
            ("* " if row["chosen"] else "  ") + str(row["source"]),
            score_text(row["accuracy"]),
            score_text(row["macro_f1"]),
            f"{row['epochs']:g}",
            human_seconds(row["seconds"]),
            str(row["status"]),
            str(row.get("judged", "trained")),
            params_text(row["params"]) + (f"  ({_first_line(row['reason'])})" if row["reason"] else ""),
        ]
        for row in board
    ]
    console.table(
        "leaderboard (validation split; * is delivered)", columns, rows, left=("status", "judged", "settings")
    )
    console.print("judged: exported = the file that is delivered was scored; trained = the network while it trained")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1][:100]  # of a traceback, the last line is the error


def _plan(history: RunHistory, console: Console) -> None:
    if not history.decisions:
        return
    console.print()
    console.print("plan")
    for number, action in enumerate(history.decisions, start=1):
        console.print(f"  {number}. {_action(action)}")


def _action(action: Mapping[str, Any]) -> str:
    parts = [f"{action.get('kind')}: {action.get('reason')}"]
    if action.get("num_samples"):
        parts.append(f"{action['num_samples']} trials")
    if action.get("epochs"):
        parts.append(f"{action['epochs']} epochs")
    if action.get("seconds"):
        parts.append(f"at most {human_seconds(action['seconds'])}")
    return ", ".join(parts)


def _trials(sweep: SweepHistory, console: Console) -> None:
    console.print()
    rows = []
    for line in _timeline(sweep):
        value = line["value"]
        steps = " · ".join(_step(step) for step in line["steps"]) or f"epoch {line['epochs']}: {line['status']}"
        rows.append([line["trial"], score_text(value), str(line["best_epoch"] or "–"), f"{line['epochs']}", steps])
    columns = ["trial", sweep.metric.replace("_", " "), "best epoch", "epochs", "what was decided"]
    console.table(f"{sweep.key}: trials, best first", columns, rows, left=("what was decided",))


def _step(step: Mapping[str, Any]) -> str:
    detail = f" ({_first_line(step['detail'])})" if step["detail"] else ""
    return f"epoch {step['epoch']}: {step['kind']}{detail}"


def _timeline(sweep: SweepHistory) -> list[dict[str, Any]]:
    rows = []
    for trial in sweep.ranked():
        best = trial.best_row(sweep.metric, sweep.mode) or {}
        rows.append(
            {
                "trial": trial.id,
                "status": trial.status,
                "reason": trial.reason,
                "params": trial.params,
                "value": best.get(sweep.metric),
                "best_epoch": best.get("epoch"),
                "epochs": trial.epochs,
                "seconds": trial.seconds,
                "steps": [{"epoch": s.epoch, "kind": s.kind, "detail": s.detail} for s in trial.steps],
            }
        )
    return rows


def _delivered_facts(history: RunHistory) -> dict[str, Any]:
    info = history.bundle
    if not info:
        return {}
    return {
        "source": info.get("source"),
        "version": info.get("version"),
        "variant": info.get("default_variant"),
        "validation": info.get("val_scores"),
        "test": history.report or info.get("test_scores"),
        "int8": info.get("int8"),
    }


def _delivered(history: RunHistory, console: Console) -> None:
    facts = _delivered_facts(history)
    if not facts:
        console.print()
        console.print("delivered nothing yet")
        return
    validation = facts["validation"] or {}
    console.print()
    console.print(f"delivered {facts['source']}, version {facts['version']}, {facts['variant']}")
    console.print(f"  validation  {', '.join(f'{k} {v:.4f}' for k, v in validation.items())}  (of the exported file)")
    test = facts["test"]
    if test:
        low, high = test["accuracy_interval"]
        console.print(
            f"  test        accuracy {test['accuracy']:.4f} ({low:.3f} to {high:.3f}), macro F1 {test['macro_f1']:.4f}"
        )
    repeat = history.facts.get("repeat")
    if repeat:
        console.print(f"  repeats     {repeat['line']}")
    limits = history.facts.get("limits")
    if limits:
        console.print(f"  limits      {limits['line']}")
        _pareto(limits, history.summary.metric, console)


def _pareto(limits: Mapping[str, Any], metric: str, console: Console) -> None:
    rows = [
        [
            ("* " if row["chosen"] else "  ") + f"{row['source']} {row['variant']}",
            f"{row[metric]:.4f}",
            f"{row['latency_ms']:.3g}",
            f"{row['size_mb']:.3g}",
            "yes" if row["keeps_limits"] else "no",
            "yes" if row["dominated"] else "no",
        ]
        for row in limits["rows"]
    ]
    console.print()
    columns = ["file", metric.replace("_", " "), "ms", "MB", "keeps the limits", "dominated"]
    console.table("limits: what each file takes (* is delivered)", columns, rows)
