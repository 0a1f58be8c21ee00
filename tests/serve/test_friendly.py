"""Pictures as JSON, compressed bodies, heatmaps, odd pictures, time caps, and the description of the interface."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import re
import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from autodl_ray.images import ImageArray
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine, ServedModel
from autodl_ray.serve.heatmap import CELLS, hidden_rows
from autodl_ray.spec import ServeSpec
from tests.serve.conftest import Ask, asker, error_of
from tests.serve.tiny import CLASSES, picture

RED, BLUE = (base64.b64encode(picture(colour)).decode() for colour in ("red", "blue"))


def first(entry: dict[str, Any]) -> Any:
    """Return the likeliest class of an answer."""
    return entry["predictions"][0]["class"]


@pytest.mark.parametrize("path", ["/predict", "/v1/models/colours:predict",
                                  "/v1/models/colours/versions/0123456789ab:predict"])  # fmt: skip
def test_every_path_answers_alike_and_names_the_version(ask: Ask, path: str) -> None:
    response = ask("POST", path, content=picture("green"))
    assert first(response.json()) == "green"
    assert (response.headers["x-model"], response.headers["x-model-version"]) == ("colours", "0123456789ab")
    assert (response.json()["model"], response.json()["version"]) == ("colours", "0123456789ab")


@pytest.mark.parametrize(
    "body",
    [{"image": RED}, {"image": {"b64": RED}}, {"b64": RED}, {"image": f"data:image/png;base64,{RED}"}],
)
def test_one_picture_as_json(ask: Ask, body: dict[str, Any]) -> None:
    answer = ask("POST", "/predict", json={**body, "top_k": 1}).json()
    assert [p["class"] for p in answer["predictions"]] == ["red"]


def test_several_pictures_as_json_fail_one_by_one(ask: Ask) -> None:
    notes = base64.b64encode(b"these are notes").decode()
    results = ask("POST", "/predict", json={"images": [RED, notes, "no base64!", {"b64": BLUE}, 7]}).json()["results"]
    assert (first(results[0]), first(results[3])) == ("red", "blue")
    assert results[1]["error"].startswith("This is not a picture.")
    assert results[2]["error"].startswith("This is not base64")
    assert results[4]["error"].startswith("A picture in JSON is")
    assert [r.get("status") for r in results] == [None, 400, 400, None, 400]


def test_instances_answer_as_tensorflow_serving_does(ask: Ask) -> None:
    body = {"instances": [{"b64": RED}, {"image_bytes": {"b64": BLUE}}]}
    answer = ask("POST", "/v1/models/colours:predict", json=body).json()
    assert [first(entry) for entry in answer["predictions"]] == ["red", "blue"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "The body is not JSON"),
        (b"[]", "The body is a JSON object"),
        (b"{}", 'The JSON has one of "image"'),
        (b'{"image": "", "url": ""}', 'The JSON has one of "image"'),
        (b'{"images": []}', '"images" is a list of 1 to 256 pictures.'),
        (b'{"images": 3}', '"images" is a list of 1 to 256 pictures.'),
        (b'{"image": 3}', "A picture in JSON is a base64 string"),
        (b'{"image": "?"}', "This is not base64"),
        (json.dumps({"image": RED, "top_k": 0}).encode(), "top_k is a whole number"),
        (json.dumps({"image": RED, "top_k": True}).encode(), "top_k is a whole number"),
        (json.dumps({"image": RED, "heatmap": "yes"}).encode(), "heatmap is true or false"),
        (json.dumps({"images": [RED], "heatmap": True}).encode(), "A heatmap is made for one picture a request."),
    ],
)
def test_unusable_json_is_refused_with_its_reason(ask: Ask, body: bytes, why: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert error_of(ask("POST", "/predict", content=body, headers=headers), 400).startswith(why)


def test_a_heatmap_shows_the_corner_that_counts(ask: Ask) -> None:
    pixels = np.full((64, 96, 3), 90, np.uint8)
    pixels[:32, 48:] = (250, 20, 20)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    answer = ask("POST", "/predict?heatmap=true", content=buffer.getvalue()).json()
    heat = answer["heatmap"]
    assert (heat["method"], heat["class"]) == ("occlusion", "red")
    cells = np.array(heat["cells"])
    assert cells.shape == (CELLS, CELLS)
    assert cells[:3, 4:].min() > 0.02
    assert abs(cells[4:, :3]).max() < cells[:3, 4:].min()
    assert "heatmap" not in ask("POST", "/predict", content=buffer.getvalue()).json()
    assert "heatmap is true or false" in error_of(ask("POST", "/predict?heatmap=maybe", content=b""), 400)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (5, 7, 3), (70, 70, 3)])
def test_every_pixel_is_hidden_once_at_least(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image[0, 0] = 255 - image.mean(axis=(0, 1)).astype(np.uint8) if image.size > 3 else image[0, 0]
    changed = np.zeros(shape[:2], bool)
    for row in range(CELLS):
        hidden = hidden_rows(image, row)
        assert len(hidden) == CELLS
        for copy in hidden:
            changed |= (copy != image).any(axis=2)
    same = (image == np.rint(image.mean(axis=(0, 1))).astype(np.uint8)).all(axis=2)
    assert (changed | same).all()


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_compressed_bodies_are_inflated_up_to_the_cap(ask: Ask, name: str, pack: Any) -> None:
    headers = {"content-encoding": name}
    assert first(ask("POST", "/predict", content=pack(picture("blue")), headers=headers).json()) == "blue"
    assert "too large" in error_of(ask("POST", "/predict", content=pack(bytes(600_000)), headers=headers), 413)
    bad = pack(picture("blue"))
    assert "truncated" in error_of(ask("POST", "/predict", content=bad[:-3], headers=headers), 400)
    assert "something follows" in error_of(ask("POST", "/predict", content=bad + b"x", headers=headers), 400)
    assert "The body is not" in error_of(ask("POST", "/predict", content=b"plain", headers=headers), 400)


def test_a_truncated_form_is_refused_whole(ask: Ask) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + picture() + b"\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert first(ask("POST", "/predict", content=part + b"--b--\r\n", headers=headers).json()) == "red"
    message = error_of(ask("POST", "/predict", content=part * 2, headers=headers), 400)
    assert message == "The multipart form is truncated: a file in it has no end."


def test_damaged_forms_do_not_fill_the_log(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    error_of(ask("POST", "/predict", content=b"--c\r\n\xff", headers=headers), 400)
    assert caplog.records == []


def test_an_unknown_encoding_is_refused(ask: Ask) -> None:
    message = error_of(ask("POST", "/predict", content=b"x", headers={"content-encoding": "br"}), 415)
    assert message == "The content encoding 'br' is not supported; gzip, deflate and identity are."


def odd(kind: str) -> bytes:
    """Return a red picture in a mode or format that is not everyday."""
    buffer = io.BytesIO()
    red = Image.new("RGB", (20, 16), (220, 30, 20))
    if kind == "cmyk":
        red.convert("CMYK").save(buffer, "JPEG", quality=95)
    elif kind == "palette":
        red.convert("P").save(buffer, "PNG")
    elif kind == "alpha":
        red.putalpha(255)
        red.save(buffer, "WEBP", lossless=True)
    elif kind == "animated":
        red.save(buffer, "GIF", save_all=True, append_images=[Image.new("RGB", (20, 16), (30, 40, 230))])
    elif kind == "progressive":
        red.save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["cmyk", "palette", "alpha", "animated", "progressive"])
def test_odd_pictures_are_what_they_show(ask: Ask, kind: str) -> None:
    assert first(ask("POST", "/predict", content=odd(kind)).json()) == "red"


def test_sixteen_bits_are_scaled_to_eight(ask: Ask) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(buffer, "PNG")
    grey = ask("POST", "/predict", content=buffer.getvalue()).json()["predictions"]
    assert [p["probability"] for p in grey] == pytest.approx([1 / 3] * 3, abs=1e-5)


def test_a_request_has_its_time_and_a_client_may_ask_for_less() -> None:
    class Slow:
        """A model that takes half a second."""

        def __call__(self, images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
            time.sleep(0.5)
            return np.ones((len(images), 1), np.float32)

    engine = Engine([ServedModel("m", "1", "d", ("a",), Slow())])
    ask = asker(create_app(engine, ServeSpec(request_timeout_s=0.2)))
    for seconds, cap in (("0.05", 0.05), ("0", 0.2), ("-1", 0.2), ("nan", 0.2), ("900", 0.2), ("x", 0.2)):
        response = ask("POST", "/predict", content=picture(), headers={"x-request-timeout-seconds": seconds})
        assert error_of(response, 408) == f"There was no answer within {cap:g} s."
    body = {
        "parameters": {"timeout": 30_000},
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [RED]}],
    }
    assert "within the 0.03 s of this request" in error_of(ask("POST", "/v2/models/m/infer", json=body), 408)
    engine.close()


def test_requests_do_not_wait_for_each_other_s_decoding(engine: Engine) -> None:
    app = create_app(engine)

    async def both() -> None:
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            answers = await asyncio.gather(*(client.post("/predict", content=picture(c)) for c in CLASSES * 5))
        assert [first(a.json()) for a in answers] == list(CLASSES * 5)

    asyncio.run(both())


def test_the_interface_is_described_with_examples_that_work(ask: Ask) -> None:
    document = ask("GET", "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    del document["paths"]["/v1/models/{name}/drift"]  # this bundle has nothing to compare with: test_observe_drift
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names = {p["name"]: p.get("example", "") for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert set(re.findall(r"\{(\w+)\}", path)) == set(names), path
            concrete = path.format(**names)
            kinds = operation.get("requestBody", {}).get("content", {})
            sent = kinds.get("application/json", {})
            examples = [e["value"] for e in sent.get("examples", {}).values()] or [sent.get("example")]
            for example in examples:
                if example is not None and "url" in example:
                    continue
                response = ask(method.upper(), concrete, **({} if example is None else {"json": example}))
                assert response.status_code in ((200,) if example is not None or method == "get" else (200, 400)), (
                    concrete
                )
                assert operation["responses"]["200"]["content"]
    assert "security" not in document


def test_the_description_is_a_page_too(ask: Ask) -> None:
    response = ask("GET", "/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'none'" in response.headers["content-security-policy"]
    assert "/v1/models/{name}:predict" in response.text
    assert "<script" not in response.text


def test_v1_lists_and_describes_models(ask: Ask) -> None:
    assert ask("GET", "/v1/models").json() == ask("GET", "/models").json()
    about = ask("GET", "/v1/models/paints").json()
    assert (about["model"], about["ready"], about["classes"]) == ("paints", True, list(CLASSES))
    assert error_of(ask("GET", "/v1/models/paint"), 404).endswith("did you mean 'paints'?")
