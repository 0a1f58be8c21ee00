"""The door and a replica's link over real sockets, with an application that is not Ray's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodl_ray.serve.door.door import Door, DoorSettings
from autodl_ray.serve.door.http import Limits
from autodl_ray.serve.door.link import Link


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked; `/slow` after a while, `/break` not at all."""
    body = (await receive())["body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.15)
    if scope["path"] == "/break":
        raise RuntimeError("broken")
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "size": len(body),
    }
    said["client"] = scope["client"][0]
    content = json.dumps(said).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door with small limits, and no replica yet."""
    limits = Limits(body_bytes=1000, head_bytes=2000, receive_s=0.6, idle_s=30)
    settings = DoorSettings("127.0.0.1", 0, limits, max_queued=4, max_wait_s=30, answer_s=1.0)
    door = Door(tmp_path / "d.sock", settings)
    door.open()
    yield door
    door.close(drain_s=1)


def join(door: Door, *, slots: int = 2, name: str = "r0", app: Any = echo, **options: Any) -> Link:
    """Bring a replica in and wait until it takes part."""
    before = door.figures()["replicas"]
    link = Link(door.socket, app, name=name, slots=slots, **options)
    link.open()
    end = time.monotonic() + 5
    while door.figures()["replicas"] == before:
        assert time.monotonic() < end
        time.sleep(0.005)
    return link


def raw(door: Door, data: bytes, *, seconds: float = 3) -> bytes:
    """Send bytes on a connection of its own and return all that comes back until it is closed or quiet."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=seconds) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except TimeoutError:
            pass
        return found


def test_requests_arrive_whole_and_answers_come_back_in_order(door: Door) -> None:
    link = join(door)
    url = f"http://127.0.0.1:{door.port}"
    with httpx.Client(trust_env=False) as client:
        answer = client.post(f"{url}/a%20b?x=1", content=b"12345")
        assert answer.json() == {"method": "POST", "path": "/a b", "query": "x=1", "size": 5, "client": "127.0.0.1"}
        assert answer.headers["x-request-id"]
        chunked = client.post(f"{url}/c", content=iter([b"12", b"345"]), headers={"x-request-id": "mine"})
        assert (chunked.json()["size"], chunked.headers["x-request-id"]) == (5, "mine")
        head = client.head(f"{url}/h")
        assert (head.status_code, head.content, int(head.headers["content-length"]) > 10) == (200, b"", True)
        assert client.get(f"{url}/break").json() == {"error": "Something went wrong here."}
        assert client.get(f"{url}/-/healthz").text == "success"
    pipelined = raw(
        door, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    assert pipelined.index(b'"/slow"') < pipelined.index(b'"/2"')
    link.close(drain_s=1)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n", b"413"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3f0\r\n" + b"x" * 1008 + b"\r\n0\r\n\r\n",
            b"413",
        ),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 3000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\nx", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf", b"408"),
    ],
)
def test_what_is_no_good_request_is_refused_before_a_replica_sees_it(door: Door, data: bytes, status: bytes) -> None:
    answer = raw(door, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"content-type: application/json" in head
    assert list(json.loads(body)) == ["error"]
    assert door.figures()["under_way"] == door.figures()["waiting"] == 0


def test_too_many_connections_and_too_many_bytes_are_told_to_come_again(tmp_path: Path) -> None:
    limits = Limits(body_bytes=1000, receive_s=5, connections=3, held_bytes=1500)
    door = Door(tmp_path / "d.sock", DoorSettings("127.0.0.1", 0, limits))
    door.open()
    link = join(door)
    head = b"POST / HTTP/1.1\r\ncontent-length: 900\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", door.port), timeout=3) as half:
            half.sendall(head + bytes(800))  # held until the rest has come
            time.sleep(0.1)
            refused = raw(door, head + bytes(900))
            assert refused.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 1" in refused
            chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n320\r\n" + bytes(800) + b"\r\n0\r\n\r\n"
            assert raw(door, chunked).startswith(b"HTTP/1.1 429 ")
            half.sendall(bytes(100))
            assert half.recv(4096).startswith(b"HTTP/1.1 200 ")
            closing = head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
            again = raw(door, closing + bytes(900))
            assert again.startswith(b"HTTP/1.1 200 "), "what was answered is not held any more"
            others = [socket.create_connection(("127.0.0.1", door.port), timeout=3) for _ in range(3)]
            try:
                assert others[-1].recv(4096).startswith(b"HTTP/1.1 429 ")
            finally:
                for other in others:
                    other.close()
    finally:
        link.close(drain_s=1)
        door.close(drain_s=1)


def test_more_than_may_wait_is_refused_and_the_rest_answered(door: Door) -> None:
    link = join(door, slots=1)
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda _: client.get("/slow"), range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"].startswith("The service is busy")
    link.close(drain_s=1)


