"""The HTTP interface, asked without a server or Ray."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Sequence

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from autodl_ray.images import ImageArray, decode_image
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine, ServedModel
from autodl_ray.serve.guard import LOOPBACK_HOSTS
from autodl_ray.serve.guard.keys import KeyRing
from autodl_ray.serve.settings import hash_key
from tests.serve.conftest import Ask, asker, error_of
from tests.serve.tiny import CLASSES, picture

NOT_FOUND = "There is no /nope. There are /, /predict, /models, /v1/models, /v2 and /docs."


@pytest.mark.parametrize("content_type", [None, "image/png", "application/x-www-form-urlencoded", "text/plain"])
def test_the_bytes_of_a_picture_are_enough_whatever_their_type(ask: Ask, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = ask("POST", "/predict", content=picture("green"), headers=headers).json()
    assert list(answer) == ["model", "version", "dataset", "predictions", "ms"]
    assert (answer["model"], answer["version"], answer["dataset"]) == ("colours", "0123456789ab", "d" * 32)
    assert answer["predictions"][0]["class"] == "green"
    assert sum(p["probability"] for p in answer["predictions"]) == pytest.approx(1, abs=1e-5)
    assert answer["ms"] > 0


def test_the_answer_is_the_model_s_own(ask: Ask, engine: Engine) -> None:
    data = picture((90, 120, 60))
    expected = engine.default.predict([decode_image(data)])[0]
    served = {p["class"]: p["probability"] for p in ask("POST", "/predict", content=data).json()["predictions"]}
    assert [served[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)


def test_top_k_and_model_are_chosen_in_the_query(ask: Ask) -> None:
    answer = ask("POST", "/predict?top_k=1&model=paints", content=picture()).json()
    assert (answer["model"], len(answer["predictions"])) == ("paints", 1)
    assert len(ask("POST", "/predict?top_k=99", content=picture()).json()["predictions"]) == 3
    assert "top_k" in error_of(ask("POST", "/predict?top_k=0", content=picture()), 400)
    assert "top_k" in error_of(ask("POST", "/predict?top_k=many", content=picture()), 400)
    message = error_of(ask("POST", "/predict?model=colour", content=picture()), 404)
    assert message == "There is no model 'colour'; did you mean 'colours'?"


def test_one_file_of_a_form_answers_like_its_bytes(ask: Ask) -> None:
    answer = ask("POST", "/predict", files={"anything": ("sky.png", picture("blue"))}).json()
    assert answer["filename"] == "sky.png"
    assert answer["predictions"] == ask("POST", "/predict", content=picture("blue")).json()["predictions"]


def test_of_several_files_a_broken_one_fails_alone(ask: Ask) -> None:
    files = [
        ("file", ("a.png", picture("red"))),
        ("file", ("notes.jpg", b"these are notes")),
        ("other", ("c.png", picture("blue"))),
    ]
    response = ask("POST", "/predict", files=files)
    assert response.status_code == 200
    first, broken, last = response.json()["results"]
    assert (first["filename"], first["predictions"][0]["class"]) == ("a.png", "red")
    assert (last["filename"], last["predictions"][0]["class"]) == ("c.png", "blue")
    assert broken["filename"] == "notes.jpg"
    assert broken["error"].startswith("This is not a picture.")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "The picture is empty (0 bytes)."),
        (b"hello", "This is not a picture. (seen: 5 bytes starting with b'hello'; accepted: JPEG, PNG"),
        (picture()[:60], "The picture is truncated or damaged."),
        (picture(size=(2000, 600)), "The picture is too large. (seen: 2000 x 600; accepted: at most 1,000,000 pixels)"),
    ],
    ids=["empty", "text", "truncated", "bomb"],
)
def test_a_broken_picture_is_refused_with_its_reason(ask: Ask, data: bytes, why: str) -> None:
    assert error_of(ask("POST", "/predict", content=data), 400).startswith(why)
    assert error_of(ask("POST", "/predict", files={"file": ("x.png", data)}), 400).startswith(why)


def test_a_form_without_a_file_or_a_boundary_is_refused(ask: Ask) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert "holds no file" in error_of(ask("POST", "/predict", content=form, headers=headers), 400)
    headers = {"content-type": "multipart/form-data"}
    assert "Missing boundary" in error_of(ask("POST", "/predict", content=form, headers=headers), 400)
    many = [("file", (f"{i}.png", b"x")) for i in range(257)]
    assert "Too many files" in error_of(ask("POST", "/predict", files=many), 400)


def test_a_large_body_is_refused_while_it_is_read(ask: Ask) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(100_000)

    assert error_of(ask("POST", "/predict", content=bytes(500_001)), 413).endswith("At most 0.5 MB are accepted.")
    assert error_of(ask("POST", "/predict", content=endless()), 413).endswith("At most 0.5 MB are accepted.")
    assert read <= 7


def test_unknown_paths_and_methods_are_json(ask: Ask) -> None:
    assert error_of(ask("GET", "/nope"), 404) == NOT_FOUND
    assert error_of(ask("GET", "/v2/"), 404).startswith("There is no /v2/.")
    response = ask("GET", "/predict")
    assert error_of(response, 405) == "/predict answers POST, not GET."
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_is_read(ask: Ask, form: str) -> None:
    answer = ask("POST", "/predict", content=picture("red", form=form)).json()
    assert answer["predictions"][0]["class"] == "red"


def test_a_turned_photo_answers_as_the_upright_one(engine: Engine) -> None:
    half = Image.new("RGB", (40, 20), (220, 30, 20))
    half.paste((30, 40, 230), (20, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown rotated by 90° clockwise
    turned, upright = io.BytesIO(), io.BytesIO()
    half.save(turned, "PNG", exif=exif)
    half.rotate(-90, expand=True).save(upright, "PNG")

    class LeftHalf:
        """Answers by the left half of the picture, so that its turn shows."""

        def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
            return np.stack([i[:, : i.shape[1] // 2].mean((0, 1)) / 765 for i in images]).astype(np.float32)

    model = ServedModel("left", "1", "d", ("r", "g", "b"), LeftHalf())
    left = asker(create_app(Engine([model])))
    answers = [left("POST", "/predict", content=c.getvalue()).json()["predictions"] for c in (turned, upright)]
    assert answers[0] == answers[1]


def test_an_unexpected_failure_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks:
        """A model that fails."""

        def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
            raise RuntimeError("secret /home/me/model.onnx")

    ask = asker(create_app(Engine([ServedModel("m", "1", "d", ("a",), Breaks())])))
    response = ask("POST", "/predict", content=picture(), headers={"x-request-id": "r-17"})
    assert "secret" not in error_of(response, 500)
    assert "request r-17 failed" in caplog.text
    assert "secret" in caplog.text


def test_the_page_is_one_file_that_fetches_nothing_from_elsewhere(ask: Ask) -> None:
    response = ask("GET", "/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"https?://|@import|url\(", page)
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "connect-src 'self'" in policy


def test_the_models_are_listed_with_their_classes(ask: Ask) -> None:
    answer = ask("GET", "/models").json()
    assert [m["model"] for m in answer["models"]] == ["colours", "paints"]
    assert answer["models"][0]["classes"] == list(CLASSES)
    assert answer["max_body_mb"] == 0.5


@pytest.fixture(scope="module")
def ask_with_key(engine: Engine) -> Ask:
    """Ask an application that wants the key ``s3cret``."""
    return asker(create_app(engine, keys=KeyRing(sha256=hash_key("s3cret"))))


@pytest.mark.parametrize("header", [None, "s3cret", "Basic s3cret", "Bearer other", "Bearer ", "Bearer s3cret x"])
def test_without_the_key_there_is_no_answer(ask_with_key: Ask, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for method, path in (("POST", "/predict"), ("GET", "/models"), ("GET", "/v2"), ("GET", "/nope")):
        response = ask_with_key(method, path, headers=headers)
        assert "API key is needed" in error_of(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"


def test_with_the_key_there_is_an_answer(ask_with_key: Ask) -> None:
    headers = {"authorization": "Bearer s3cret"}
    assert ask_with_key("POST", "/predict", content=picture(), headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/v2/health/ready"])
def test_the_page_and_the_health_paths_need_no_key_and_tell_nothing(ask_with_key: Ask, path: str) -> None:
    response = ask_with_key("GET", path)
    assert response.status_code == 200
    assert "colours" not in response.text


def test_on_loopback_another_host_name_is_a_foreign_page(engine: Engine) -> None:
    ask = asker(create_app(engine, hosts=LOOPBACK_HOSTS))
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"):
        assert ask("GET", "/v2", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8000", ""):
        assert "loopback only" in error_of(ask("GET", "/v2", headers={"host": host}), 403)


def test_no_other_origin_is_allowed_to_read(ask: Ask) -> None:
    response: httpx.Response = ask("POST", "/predict", content=picture(), headers={"origin": "https://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
