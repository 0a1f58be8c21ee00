"""Fetching a picture from a web address that a request names: public addresses only, capped in size and time.

A name is looked up once, every address it has must be public, and the connection goes to the address that was checked
(the name travels in the Host header and in TLS), so that a second look-up cannot lead elsewhere (DNS rebinding).
Redirects are followed by hand, each checked alike.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from autodl_ray.errors import DatasetError

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetcher", "Resolve", "Room", "is_public"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_MAX_REDIRECTS = 3
_PORTS = frozenset({80, 443})
_MOVED = frozenset({301, 302, 303, 307, 308})
_CARRIES_V4 = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 networks whose addresses stand for IPv4 ones (NAT64, 6to4, Teredo): they could stand for private ones."""


@dataclass
class Room:
    """How many bytes the pictures of one request may still have together."""

    left: int

    def take(self, size: int) -> None:
        """Take some of it.

        Raises:
            DatasetError: There is no more.
        """
        self.left -= size
        if self.left < 0:
            raise DatasetError("The pictures at the addresses are too large.", accepted="what a request may have")


class Fetcher:
    """Fetches pictures.

    Args:
        max_bytes: Cap of a picture, and of all pictures that share a :class:`Room`.
        timeout_s: Seconds for everything: look-up, redirects, body.
        reachable: Which addresses may be reached.
        ports: Which ports.
        resolve: Looks a name up: (host, port) → addresses.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float = 10.0,
        reachable: Callable[[str], bool] | None = None,
        ports: frozenset[int] = _PORTS,
        resolve: Resolve | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._reachable = reachable or is_public
        self._ports = ports
        self._resolve = resolve or _look_up
        self._client: httpx.AsyncClient | None = None

    def room(self) -> Room:
        """Return the room for the pictures of one request."""
        return Room(self._max_bytes)

    async def fetch(self, url: str, room: Room | None = None) -> bytes:
        """Return the bytes at ``url``.

        Args:
            url: Of a picture.
            room: Shared with other pictures; None: this one has its own.

        Raises:
            DatasetError: The address is not acceptable or not public, does not answer with a 200, or sends too much.
        """
        import httpx

        room = room or self.room()
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(_MAX_REDIRECTS + 1):
                    body, moved = await self._once(url, room)
                    if moved is None:
                        return body
                    url = urljoin(url, moved)
        except TimeoutError as error:
            raise DatasetError(f"The picture did not arrive within {self._timeout_s:g} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise DatasetError("The picture could not be fetched.", seen=type(error).__name__) from error
        raise DatasetError("The address leads from one redirect to the next.", accepted=f"at most {_MAX_REDIRECTS}")

    async def _once(self, url: str, room: Room) -> tuple[bytes, str | None]:
        """Ask one address: the body, or where it has moved to."""
        parts, port = self._checked(url)
        host = str(parts.hostname)
        address = await self._public_address(host, port)
        shown = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
        headers = {"host": parts.netloc, "accept": "image/*", "accept-encoding": "identity"}
        client = self._opened()
        request = client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host})
        response = await client.send(request, stream=True)
        try:
            if response.status_code in _MOVED and "location" in response.headers:
                return b"", response.headers["location"]
            if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
                raise DatasetError("The address has no picture.", seen=f"HTTP status {response.status_code}")
            return await self._read(response, room), None
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, room: Room) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > self._max_bytes:
                raise DatasetError(
                    "The picture at the address is too large.", accepted=f"at most {self._max_bytes / 1e6:g} MB"
                )
            room.take(len(part))
            parts.append(part)
        return b"".join(parts)

    def _checked(self, url: str) -> tuple[SplitResult, int]:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        if not plain or port not in self._ports:
            raise DatasetError(
                "This address is not fetched.",
                seen=url[:80],
                accepted="http:// or https:// and a public host, on the usual ports, without a password",
            )
        return parts, port

    async def _public_address(self, host: str, port: int) -> str:
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._reachable(address) for address in addresses):
            raise DatasetError("This address is not fetched.", seen=host[:80], accepted="a host with public addresses")
        return addresses[0]

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            # No proxy of the environment: it would look the name up again, and reach what we may not.
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(trust_env=False, timeout=self._timeout_s, limits=limits)
        return self._client


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local, multicast, reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in _CARRIES_V4):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def _look_up(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
