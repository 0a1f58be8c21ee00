"""Pictures fetched by their address: public hosts only, whatever names, redirects and resolvers say."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from autodl_ray.errors import DatasetError
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine
from autodl_ray.serve.http.fetch import Fetcher, is_public
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import Ask, asker, error_of
from tests.serve.tiny import picture


class Site(BaseHTTPRequestHandler):
    """Pictures, redirects, and what is too large or too slow."""

    def do_GET(self) -> None:
        """Answer by the path."""
        self.server.hosts.append(self.headers["host"])  # type: ignore[attr-defined]
        if self.path == "/red.png":
            self._send(200, picture("red"))
        elif self.path == "/moved":
            self._send(302, b"", location="/red.png")
        elif self.path == "/inside":
            self._send(302, b"", location="http://169.254.169.254/latest/meta-data")
        elif self.path == "/round":
            self._send(301, b"", location="/round")
        elif self.path == "/half":
            self._send(200, bytes(45_000))
        elif self.path == "/large":
            self._send(200, bytes(200_000))
        elif self.path == "/slow":
            time.sleep(3)
        else:
            self._send(404, b"no")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[ThreadingHTTPServer]:
    """A site on loopback that stands for the public internet."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.hosts = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetcher(site: ThreadingHTTPServer, *, timeout_s: float = 5.0) -> Fetcher:
    """Return a fetcher for which 127.0.0.1 is public and ``photos.example`` lies there."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "photos.example" else [host]

    return Fetcher(
        max_bytes=100_000,
        timeout_s=timeout_s,
        reachable=lambda address: address == "127.0.0.1",
        ports=frozenset({site.server_port, 80}),
        resolve=resolve,
    )


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
     "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:a00:1::", "2001::1",
     "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_not_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


def test_a_picture_comes_through_redirects_with_its_host_s_name(site: ThreadingHTTPServer) -> None:
    base = f"http://photos.example:{site.server_port}"
    for path in ("/red.png", "/moved"):
        assert asyncio.run(fetcher(site).fetch(base + path)) == picture("red")
    assert site.hosts[-1] == f"photos.example:{site.server_port}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/inside", "a host with public addresses"),
        ("/round", "from one redirect to the next"),
        ("/large", "too large"),
        ("/nothing", "HTTP status 404"),
    ],
)
def test_what_is_no_picture_within_reach_is_refused(site: ThreadingHTTPServer, path: str, why: str) -> None:
    with pytest.raises(DatasetError) as refused:
        asyncio.run(fetcher(site).fetch(f"http://photos.example:{site.server_port}{path}"))
    assert why in str(refused.value)


def test_the_pictures_of_a_request_have_one_cap_together(engine: Engine, site: ThreadingHTTPServer) -> None:
    base = f"http://photos.example:{site.server_port}"
    allowed = asker(create_app(engine, fetcher=fetcher(site)))
    images = [{"url": f"{base}/half"}] * 4 + [{"b64": base64.b64encode(picture("red")).decode()}]
    results = allowed("POST", "/predict", json={"images": images}).json()["results"]
    assert all(result["status"] == 400 for result in results[:4])  # they are no pictures
    fitting = [result for result in results[:4] if result["error"].startswith("This is not a picture.")]
    assert len(fitting) <= 2
    assert "The pictures at the addresses are too large." in "".join(result["error"] for result in results[:4])
    assert results[4]["predictions"][0]["class"] == "red"
    again = allowed("POST", "/predict", json={"url": f"{base}/half"})
    assert error_of(again, 400).startswith("This is not a picture.")


def test_a_slow_site_is_given_up(site: ThreadingHTTPServer) -> None:
    began = time.monotonic()
    with pytest.raises(DatasetError, match=r"did not arrive within 0\.3 s"):
        asyncio.run(fetcher(site, timeout_s=0.3).fetch(f"http://photos.example:{site.server_port}/slow"))
    assert time.monotonic() - began < 2


def test_a_name_is_looked_up_once_and_every_address_counts(site: ThreadingHTTPServer) -> None:
    answers = [["93.184.216.34", "127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    url = f"http://rebinding.example:{site.server_port}/red.png"
    ports = frozenset({site.server_port})
    with pytest.raises(DatasetError, match="This address is not fetched"):  # one of two addresses is private
        asyncio.run(Fetcher(max_bytes=9, ports=ports, resolve=resolve).fetch(url))
    turning = Fetcher(max_bytes=99_999, ports=ports, resolve=resolve, reachable=lambda a: a == "127.0.0.1")
    assert asyncio.run(turning.fetch(url)) == picture("red")
    assert len(asked) == 2


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://photos.example/a", "http://user:pw@photos.example/", "http://photos.example:22/",
     "http:///a.png", "http://[::1/", "https://", "gopher://x", "http://127.0.0.1/", "http://2130706433/",
     "http://0x7f.1/", "http://localhost/", "http://photos.example:99999/"],
)  # fmt: skip
def test_addresses_of_another_kind_are_refused_by_the_real_rules(url: str) -> None:
    with pytest.raises(DatasetError):
        asyncio.run(Fetcher(max_bytes=1000, timeout_s=5).fetch(url))


def test_addresses_are_fetched_only_where_that_is_allowed(engine: Engine, site: ThreadingHTTPServer, ask: Ask) -> None:
    url = f"http://photos.example:{site.server_port}/red.png"
    assert "--allow-urls" in error_of(ask("POST", "/predict", json={"url": url}), 400)
    allowed = asker(create_app(engine, fetcher=fetcher(site)))
    answer = allowed("POST", "/predict", json={"url": url}).json()
    assert (answer["predictions"][0]["class"], answer["filename"]) == ("red", url)
    mixed = {"images": [{"url": url}, {"url": "http://10.0.0.1/"}]}
    good, bad = allowed("POST", "/predict", json=mixed).json()["results"]
    assert good["predictions"][0]["class"] == "red"
    assert bad["error"].startswith("This address is not fetched.")
    real = asker(create_app(engine, ServeSpec(allow_urls=True)))
    assert "not fetched" in error_of(real("POST", "/predict", json={"url": "http://127.0.0.1/"}), 400)
