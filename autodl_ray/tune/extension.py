"""More epochs of a finished training: its checkpoint is kept with the artifact, and the journal says how far to go."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import Artifact
from autodl_ray.tune.journal import Journal
from autodl_ray.tune.state import trial_id
from autodl_ray.tune.workspace import WEIGHTS, Workspace

__all__ = ["CHECKPOINT", "EXTENDED", "identity_of", "keep_checkpoint", "reopen"]

CHECKPOINT = "last.pt"
EXTENDED = "extended"
"""The event of a journal after which a finished training has more epochs to do."""


def identity_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the identity a journal was begun with, with the epochs it was extended to."""
    identity = dict(events[0].get("identity", {}))
    for event in events:
        if event["event"] == EXTENDED:
            identity["epochs"] = event["epochs"]
    return identity


def keep_checkpoint(workspace: Workspace, artifact_folder: Path) -> None:
    """Put the checkpoint of a training beside its weights."""
    path = workspace.trial(trial_id(0)) / CHECKPOINT
    if path.is_file():
        shutil.copyfile(path, artifact_folder / CHECKPOINT)


def reopen(
    events: Sequence[Mapping[str, Any]], identity: Mapping[str, Any], workspace: Workspace, artifact: Artifact | None
) -> bool:
    """Let a finished training go on to more epochs, where that is all that changed and its checkpoint is there.

    Args:
        events: Of its journal.
        identity: That is wanted now.
        workspace: Of the training.
        artifact: That it made.

    Returns:
        Whether it goes on: its files are in the workspace, and the journal says so.
    """
    was = identity_of(events)
    before, wanted = was.get("epochs", 0), identity["epochs"]
    if artifact is None or {**was, "epochs": wanted} != identity or wanted <= before:
        return False
    if not {CHECKPOINT, WEIGHTS} <= set(artifact.manifest.files):
        return False
    folder = workspace.trial(trial_id(0))
    best = folder / ".best" / f"epoch-{_best_epoch(artifact)}.safetensors"  # where the checkpoint looks for it
    best.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(artifact.file(WEIGHTS), best)
    shutil.copyfile(artifact.file(WEIGHTS), folder / WEIGHTS)
    shutil.copyfile(artifact.file(CHECKPOINT), folder / CHECKPOINT)
    with Journal(workspace.journal) as journal:
        journal.append({"event": EXTENDED, "epochs": wanted})
    return True


def _best_epoch(artifact: Artifact) -> int:
    from autodl_ray.tune.artifact import open_sweep

    best = open_sweep(artifact).best
    return best.best_epoch if best is not None else 0
