"""The Open Inference Protocol V2, asked without a server or Ray."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import numpy as np
import pytest

from autodl_ray.images import decode_image
from autodl_ray.serve.engine import Engine
from tests.serve.conftest import Ask, error_of
from tests.serve.tiny import CLASSES, picture

URL = "/v2/models/colours/infer"
PIXELS = np.stack([decode_image(picture(colour, size=(3, 2))) for colour in ("red", "blue")])


def request(**changes: Any) -> dict[str, Any]:
    """Return a good request with the fields of its input changed; None takes a field away."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 3, 3], "data": PIXELS.ravel().tolist(), **changes}
    return {"id": "42", "inputs": [{key: value for key, value in tensor.items() if value is not None}]}


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health_says_what_both_clients_look_for(ask: Ask, path: str) -> None:
    assert ask("GET", path).json() == {"live": True, "ready": True}


def test_the_server_and_its_models_describe_themselves(ask: Ask) -> None:
    assert set(ask("GET", "/v2").json()) == {"name", "version", "extensions"}
    about = ask("GET", "/v2/models/colours").json()
    assert about == ask("GET", "/v2/models/colours/versions/0123456789ab").json()
    assert (about["name"], about["versions"], about["platform"]) == ("colours", ["0123456789ab"], "onnx_onnxv1")
    assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert about["outputs"][0]["shape"] == [-1, 3]
    assert about["outputs"][0]["parameters"]["labels"] == list(CLASSES)
    assert ask("GET", "/v2/models/colours/ready").json() == {"name": "colours", "ready": True}
    assert [m["state"] for m in ask("POST", "/v2/repository/index").json()] == ["READY", "READY"]


@pytest.mark.parametrize("data", [PIXELS.tolist(), PIXELS.ravel().tolist()], ids=["nested", "flat"])
def test_infer_answers_as_the_model(ask: Ask, engine: Engine, data: list[Any]) -> None:
    answer = ask("POST", URL, json=request(data=data)).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "colours", "0123456789ab")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, 3])
    np.testing.assert_array_equal(
        np.array(output["data"], np.float32).reshape(2, 3), engine.default.predict(list(PIXELS))
    )


def test_infer_takes_a_version_a_named_output_and_no_id(ask: Ask) -> None:
    body = {**request(), "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}]}
    del body["id"]
    answer = ask("POST", "/v2/models/paints/versions/0123456789ab/infer", json=body).json()
    assert answer["model_name"] == "paints"
    assert "id" not in answer


def test_picture_files_come_as_base64(ask: Ask) -> None:
    files = [picture("red", size=(9, 4)), picture("blue", size=(5, 5))]
    data = [base64.b64encode(file).decode() for file in files]
    answer = ask("POST", URL, json=request(datatype="BYTES", shape=[2], data=data)).json()
    rows = np.array(answer["outputs"][0]["data"]).reshape(2, 3)
    assert [CLASSES[i] for i in rows.argmax(axis=1)] == ["red", "blue"]
    broken = request(datatype="BYTES", shape=[1], data=[base64.b64encode(b"text").decode()])
    assert error_of(ask("POST", URL, json=broken), 400).startswith("This is not a picture.")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"shape": [1, 2, 3, 3]}, "shape [1, 2, 3, 3] needs 18 values, data has 36."),
        ({"shape": [2, 3, 2, 3], "data": PIXELS.tolist()}, "data is flat or nested as shape [2, 3, 2, 3]"),
        ({"shape": [2, 3, 3, 2]}, "Input 'image' has the shape (N, H, W, 3), got [2, 3, 3, 2]."),
        ({"shape": [12, 3]}, "Input 'image' has the shape (N, H, W, 3), got [12, 3]."),
        ({"shape": [0, 2, 3, 3]}, "shape is a list of whole numbers above 0"),
        ({"shape": [True, 2, 3, 3]}, "shape is a list of whole numbers above 0"),
        ({"shape": "2,2,3,3"}, "shape is a list of whole numbers above 0"),
        ({"shape": None}, "shape is a list of whole numbers above 0, got None."),
        ({"shape": [300, 1, 1, 3]}, "At most 256 pictures a request"),
        ({"shape": [1, 2000, 2000, 3]}, "The pictures are too large: 4,000,000 pixels, at most 1,000,000."),
        ({"datatype": "FP32"}, "Input 'image' is UINT8 (or BYTES, picture files), got 'FP32'."),
        ({"datatype": None}, "Input 'image' is UINT8 (or BYTES"),
        ({"name": "input_1"}, "There is exactly one input, 'image', got 'input_1'."),
        ({"data": None}, "Input 'image' has no data."),
        ({"data": "AAAA"}, "data is a list of numbers"),
        ({"data": [256] * 36}, "data of UINT8 are whole numbers from 0 to 255, got 256 to 256."),
        ({"data": [-1] * 36}, "data of UINT8 are whole numbers from 0 to 255, got -1 to -1."),
        ({"data": [0.5] * 36}, "data of UINT8 are whole numbers from 0 to 255."),
        ({"data": ["1"] * 36}, "data of UINT8 are whole numbers from 0 to 255."),
        ({"data": [True] * 36}, "data of UINT8 are whole numbers from 0 to 255."),
        ({"data": [[1, 2], [3]]}, "data is ragged"),
        ({"data": [2**70] * 36}, "data of UINT8 are whole numbers from 0 to 255, got 1180"),
        ({"parameters": {"shared_memory_region": "r"}}, "The parameter 'shared_memory_region' of input 'image' is not"),
        ({"datatype": "BYTES", "shape": [2], "data": ["AA=="]}, "BYTES of shape [2] have 2 strings of data."),
        ({"datatype": "BYTES", "shape": [1], "data": ["not base64!"]}, "data of BYTES are base64 strings"),
        ({"datatype": "BYTES", "shape": [1], "data": [7]}, "data of BYTES are base64 strings."),
    ],
)
def test_a_wrong_tensor_is_refused_with_its_reason(ask: Ask, changes: dict[str, Any], why: str) -> None:
    assert error_of(ask("POST", URL, json=request(**changes)), 400).startswith(why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "The body is not JSON"),
        (b"\xff\xfe\x00", "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON"),
        (b"[1]", "The body is a JSON object"),
        (b"{}", "inputs is a list with one input, 'image'."),
        (b'{"inputs": []}', "inputs is a list with one input, 'image'."),
        (b'{"inputs": ["image"]}', "There is exactly one input, 'image', got 'image'."),
        (b'{"inputs": [7]}', "There is exactly one input, 'image', got 7."),
        (b'{"inputs": [{"name": "image"}, {"name": "image"}]}', "There is exactly one input, 'image', got 'image', "),
        (b'{"id": 7, "inputs": []}', "id is a string."),
        (b'{"inputs": [], "outputs": [{"name": "logits"}]}', "There is no output 'logits'; there is 'probabilities'."),
        (b'{"inputs": [], "outputs": 3}', "outputs is a list with one output, 'probabilities'."),
        (b'{"inputs": [], "parameters": {"sequence_id": 3}}', "The parameter 'sequence_id' of the request is not"),
    ],
)
def test_a_wrong_body_is_refused_with_its_reason(ask: Ask, body: bytes, why: str) -> None:
    assert error_of(ask("POST", URL, content=body), 400).startswith(why)


