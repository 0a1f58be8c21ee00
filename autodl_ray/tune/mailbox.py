"""What the driver answers to a place, through the key-value store of Ray's head.

Tune carries what a process reports to the driver, and nothing back. The answer lies there before Tune lets the process
go on, so that one look suffices; where it does not, the place looks again.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

from ray.experimental import internal_kv

__all__ = ["Mailbox"]

_SPACE = "autodl-tune"
_LOOK_S = 0.002


class Mailbox:
    """The one answer that lies ready for a place.

    Args:
        name: Of the place, unique in the cluster.
    """

    def __init__(self, name: str) -> None:
        self._key = name

    def put(self, number: int, answer: Any) -> None:
        """Lay down the answer to message ``number``, in the place of the one before."""
        internal_kv._internal_kv_put(self._key, pickle.dumps((number, answer)), overwrite=True, namespace=_SPACE)

    def take(self, number: int) -> Any:
        """Wait for the answer to message ``number``."""
        while True:
            raw = internal_kv._internal_kv_get(self._key, namespace=_SPACE)
            if raw is not None:
                found, answer = pickle.loads(raw)
                if found == number:
                    return answer
            time.sleep(_LOOK_S)

    def remove(self) -> None:
        """Delete the answer."""
        internal_kv._internal_kv_del(self._key, namespace=_SPACE)
