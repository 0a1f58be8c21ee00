"""API keys: the file, the ring that reads it again, scopes, rates, and the command that makes them."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autodl_ray.cli import main
from autodl_ray.errors import InputError
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine
from autodl_ray.serve.guard import keys as keys_module
from autodl_ray.serve.guard.keys import KeyRing, create_key, read_keys, revoke_key
from autodl_ray.serve.guard.rates import Rates
from autodl_ray.serve.http.answers import Refusal
from autodl_ray.serve.settings import hash_key
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import asker, error_of
from tests.serve.tiny import picture


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rings look at their file at every request instead of once a second."""
    monkeypatch.setattr(keys_module, "_LOOK_EVERY_S", 0.0)


def test_the_file_holds_hashes_for_the_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "shop", scopes=("predict",), rate_limit_per_s=5)
    assert key not in file.read_text()
    assert len(key) > 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (kept,) = read_keys(file)
    assert (kept.name, kept.sha256, kept.scopes, kept.rate_limit_per_s) == ("shop", hash_key(key), ("predict",), 5)
    assert create_key(file, "other") != key
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for number in range(8):
        create_key(file, f"old{number}")

    def change(number: int) -> None:
        create_key(file, f"new{number}")
        revoke_key(file, f"old{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(8)))
    assert {key.name for key in read_keys(file)} == {f"new{number}" for number in range(8)}
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_file_that_others_may_read_stays_readable(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    create_key(file, "a")
    file.chmod(0o640)
    create_key(file, "b")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_written_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        create_key(tmp_path / "none" / "keys.json", "a")
    file = tmp_path / "keys.json"
    create_key(file, "a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written"):
        revoke_key(file, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
    assert [key.name for key in read_keys(file)] == ["a"]


def test_names_are_unique_and_plain(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    create_key(file, "shop")
    with pytest.raises(InputError, match="There is a key of that name"):
        create_key(file, "shop")
    with pytest.raises(InputError, match="cannot be the name of a key"):
        create_key(file, "two words")
    with pytest.raises(InputError, match="did you mean 'shop'"):
        revoke_key(file, "shp")
    revoke_key(file, "shop")
    assert read_keys(file) == ()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000,
     "", "{", "[]", '{"keys": 3}', '{"keys": [{"name": "a"}]}', '{"keys": [{"name":"a","sha256":"x","scopes":[]}]}',
     json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "scopes": ["root"]}]}),
     json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "scopes": ["admin"], "rate_limit_per_s": -1}]})],
)  # fmt: skip
def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(InputError, match="The file of the API keys cannot be read"):
        KeyRing(file)


@pytest.mark.usefixtures("at_once")
def test_keys_come_and_go_while_the_service_runs(tmp_path: Path, engine: Engine) -> None:
    file = tmp_path / "keys.json"
    old = create_key(file, "old")
    ask = asker(create_app(engine, keys=KeyRing(file)))
    assert ask("GET", "/v2", headers=bearer(old)).status_code == 200
    new = create_key(file, "new")
    assert ask("GET", "/v2", headers=bearer(new)).status_code == 200
    revoke_key(file, "old")
    error_of(ask("GET", "/v2", headers=bearer(old)), 401)
    assert ask("GET", "/v2", headers=bearer(new)).status_code == 200


@pytest.mark.usefixtures("at_once")
def test_a_file_damaged_later_keeps_its_keys_and_a_missing_one_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "a")
    good = file.read_text()
    ring = KeyRing(file, sha256=hash_key("always"))
    file.write_text("{")
    with caplog.at_level(logging.ERROR):
        assert ring.find(key) is not None
    assert "cannot be read; the keys before it stay" in caplog.text
    file.unlink()
    assert ring.find(key) is None
    assert ring.find("always") is not None
    file.write_text(good)
    assert ring.find(key) is not None


