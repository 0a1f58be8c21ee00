"""From a folder of pictures to a checked and divided version of it, and from that to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodl_ray.data.stage import load_version, run

__all__ = ["load_version", "run"]


def __getattr__(name: str) -> Any:
    # Looked up when asked for: the tasks of the stream import this package too, and a first batch waits for them.
    if name in __all__:
        from autodl_ray.data import stage

        return getattr(stage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
