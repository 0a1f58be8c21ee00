"""The clients for Python against the application behind a real server, and what they do when it is busy or gone."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from autodl_ray.errors import InputError
from autodl_ray.serve import AsyncClient, Client
from autodl_ray.serve.api import create_app
from autodl_ray.serve.client import Prediction, RequestRefused, ServiceUnavailable
from autodl_ray.serve.client.retries import Retries
from autodl_ray.serve.client.wire import batches
from autodl_ray.serve.engine import Engine
from autodl_ray.serve.guard.keys import KeyRing
from autodl_ray.serve.settings import hash_key
from tests.serve.live import serving
from tests.serve.tiny import CLASSES, picture


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    """A service that asks for the key ``s3cret``."""
    with serving(create_app(engine, keys=KeyRing(sha256=hash_key("s3cret")))) as url:
        yield url


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in the environment."""
    monkeypatch.delenv("AUTODL_API_KEY", raising=False)


def test_every_kind_of_picture_is_taken(url: str, tmp_path: Path) -> None:
    data = picture("green")
    file = tmp_path / "g.png"
    file.write_bytes(data)
    with Client(url, api_key="s3cret") as client:
        assert client.is_ready()
        for kind in (data, file, str(file), io.BytesIO(data), Image.open(file), np.asarray(Image.open(file))):
            found = client.predict(kind, top_k=2)
            assert (found.name, len(found.classes)) == ("green", 2)
            assert found.probability == found.classes[0].probability
            assert (found.model, found.version) == ("colours", "0123456789ab")
            assert found.request_id
        with pytest.raises(InputError, match="The picture cannot be read"):
            client.predict(tmp_path / "nothing.png")
        with pytest.raises(InputError, match="This is no picture") as refused:
            client.predict(np.zeros((3, 4)))
        assert refused.value.seen == "ndarray (3, 4) float64"


def test_models_and_versions_are_chosen(url: str) -> None:
    with Client(url, api_key="s3cret", model="paints", version="0123456789ab") as client:
        assert client.predict(picture()).model == "paints"
        assert [(m.model, m.classes) for m in client.models()] == [("colours", CLASSES), ("paints", CLASSES)]
    with Client(url, api_key="s3cret", model="paint") as client, pytest.raises(RequestRefused) as refused:
        client.predict(picture())
    assert "did you mean 'paints'?" in str(refused.value)
    assert refused.value.status == 404
    assert refused.value.request_id


def test_a_heatmap_comes_as_numbers(url: str) -> None:
    with Client(url, api_key="s3cret") as client:
        heat = client.predict(picture(), heatmap=True).heatmap
        assert heat is not None
        assert (heat.method, heat.name, len(heat.cells), len(heat.cells[0])) == ("occlusion", "red", 7, 7)
        assert client.predict(picture()).heatmap is None


def test_many_pictures_keep_their_order_and_a_broken_one_its_place(url: str) -> None:
    colours = [CLASSES[i % 3] for i in range(50)]
    pictures = [picture(colour) for colour in colours]
    with Client(url, api_key="s3cret") as client:
        found = client.predict_many(iter(pictures), batch=7, workers=3)
        assert [answer.name for answer in found] == colours
        pictures[20] = b"notes"
        with pytest.raises(RequestRefused, match="This is not a picture"):
            client.predict_many(pictures)
        mixed = client.predict_many([*pictures, b""], batch=50, on_error="return")
        assert [i for i, answer in enumerate(mixed) if isinstance(answer, RequestRefused)] == [20, 50]
        assert client.predict_many([]) == []


def test_the_asynchronous_client_does_the_same(url: str) -> None:
    colours = [CLASSES[i % 3] for i in range(30)]
    pictures: list[bytes] = [picture(colour) for colour in colours]

    async def ask() -> None:
        async with AsyncClient(url, api_key="s3cret") as client:
            assert await client.is_ready()
            assert (await client.predict(pictures[0], heatmap=True)).heatmap is not None
            assert [a.name for a in await client.predict_many(pictures, batch=4, workers=3)] == colours
            pictures[3] = b"notes"
            mixed = await client.predict_many(pictures, batch=1, on_error="return")
            assert [i for i, answer in enumerate(mixed) if isinstance(answer, RequestRefused)] == [3]
            assert [m.model for m in await client.models()] == ["colours", "paints"]

    asyncio.run(ask())


