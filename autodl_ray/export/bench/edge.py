"""What suits a small machine: one thread, one picture a call, memory measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_ray.errors import StageError
from autodl_ray.spec import ExportSpec

__all__ = ["EdgeChoice", "EdgeFigures", "measure_edge", "pick_edge"]

_ALIKE = 1.05
_TURNS = 3
_TIMEOUT_S = 300


@dataclass(frozen=True)
class EdgeFigures:
    """A model file on one thread.

    Attributes:
        variant: ``fp32`` or ``int8``.
        ms: Median milliseconds of a picture.
        peak_mb: Largest resident memory of a process that does nothing else.
        file_mb: Size of the file.
        lost: Accuracy lost beside FP32, as a share.
    """

    variant: str
    ms: float
    peak_mb: float
    file_mb: float
    lost: float = 0.0


@dataclass(frozen=True)
class EdgeChoice:
    """What to ship, and why."""

    variant: str
    reason: str


def pick_edge(files: Sequence[EdgeFigures], spec: ExportSpec) -> EdgeChoice:
    """Choose the file for a small machine.

    Of those that lose no more than ``max_drop`` and are ``min_speedup`` times as fast as FP32, the fastest; where two
    are within 5 %, the one that takes less memory.

    Args:
        files: What was measured; FP32 is among them.
        spec: The limits.
    """
    fp32 = next(file for file in files if file.variant == "fp32")
    missed = {file.variant: _missed(file, fp32, spec) for file in files}
    allowed = [file for file in files if not missed[file.variant]]
    fastest = min(allowed, key=lambda file: file.ms)
    alike = [file for file in allowed if file.ms <= _ALIKE * fastest.ms]
    chosen = min(alike, key=lambda file: (file.peak_mb, file.file_mb))
    said = f"{chosen.ms:.1f} ms a picture on one thread, {chosen.peak_mb:.0f} MB at most, file {chosen.file_mb:.1f} MB"
    if chosen is not fastest:
        said += f"; as fast as {fastest.variant} and {fastest.peak_mb - chosen.peak_mb:.0f} MB smaller"
    others = [f"{variant} is out: {why}" for variant, why in missed.items() if why]
    return EdgeChoice(chosen.variant, "; ".join([said, *others]))


def _missed(file: EdgeFigures, fp32: EdgeFigures, spec: ExportSpec) -> str:
    if file is fp32:
        return ""
    if file.lost > spec.max_drop + 1e-9:
        return f"it loses {100 * file.lost:.2f} points of accuracy, at most {100 * spec.max_drop:g} accepted"
    if fp32.ms < spec.min_speedup * file.ms:
        return (
            f"it has {fp32.ms / file.ms:.2f} times the speed of FP32 on one thread, at least {spec.min_speedup:g} asked"
        )
    return ""


def measure_edge(
    files: Mapping[str, Path], *, size: tuple[int, int], lost: Mapping[str, float], seconds: float = 3.0
) -> list[EdgeFigures]:
    """Measure model files, each in processes of its own that take turns.

    Args:
        files: Variant → file.
        size: (height, width) of the pictures.
        lost: Variant → accuracy lost beside FP32.
        seconds: For all of them together, about.

    Raises:
        StageError: A file does not run in a process of its own.
    """
    share = seconds / (_TURNS * max(1, len(files)))
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in files}
    for _ in range(_TURNS):
        for variant, file in files.items():
            found[variant].append(_probe(file, size, share))
    return [
        EdgeFigures(
            variant,
            sorted(row["p50_ms"] for row in rows)[len(rows) // 2],
            max(row["peak_mb"] for row in rows),
            files[variant].stat().st_size / 1e6,
            lost.get(variant, 0.0),
        )
        for variant, rows in found.items()
    ]


def _probe(file: Path, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("probe.py"))]
    what = "The model does not run in a process of its own."
    try:
        done = subprocess.run(
            [*command, str(file), str(size[0]), str(size[1]), f"{seconds:.3f}"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(what, seen=f"{file.name}: no result after {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise StageError(what, seen=f"{file.name}: {reason}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
