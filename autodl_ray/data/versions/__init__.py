"""Versions of a data set: snapshots by content, their list, and moving them."""

from autodl_ray.data.versions.opening import open_checked, open_listing, open_version
from autodl_ray.data.versions.refs import Entry, Refs
from autodl_ray.data.versions.snapshot import Snapshot, keep_snapshot, snapshot, store_blobs

__all__ = [
    "Entry",
    "Refs",
    "Snapshot",
    "keep_snapshot",
    "open_checked",
    "open_listing",
    "open_version",
    "snapshot",
    "store_blobs",
]
