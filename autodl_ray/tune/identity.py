"""What makes a sweep the same sweep: everything that decides a trial's result, and nothing that only says how."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from autodl_ray.spec.search import TuneSpec
from autodl_ray.spec.training import UNSEARCHED
from autodl_ray.tune.records import SweepInputs

__all__ = ["sweep_digest", "sweep_identity"]

# Of the search section: what decides which settings are tried and how far they get.
_SEARCH = {"search", "scheduler", "grace_period", "reduction_factor", "patience", "metric"}
# Fields that did not exist when older journals were begun: their old value is no change.
_SINCE = {"patience": 0}


def sweep_identity(spec: TuneSpec, inputs: SweepInputs, seed: int) -> dict[str, Any]:
    """Return plain data that is equal for equal sweeps, whatever the number of trials and the time they may take."""
    base = inputs.base.model_dump(mode="json")
    tune = spec.model_dump(mode="json", include=_SEARCH) | {"metric": spec.score}
    document = {
        "base": {name: value for name, value in base.items() if name not in (*UNSEARCHED, "epochs")},
        "model": inputs.model,
        "preprocess": dataclasses.asdict(inputs.preprocess),
        "weights": _file_digest(Path(inputs.weights)) or inputs.weights,
        "num_classes": inputs.num_classes,
        "epochs": inputs.epochs,
        "head_init": _file_digest(inputs.head_init) if inputs.head_init else None,
        "param_space": {name: domain.model_dump(mode="json") for name, domain in inputs.param_space.items()},
        "enqueue": [dict(p) for p in inputs.enqueue],
        "tune": {name: value for name, value in tune.items() if value != _SINCE.get(name, object())},
        "dataset": inputs.dataset_id,
        "class_weights": inputs.class_weights,
        "balanced": inputs.balanced,
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def sweep_digest(identity: dict[str, Any]) -> str:
    """Return the hash of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str | None:
    """The hash of a file in the place of its path, which a move of the store would change."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
