"""The HTTP application, put together: an ASGI application that knows nothing of Ray and is tested without it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from autodl_ray.serve.answers import Answers
from autodl_ray.serve.guard.gate import Gate
from autodl_ray.serve.guard.keys import KeyRing
from autodl_ray.serve.guard.origins import Origins
from autodl_ray.serve.guard.rates import Rates
from autodl_ray.serve.http.about import About
from autodl_ray.serve.http.access import AccessLog
from autodl_ray.serve.http.application import Application
from autodl_ray.serve.http.deadlines import Deadlines
from autodl_ray.serve.http.fetch import Fetcher
from autodl_ray.serve.http.predict import Predict
from autodl_ray.serve.http.routes import Route, Router
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.record import Recorder
from autodl_ray.serve.observe.routes import Observed
from autodl_ray.serve.observe.watch import Watch
from autodl_ray.serve.v2.handlers import ProtocolV2
from autodl_ray.spec import ServeSpec

__all__ = ["create_app"]


def create_app(
    behind: Answers,
    settings: ServeSpec | None = None,
    *,
    keys: KeyRing | None = None,
    hosts: Sequence[str] | None = None,
    metrics: Metrics | None = None,
    log: AccessLog | None = None,
    fetcher: Fetcher | None = None,
    recorder: Recorder | None = None,
    watch: Watch | None = None,
    own_ids: bool = True,
    more: Sequence[Route] = (),
) -> Application:
    """Make the application.

    Args:
        behind: Who answers: an :class:`~autodl_ray.serve.engine.Engine`, or a router to others.
        settings: Caps, rates, origins.
        keys: That open it; None: nobody is asked for one.
        hosts: Host names under which it may be asked; None: any.
        metrics: What ``/metrics`` shows: those that ``behind`` writes into.
        log: Where requests are written down.
        fetcher: Fetches pictures by their address; None: one for public addresses where ``settings`` allows it.
        recorder: Keeps some of the answers; None: none.
        watch: What looks at the pictures that ``behind`` answers; None: nobody.
        own_ids: Send the request id back; False where the server in front does (Ray Serve's proxy).
        more: Further routes.
    """
    settings = settings or ServeSpec()
    # It writes a line for each damaged form: any client could fill the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    metrics = metrics or Metrics()
    keys = keys or KeyRing()
    if fetcher is None and settings.allow_urls:
        fetcher = Fetcher(max_bytes=int(settings.max_body_mb * 1e6))
    parts = (
        Predict(behind, settings, metrics, fetcher, recorder),
        ProtocolV2(behind, settings, metrics, recorder),
        About(behind, settings, metrics, keys.needed, watch),
        Observed(behind, watch),
    )
    routes = [route for part in parts for route in part.routes()]
    gate = Gate(keys, Origins(hosts, settings.cors_origins), Rates(settings.rate_limit_per_s))
    return Application(Router([*routes, *more]), gate, metrics, Deadlines(settings.request_timeout_s), log, own_ids)
