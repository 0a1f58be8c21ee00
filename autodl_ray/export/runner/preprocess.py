"""The preprocessing of preprocess.json in numpy and Pillow: the reference for every runtime that cannot hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["SCHEMA", "read_rule", "to_pixels"]

SCHEMA = 1


def read_rule(path: str | Path) -> dict[str, Any]:
    """Read ``preprocess.json``.

    Raises:
        ValueError: It is of another schema.
    """
    rule: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    if rule.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {rule.get('schema')!r}; this reader knows {SCHEMA}")
    return rule


def to_pixels(image: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    """Make the network's input from a decoded, upright RGB picture.

    Args:
        image: (H, W, 3) uint8.
        rule: From :func:`read_rule`.

    Returns:
        (3, S, S) float32, normalised; the margin of ``pad`` is 0, which is the mean.
    """
    size, fit = int(rule["resize"]["size"]), rule["resize"]["fit"]
    height, width = _scaled_size(image.shape[0], image.shape[1], size, fit)
    planes = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    scaled = np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes])
    mean = np.asarray(rule["normalise"]["mean"], dtype=np.float32)[:, None, None]
    std = np.asarray(rule["normalise"]["std"], dtype=np.float32)[:, None, None]
    pixels = (scaled / np.float32(rule["normalise"]["divide_by"]) - mean) / std
    if fit == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        return np.ascontiguousarray(pixels[:, top : top + size, left : left + size])
    square = np.zeros((3, size, size), dtype=np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return square


def _scaled_size(height: int, width: int, size: int, fit: str) -> tuple[int, int]:
    if fit == "stretch":
        return size, size
    fixed = min(height, width) if fit == "crop" else max(height, width)
    return max(1, (height * size + fixed // 2) // fixed), max(1, (width * size + fixed // 2) // fixed)