def test_large_bodies_are_refused(ask: Ask) -> None:
    error_of(ask("POST", URL, content=bytes(600_000)), 413)


@pytest.mark.parametrize("path", ["", "/ready", "/infer", "/versions/0123456789ab"])
def test_an_unknown_model_or_version_is_not_found(ask: Ask, path: str) -> None:
    method = "POST" if path == "/infer" else "GET"
    assert error_of(ask(method, f"/v2/models/colous{path}"), 404).endswith("did you mean 'colours'?")
    assert error_of(ask("GET", "/v2/models/colours/versions/9"), 404).endswith("there is 0123456789ab.")


def binary(raw: bytes, *, wanted: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return body and headers of a request whose tensor follows the JSON as bytes."""
    document = request(data=None, parameters={"binary_data_size": len(raw)}, **changes)
    document |= wanted or {}
    text = json.dumps(document).encode()
    return {"content": text + raw, "headers": {"inference-header-content-length": str(len(text))}}


def parts(response: Any) -> tuple[dict[str, Any], bytes]:
    """Split a binary answer."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    return json.loads(response.content[:length]), response.content[length:]


def test_tensors_travel_as_bytes_both_ways(ask: Ask, engine: Engine) -> None:
    expected = engine.default.predict(list(PIXELS))
    plain = ask("POST", URL, **binary(PIXELS.tobytes()))
    assert plain.json()["outputs"][0]["data"] == pytest.approx(expected.ravel().tolist())
    about, raw = parts(
        ask("POST", URL, **binary(PIXELS.tobytes(), wanted={"parameters": {"binary_data_output": True}}))
    )
    assert about["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
    ]
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(2, 3), expected)
    # What an output says of itself counts more than what the request says of all.
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    wanted = {"parameters": {"binary_data_output": True}, "outputs": outputs}
    assert ask("POST", URL, **binary(PIXELS.tobytes(), wanted=wanted)).json()["outputs"][0]["data"]


