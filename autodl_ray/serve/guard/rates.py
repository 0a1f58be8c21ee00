"""How often one key may ask: a bucket of requests that fills at a steady rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from autodl_ray.serve.http.answers import Refusal

__all__ = ["Rates"]


class Rates:
    """Token buckets by the name of a key.

    Args:
        per_s: Requests a second of each key; None: no limit. A bucket holds twice as many, and at least one.
        clock: Seconds that never go back.
    """

    def __init__(self, per_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_s: float | None = None) -> None:
        """Take one request of the key ``name``.

        Args:
            name: Of the key; "" where no key is asked for.
            per_s: The key's own rate, instead of everyone's.

        Raises:
            Refusal: 429 with Retry-After, in seconds, when the next one is there.
        """
        rate = per_s or self._per_s
        if rate is None:
            return
        now, most = self._clock(), max(1.0, 2 * rate)
        tokens, since = self._buckets.get(name, (most, now))
        tokens = min(most, tokens + (now - since) * rate)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            wait = math.ceil((1 - tokens) / rate)
            message = f"This key may ask {rate:g} times a second. Try again after the seconds of Retry-After."
            raise Refusal(429, message, [(b"retry-after", str(wait).encode())])
        self._buckets[name] = (tokens - 1, now)
