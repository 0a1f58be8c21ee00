"""Bringing a data set of any size into a store: read once, hashed, packed, with little memory."""

from autodl_ray.data.ingest.chunks import Chunk, chunks_of, pack_chunk
from autodl_ray.data.ingest.run import Ingested, ingest

__all__ = ["Chunk", "Ingested", "chunks_of", "ingest", "pack_chunk"]
