"""A kill at any moment, a full disk, two writers at once: no version half there, and none lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def crash(what: str, folder: Path, tries: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.versions.crashing", what, str(folder), str(tries)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_a_kill_at_any_moment(tmp_path: Path) -> None:
    seen = crash("killed", tmp_path, 40)
    assert seen["faults"] == []
    assert seen["died"] >= 10
    assert seen["listed"] >= 3
    assert seen["left"] == []


def test_a_full_disk_at_any_file(tmp_path: Path) -> None:
    seen = crash("full", tmp_path, 24)
    assert seen["faults"] == []
    assert set(seen["codes"]) == {0, 3}  # it fits, or an error of the store: no traceback
    assert seen["codes"] == sorted(seen["codes"], reverse=True)
    assert seen["codes"].count(3) >= 8
    assert (seen["listed"], seen["tags"]) == (2, ["first", "full"])


def test_two_writers_and_a_cleaner_at_once(tmp_path: Path) -> None:
    seen = crash("together", tmp_path, 8)
    assert seen["faults"] == []
    assert set(seen["codes"]) == {0}
    assert (seen["listed"], seen["tags"]) == (9, 9)
