"""Runs made by the writers that a real run uses (record, journal, store), without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.artifacts import Store
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.record import RunRecord
from autodl_ray.spec import ExperimentSpec
from autodl_ray.tune.journal import Journal

SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "when": {}},
    "optimizer": {"type": "choice", "values": ["sgd", "adamw"], "when": {}},
    "momentum": {"type": "float", "low": 0.5, "high": 0.99, "log": False, "when": {"optimizer": ["sgd"]}},
}


def spec_of(**changes: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"data": {"path": "photos"}, **changes})


def value_of(params: Mapping[str, Any]) -> float:
    """What a made trial reaches: the learning rate decides, the momentum a little."""
    return 0.9 - 0.1 * abs(float(np.log10(params["lr"])) + 2) - 0.02 * abs(params.get("momentum", 0.9) - 0.9)


def trials_of(number: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        params: dict[str, Any] = {
            "lr": float(10 ** rng.uniform(-4, -1)),
            "optimizer": ("sgd", "adamw")[int(rng.integers(2))],
        }
        if params["optimizer"] == "sgd":
            params["momentum"] = float(rng.uniform(0.5, 0.99))
        found.append(params)
    return found


def write_journal(folder: Path, key: str, trials: Sequence[Mapping[str, Any]], *, epochs: int = 3) -> None:
    """Write the journal of a sweep: every fourth trial is stopped after an epoch, trial 1 is paused and resumed."""
    with Journal(folder / f"{key}.journal.jsonl") as journal:
        identity = {"epochs": epochs, "param_space": SPACE if key == "sweep" else {}, "tune": {"metric": "accuracy"}}
        journal.append({"event": "begun", "version": 1, "identity": identity})
        for number, params in enumerate(trials):
            trial = f"t{number:04d}"
            journal.append({"event": "proposed", "number": number, "params": dict(params)})
            is_short = number % 4 == 3
            for epoch in range(1, 2 if is_short else epochs + 1):
                value = value_of(params) * (1 - 0.2 / epoch)
                metrics = {"epoch": epoch, "accuracy": value, "macro_f1": value - 0.01, "loss": 1 - value}
                journal.append({"event": "epoch", "trial": trial, "metrics": {**metrics, "epoch_s": 0.5}})
                if number == 1 and epoch == 1:
                    journal.append({"event": "paused", "trial": trial, "reason": "others are better at epoch 1"})
                    journal.append({"event": "resumed", "trial": trial})
            ended = {"status": "stopped", "reason": "the scheduler"} if is_short else {"status": "finished"}
            journal.append({"event": "ended", "trial": trial, "reason": "", **ended})


def write_run(
    store: Path,
    name: str,
    *,
    spec: ExperimentSpec | None = None,
    trials: Sequence[Mapping[str, Any]] = (),
    dataset: str = "d" * 32,
    accuracy: float = 0.9,
    answers: Sequence[tuple[str, str, str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run that is done; ``answers`` are (path, true, predicted) of its test pictures."""
    place = Store(store)
    folder = place.folder(name)
    record = RunRecord(folder)
    record.begin(spec or spec_of(), dataset)
    record.start()
    record.decided(0, Action("train", "the full schedule fits", 1, 3, 60.0))
    if trials:
        write_journal(folder, "sweep", trials)
    write_journal(folder, "train", [dict(params or {"lr": 0.01})])
    row = {
        "source": "train", "accuracy": accuracy, "macro_f1": accuracy - 0.01, "epochs": 3, "seconds": 1.5,
        "status": "finished", "params": dict(params or {"lr": 0.01}), "judged": "exported",
    }  # fmt: skip
    (folder / "leaderboard.json").write_text(json.dumps([row]))
    if answers is not None:
        right = float(np.mean([true == answer for _, true, answer in answers]))
        meta = {"accuracy": right, "accuracy_interval": [0.0, 1.0], "macro_f1": right, "macro_f1_interval": [0.0, 1.0]}
        rows = [("path", "true", "predicted"), *answers]
        with place.write(f"{name}/report", kind="evaluation", spec_digest="", inputs={}, seed=0, meta=meta) as writer:
            (writer.path / "predictions.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    record.note(winner="train", **(facts or {}))
    record.end("done")
    return folder
