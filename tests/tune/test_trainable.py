"""What a trial that goes on reports of the epochs before a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.tune.bridge import TrialCall
from autodl_ray.tune.trainable import _catch_up


@pytest.mark.parametrize(("checkpoint_at", "reported"), [(20, [2]), (10, [2]), (9, []), (None, [])])
def test_an_epoch_is_caught_up_with_where_its_checkpoint_was_written_too(
    tmp_path: Path, checkpoint_at: int | None, reported: list[int]
) -> None:
    curves, checkpoint, told = tmp_path / "curves.json", tmp_path / "last.pt", list[dict[str, Any]]()
    curves.write_text(json.dumps([{"epoch": 1}, {"epoch": 2}]))
    os.utime(curves, (10, 10))
    if checkpoint_at is not None:
        checkpoint.write_bytes(b"")
        os.utime(checkpoint, (checkpoint_at, checkpoint_at))
    _catch_up(TrialCall("t0000", None, tmp_path, known_epochs=1), lambda row: told.append(dict(row)))
    assert [row["epoch"] for row in told] == reported
    assert curves.exists() == bool(reported), "a group of workers reports what it has not there"
