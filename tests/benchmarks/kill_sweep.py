"""A sweep that is killed at random moments, driver and Ray together, against one that nobody disturbs.

    python -m tests.benchmarks.kill_sweep [--kills 20] [--trials 24] [--json]

With one trial at a time and the same seed, the goal is: the same final leaderboard, no finished trial lost or begun
again, and a journal that only ever grows. The moment of each kill is drawn from a seeded generator: so many further
lines of the journal (also none: Ray is just starting), and up to 0.4 s more. Trials of a linear net on 400 digits are
paused at rungs and promoted (``asha_promotion``), so that all that a journal may hold is in it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SPEC = {"scheduler": "asha_promotion", "max_concurrent_trials": 1}
_LIFE_S = 600.0
_AT_MOST_LINES = 12


def compare(folder: Path, *, kills: int, trials: int, seed: int = 0) -> dict[str, Any]:
    """Run both sweeps in ``folder``.

    Args:
        folder: Empty; for the pictures and both stores.
        kills: How many times the one is killed, unless it ends before.
        trials: Of each sweep.
        seed: Of the moments.

    Returns:
        ``identical`` (leaderboards), ``kills`` that hit a running sweep, ``lost`` (finished trials that a later
        journal lacks), ``twice`` (trials that were reported on after they had ended, and epochs reported twice),
        ``rewritten`` (journals that did not begin with what was there before), ``seconds``.
    """
    from autodl_ray.data.samples import write_digits

    digits = write_digits(folder / "digits", n=400)
    began = time.monotonic()
    with _started(folder / "calm", digits, trials) as driver:
        if driver.wait(_LIFE_S):
            raise SystemExit("the undisturbed sweep failed")
    calm_s = time.monotonic() - began
    moments, hit, rewritten = random.Random(seed), 0, 0
    journal = folder / "killed" / "run" / "sweep.journal.jsonl"
    while True:
        before = _lines(journal)
        with _started(folder / "killed", digits, trials) as driver:
            alive = hit < kills and _wait(driver, journal, len(before) + moments.randrange(_AT_MOST_LINES))
            if not alive:
                if driver.wait(_LIFE_S):
                    raise SystemExit("the killed sweep failed when it was run again")
                rewritten += _lines(journal)[: len(before)] != before
                break
            time.sleep(0.4 * moments.random())
            hit += driver.poll() is None
            _kill(driver)
        rewritten += _lines(journal)[: len(before)] != before
    boards = [_board(folder / name) for name in ("calm", "killed")]
    return {
        "identical": boards[0] == boards[1],
        "kills": hit,
        **_faults([json.loads(line) for line in _lines(journal)]),
        "rewritten": rewritten,
        "seconds": round(time.monotonic() - began, 1),
        "undisturbed_s": round(calm_s, 1),
    }


def _started(store: Path, digits: Path, trials: int) -> subprocess.Popen[bytes]:
    store.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.tune.driver", str(store), str(digits), str(trials), json.dumps(SPEC)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(driver: subprocess.Popen[bytes], journal: Path, lines: int) -> bool:
    """Wait until the journal has so many lines; return whether the driver is still there."""
    deadline = time.monotonic() + _LIFE_S
    while len(_lines(journal)) < lines and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return driver.poll() is None


def _kill(driver: subprocess.Popen[bytes]) -> None:
    """Kill the driver, and every process of its Ray."""
    processes = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
    for process in [driver, *processes]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def _lines(journal: Path) -> list[str]:
    """The whole lines of a journal."""
    return journal.read_text().split("\n")[:-1] if journal.exists() else []


def _board(store: Path) -> list[dict[str, Any]]:
    """The leaderboard but for how long it took."""
    rows = json.loads((store / "run" / "sweep" / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def _faults(events: list[dict[str, Any]]) -> dict[str, int]:
    proposed = [e["number"] for e in events if e["event"] == "proposed"]
    ended: set[str] = set()
    epochs: set[tuple[str, int]] = set()
    twice = len(proposed) - len(set(proposed))
    for event in events:
        trial = event.get("trial")
        twice += trial in ended
        if event["event"] == "epoch":
            key = (event["trial"], event["metrics"]["epoch"])
            twice += key in epochs
            epochs.add(key)
        elif event["event"] == "ended":
            ended.add(event["trial"])
    return {"lost": len(proposed) - len(ended), "twice": twice}


def main() -> None:
    """Print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = compare(Path(name), kills=given.kills, trials=given.trials, seed=given.seed)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        print(f"{key:>14}  {value}")


if __name__ == "__main__":
    main()