def test_without_a_replica_requests_wait_for_one_and_not_for_ever(door: Door) -> None:
    woken = threading.Event()
    door._wake = woken.set
    with httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False, timeout=10) as client:
        began = time.monotonic()
        late = client.get("/nobody")
        assert (late.status_code, late.headers["retry-after"]) == (503, "5")
        assert 0.8 < time.monotonic() - began < 3
        assert woken.is_set()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.get, "/first")
            time.sleep(0.1)
            link = join(door)
            assert first.result().status_code == 200
    link.close(drain_s=1)


def test_a_replica_that_leaves_finishes_what_it_has(door: Door) -> None:
    one = join(door, slots=4, name="one")
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        under_way = [pool.submit(client.get, "/slow") for _ in range(4)]
        time.sleep(0.05)
        two = join(door, slots=4, name="two")
        one.close(drain_s=3)
        assert [f.result().status_code for f in under_way] == [200] * 4
        assert client.get("/after").status_code == 200
    two.close(drain_s=1)


def test_what_a_killed_replica_had_is_asked_again_once(door: Door) -> None:
    code = (
        "import sys, time, pathlib; from autodl_ray.serve.door.link import Link\n"
        "async def never(scope, receive, send):\n    import asyncio; await asyncio.sleep(60)\n"
        "Link(pathlib.Path(sys.argv[1]), never, name='doomed', slots=4).open(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(door.socket)]) as doomed:
        end = time.monotonic() + 20
        while door.figures()["replicas"] == 0:
            assert time.monotonic() < end
            time.sleep(0.02)
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False) as client,
            ThreadPoolExecutor(3) as pool,
        ):
            under_way = [pool.submit(client.post, "/p", content=b"abc") for _ in range(3)]
            while door.figures()["under_way"] < 3:
                time.sleep(0.01)
            link = join(door, slots=1)
            doomed.kill()
            assert [f.result(5).json()["size"] for f in under_way] == [3, 3, 3]
    link.close(drain_s=1)


def test_replicas_are_told_the_goal_and_say_how_they_are(door: Door) -> None:
    goals: list[Any] = []
    door.tell({"n": 1})
    link = join(door, on_goal=goals.append, state=lambda: {"goals": len(goals)})
    assert goals == [{"n": 1}]  # before it takes part
    door.tell({"n": 2})
    end = time.monotonic() + 5
    while door.figures()["states"] != {"r0": {"goals": 2}}:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert link.is_alive()
    link.close(drain_s=1)


def test_a_goal_that_takes_long_holds_up_no_request(door: Door) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def follow(goal: Any) -> None:
        begun.set()
        assert go_on.wait(5)

    link = join(door, on_goal=follow)
    door.tell({"n": 1})
    assert begun.wait(5)
    with httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False, timeout=2) as client:
        assert client.get("/meanwhile").status_code == 200
    go_on.set()
    link.close(drain_s=1)


def test_a_client_that_does_not_read_gets_no_more_answers_and_goes(door: Door) -> None:
    asked = 0

    async def large(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(500_000)})

    link = join(door, app=large)
    wanted = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 60
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as slow:
        slow.sendall(wanted)
        time.sleep(0.3)
        assert asked < 40, "what nobody reads would fill the memory"
        size = 0
        while size < 60 * 500_000:
            size += len(slow.recv(1 << 20))
        assert asked == 60, "whoever reads is answered"
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as never:
        never.sendall(wanted)
        time.sleep(0.3)
        assert len(door._clients.connections) == 1
        end = time.monotonic() + 5
        while door._clients.connections:
            assert time.monotonic() < end
            time.sleep(0.02)
    link.close(drain_s=1)


def test_closing_waits_for_no_client_that_goes_on_asking(tmp_path: Path) -> None:
    door = Door(tmp_path / "d.sock", DoorSettings("127.0.0.1", 0, Limits(body_bytes=1000)))
    door.open()
    link = join(door)
    statuses: list[int] = []

    def ask_on() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{door.port}", trust_env=False) as client:
            while True:
                try:
                    statuses.append(client.get("/slow").status_code)
                except httpx.TransportError:
                    return

    clients = [threading.Thread(target=ask_on) for _ in range(3)]
    for client in clients:
        client.start()
    while len(statuses) < 3:
        time.sleep(0.01)
    began = time.monotonic()
    door.close(drain_s=5)
    assert time.monotonic() - began < 2
    for client in clients:
        client.join(5)
    assert set(statuses) == {200}
    link.close(drain_s=0.1)


def test_the_socket_is_for_this_user_only(door: Door) -> None:
    assert os.stat(door.socket).st_mode & 0o077 == 0
