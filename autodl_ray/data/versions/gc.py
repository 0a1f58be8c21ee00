"""Deleting what no version needs: dead packs, and the dead part of packs that are mostly dead."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.artifacts import Store
from autodl_ray.data.objects import Blob, PackIndex, Packs, PackWriter, places_of
from autodl_ray.data.versions.needs import blobs_of_all
from autodl_ray.data.versions.refs import Refs
from autodl_ray.errors import StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["GRACE_S", "Collected", "collect"]

GRACE_S = 24 * 3600.0
_MOSTLY_DEAD = 0.5


@dataclass(frozen=True)
class Collected:
    """What was, or would be, done.

    Attributes:
        deleted: Names of packs that nothing needs.
        rewritten: Names of packs of which less than half was needed: that half is copied into new packs.
        waiting: Names of packs that nothing needs, used within the time of grace.
        leftovers: Files that killed writers left.
        freed_bytes: What is free afterwards; rewritten packs go at the next gc after the time of grace.
        kept_bytes: What versions need.
    """

    deleted: tuple[str, ...]
    rewritten: tuple[str, ...]
    waiting: tuple[str, ...]
    leftovers: int
    freed_bytes: int
    kept_bytes: int


def collect(
    store: Store,
    *,
    progress: Progress,
    dry_run: bool = True,
    grace_s: float = GRACE_S,
    forget: Collection[str] = (),
) -> Collected:
    """Delete what no version in the list needs.

    Nothing that was written or used within the time of grace is touched, and nothing at all while a version is being
    made: making one and cleaning up exclude each other. Packs that are rewritten stay for the time of grace, because
    a training may be reading them.

    Args:
        store: A local store.
        progress: Where to report.
        dry_run: Only say what would be done.
        grace_s: Seconds since the last use.
        forget: Ids of versions that are taken out of the list first.

    Raises:
        StoreError: The index of a version is gone, so that it is not known what it needs; or versions are being made.
        BundleError: The index of a version is damaged.
    """
    packs, refs = Packs(store), Refs(store)
    with packs.cleaning():
        entries = [entry for entry in refs.entries() if entry.version not in forget]
        needed = blobs_of_all(entries, store=store)
        indexes = packs.indexes()
        homes = _homes(indexes, needed)
        live = dict.fromkeys(indexes, 0)
        for blob in homes.values():
            live[blob.pack] += blob.length
        size = {name: sum(length for _, length in index) for name, index in indexes.items()}
        old = {name for name in indexes if _age_s(packs.path(name)) >= grace_s}
        dead = {name for name in indexes if live[name] == 0}
        rewrite = {name for name in old - dead if live[name] < _MOSTLY_DEAD * size[name]}
        left = _leftovers(packs, grace_s)
        done = Collected(
            deleted=tuple(sorted(dead & old)),
            rewritten=tuple(sorted(rewrite)),
            waiting=tuple(sorted(dead - old)),
            leftovers=len(left),
            freed_bytes=sum(size[name] for name in dead & old)
            + sum(path.stat().st_size for path in left)
            + sum(size[name] - live[name] for name in rewrite),
            kept_bytes=sum(live.values()),
        )
        if not dry_run:
            for version in forget:
                refs.forget(version)
            _check_twins(packs, {name: indexes[name] for name in dead & old}, homes)
            _rewrite(packs, rewrite, homes, progress=progress, at_once=grace_s == 0)
            for name in dead & old:
                _delete(packs, name)
            for path in left:
                path.unlink(missing_ok=True)
    return done


def _homes(indexes: Mapping[str, PackIndex], needed: Collection[bytes]) -> dict[bytes, Blob]:
    """Choose for each needed blob the pack that it is kept in: of several the one with the largest needed part."""
    worth: dict[str, float] = {}
    for name, index in indexes.items():
        size = sum(length for _, length in index)
        worth[name] = sum(length for digest, length in index if digest in needed) / max(1, size)
    homes: dict[bytes, Blob] = {}
    for name in sorted(indexes, key=lambda name: (-worth[name], name)):
        for digest, blob in places_of({name: indexes[name]}).items():
            if digest in needed:
                homes.setdefault(digest, blob)
    return homes


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _leftovers(packs: Packs, grace_s: float) -> list[Path]:
    """Files of writers that were killed: unfinished packs, packs without an index, what a repair set aside."""
    left = [*packs.folder.glob(".*"), *packs.folder.glob("*.damaged")]
    left += [path for path in packs.folder.glob("*.pack") if not packs.index_path(path.stem).exists()]
    return [path for path in left if path.is_file() and _age_s(path) >= grace_s]


def _check_twins(packs: Packs, dead: Mapping[str, PackIndex], homes: Mapping[bytes, Blob]) -> None:
    """Before a second copy is deleted, see that the first is whole."""
    for name, index in dead.items():
        for digest, _ in index:
            if digest in homes and hashlib.sha256(packs.read(homes[digest])).digest() != digest:
                raise _damaged(homes[digest].pack, name)


def _rewrite(
    packs: Packs, names: Collection[str], homes: Mapping[bytes, Blob], *, progress: Progress, at_once: bool
) -> None:
    chosen = sorted((blob, digest) for digest, blob in homes.items() if blob.pack in names)
    writer = PackWriter(packs)
    try:
        with progress.stage("rewrite", len(chosen)) as bar:
            for done, (blob, digest) in enumerate(chosen, start=1):
                data = packs.read(blob)
                if hashlib.sha256(data).digest() != digest:
                    raise _damaged(blob.pack, "")
                writer.add(digest.hex(), data)
                bar.update(done, len(chosen))
        writer.close()
    finally:
        writer.discard()
    for name in names:
        if at_once:
            _delete(packs, name)
        else:
            packs.touch(name)


def _damaged(name: str, other: str) -> StoreError:
    return StoreError(
        "A pack is damaged; nothing more was deleted.",
        seen=f"{name[:12]}" + (f", of which {other[:12]} has a second copy" if other else ""),
        hint="autodl data verify --repair REMOTE, then gc again",
    )


def _delete(packs: Packs, name: str) -> None:
    packs.index_path(name).unlink(missing_ok=True)  # first: without its index a pack counts for nothing
    packs.path(name).unlink(missing_ok=True)