def test_the_key_comes_from_an_argument_a_file_or_the_environment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(url) as client, pytest.raises(RequestRefused) as refused:
        client.predict(picture())
    assert refused.value.status == 401
    assert "AUTODL_API_KEY" in str(refused.value)
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    with Client(url, api_key_file=file) as client:
        assert client.predict(picture()).name == "red"
    monkeypatch.setenv("AUTODL_API_KEY", "s3cret")
    with Client(url) as client:
        assert client.predict(picture()).name == "red"
    with pytest.raises(InputError, match="cannot be read"):
        Client(url, api_key_file=tmp_path / "none")
    for key in ("", "two words", "schlüssel"):
        with pytest.raises(InputError, match="The API key is not usable"):
            Client(url, api_key=key)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_or_a_certificate_that_is_none_is_told_at_once(kind: type[Client], tmp_path: Path) -> None:
    for address in ("localhost:8000", "ftp://host", "http://", "http://[::1"):
        with pytest.raises(InputError, match="The address of the service is no URL"):
            kind(address)
    certificate = tmp_path / "ca.pem"
    for _ in range(2):  # missing, then empty
        with pytest.raises(InputError, match="The certificate to trust cannot be read"):
            kind("https://127.0.0.1:9", verify=str(certificate))
        certificate.touch()


def answers(*responses: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[str]]:
    """Return a transport that gives one answer after the other, and what it was asked."""
    asked: list[str] = []
    rest = list(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), asked


def busy(after: str | None = None, status: int = 429) -> httpx.Response:
    """Return a refusal for now."""
    return httpx.Response(status, json={"error": "busy"}, headers={} if after is None else {"retry-after": after})


def good() -> httpx.Response:
    """Return an answer."""
    prediction = {"class": "a", "probability": 1.0}
    return httpx.Response(200, json={"model": "m", "version": "1", "predictions": [prediction], "ms": 1.0})


def test_retry_after_is_honoured_and_other_failures_wait_longer_each_time() -> None:
    waits: list[float] = []
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    transport, asked = answers(busy("3"), busy(later), busy(status=503), httpx.ConnectError("refused"), good())
    with Client(transport=transport, sleep=waits.append, retries=Retries(first_s=1)) as client:
        assert client.predict(b"x").name == "a"
    assert len(asked) == 5
    assert 3 <= waits[0] < 4
    assert 7 < waits[1] < 10.5
    assert 2 <= waits[2] <= 4
    assert 4 <= waits[3] <= 8


def test_patience_ends_and_says_what_the_last_answer_was() -> None:
    waits: list[float] = []
    transport, asked = answers(busy("1"))
    with (
        Client(transport=transport, sleep=waits.append, retries=Retries(times=2)) as client,
        pytest.raises(ServiceUnavailable) as gone,
    ):
        client.predict(b"x")
    assert (len(asked), gone.value.status) == (3, 429)
    assert "429: busy; tried 3 times" in str(gone.value)
    transport, asked = answers(busy("3600"))
    with Client(transport=transport, sleep=waits.append) as client, pytest.raises(ServiceUnavailable):
        client.predict(b"x")
    assert len(asked) == 1
    transport, _ = answers(httpx.ConnectError("refused"))
    with (
        Client("http://127.0.0.1:9", transport=transport, sleep=waits.append, retries=Retries(times=0)) as client,
        pytest.raises(ServiceUnavailable, match="does not answer") as gone,
    ):
        client.predict(b"x")
    assert "autodl serve BUNDLE" in str(gone.value)
    again = pickle.loads(pickle.dumps(gone.value))
    assert (str(again), again.status) == (str(gone.value), 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 500])
def test_what_would_fail_again_is_not_sent_again(status: int) -> None:
    transport, asked = answers(httpx.Response(status, text="<html>"))
    wrong = ServiceUnavailable if status == 500 else RequestRefused
    with Client(transport=transport) as client, pytest.raises(wrong, match=r"none of autodl_ray's|cannot answer"):
        client.predict(b"x")
    assert len(asked) == 1


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"results": []}', b'{"predictions": 3, "model": "m"}'])
def test_an_answer_of_something_else_is_told(content: bytes) -> None:
    transport, asked = answers(httpx.Response(200, content=content))
    with Client(transport=transport) as client:
        for call in (lambda: client.predict(b"x"), client.models, lambda: client.predict_many([b"x", b"y"])):
            with pytest.raises(ServiceUnavailable, match=r"200: an answer that is none of autodl_ray's") as gone:
                call()
            assert gone.value.status == 200
    assert len(asked) == 3