def test_files_travel_as_bytes_and_classes_come_back(ask: Ask) -> None:
    files = [picture("red"), picture("blue")]
    raw = b"".join(struct.pack("<I", len(file)) + file for file in files)
    outputs = [{"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}}]
    about, answer = parts(ask("POST", URL, **binary(raw, wanted={"outputs": outputs}, datatype="BYTES", shape=[2, 1])))
    assert (about["outputs"][0]["datatype"], about["outputs"][0]["shape"]) == ("BYTES", [2, 2])
    texts = []
    while answer:
        (size,) = struct.unpack_from("<I", answer)
        texts.append(answer[4 : 4 + size].decode())
        answer = answer[4 + size :]
    assert [text.split(":")[1:] for text in texts[::2]] == [["2", "red"], ["0", "blue"]]
    assert float(texts[0].split(":")[0]) > 0.5


def test_of_several_files_the_broken_one_is_named(ask: Ask) -> None:
    data = [base64.b64encode(b).decode() for b in (picture("red"), b"text")]
    message = error_of(ask("POST", URL, json=request(datatype="BYTES", shape=[2], data=data)), 400)
    assert message.startswith("Picture 1 of 2: This is not a picture.")


@pytest.mark.parametrize(
    ("changes", "raw", "why"),
    [
        ({}, b"123", "shape [2, 2, 3, 3] needs 36 bytes, binary_data_size is 3."),
        ({"parameters": {"binary_data_size": 5}}, b"123", "binary_data_size is 5, and 3 bytes follow the JSON."),
        ({"parameters": {"binary_data_size": -1}}, b"", "binary_data_size is a number of bytes, got -1."),
        ({"parameters": {"binary_data_size": "3"}}, b"123", "binary_data_size is a number of bytes, got '3'."),
        ({"parameters": {"binary_data_size": 3}, "data": [1]}, b"123", "Input 'image' has data and a binary_data_size"),
        ({"parameters": {}, "data": PIXELS.ravel().tolist()}, b"123", "3 bytes follow the JSON, and no input has"),
        ({"datatype": "BYTES", "shape": [1]}, b"123", "The BYTES data end inside a length."),
        (
            {"datatype": "BYTES", "shape": [1]},
            b"\xff\xff\xff\xff1",
            "The BYTES data end inside an element of 4294967295",
        ),
        (
            {"datatype": "BYTES", "shape": [2]},
            b"\x00\x00\x00\x00",
            "shape [2] needs 2 elements, the BYTES data have 1.",
        ),
        ({"datatype": "BYTES", "shape": [1, 2]}, b"", "BYTES input 'image' has the shape [N] or [N, 1]."),
    ],
)
def test_wrong_bytes_are_refused_with_their_reason(ask: Ask, changes: dict[str, Any], raw: bytes, why: str) -> None:
    document = request(**{"data": None, "parameters": {"binary_data_size": len(raw)}, **changes})
    text = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(text))}
    assert error_of(ask("POST", URL, content=text + raw, headers=headers), 400).startswith(why)


def test_much_json_is_parsed_off_the_loop_whatever_its_header_says(
    engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run = engine.run

    async def spied(work: Any, *args: Any) -> Any:
        ran.append(work.__name__)
        return await run(work, *args)

    monkeypatch.setattr(engine, "run", spied)
    text = json.dumps(request(shape=[1, 100, 100, 3], data=[100] * 30_000)).encode()
    for headers in ({}, {"inference-header-content-length": str(len(text))}):
        assert ask("POST", URL, content=text, headers=headers).status_code == 200
    assert ask("POST", URL, **binary(bytes(120_000), shape=[1, 200, 200, 3])).status_code == 200
    assert ran == ["parse", "parse"]


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "999999", "9" * 40])
def test_a_wrong_length_of_the_json_is_refused(ask: Ask, length: str) -> None:
    headers = {"inference-header-content-length": length}
    message = error_of(ask("POST", URL, content=b"{}", headers=headers), 400)
    assert message.startswith("Inference-Header-Content-Length is the number of bytes of the JSON, 0 to 2, got")


def test_answers_are_compressed_only_when_asked_and_worth_it(ask: Ask) -> None:
    body = json.dumps(request(shape=[200, 1, 1, 3], data=[7] * 600)).encode()
    packed = ask(
        "POST", URL, content=gzip.compress(body), headers={"content-encoding": "gzip", "accept-encoding": "gzip"}
    )
    assert packed.headers["content-encoding"] == "gzip"
    plain = ask("POST", URL, content=body, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == packed.json()
    refused = ask("POST", URL, content=body, headers={"accept-encoding": "gzip;q=0, br"})
    assert "content-encoding" not in refused.headers
    small = ask("POST", URL, json=request(), headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output is true or false, got 1."),
        ({"parameters": {"timeout": -1}}, "timeout is a number of microseconds, got -1."),
        ({"outputs": [{"name": "probabilities"}] * 2}, "outputs is a list with one output"),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}, "classification is a number"),
        ({"outputs": [{"name": "probabilities", "parameters": {"binary_data": "no"}}]}, "binary_data is true or false"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"shared_memory_region": "r"}}]},
            "The parameter 'shared",
        ),
    ],
)
def test_wrong_wishes_are_refused(ask: Ask, changes: dict[str, Any], why: str) -> None:
    assert error_of(ask("POST", URL, json={**request(), **changes}), 400).startswith(why)


def test_a_model_tells_its_configuration_and_statistics(ask: Ask) -> None:
    config = ask("GET", "/v2/models/colours/config").json()
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("colours", "onnxruntime", 256)
    assert config["input"][0]["dims"] == [-1, -1, 3]
    assert config["output"][0]["dims"] == [3]
    (of_one,) = ask("GET", "/v2/models/colours/versions/0123456789ab/stats").json()["model_stats"]
    assert set(of_one["inference_stats"]) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    }  # fmt: skip
    assert "not over this interface" in error_of(ask("POST", "/v2/repository/models/colours/load"), 400)
