"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import json
from typing import Any

from autodl_ray.runtime.progress import StageProgress
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.state import SweepState
from autodl_ray.tune.workspace import PROGRESS, Workspace

__all__ = ["show_progress"]


def show_progress(bar: StageProgress, engine: Engine, workspace: Workspace, *, single: bool) -> None:
    """Move the bar: by trials for a sweep, by epochs (from the trial's progress file) for a single training."""
    state = engine.state
    note = _best_note(state)
    if single:
        trial = next(iter(state.trials.values()), None)
        within = _progress(workspace, trial.id) if trial else {}
        done = float(trial.epochs) if trial else 0.0
        if within.get("steps"):
            done = max(done, engine.epochs * float(within["step"]) / float(within["steps"]))
        speed = f"{float(within['images_per_s']):.0f} images/s" if within.get("images_per_s") else ""
        bar.update(min(done, engine.epochs), engine.epochs, note=", ".join(x for x in (note, speed) if x))
        return
    ended = len(state.trials) - len(state.open)
    begun = sum(t.epochs / engine.epochs for t in state.open.values())
    paused = sum(t.status == "paused" for t in state.open.values())
    note = ", ".join(x for x in (note, f"{paused} paused" if paused else "") if x)
    bar.update(ended + begun, engine.num_samples, note=note)


def _best_note(state: SweepState) -> str:
    best = state.best()
    if best is None:
        return ""
    name = f" ({best.id})" if len(state.trials) > 1 else ""
    return f"best val {state.metric.replace('_', '-')} {state.value(best):.4f}{name}"


def _progress(workspace: Workspace, trial: str) -> dict[str, Any]:
    """Read the progress file; {} when there is none yet (or it is just being written)."""
    try:
        document = json.loads((workspace.trial(trial) / PROGRESS).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
