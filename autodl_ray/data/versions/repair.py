"""Repairing a store from a remote: what is whole is kept, what is not is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from autodl_ray.artifacts import Store
from autodl_ray.data.versions.needs import blobs_of, blobs_of_all
from autodl_ray.data.versions.pull import fetch_artifact, fetch_blobs
from autodl_ray.data.versions.refs import Entry
from autodl_ray.data.versions.remote import Remote
from autodl_ray.data.versions.verify import Verified, salvage
from autodl_ray.errors import BundleError, StoreError
from autodl_ray.runtime.progress import Progress

__all__ = ["repair_store"]


def repair_store(entries: Sequence[Entry], found: Verified, *, store: Store, address: str, progress: Progress) -> int:
    """Get what is damaged or gone of these versions; return how many files were fetched.

    Args:
        entries: The versions.
        found: What :func:`~autodl_ray.data.versions.verify.verify` found wrong.
        store: The store.
        address: Of the remote.
        progress: Where to report.

    Raises:
        StoreError: The remote cannot be read, or lacks something.
        BundleError: An index is damaged there, too.
    """
    remote = Remote(address)
    for entry in entries:
        try:
            store_entry = store.find(entry.key)
            if store_entry is None:
                raise StoreError("The index is gone.")
            store_entry.verify()
            blobs_of(entry, store=store)
        except (BundleError, StoreError):
            fetch_artifact(entry, store=store, remote=remote)
    salvage(found.bad_packs, store=store)
    moved, _ = fetch_blobs(blobs_of_all(entries, store=store), store=store, remote=remote, progress=progress)
    return moved
