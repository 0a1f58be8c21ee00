"""`autodl data snapshot`: cold against `sha256sum`, again against DVC, and of 100,000 tiny files.

Run from the repository's root: ``python -m tests.benchmarks.snapshot [--dvc PATH/TO/dvc]``. Every figure is the whole
command, start of Python included, and the median of its turns; files are in the page cache for all. Compared are:

- cold: 10,000 files of 60 kB (40 to 80) into an empty store, copied and forced to the disk, against
  ``xargs -P2 sha256sum``, which only reads;
- again, unchanged, and again with one file changed, against ``dvc add`` of the same folder with the same change;
- again, unchanged: 100,000 files of 40 bytes.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

FILES, TINY_FILES, TURNS = 10_000, 100_000, 3


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dvc", help="executable of DVC, in an environment of its own")
    parser.add_argument("--folder", help="where to make the files (deleted afterwards)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        _make(folder / "photos", FILES, 60_000)
        _cold(folder)
        _again(folder, options.dvc)
        _make(folder / "tiny", TINY_FILES, 40)
        _tiny(folder)


def _cold(folder: Path) -> None:
    command = f"find {folder}/photos -type f -print0 | xargs -0 -n {FILES // 2} -P2 sha256sum"
    _run(["bash", "-c", command])  # reads everything into the page cache
    ours, theirs = [], []
    for _ in range(TURNS):
        theirs.append(_seconds(lambda: _run(["bash", "-c", command])))
        shutil.rmtree(folder / "runs", ignore_errors=True)
        ours.append(_seconds(lambda: _snapshot(folder, "photos")))
    _print("cold, 10,000 files", ours, "sha256sum, 2 processes", theirs)


def _again(folder: Path, dvc: str | None) -> None:
    unchanged = [_seconds(lambda: _snapshot(folder, "photos")) for _ in range(TURNS)]
    changed = [_seconds_of_change(folder / "photos", i, lambda: _snapshot(folder, "photos")) for i in range(TURNS)]
    if dvc is None:
        _print("again, unchanged", unchanged)
        _print("again, 1 file changed", changed)
        return
    add = [dvc, "add", "--quiet", "photos"]
    _run([dvc, "init", "--no-scm", "--quiet"], cwd=folder)
    first = [_seconds(lambda: _run(add, cwd=folder))]
    print(f"dvc add, cold: {first[0]:.2f} s")
    time.sleep(1)
    theirs = [_seconds(lambda: _run(add, cwd=folder)) for _ in range(TURNS)]
    _print("again, unchanged", unchanged, "dvc add", theirs)
    theirs = [_seconds_of_change(folder / "photos", i, lambda: _run(add, cwd=folder)) for i in range(TURNS, 2 * TURNS)]
    _print("again, 1 file changed", changed, "dvc add", theirs)


def _tiny(folder: Path) -> None:
    first = [_seconds(lambda: _snapshot(folder, "tiny"))]
    again = [_seconds(lambda: _snapshot(folder, "tiny")) for _ in range(TURNS)]
    _print("cold, 100,000 tiny files", first)
    _print("again, 100,000 tiny files", again)


def _make(root: Path, count: int, size: int) -> None:
    """Write files that begin and end as a JPEG does, with random bytes between."""
    luck = random.Random(0)
    for i in range(10):
        (root / f"class {i}").mkdir(parents=True)
    for i in range(count):
        data = b"\xff\xd8\xff\xe0" + luck.randbytes(luck.randint(2 * size // 3, 4 * size // 3)) + b"\xff\xd9"
        (root / f"class {i % 10}" / f"{i:06d}.jpg").write_bytes(data)


def _snapshot(folder: Path, name: str) -> None:
    code = "import sys; from autodl_ray.cli import main; main(['data', *sys.argv[1:]])"
    _run([sys.executable, "-c", code, "snapshot", str(folder / name), "--store", str(folder / "runs")])


def _seconds_of_change(root: Path, number: int, work: Callable[[], None]) -> float:
    path = root / "class 0" / f"{10 * number:06d}.jpg"
    path.unlink()
    path.write_bytes(random.Random(number + 1).randbytes(60_000))
    return _seconds(work)


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def _seconds(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _print(what: str, ours: list[float], rival: str = "", theirs: Sequence[float] = ()) -> None:
    mine = statistics.median(ours)
    line = f"{what}: {mine:.2f} s"
    if theirs:
        other = statistics.median(theirs)
        line += f"; {rival} {other:.2f} s: {mine / other:.2f} of its time, {other / mine:.1f} times as fast"
    print(line)


if __name__ == "__main__":
    main()
