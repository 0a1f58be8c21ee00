"""When a request is sent again, and after how long: decided without a clock or a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Retries"]

_AGAIN = frozenset({408, 425, 429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How patient a client is; classifying a picture twice does no harm, so everything may be sent again.

    Attributes:
        times: Most tries after the first.
        first_s: Longest wait before the first of them; it doubles from then on.
        longest_s: Longest single wait, also when Retry-After asks for more: then the client gives up.
        total_s: Longest sum of waits.
    """

    times: int = 5
    first_s: float = 0.25
    longest_s: float = 30.0
    total_s: float = 60.0

    def wait(
        self, tried: int, *, status: int, retry_after: str | None, waited_s: float, chance: Callable[[], float]
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        Args:
            tried: Tries so far, 1 or more.
            status: Of the last answer; 0: there was none.
            retry_after: The header: seconds, or a date of HTTP.
            waited_s: Sum of the waits so far.
            chance: A number in [0, 1): clients that were refused together shall not come back together.
        """
        if tried > self.times or (status != 0 and status not in _AGAIN):
            return None
        asked = _seconds(retry_after)
        if asked is None:
            seconds = min(self.longest_s, self.first_s * 2 ** (tried - 1)) * (0.5 + 0.5 * chance())
        else:
            seconds = asked + min(1.0, 0.25 + 0.25 * asked) * chance()
        return seconds if seconds <= self.longest_s and waited_s + seconds <= self.total_s else None


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
