"""Snapshots in processes that are killed, or whose disk is full: run by `test_crashes`, prints one JSON line.

The process imports everything once and forks for each try, so that a try takes tens of milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from autodl_ray.data.objects import writer
from autodl_ray.data.versions import Refs
from autodl_ray.data.versions.gc import collect
from autodl_ray.data.versions.verify import verify
from autodl_ray.errors import AutoDLError, StoreError
from autodl_ray.runtime import Context, SilentProgress
from tests.data.conftest import make_context, write_picture
from tests.data.versions.conftest import take


def main(what: str, folder: Path, tries: int) -> None:
    """Do the tries and print what was seen."""
    writer.PACK_BYTES = 2000  # several packs a snapshot
    root = folder / "photos"
    for i in range(24):
        write_picture(root / "ab"[i % 2] / f"{i}.png", i)
    context = make_context(folder / "runs")
    take(root, context, tag="first")
    sys.stdout.write(json.dumps({"killed": killed, "full": full, "together": together}[what](root, context, tries)))


def forked(work: Callable[[], object]) -> int:
    """Do the work in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except StoreError:
        os._exit(3)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(4)


def faults(context: Context, known: set[str]) -> list[str]:
    """Return what is wrong with the store: a listed version that is not whole, or one that is no longer listed."""
    try:
        entries = Refs(context.store).entries()
        found = verify(entries, store=context.store, progress=SilentProgress())
    except AutoDLError as error:
        return [str(error)]
    wrong = [f"{fault.place}: {fault.reason}" for fault in found.faults]
    return wrong + [f"lost {version}" for version in known - {entry.version for entry in entries}]


def listed(context: Context) -> set[str]:
    """The versions that are listed."""
    return {entry.version for entry in Refs(context.store).entries()}


def killed(root: Path, context: Context, tries: int) -> dict[str, object]:
    """Kill snapshots at random moments, and cleanings between them."""
    luck = random.Random(0)
    started = time.monotonic()
    write_picture(root / "a" / "0.png", 999)
    os.waitpid(forked(lambda: take(root, context)), 0)
    length = time.monotonic() - started
    wrong: list[str] = []
    died = 0
    for i in range(tries):
        known = listed(context)
        for j in range(8):
            write_picture(root / "ab"[j % 2] / f"{j}.png", 1000 + 8 * i + j)
        child = forked(lambda: take(root, context, tag=f"t{i}"))  # noqa: B023 - forked at once
        time.sleep(luck.uniform(0, 1.3 * length))
        os.kill(child, signal.SIGKILL)
        died += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        wrong += faults(context, known)
        if i % 5 == 4:
            cleaner = forked(lambda: collect(context.store, progress=SilentProgress(), dry_run=False, grace_s=0))
            time.sleep(luck.uniform(0, length / 2))
            os.kill(cleaner, signal.SIGKILL)
            os.waitpid(cleaner, 0)
            wrong += faults(context, known)
    last = take(root, context).entry.version
    collect(context.store, progress=SilentProgress(), dry_run=False, grace_s=0)
    wrong += faults(context, {last})
    left = [path.name for path in (Path(context.store.root) / "objects/packs").glob(".*")]
    return {"died": died, "faults": wrong, "left": left, "listed": len(listed(context))}


def full(root: Path, context: Context, tries: int) -> dict[str, object]:
    """Limit the size of files to more and more bytes, until a snapshot fits."""
    known = listed(context)
    wrong: list[str] = []
    codes: list[int] = []
    for i in range(12):
        write_picture(root / "a" / f"{2 * i}.png", 2000 + i, size=(20, 20))
    for limit in [round(1.6**k) for k in range(1, tries)]:

        def limited(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            take(root, context, tag="full")

        codes.append(os.waitstatus_to_exitcode(os.waitpid(forked(limited), 0)[1]))
        wrong += faults(context, known)
    return {"codes": codes, "faults": wrong, "listed": len(listed(context)), "tags": list(Refs(context.store).tags())}


def together(root: Path, context: Context, tries: int) -> dict[str, object]:
    """Let two writers and a cleaner work at once."""
    codes: list[int] = []
    wrong: list[str] = []
    for i in range(tries):
        known = listed(context)
        for j in range(6):
            write_picture(root / "ab"[j % 2] / f"{j}.png", 5000 + 6 * i + j)
        makers = [forked(lambda: take(root, context, tag=f"t{i}")) for _ in range(2)]  # noqa: B023 - forked at once
        cleaner = forked(lambda: collect(context.store, progress=SilentProgress(), dry_run=False, grace_s=0))
        codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (*makers, cleaner)]
        wrong += faults(context, known)
    return {"codes": codes, "faults": wrong, "listed": len(listed(context)), "tags": len(Refs(context.store).tags())}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
