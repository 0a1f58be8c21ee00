"""Requests kept with their answers: what is kept, what never is, and that the next training can read it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.data.formats import detect, read
from autodl_ray.errors import InputError
from autodl_ray.images import decode_image
from autodl_ray.serve.answers import open_models
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe import record
from autodl_ray.serve.observe.record import ANSWERS, Recorder, is_sampled
from tests.serve.conftest import Ask, asker, error_of
from tests.serve.tiny import CLASSES, make_bundle, picture

Start = Callable[..., tuple[Ask, Recorder, Metrics]]


@pytest.fixture
def recording(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """Start the application with a recorder on ``tmp_path / "kept"``."""
    opened: list[Recorder] = []

    def start(*, share: float = 1.0, max_bytes: int = 10**7) -> tuple[Ask, Recorder, Metrics]:
        metrics = Metrics()
        recorder = Recorder(tmp_path / "kept", share=share, max_bytes=max_bytes, metrics=metrics)
        opened.append(recorder)
        return asker(create_app(engine, metrics=metrics, recorder=recorder)), recorder, metrics

    yield start
    for recorder in opened:
        recorder.close()


def answers_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ANSWERS).read_text(encoding="utf-8").splitlines()]


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def outcomes(metrics: Metrics) -> dict[str, float]:
    values = metrics.snapshot().values
    return {labels[0]: value for (name, labels), value in values.items() if name == "autodl_recorded_total"}


def test_the_bytes_lie_under_the_answered_class_with_the_answer_beside(recording: Start, tmp_path: Path) -> None:
    ask, recorder, metrics = recording()
    data = picture("green", form="JPEG")
    headers = {"x-request-id": "order-7", "authorization": "Bearer secret", "user-agent": "spy/1"}
    answer = ask("POST", "/predict", content=data, headers=headers).json()
    recorder.flush()
    folder = tmp_path / "kept" / "colours"
    name = f"green/{hashlib.sha256(data).hexdigest()[:24]}.jpg"
    assert (folder / name).read_bytes() == data
    (row,) = answers_in(folder)
    assert list(row) == ["time", "request", "model", "version", "predictions", "file"]
    assert (row["request"], row["version"], row["file"]) == ("order-7", "0123456789ab", name)
    assert row["predictions"] == answer["predictions"]
    whole = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert not any(word in whole for word in (b"secret", b"spy", b"127.0.0.1"))
    assert [oct(path.stat().st_mode)[-3:] for path in (folder.parent, folder, folder / name)] == ["700", "700", "600"]
    assert outcomes(metrics) == {"written": 1}


def test_the_folder_goes_through_data_check(recording: Start, tmp_path: Path) -> None:
    ask, recorder, _ = recording()
    rng = np.random.default_rng(0)
    for i in range(24):
        red, green, blue = map(int, np.eye(3)[i % 3] * 200 + rng.integers(0, 40, 3))
        ask("POST", "/predict", content=picture((red, green, blue), size=(20 + i, 30)))
    ask("POST", "/predict", content=b"no picture")
    recorder.flush()
    for place in (tmp_path / "kept", tmp_path / "kept" / "colours"):
        assert detect(place, cache=tmp_path / "cache").format == "imagefolder"
        listing = read(place, cache=tmp_path / "cache")
        assert len(listing.records) == 24
        assert {record.label for record in listing.records} == set(CLASSES)
        assert listing.problems == []
    command = [sys.executable, "-m", "autodl_ray", "data", "check", str(tmp_path / "kept"), "--fast", "--strict"]
    done = subprocess.run(
        [*command, "--json", "--store", str(tmp_path / "store")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["severities"]["error"] == 0


def test_a_picture_asked_twice_is_one_file_and_two_answers(recording: Start, tmp_path: Path) -> None:
    ask, recorder, _ = recording()
    files = [("f", ("a.png", picture("red"))), ("f", ("b.txt", b"no")), ("f", ("c.png", picture("blue")))]
    for _ in range(2):
        ask("POST", "/predict", files=files)
    recorder.flush()
    folder = tmp_path / "kept" / "colours"
    assert sorted(path.parent.name for path in pictures_in(folder)) == ["blue", "red"]
    assert len(answers_in(folder)) == 4


def test_pixels_of_the_protocol_become_a_png_and_its_files_stay(recording: Start, tmp_path: Path) -> None:
    ask, recorder, _ = recording()
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 4, 5, 3], "data": pixels.ravel().tolist()}]}
    assert ask("POST", "/v2/models/paints/infer", json=body).status_code == 200
    recorder.flush()
    kept = [decode_image(path.read_bytes()) for path in pictures_in(tmp_path / "kept" / "paints")]
    assert len(kept) == 2
    for image in pixels:
        assert any(np.array_equal(image, other) for other in kept)


def test_the_sample_is_chosen_by_the_id_alone(recording: Start, tmp_path: Path) -> None:
    ids = [f"request-{i}" for i in range(20_000)]
    assert sum(is_sampled(name, 0.01) for name in ids) == pytest.approx(200, abs=45)
    assert all(is_sampled(name, 0.3) for name in ids if is_sampled(name, 0.01))
    assert not any(is_sampled(name, 0) for name in ids)
    assert all(is_sampled(name, 1) for name in ids)
    ask, recorder, _ = recording(share=0.2)
    for name in ids[:40]:
        ask("POST", "/predict", content=picture(), headers={"x-request-id": name})
    recorder.flush()
    kept = [row["request"] for row in answers_in(tmp_path / "kept" / "colours")]
    assert kept == [name for name in ids[:40] if is_sampled(name, 0.2)]


def test_the_cap_holds_over_replicas_and_restarts_and_is_said_once(
    recording: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []  # Ray sets the level of its loggers, and whether others hear them
    monkeypatch.setattr(record._log, "warning", lambda message, *values: said.append(message % values))
    ask, first, metrics = recording(max_bytes=4_000)
    _, second, _ = recording(max_bytes=4_000)
    model = open_models([("colours", make_bundle(tmp_path / "store"))], num_threads=1)[0]
    for i in range(30):
        data = picture((i, 200, 9), form="JPEG")
        ask("POST", "/predict", content=data)
        second.offer(f"other-{i}", model, data[:-2] + bytes([i]), model.predict([decode_image(data)])[0])
    first.flush()
    second.flush()
    size = sum(
        path.stat().st_size for path in (tmp_path / "kept").rglob("*") if path.is_file() and path.name != ".used"
    )
    assert 1_500 < size <= 4_000
    assert outcomes(metrics)["over the cap"] > 20
    assert len([one for one in said if "recording stopped" in one]) == 2  # once in each replica
    _, third, metrics = recording(max_bytes=size + 10)
    third.offer("later", model, picture(), np.array([1, 0, 0], np.float32))
    third.flush()
    assert outcomes(metrics) == {"over the cap": 1}


def test_when_the_disk_is_slow_answers_are_left_out_and_nobody_waits(
    recording: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, recorder, metrics = recording()
    gate = threading.Event()
    put = record._put
    monkeypatch.setattr(record, "_put", lambda *arguments: (gate.wait(20), put(*arguments))[1])
    for i in range(80):
        assert ask("POST", "/predict", content=picture((i, 1, 1))).status_code == 200
    gate.set()
    recorder.flush()
    found = outcomes(metrics)
    assert found["written"] + found["too busy"] == 80
    assert 5 < found["too busy"] < 20


def test_names_of_classes_stay_inside_the_folder(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, classes=("../../up", ".hidden", "größe/2"))
    (model,) = open_models([("odd", folder)], num_threads=1)
    recorder = Recorder(tmp_path / "kept", share=1, max_bytes=10**6, metrics=Metrics())
    for i in range(3):
        recorder.offer(str(i), model, picture((i, i, i)), np.eye(3, dtype=np.float32)[i])
    recorder.close()
    names = sorted(path.parent.relative_to(tmp_path).as_posix() for path in pictures_in(tmp_path / "kept"))
    assert names == ["kept/odd/%2E.%2F..%2Fup", "kept/odd/%2Ehidden", "kept/odd/größe%2F2"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="The folder for recorded requests cannot be written"):
        Recorder(tmp_path / "file", share=1, max_bytes=1, metrics=Metrics())
    assert error_of(ask("POST", "/predict", content=b""), 400)  # without a recorder nothing changes
