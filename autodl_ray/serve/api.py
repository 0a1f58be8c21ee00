"""The HTTP interface as a FastAPI application; it knows nothing of Ray and is tested without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from autodl_ray.errors import DatasetError, near_names
from autodl_ray.serve.body import Upload, read_body, read_uploads
from autodl_ray.serve.engine import Engine, ServedModel, reason
from autodl_ray.serve.guard import Guard, add_error_answers
from autodl_ray.serve.v2 import InferRequest, model_metadata, parse_infer, render_infer, server_metadata

__all__ = ["create_app"]

_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(
    engine: Engine,
    *,
    max_body_mb: float = 20,
    key_hash: str | None = None,
    hosts: Sequence[str] | None = None,
) -> ASGIApp:
    """Make the application.

    Args:
        engine: The models and the threads they work in.
        max_body_mb: Cap of a request's body, in megabytes (1e6 bytes).
        key_hash: sha256 of the API key that is asked for (see :func:`~autodl_ray.serve.settings.hash_key`); None: none.
        hosts: Host names under which it may be asked; None: any.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    max_bytes = int(max_body_mb * 1e6)
    app.include_router(_pages(engine, max_body_mb))
    app.include_router(_predict(engine, max_bytes))
    app.include_router(_protocol_v2(engine, max_bytes))
    add_error_answers(app)
    return Guard(app, key_hash=key_hash, hosts=hosts)


def _pages(engine: Engine, max_body_mb: float) -> APIRouter:
    router = APIRouter()
    page = files("autodl_ray.serve").joinpath("page.html").read_text(encoding="utf-8")

    @router.get("/")
    async def show_page() -> Response:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    @router.get("/models")
    async def list_models() -> Response:
        models = [{**model.facts(), "classes": list(model.classes)} for model in engine.models.values()]
        return JSONResponse({"models": models, "max_body_mb": max_body_mb})

    return router


def _predict(engine: Engine, max_bytes: int) -> APIRouter:
    router = APIRouter()

    @router.post("/predict")
    async def predict(request: Request, model: str | None = None, top_k: Annotated[int, Query(ge=1)] = 5) -> Response:
        started = time.perf_counter()
        chosen = engine.default if model is None else _model(engine, model, status=400)
        uploads, is_form = await read_uploads(request, max_bytes=max_bytes)
        if len(uploads) == 1:
            answer = {"predictions": await engine.classify(chosen, uploads[0].data, top_k)}
            if is_form:
                answer = {"filename": uploads[0].filename, **answer}  # type: ignore[dict-item]
        else:
            answer = {"results": await asyncio.gather(*(_one_of_many(engine, chosen, up, top_k) for up in uploads))}
        return JSONResponse({**chosen.facts(), **answer, "ms": _ms_since(started)})

    return router


async def _one_of_many(engine: Engine, model: ServedModel, upload: Upload, top_k: int) -> dict[str, Any]:
    """Answer one picture of several: a broken one fails alone, with its reason."""
    try:
        return {"filename": upload.filename, "predictions": await engine.classify(model, upload.data, top_k)}
    except DatasetError as error:
        return {"filename": upload.filename, "error": reason(error)}


def _protocol_v2(engine: Engine, max_bytes: int) -> APIRouter:
    router = APIRouter(prefix="/v2")

    @router.get("")
    async def server() -> Response:
        return JSONResponse(server_metadata(installed_version("autodl_ray")))

    @router.get("/health/live")
    @router.get("/health/ready")
    async def health() -> Response:
        # A replica takes requests only after its models have answered once.
        return JSONResponse({"live": True, "ready": True})

    @router.post("/repository/index")
    async def index() -> Response:
        models = engine.models.values()
        return JSONResponse([{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in models])

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> Response:
        return JSONResponse(model_metadata(_model(engine, name, version)))

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/{version}/ready")
    async def ready(name: str, version: str | None = None) -> Response:
        return JSONResponse({"name": _model(engine, name, version).name, "ready": True})

    @router.post("/models/{name}/infer")
    @router.post("/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = _model(engine, name, version)
        if "inference-header-content-length" in request.headers:
            raise HTTPException(400, "Binary tensors are not supported here: send JSON tensors (binary_data=False).")
        body = await read_body(request, max_bytes=max_bytes)
        parsed = await engine.run(lambda: parse_infer(body, max_pixels=engine.max_pixels))
        probabilities = await engine.probabilities(model, await _images(engine, parsed))
        return JSONResponse(render_infer(model, parsed, probabilities))

    return router


async def _images(engine: Engine, request: InferRequest) -> list[Any]:
    if request.pixels is not None:
        return list(request.pixels)
    return await asyncio.gather(*(engine.decode(data) for data in request.files))


def _model(engine: Engine, name: str, version: str | None = None, *, status: int = 404) -> ServedModel:
    model = engine.models.get(name)
    if model is None:
        hint = near_names(name, engine.models) or f"there is {', '.join(engine.models)}."
        raise HTTPException(status, f"There is no model {name[:60]!r}; {hint}")
    if version is not None and version != model.version:
        raise HTTPException(404, f"Model {name!r} has no version {version[:60]!r}; there is {model.version}.")
    return model


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