def test_the_asynchronous_client_raises_the_first_failure_itself_and_ends_the_rest() -> None:
    asked: list[int] = []
    ended: list[bool] = []
    read: list[int] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        asked.append(int(await request.aread()))
        if asked[-1] == 0:
            await asyncio.sleep(0.01)
            return httpx.Response(401, json={"error": "no key"})
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise
        raise AssertionError("it was not cancelled")

    def pictures() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield b"%d" % number

    async def ask() -> None:
        async with AsyncClient(transport=httpx.MockTransport(handle)) as client:
            with pytest.raises(RequestRefused, match="no key") as refused:
                await client.predict_many(pictures(), batch=1, workers=3)
            assert refused.value.status == 401
            with pytest.raises(InputError, match="The picture cannot be read"):
                await client.predict_many([b"1", "nothing.png"], batch=1)

    asyncio.run(ask())
    assert asked[:3] == [0, 1, 2]
    assert len(ended) >= 2
    assert len(read) <= 6


def test_pictures_are_read_as_they_are_needed_and_not_after_a_failure() -> None:
    read: list[int] = []
    ahead: list[int] = []

    def pictures() -> Iterator[bytes]:
        for number in range(200):
            read.append(number)
            yield b"%d" % number

    def handle(request: httpx.Request) -> httpx.Response:
        number = int(request.read())
        ahead.append(len(read) - number)
        return httpx.Response(403, json={"error": "no"}) if number == 100 else good()

    with (
        Client(transport=httpx.MockTransport(handle)) as client,
        pytest.raises(RequestRefused, match="no"),
    ):
        client.predict_many(pictures(), batch=1, workers=2)
    assert max(ahead) < 10
    assert len(read) < 110


@pytest.mark.parametrize("counts", [{"workers": 0}, {"batch": 0}])
def test_counts_are_one_or_more(counts: dict[str, int]) -> None:
    with pytest.raises(InputError, match="is a whole number, 1 or more"):
        Client().predict_many([b"x"], **counts)
    with pytest.raises(InputError, match="is a whole number, 1 or more"):
        asyncio.run(AsyncClient().predict_many([b"x"], **counts))


def test_a_picture_that_is_too_large_has_its_place_too() -> None:
    transport, _ = answers(good(), httpx.Response(413, json={"error": "too large"}), good())
    with Client(transport=transport) as client:
        found = client.predict_many([b"a", b"b", b"c"], batch=1, workers=1, on_error="return")
    assert [isinstance(answer, RequestRefused) for answer in found] == [False, True, False]


def test_the_asynchronous_client_retries_too() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> Prediction:
        transport, _ = answers(busy("2"), good())
        async with AsyncClient(transport=transport, sleep=sleep) as client:
            return await client.predict(b"x")

    assert asyncio.run(ask()).name == "a"
    assert 2 <= waits[0] < 3


def test_waits_differ_between_clients_and_have_an_end() -> None:
    def wait(chance: float, **changes: object) -> float | None:
        given: dict[str, object] = {"status": 503, "retry_after": None, "waited_s": 0.0, **changes}
        return Retries().wait(3, chance=lambda: chance, **given)  # type: ignore[arg-type]

    assert (wait(0.0), wait(0.999)) == (pytest.approx(0.5), pytest.approx(0.9995))
    assert wait(0.5, waited_s=59.9) is None
    assert wait(0.0, retry_after="soon") == pytest.approx(0.5)
    assert wait(0.0, retry_after="0") == 0.0
    assert wait(0.0, retry_after="²") == pytest.approx(0.5)
    assert Retries(times=5000).wait(2000, status=503, retry_after=None, waited_s=0.0, chance=lambda: 0.0) == 15.0


def test_batches_are_bounded_in_number_and_bytes() -> None:
    sizes = [len(b) for b in batches([b"x" * 3_000_000] * 5 + [b"y"] * 40, 16)]
    assert sizes == [2, 2, 16, 16, 9]
    assert [len(b) for b in batches([b"a", "http://x/", b"b", b"c"], 16)] == [1, 1, 2]


def test_it_is_imported_without_ray_and_torch() -> None:
    code = "import sys, json; from autodl_ray.serve import Client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"ray", "torch", "onnxruntime", "numpy", "PIL", "pydantic", "starlette"} == set()
    assert "httpx" in loaded
