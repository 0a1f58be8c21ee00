"""From a folder of pictures to a checked and divided version of it, and from that to batches."""

from autodl_ray.data.stage import load_version, run

__all__ = ["load_version", "run"]
