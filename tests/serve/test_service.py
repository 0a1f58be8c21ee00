"""The service over Ray, asked by real HTTP."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from autodl_ray.images import decode_image
from autodl_ray.models.predictor import Predictor
from autodl_ray.runtime.cluster import ClusterInfo
from autodl_ray.serve.service import Service, start, stop
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import error_of, free_port
from tests.serve.tiny import CLASSES, make_bundle, picture

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def service(
    ray_cluster: ClusterInfo, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, list[str]]]:
    """Two models, one replica that takes one request at a time and lets two wait."""
    slow = make_bundle(tmp_path_factory.mktemp("slow"), name="slow", work=60)
    spec = ServeSpec(port=free_port(), max_replicas=1, max_ongoing_requests=1, max_queued_requests=2, max_body_mb=2)
    said: list[str] = []
    yield start([bundle, slow], spec, say=said.append), said
    stop(leave_ray=True)


@pytest.fixture
def client(service: tuple[Service, list[str]]) -> Iterator[httpx.Client]:
    """A client of the service."""
    with httpx.Client(base_url=service[0].url, timeout=60, trust_env=False) as client:
        yield client


def test_it_is_ready_when_start_returns_and_said_its_plan(service: tuple[Service, list[str]]) -> None:
    started, said = service
    assert httpx.get(f"{started.url}/v2/health/ready", trust_env=False).json() == {"live": True, "ready": True}
    assert said == ["1 replica × 2 threads on 2 CPUs"]
    assert [b.name for b in started.bundles] == ["colours", "slow"]


def test_the_served_answer_is_the_predictor_s(client: httpx.Client, bundle: Path) -> None:
    data = picture((100, 80, 140), form="JPEG")
    expected = Predictor.open(bundle)([decode_image(data)])[0]
    answer = client.post("/predict", content=data).json()
    served = {p["class"]: p["probability"] for p in answer["predictions"]}
    assert [served[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, *decode_image(data).shape],
                        "data": decode_image(data).ravel().tolist()}]}  # fmt: skip
    output = client.post("/v2/models/colours/infer", json=body).json()["outputs"][0]
    assert output["data"] == pytest.approx(expected.tolist(), abs=1e-6)


def test_forms_broken_pictures_and_turned_photos(client: httpx.Client) -> None:
    files = [("f", ("a.png", picture("red"))), ("f", ("b.jpg", b"no")), ("f", ("c.png", picture("blue")))]
    results = client.post("/predict", files=files).json()["results"]
    assert [r.get("error", r.get("predictions", [{}])[0].get("class"))[:20] for r in results] == [
        "red", "This is not a pictur", "blue",
    ]  # fmt: skip
    assert error_of(client.post("/predict", content=b""), 400) == "The picture is empty (0 bytes)."
    exif, turned = Image.Exif(), io.BytesIO()
    exif[0x0112] = 8
    Image.new("RGB", (30, 10), (30, 40, 230)).save(turned, "JPEG", exif=exif)
    assert client.post("/predict", content=turned.getvalue()).json()["predictions"][0]["class"] == "blue"


def test_refusals_are_json_through_the_proxy_too(client: httpx.Client) -> None:
    assert error_of(client.get("/nope"), 404).startswith("There is no /nope.")
    error_of(client.get("/predict"), 405)
    error_of(client.post("/predict", content=bytes(2_000_001)), 413)
    error_of(client.post("/predict", content=(bytes(100_000) for _ in range(30))), 413)
    assert "loopback only" in error_of(client.get("/v2", headers={"host": "evil.example"}), 403)
    assert client.post("/predict", content=picture()).status_code == 200


def test_a_request_id_comes_back_once_or_is_made(client: httpx.Client) -> None:
    given = client.post("/predict", content=picture(), headers={"X-Request-ID": "order-7"})
    assert given.headers.get_list("x-request-id") == ["order-7"]
    made = {client.get("/nope").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


def test_the_page_is_served(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "What is in the picture?" in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_more_requests_than_may_wait_get_429_and_the_rest_an_answer(client: httpx.Client) -> None:
    def ask(_: int) -> httpx.Response:
        return client.post("/predict?model=slow", content=picture())

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(72)))
    assert {a.status_code for a in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert error_of(answer, 429).startswith("The service is busy")
            assert answer.headers["retry-after"] == "1"
    assert ask(0).status_code == 200


def test_every_port_it_opened_is_on_loopback(service: tuple[Service, list[str]]) -> None:
    ours = {os.getpid(), *(p.pid for p in psutil.Process(os.getpid()).children(recursive=True))}
    sockets = [c for c in psutil.net_connections("tcp") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    listening = {tuple(c.laddr) for c in sockets}
    assert ("127.0.0.1", int(service[0].url.rsplit(":", 1)[1])) in listening
    assert [ip for ip, _ in listening if ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def test_replicas_do_not_import_what_they_do_not_need(service: tuple[Service, list[str]]) -> None:
    replicas = [
        p for p in psutil.Process(os.getpid()).children(recursive=True) if "ServeReplica" in " ".join(p.cmdline())
    ]
    assert len(replicas) == 1
    mapped = {Path(m.path).name for m in replicas[0].memory_maps()}
    assert any(name.startswith("onnxruntime_pybind11_state") for name in mapped)
    assert not [name for name in mapped if name.startswith(("libtorch", "cv2", "libtorch_cpu"))]
