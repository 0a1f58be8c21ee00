"""How many threads torch uses inside a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(wanted: int | None) -> Iterator[None]:
    """Give torch this many threads (None: as they are) while the block runs."""
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(max(1, wanted))
    try:
        yield
    finally:
        torch.set_num_threads(before)
