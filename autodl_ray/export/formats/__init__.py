"""Formats beside ONNX and the weights: each is written into a folder of its own and held against the network."""

from __future__ import annotations

from autodl_ray.export.formats.making import FORMATS, FormatSource, MadeFormat, known_format, make_format, make_formats

__all__ = ["FORMATS", "FormatSource", "MadeFormat", "known_format", "make_format", "make_formats"]
