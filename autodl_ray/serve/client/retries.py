"""When a request is sent again, and after how long: decided without a clock or a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from autodl_ray.serve.client.wire import chance, failure

__all__ = ["Retries", "Tries"]

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
            seconds = min(self.longest_s, self.first_s * 2.0 ** min(tried - 1, 60)) * (0.5 + 0.5 * chance())
        else:
            seconds = asked + min(1.0, 0.25 + 0.25 * asked) * chance()
        return seconds if seconds <= self.longest_s and waited_s + seconds <= self.total_s else None


@dataclass
class Tries:
    """The tries of one request.

    Attributes:
        retries: How patient it is.
        url: Of the service, for messages.
        count: Tries so far.
        waited_s: Sum of the waits so far.
    """

    retries: Retries
    url: str
    count: int = 0
    waited_s: float = 0.0

    def wait(self, outcome: httpx.Response | httpx.HTTPError) -> float:
        """Count a try, and return the seconds to wait before the next one.

        Args:
            outcome: An answer other than 200, or why there was none.

        Raises:
            RequestRefused: The answer was 4xx, and would be again.
            ServiceUnavailable: There was none, or a 429 or 5xx, and the patience has ended.
        """
        self.count += 1
        response = outcome if isinstance(outcome, httpx.Response) else None
        error = outcome if isinstance(outcome, httpx.HTTPError) else None
        seconds = None
        if error is None or isinstance(error, httpx.TransportError):
            status = 0 if response is None else response.status_code
            after = None if response is None else response.headers.get("retry-after")
            seconds = self.retries.wait(
                self.count, status=status, retry_after=after, waited_s=self.waited_s, chance=chance
            )
        if seconds is None:
            raise failure(response, error, url=self.url, tried=self.count)
        self.waited_s += seconds
        return seconds


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
