"""Reads the finished sweeps of a store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from autodl_ray.artifacts import Artifact, Store, open_artifact
from autodl_ray.artifacts.manifest import MANIFEST
from autodl_ray.errors import BundleError
from autodl_ray.tune.contracts import EarlierSweep, Observed

__all__ = ["earlier_sweeps"]

_TRIALS = "trials.json"


def earlier_sweeps(
    store: Store, *, without: str = "", say: Callable[[str], None] | None = None
) -> tuple[EarlierSweep, ...]:
    """Return the finished sweeps of a local store, by name; those that cannot be read are passed over.

    Args:
        store: Where runs lie: a run's sweep is ``RUN/sweep``.
        without: Key of a sweep that is left out: that which is about to begin.
        say: Told of each sweep that is passed over, and why.
    """
    if not store.is_local:
        return ()
    root = Path(store.root)
    found = []
    for manifest in sorted(root.glob(f"*/*/{MANIFEST}")):
        key = manifest.parent.relative_to(root).as_posix()
        if key == without or key.startswith(".") or "/." in key:
            continue
        try:
            sweep = _read(open_artifact(manifest.parent), key)
        except (BundleError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if say is not None:
                say(f"{key} is passed over as a warm start: {_reason(error)}")
            continue
        if sweep is not None:
            found.append(sweep)
    return tuple(found)


def _read(artifact: Artifact, key: str) -> EarlierSweep | None:
    """Return a sweep; None: the artifact is something else, or no trial made an epoch."""
    if artifact.manifest.kind != "sweep":
        return None
    meta = artifact.meta
    mode: Literal["min", "max"] = "min" if meta["mode"] == "min" else "max"
    rows = json.loads(artifact.file(_TRIALS).read_text(encoding="utf-8"))
    trials = tuple(_observed(number, row, meta["metric"], mode) for number, row in enumerate(rows))
    longest = max((t.epochs for t in trials), default=0)
    if longest == 0:
        return None
    facts = {str(name): float(value) for name, value in meta.get("facts", {}).items()}
    return EarlierSweep(key, facts, mode, max(longest, int(meta.get("epochs", 0))), trials)


def _observed(number: int, row: Mapping[str, Any], metric: str, mode: Literal["min", "max"]) -> Observed:
    reports = ((int(r["epoch"]), float(r.get(metric, math.nan))) for r in row["curve"])
    values = tuple((epoch, value) for epoch, value in sorted(reports) if math.isfinite(value))
    best = max if mode == "max" else min
    status: Literal["finished", "stopped", "failed"] = (
        row["status"] if row["status"] in ("finished", "stopped") else "failed"
    )
    return Observed(number, dict(row["params"]), status, values, best((v for _, v in values), default=None))


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
