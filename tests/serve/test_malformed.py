"""Whatever is sent, the application answers: never 5xx, never a trace, always JSON for an error."""

from __future__ import annotations

import logging

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.conftest import Ask, error_of
from tests.serve.malformed import KINDS, malformed
from tests.serve.tiny import picture

OVER_ASGI = sorted(set(KINDS) - {"wire"})  # what is no HTTP never becomes a call of the application


@pytest.mark.parametrize("kind", OVER_ASGI)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_no_request_breaks_the_application(ask: Ask, caplog: pytest.LogCaptureFixture, kind: str, seed: int) -> None:
    sent = malformed(kind, seed)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
    try:
        url = httpx.URL("http://127.0.0.1" + sent.path)
    except httpx.InvalidURL:
        return
    with caplog.at_level(logging.ERROR):
        response = ask(sent.method, url, headers=headers, content=sent.body)
    assert response.status_code < 500, (kind, seed, response.text)
    assert caplog.records == []
    if response.status_code >= 400 and sent.method != "HEAD":
        error_of(response, response.status_code)


def test_it_answers_as_before(ask: Ask) -> None:
    assert ask("POST", "/predict", content=picture("red")).json()["predictions"][0]["class"] == "red"
