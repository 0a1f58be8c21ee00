"""Streams of augmented training batches and of validation batches, by tasks of Ray or from kept pictures."""

from autodl_ray.data.stream.execution import STREAM_CPUS
from autodl_ray.data.stream.source import Batch, StreamSource

__all__ = ["STREAM_CPUS", "Batch", "StreamSource"]
