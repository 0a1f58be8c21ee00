"""How long `autodl data check` takes on TrashNet, and how many planted label errors it lists first.

    python -m tests.benchmarks.check_data speed
    python -m tests.benchmarks.check_data labels [seeds]

``speed`` runs the command twice in processes of their own, in an empty store: cold, and again on unchanged data.
``labels`` gives 20 of 600 digits, and 84 of 2,527 TrashNet photos, another label at random, once a seed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from autodl_ray.artifacts import Store
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.facts.reading import read_facts
from autodl_ray.data.formats import read
from autodl_ray.data.samples import write_digits
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag

__all__ = ["labels", "speed", "with_flips"]

_TRASHNET = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "trashnet"


def speed() -> None:
    """Print wall-clock and processor seconds of both runs."""
    lists = [str(_TRASHNET / "splits" / f"one-indexed-files-notrash_{name}.txt") for name in ("train", "val", "test")]
    with tempfile.TemporaryDirectory() as store:
        line = [sys.executable, "-m", "autodl_ray", "data", "check", str(_TRASHNET / "images"), "--splits", *lists]
        for name in ("cold", "again"):
            started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*line, "--store", store, "-o", f"{store}/report"], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds, load = time.monotonic() - started, os.getloadavg()[0]
            print(f"{name}: {seconds:.1f} s, {used:.1f} processor seconds, load {load:.1f}")


def with_flips(subject: Subject, count: int, *, seed: int) -> tuple[Subject, set[str]]:
    """Give ``count`` pictures another label at random; return their paths too."""
    rng = np.random.default_rng(seed)
    records = list(subject.listing.records)
    wrong = set()
    for i in rng.choice(len(records), count, replace=False).tolist():
        others = [name for name in subject.classes if name != records[i].label]
        records[i] = records[i]._replace(label=others[int(rng.integers(len(others)))])
        wrong.add(records[i].path)
    return replace(subject, listing=replace(subject.listing, records=records)), wrong


def labels(seeds: int) -> None:
    """Print how many planted errors are among the first listed, and how often a certainty is right."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        context = Context(Store(store), "", 0, Budget(3600), SilentProgress(), StopFlag(store / "stop"))
        for name, root, count, first in (
            ("digits", write_digits(Path(folder) / "digits", n=600), 20, 30),
            ("trashnet", _TRASHNET / "images", 84, 126),
        ):
            listing = read(root, cache=store / "cache")
            subject = Subject(listing, read_facts(listing, context=context))
            found, bins = [], Counter[tuple[float, bool]]()
            for seed in range(seeds):
                flipped, wrong = with_flips(subject, count, seed=seed)
                listed = inspect(flipped, source=name, context=context).of("label")
                found.append(len({item.paths[0] for item in listed[:first]} & wrong))
                bins.update((min(int(item.sure * 5), 4) / 5, item.paths[0] in wrong) for item in listed)
            shares = {b: f"{bins[b, True]}/{bins[b, True] + bins[b, False]}" for b in sorted({key for key, _ in bins})}
            print(f"{name}: of {count} planted, within the first {first}: {found}; planted by certainty from: {shares}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["labels"]:
        labels(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    else:
        speed()
