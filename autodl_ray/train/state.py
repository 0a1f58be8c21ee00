"""What goes into a checkpoint of a training, and back: everything that the rest of it depends on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autodl_ray.errors import StoreError
from autodl_ray.train.config import HOW, FitConfig
from autodl_ray.train.counts import Counts, EpochStats
from autodl_ray.train.plan import extended_position, steps_per_epoch
from autodl_ray.train.step import Stepper

__all__ = ["TrainState", "check_same"]


@dataclass
class TrainState:
    """Where a training is, beside what its :class:`~autodl_ray.train.step.Stepper` holds.

    Attributes:
        counts: Steps, epochs, the position of the schedule.
        history: A row for each epoch.
        stats: Of the epoch that is under way.
        notes: What a person should know; those of earlier processes too.
    """

    counts: Counts = field(default_factory=Counts)
    history: list[dict[str, Any]] = field(default_factory=list)
    stats: EpochStats = field(default_factory=EpochStats)
    notes: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Tell a person something, once."""
        if line not in self.notes:
            self.notes.append(line)

    def pack(self, config: FitConfig, stepper: Stepper) -> dict[str, Any]:
        """Return the checkpoint: tensors and plain data.

        Model, moving average, optimizer, scaler, precision, generators of random numbers and the position in the
        data. (Each step seeds the generators anew, from the root seed, its epoch, its number and the worker's rank;
        so what a resumed training draws does not depend on how many workers saved or go on.)
        """
        device = stepper.peers.device
        return {
            "config": json.dumps(config.to_json()),
            **stepper.state_dict(),
            "counts": dict(vars(self.counts)),
            "history": json.dumps(self.history),
            "epoch_stats": self.stats.to_json() if self.counts.in_epoch else None,
            "notes": list(self.notes),
            "batch": [stepper.config.batch_size, stepper.config.lr],
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def unpack(self, saved: dict[str, Any], config: FitConfig, stepper: Stepper) -> None:
        """Go on from a checkpoint that :meth:`pack` made; more epochs than it was made with extend the training."""
        stepper.load_state_dict(saved)
        counts = saved["counts"]
        best = counts["best"]
        self.counts = Counts(**{**counts, "best": tuple(best) if best else None})
        self.history = json.loads(saved["history"])
        self.stats = EpochStats.resumed(saved["epoch_stats"]) if saved["epoch_stats"] else EpochStats()
        for line in saved["notes"]:
            self.note(line)
        torch.set_rng_state(saved["rng"])
        device = stepper.peers.device
        if device.type == "cuda" and saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"], device)

    def extend(self, *, epochs_before: int, config: FitConfig, num_train: int) -> None:
        """Go on in the schedule of a training with more epochs (see ``extended_position``)."""
        if config.epochs <= epochs_before:
            return
        counts, an_epoch = self.counts, steps_per_epoch(num_train, config.batch_size)
        planned = counts.step if counts.done else epochs_before * an_epoch
        counts.position = extended_position(counts.position, planned=planned, wanted=config.epochs * an_epoch)
        counts.done = False
        self.note(f"epochs raised from {epochs_before} to {config.epochs} after step {counts.step}")


def check_same(saved: dict[str, Any], config: FitConfig, folder: Path) -> int:
    """Compare the configuration of a checkpoint with this one; return the epochs it was made with.

    What only says how a result is reached may differ (``config.HOW``), and there may be more epochs now.

    Raises:
        StoreError: Something else differs.
    """
    was, wanted = json.loads(saved["config"]), json.loads(json.dumps(config.to_json()))
    free = {*HOW, *(("epochs",) if wanted["epochs"] > was["epochs"] else ())}
    different = [f"{k}: {was.get(k)} → {v}" for k, v in wanted.items() if was.get(k) != v and k not in free]
    if different:
        raise StoreError(
            "The folder holds a training with another configuration.",
            seen=f"{folder}: {', '.join(different)}",
            hint="choose another folder, or delete this one",
        )
    return int(was["epochs"])
