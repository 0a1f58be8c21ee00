"""Try a bundle in a process of its own before a replica opens it: what crashes or eats the memory there hurts nobody.

python -m autodl_ray.serve.trial FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.smoke import SMOKE_JSON, smoke_difference
from autodl_ray.errors import AutoDLError
from autodl_ray.images import ImageArray

__all__ = ["smoke", "try_bundle"]

_TIMEOUT_S = 120.0
_SIZES = ((64, 64), (37, 91), (120, 50))
_NEAR = 0.1


def try_bundle(folder: str | Path, *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Open a bundle in another process and see that it answers as it did where it was made.

    Returns:
        What is wrong with it, in a line; None when nothing is.
    """
    command = [sys.executable, "-m", "autodl_ray.serve.trial", str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        return f"it did not answer within {timeout_s:.0f} s"
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with exit code {done.returncode}"
        return f"the process that tried it ended {how}"
    wrong: str | None = answer["wrong"]
    return wrong


def smoke(folder: str | Path) -> str | None:
    """Do what :func:`try_bundle` does, in this process.

    Probabilities have to be finite and sum to 1 for pictures of any size, and be the same in a batch as alone. Where
    the bundle holds the answers of the machine that made it (``smoke.json``), they have to be the same here.
    """
    from autodl_ray.models.predictor import Predictor

    try:
        predictor = Predictor.open(folder, num_threads=1)
        pictures = [_noise(seed, height, width) for seed, (height, width) in enumerate(_SIZES)]
        pictures.append(pictures[0][::-1].copy())
        together = predictor(pictures)
        alone = np.concatenate([predictor([picture]) for picture in pictures])
        record = Path(folder) / SMOKE_JSON
        kept = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        smoked = None if kept is None else smoke_difference(kept, predictor.variant, predictor)
    except AutoDLError as error:
        return error.what + (f" ({error.seen})" if error.seen else "")
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    fault = _unsound(together, alone, len(predictor.classes))
    if fault is None and smoked is not None and smoked[0] > smoked[1]:
        by, most = smoked
        return f"it answers other than where it was made: probabilities differ by {by:.2g}, {most:g} is accepted"
    return fault


def _unsound(together: npt.NDArray[np.float32], alone: npt.NDArray[np.float32], classes: int) -> str | None:
    if together.shape != (len(alone), classes):
        return f"it returns {together.shape} for {len(alone)} pictures and {classes} classes"
    if not np.isfinite(together).all() or np.abs(together.sum(1) - 1).max() > 1e-3:
        return "its probabilities are not finite or do not sum to 1"
    if np.abs(together - alone).max() > _NEAR:
        return f"a picture's answer depends on its batch, by up to {np.abs(together - alone).max():.2g}"
    return None


def _noise(seed: int, height: int, width: int) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _main(arguments: Sequence[str]) -> int:
    os.nice(5)  # the service has the machine first
    wrong = smoke(arguments[0])
    sys.stdout.write(json.dumps({"wrong": wrong}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
