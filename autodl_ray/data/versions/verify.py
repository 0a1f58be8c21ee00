"""Hashing everything again: packs, their indexes, and the indexes of versions; and repairing what is damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from autodl_ray.artifacts import Store
from autodl_ray.data.objects import PackIndex, Packs, PackWriter
from autodl_ray.data.objects.pack import read_pack_index
from autodl_ray.data.versions.needs import blobs_of
from autodl_ray.data.versions.opening import artifact_of
from autodl_ray.data.versions.refs import Entry
from autodl_ray.errors import BundleError, StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["Fault", "Verified", "salvage", "verify"]

_DAMAGED = ".damaged"


class Fault(NamedTuple):
    """Something that is damaged or gone.

    Attributes:
        place: The pack or the version.
        reason: What is wrong with it.
    """

    place: str
    reason: str


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        packs: How many packs were read.
        blobs: How many blobs were hashed.
        bytes: Their size.
        faults: What is wrong; empty when all is well.
        bad_packs: Names of the packs with a fault.
    """

    packs: int
    blobs: int
    bytes: int
    faults: tuple[Fault, ...]
    bad_packs: tuple[str, ...]


def verify(entries: Sequence[Entry], *, store: Store, progress: Progress, only: bool = False) -> Verified:
    """Hash the packs and the artifacts again, and see that each version has every file.

    Args:
        entries: Versions to look at.
        store: Where they are.
        progress: Where to report.
        only: Leave out packs that have nothing of these versions.
    """
    packs = Packs(store)
    faults: list[Fault] = []
    needs: dict[str, dict[bytes, str]] = {}
    for entry in entries:
        try:
            artifact_of(entry, store=store).verify()
            needs[entry.short] = blobs_of(entry, store=store)
        except (BundleError, StoreError) as error:
            faults.append(Fault(f"version {entry.short}", _said(error)))
    wanted: set[bytes] = set().union(*needs.values())
    indexes, unread = _read_indexes(packs)
    if only:
        indexes = {name: index for name, index in indexes.items() if any(digest in wanted for digest, _ in index)}
    good, bad = _hash_all(packs, indexes, progress)
    faults += [Fault(f"pack {name[:12]}", reason) for name, reason in (*unread.items(), *bad.items())]
    for short, need in needs.items():
        missing = sorted(path for digest, path in need.items() if digest not in good)
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            faults.append(Fault(f"version {short}", f"{len(missing)} of {len(need)} files are not whole: {shown}"))
    sizes = [length for index in indexes.values() for _, length in index]
    return Verified(len(indexes), len(sizes), sum(sizes), tuple(faults), (*unread, *bad))


def _said(error: BundleError | StoreError) -> str:
    return f"{error.what} ({error.seen})" if error.seen else error.what


def _read_indexes(packs: Packs) -> tuple[dict[str, PackIndex], dict[str, str]]:
    indexes: dict[str, PackIndex] = {}
    faults: dict[str, str] = {}
    for name in packs.names():
        try:
            indexes[name] = read_pack_index(packs.index_path(name))
        except StoreError as error:
            faults[name] = error.what
        except FileNotFoundError:
            continue  # gc was there
    return indexes, faults


def _hash_all(packs: Packs, indexes: dict[str, PackIndex], progress: Progress) -> tuple[set[bytes], dict[str, str]]:
    good: set[bytes] = set()
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, progress.stage("verify", len(indexes)) as bar:
        found = pool.map(lambda item: whole_blobs(packs, *item), indexes.items())
        for done, ((name, index), whole) in enumerate(zip(indexes.items(), found, strict=True), start=1):
            size = packs.path(name).stat().st_size if packs.path(name).exists() else -1
            if size == sum(length for _, length in index):
                good.update(whole)  # of a pack of another size nothing is used until it is repaired
            elif size >= 0:
                faults[name] = f"the pack has {size} bytes instead of {sum(length for _, length in index)}"
            if len(whole) < len(index):
                lost = len(index) - len(whole)
                faults[name] = f"{lost} of {len(index)} blobs are damaged" if size >= 0 else "the pack is gone"
            bar.update(done, len(indexes))
    return good, faults


def whole_blobs(packs: Packs, name: str, index: PackIndex, suffix: str = "") -> list[bytes]:
    """Return the hashes of those blobs of a pack whose bytes fit them, each as often as it is there."""
    whole = []
    try:
        path = packs.path(name)
        with path.with_name(path.name + suffix).open("rb") as stream:
            for digest, length in index:
                if hashlib.sha256(stream.read(length)).digest() == digest:
                    whole.append(digest)
    except OSError:
        pass
    return whole


def salvage(names: Collection[str], *, store: Store) -> int:
    """Set damaged packs aside and copy their whole blobs into new packs; return how many there were.

    A kill in between loses nothing: what was set aside is looked at again by the next call.
    """
    packs = Packs(store)
    with packs.cleaning():
        for name in names:
            for path in (packs.path(name), packs.index_path(name)):
                if path.exists():
                    path.replace(path.with_name(path.name + _DAMAGED))
        writer = PackWriter(packs)
        try:
            for path in sorted(packs.folder.glob(f"*.idx{_DAMAGED}")):
                _salvage_one(packs, path.name.split(".")[0], writer)
            writer.close()
        finally:
            writer.discard()
        for path in packs.folder.glob(f"*{_DAMAGED}"):
            path.unlink(missing_ok=True)
    return writer.added


def _salvage_one(packs: Packs, name: str, writer: PackWriter) -> None:
    index_path, pack_path = packs.index_path(name), packs.path(name)
    try:
        index = read_pack_index(index_path.with_name(index_path.name + _DAMAGED), name=name)
        stream = pack_path.with_name(pack_path.name + _DAMAGED).open("rb")
    except (StoreError, FileNotFoundError):
        return
    with stream:
        for digest, length in index:
            data = stream.read(length)
            if hashlib.sha256(data).digest() == digest and not writer.has(digest.hex()):
                writer.add(digest.hex(), data)
