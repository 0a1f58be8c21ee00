"""All randomness comes from here: one root seed, and a name for each use."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["rng_for", "seed_for"]


def seed_for(root: int, *names: object) -> int:
    """Derive a 32-bit seed from the root seed and the names of its use.

    The same root and names give the same seed on every machine and in every process; the number of
    workers is never one of the names.

    Example:
        >>> seed_for(0, "split") == seed_for(0, "split")
        True
        >>> seed_for(0, "augment", 3, 17) == seed_for(0, "augment", 4, 17)
        False
    """
    text = "\x1f".join([str(root), *(str(n) for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def rng_for(root: int, *names: object) -> np.random.Generator:
    """Return a numpy generator seeded by :func:`seed_for`."""
    return np.random.default_rng(seed_for(root, *names))
