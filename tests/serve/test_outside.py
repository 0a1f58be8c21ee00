"""What stands around the handlers: origins, ids, the access log, metrics, and TLS at the door."""

from __future__ import annotations

import json
import logging
import re
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from autodl_ray.errors import InputError
from autodl_ray.serve.api import create_app
from autodl_ray.serve.client import Client, ServiceUnavailable
from autodl_ray.serve.client.retries import Retries
from autodl_ray.serve.door.door import Door, DoorSettings
from autodl_ray.serve.door.http import Limits
from autodl_ray.serve.door.link import Link
from autodl_ray.serve.engine import Engine, NextModel, open_models
from autodl_ray.serve.guard.origins import LOOPBACK_HOSTS
from autodl_ray.serve.http.access import AccessLog
from autodl_ray.serve.metrics import SERIES, Metrics
from autodl_ray.serve.proxy import CapTimeout
from autodl_ray.serve.tls import Tls
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import Ask, asker, error_of, free_port
from tests.serve.tiny import picture

SHOP = {"origin": "https://shop.example"}


def test_pages_of_named_origins_may_ask_and_read(engine: Engine) -> None:
    ask = asker(create_app(engine, ServeSpec(cors_origins=("https://例え.example", "https://shop.example/"))))
    asked = {**SHOP, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = ask("OPTIONS", "/predict", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    answer = ask("POST", "/predict", content=picture(), headers=SHOP)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["vary"] == "origin"
    other = {**asked, "origin": "https://evil.example"}
    error_of(ask("OPTIONS", "/predict", headers=other), 405)
    assert "access-control-allow-origin" not in ask("POST", "/predict", content=picture(), headers=other).headers


def test_on_loopback_pages_from_elsewhere_cannot_keep_it_busy(engine: Engine) -> None:
    ask = asker(create_app(engine, hosts=LOOPBACK_HOSTS))
    assert "Pages of this origin" in error_of(ask("POST", "/predict", content=picture(), headers=SHOP), 403)
    for origin in ("http://127.0.0.1:8000", "http://localhost"):
        assert ask("POST", "/predict", content=picture(), headers={"origin": origin}).status_code == 200
    error_of(ask("POST", "/predict", content=picture(), headers={"origin": "null"}), 403)
    listed = asker(create_app(engine, ServeSpec(cors_origins=("https://shop.example",)), hosts=LOOPBACK_HOSTS))
    assert listed("POST", "/predict", content=picture(), headers=SHOP).status_code == 200


def test_a_request_id_comes_back_or_is_made(engine: Engine) -> None:
    ask = asker(create_app(engine))
    assert ask("GET", "/nope", headers={"x-request-id": "order-7"}).headers.get_list("x-request-id") == ["order-7"]
    made = {ask("GET", "/v2").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    behind = asker(create_app(engine, own_ids=False))
    assert "x-request-id" not in behind("GET", "/v2").headers


def test_every_request_is_a_line_of_json_in_the_log(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    log = AccessLog(file)
    ask = asker(create_app(engine, log=log))
    data = picture()
    ask("POST", "/predict?model=paints", content=data, headers={"x-request-id": 'a"b\\'})
    ask("POST", "/predict", content=b"no")
    ask("GET", '/none"%0A')
    log.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 400, 404]
    assert (lines[0]["id"], lines[0]["method"], lines[0]["path"]) == ('a"b\\', "POST", "/predict")
    assert (lines[0]["model"], lines[0]["version"], lines[0]["pictures"]) == ("paints", "0123456789ab", 1)
    assert (lines[0]["bytes_in"], lines[0]["ms"] > 0, lines[0]["bytes_out"] > 0) == (len(data), True, True)
    with pytest.raises(InputError, match="access log cannot be opened"):
        AccessLog(tmp_path / "none" / "access.log")


def test_a_log_that_was_moved_away_is_made_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autodl_ray.serve.http.access._LOOK_EVERY_S", 0.0)
    file = tmp_path / "access.log"
    log = AccessLog(file)
    ask = asker(create_app(engine, log=log))
    ask("GET", "/v2")
    file.rename(tmp_path / "access.log.1")
    ask("GET", "/v2/health/ready")
    log.close()
    assert json.loads(file.read_text())["path"] == "/v2/health/ready"


def test_replicas_that_share_a_log_all_go_on_in_the_new_one(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autodl_ray.serve.http.access._LOOK_EVERY_S", 0.0)
    file = tmp_path / "access.log"
    logs = [AccessLog(file), AccessLog(file)]
    file.rename(tmp_path / "access.log.1")
    for log in logs:
        asker(create_app(engine, log=log))("GET", "/v2/health/ready")
        log.close()
    assert len(file.read_text().splitlines()) == 2


def test_a_request_is_answered_where_it_cannot_be_written_down(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("autodl_ray.serve.http.access._LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("autodl_ray.serve.metrics._WRITE_EVERY_S", 0.0)
    folder = tmp_path / "logs"
    folder.mkdir()
    log, metrics = AccessLog(folder / "access.log"), Metrics(folder / "metrics")
    ask = asker(create_app(engine, log=log, metrics=metrics))
    folder.rename(tmp_path / "away")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert ask("GET", "/v2").status_code == 200
        assert ask("GET", "/metrics").status_code == 200
    assert sorted(record.message.partition(":")[0] for record in caplog.records) == [
        "other replicas do not see the metrics of this one",
        "requests are not written down in the access log",
    ]
    (tmp_path / "away").rename(folder)
    ask("GET", "/v2/health/ready")
    log.close()
    assert json.loads(folder.joinpath("access.log").read_text())["path"] == "/v2/health/ready"


def test_metrics_are_written_by_one_thread_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(tmp_path)
    with caplog.at_level(logging.ERROR), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: metrics.snapshot(), range(300)))
    assert caplog.records == []


def series(text: str) -> dict[str, float]:
    """Read Prometheus' text format: name with labels → value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_say_what_was_answered(bundle: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    metrics = Metrics()
    engine = Engine(open_models([("colours", bundle)], num_threads=1), metrics=metrics)
    ask = asker(create_app(engine, metrics=metrics))
    for content in (picture(), picture(), b"no"):
        ask("POST", "/predict", content=content)
    ask("GET", "/secret-path")
    text = ask("GET", "/metrics").text
    found = series(text)
    who = 'model="colours",version="0123456789ab"'
    assert found[f'autodl_requests_total{{route="/predict",status="200",{who}}}'] == 2
    assert found[f'autodl_requests_total{{route="/predict",status="400",{who}}}'] == 1
    assert found['autodl_requests_total{route="other",status="404",model="",version=""}'] == 1
    assert found[f'autodl_request_seconds_count{{route="/predict",{who}}}'] == 3
    assert found[f'autodl_request_seconds_bucket{{route="/predict",{who},le="+Inf"}}'] == 3
    assert found[f'autodl_pictures_total{{outcome="answered",{who}}}'] == 2
    assert found[f'autodl_pictures_total{{outcome="refused",{who}}}'] == 1
    assert found[f"autodl_batch_pictures_count{{{who}}}"] == 2
    assert found[f'autodl_model_info{{{who},dataset="{"d" * 32}"}}'] == 1
    assert found["autodl_queue_pictures"] == 0
    assert found["autodl_requests_in_progress"] == 1  # the one that asks
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {name.removesuffix("_total"): s.kind for name, s in SERIES.items()} == families
    assert "secret-path" not in text
    engine.close()


def test_metrics_name_the_versions_that_are_served_now(bundle: Path) -> None:
    old, new = (replace(open_models([("colours", bundle)], num_threads=1)[0], version=v) for v in ("old", "new"))
    engine = Engine([old])
    ask = asker(create_app(engine, metrics=engine.metrics))

    def told() -> list[str]:
        return re.findall(r'autodl_model_info\{.*version="(\w+)"', ask("GET", "/metrics").text)

    assert told() == ["old"]
    engine.offer(NextModel(new, "r", share=0.5, shadow=0.0))
    assert sorted(told()) == ["new", "old"]
    engine.take_over(new)
    assert told() == ["new"]
    engine.close()


def test_replicas_of_one_machine_add_up(tmp_path: Path) -> None:
    """Two ended processes and this one: counters add up, what only a living one can say does not."""
    code = (
        "import sys, pathlib; from autodl_ray.serve.metrics import Metrics\n"
        "m = Metrics(pathlib.Path(sys.argv[1]))\n"
        "m.count('autodl_pictures_total', ('answered', 'a\"b', '1'), by=3); m.count('autodl_queue_pictures', by=5)\n"
        "m.observe('autodl_batch_pictures', 3, ('a', '1')); m.publish()"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    mine = Metrics(tmp_path)
    mine.count("autodl_pictures_total", ("answered", 'a"b', "1"))
    found = series(mine.text())
    assert found['autodl_pictures_total{outcome="answered",model="a\\"b",version="1"}'] == 7
    assert found['autodl_batch_pictures_bucket{model="a",version="1",le="2"}'] == 0
    assert found['autodl_batch_pictures_bucket{model="a",version="1",le="4"}'] == 2
    assert found['autodl_batch_pictures_sum{model="a",version="1"}'] == 6
    assert found.get("autodl_queue_pictures", 0) == 0


def test_the_proxy_caps_the_time_that_a_client_asks_for() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        seen.append(scope["headers"])  # type: ignore[arg-type]

    capped = CapTimeout(app, most_s=30)  # type: ignore[arg-type]

    async def ask() -> None:
        for value in (b"5", b"0", b"-3", b"900", b"inf", b"nan", b"soon"):
            headers = [(b"host", b"x"), (b"x-request-timeout-seconds", value)]
            await capped({"type": "http", "headers": headers}, None, None)  # type: ignore[arg-type]
        await capped({"type": "http", "headers": [(b"host", b"x")]}, None, None)  # type: ignore[arg-type]

    import asyncio

    asyncio.run(ask())
    assert [dict(h).get(b"x-request-timeout-seconds") for h in seen] == [
        b"5.0",
        *[b"30"] * 3,
        b"30",
        b"30",
        b"30",
        None,
    ]


def certificate(folder: Path) -> Tls:
    """Make a certificate for 127.0.0.1 and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    tls.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(private)
    return tls


def test_the_door_speaks_tls(engine: Engine, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    port = free_port()
    door = Door(tmp_path / "d.sock", DoorSettings("127.0.0.1", port, Limits(1_000_000), ssl=tls.context()))
    door.open()
    link = Link(tmp_path / "d.sock", create_app(engine, own_ids=False), name="r", slots=4)
    link.open()
    try:
        with Client(f"https://127.0.0.1:{port}", verify=str(tls.cert)) as client:
            assert client.predict(picture("blue")).name == "blue"
        with (
            Client(f"https://127.0.0.1:{port}", retries=Retries(times=0)) as client,
            pytest.raises(ServiceUnavailable, match="does not answer") as refused,
        ):
            client.predict(picture())
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/v2", trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(tls.cert)
        assert httpx.get(f"https://127.0.0.1:{port}/v2/health/ready", verify=old, trust_env=False).status_code == 200
    finally:
        link.close(drain_s=1)
        door.close(drain_s=1)


def test_unusable_certificates_are_refused_before_anything_starts(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    assert Tls.of(None, None) is None
    assert Tls.of(tls.cert, tls.key) == tls
    with pytest.raises(InputError, match="needs a certificate and its key"):
        Tls.of(tls.cert, None)
    with pytest.raises(InputError, match="cannot be used"):
        Tls.of(tls.key, tls.key)
    with pytest.raises(InputError, match="cannot be used"):
        Tls.of(tmp_path / "none.pem", tls.key)


def test_the_page_s_policy_names_what_stands_in_it(ask: Ask) -> None:
    policy = ask("GET", "/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'; img-src", policy)
    assert ask("GET", "/v2").headers["x-content-type-options"] == "nosniff"
