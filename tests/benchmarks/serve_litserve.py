"""LitServe with the same model, run by an environment of its own: PYTHON serve_litserve.py BUNDLE PORT."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import litserve as ls  # type: ignore[import-not-found]
from fastapi import Response

sys.path.insert(0, str(Path(__file__).parent))
from serve_rivals import _answer, _session  # type: ignore[import-not-found]


class Api(ls.LitAPI):  # type: ignore[misc]
    """One picture a request, as the service takes it."""

    def setup(self, device: str) -> None:
        """Open the model."""
        self.session, self.classes = _session(sys.argv[1])

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Take the picture out of the JSON: LitServe's usual way, a raw body cannot be handed to its workers."""
        return base64.b64decode(request["image"])

    def predict(self, data: bytes) -> dict[str, Any]:
        """Decode and infer."""
        answer: dict[str, Any] = _answer(self.session, self.classes, data)
        return answer

    def encode_response(self, output: dict[str, Any]) -> Response:
        """Answer in JSON."""
        return Response(json.dumps(output), media_type="application/json")


if __name__ == "__main__":
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False)