@pytest.mark.usefixtures("at_once")
def test_a_key_revoked_while_the_file_is_read_or_out_of_reach_is_gone_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    first, second = create_key(file, "first"), create_key(file, "second")

    def read_before_it_is_revoked(path: Path) -> tuple[keys_module.ApiKey, ...]:
        found = read_keys(path)
        patch.undo()
        revoke_key(path, "first")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(keys_module, "read_keys", read_before_it_is_revoked)
        ring = KeyRing(file)
    assert ring.find(first) is None

    def out_of_reach(path: Path) -> tuple[keys_module.ApiKey, ...]:
        raise InputError("The file of the API keys cannot be read.", seen="Stale file handle")

    revoke_key(file, "second")
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(keys_module, "read_keys", out_of_reach)
        assert ring.find(second) is not None
        assert ring.find(second) is not None
    assert len(caplog.records) == 1
    assert ring.find(second) is None


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    create_key(file, "a")
    ring = KeyRing(file)
    now = time.monotonic()
    second = create_key(file, "b")
    monkeypatch.setattr(keys_module.time, "monotonic", lambda: now + 0.5)
    assert ring.find(second) is None
    monkeypatch.setattr(keys_module.time, "monotonic", lambda: now + 2)
    assert ring.find(second) is not None


def test_scopes_divide_what_a_key_may_do(tmp_path: Path, engine: Engine) -> None:
    file = tmp_path / "keys.json"
    predict, admin = create_key(file, "p"), create_key(file, "a", scopes=("admin",))
    ask = asker(create_app(engine, keys=KeyRing(file)))
    assert ask("POST", "/predict", content=picture(), headers=bearer(predict)).status_code == 200
    assert error_of(ask("GET", "/metrics", headers=bearer(predict)), 403).endswith("it has no scope 'admin'.")
    assert "autodl_requests_total" in ask("GET", "/metrics", headers=bearer(admin)).text
    assert error_of(ask("POST", "/predict", content=picture(), headers=bearer(admin)), 403).endswith("'predict'.")
    error_of(ask("POST", "/v2/repository/models/colours/unload", headers=bearer(predict)), 403)
    error_of(ask("GET", "/metrics"), 401)


def test_each_key_has_its_own_rate(tmp_path: Path, engine: Engine) -> None:
    file = tmp_path / "keys.json"
    slow, other = create_key(file, "slow", rate_limit_per_s=0.5), create_key(file, "other")
    ask = asker(create_app(engine, ServeSpec(rate_limit_per_s=1000), keys=KeyRing(file)))
    assert ask("GET", "/v2", headers=bearer(slow)).status_code == 200
    response = ask("GET", "/v2", headers=bearer(slow))
    assert "may ask 0.5 times a second" in error_of(response, 429)
    assert response.headers["retry-after"] in ("1", "2")
    assert ask("GET", "/v2", headers=bearer(other)).status_code == 200
    assert ask("GET", "/v2/health/ready").status_code == 200


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    rates = Rates(2.0, clock=lambda: now[0])
    for _ in range(4):
        rates.take("a")
    with pytest.raises(Refusal) as refused:
        rates.take("a")
    assert refused.value.headers == [(b"retry-after", b"1")]
    now[0] = 0.5
    rates.take("a")
    with pytest.raises(Refusal):
        rates.take("a")
    now[0] = 100.0
    for _ in range(4):
        rates.take("a")
    with pytest.raises(Refusal):
        rates.take("a")
    Rates(None).take("anyone")


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.json")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["keys", *arguments, "--file", file])
        out, err = capfd.readouterr()
        return int(str(stopped.value.code)), out, err

    code, out, _ = run("create", "shop", "--json")
    key = json.loads(out)["key"]
    assert code == 0
    assert KeyRing(Path(file)).find(key) is not None
    assert run("create", "ops", "--scope", "admin", "--rate", "3")[0] == 0
    code, out, _ = run("list")
    assert "shop  predict" in out
    assert "ops  admin" in out
    assert "3/s" in out
    assert key not in out
    code, _, err = run("create", "x", "--scope", "root")
    assert (code, "accepted: predict, admin" in err) == (2, True)
    assert run("create", "x", "--rate", "0")[0] == 2
    assert run("revoke", "shop")[0] == 0
    assert "shop" not in run("list", "--json")[1]
    assert os.listdir(tmp_path) == ["keys.json"]
