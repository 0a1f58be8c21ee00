"""Snapshots of small folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autodl_ray.data.formats import read
from autodl_ray.data.versions import Snapshot, snapshot
from autodl_ray.runtime import Context
from autodl_ray.spec import SplitSpec


def take(root: Path, context: Context, *, split: SplitSpec | None = None, **options: Any) -> Snapshot:
    """Take a snapshot of a folder."""
    listing = read(root, cache=context.store.folder("cache/formats"))
    return snapshot(listing, split=split or SplitSpec(), context=context, **options)
