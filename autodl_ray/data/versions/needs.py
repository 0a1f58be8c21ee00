"""Which blobs the versions of a store need."""

from __future__ import annotations

from collections.abc import Iterable

from autodl_ray.artifacts import Store
from autodl_ray.data.versions.opening import artifact_of, rows_of
from autodl_ray.data.versions.refs import Entry
from autodl_ray.data.versions.side_files import side_rows

__all__ = ["blobs_of", "blobs_of_all"]


def blobs_of(entry: Entry, *, store: Store) -> dict[bytes, str]:
    """Return sha256 → a path with it, for every file of a version; nothing for one whose pictures were not copied.

    Raises:
        StoreError: Its index is gone.
        BundleError: Its index is damaged.
    """
    if not entry.copied:
        return {}
    artifact = artifact_of(entry, store=store)
    return {bytes.fromhex(row.sha256): row.path for row in (*rows_of(artifact), *side_rows(artifact)) if row.sha256}


def blobs_of_all(entries: Iterable[Entry], *, store: Store) -> dict[bytes, str]:
    """Return sha256 → a path with it, for every file of these versions.

    Raises:
        StoreError: An index is gone.
        BundleError: An index is damaged.
    """
    found: dict[bytes, str] = {}
    for entry in entries:
        found.update(blobs_of(entry, store=store))
    return found
