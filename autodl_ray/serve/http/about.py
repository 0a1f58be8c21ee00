"""What the service tells of itself: the page, the description of the interface, the models and the metrics."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

from autodl_ray.serve.answers import Answers, ServedModel
from autodl_ray.serve.http.answers import Answer, Header, json_answer
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.routes import Route
from autodl_ray.serve.metrics import Metrics, Snapshot
from autodl_ray.serve.observe.watch import Watch
from autodl_ray.serve.page.docs import docs_page
from autodl_ray.serve.page.openapi import openapi
from autodl_ray.spec import ServeSpec

__all__ = ["About"]


@dataclass(frozen=True)
class About:
    """The handlers.

    Attributes:
        behind: Whose models are told.
        settings: Caps that are told.
        metrics: What is counted.
        with_key: Whether an API key is asked for.
        watch: Whose distances are among the metrics.
    """

    behind: Answers
    settings: ServeSpec
    metrics: Metrics
    with_key: bool
    watch: Watch | None = None

    def routes(self) -> list[Route]:
        """Return the routes; the pages themselves tell nothing and need no key."""
        page = files("autodl_ray.serve.page").joinpath("page.html").read_text(encoding="utf-8")
        shown = Answer(page.encode(), content_type=b"text/html; charset=utf-8", headers=_page_headers(page))

        async def show_page(call: Call) -> Answer:
            return shown

        return [
            Route("GET", "/", show_page, "open"),
            Route("GET", "/docs", self.docs),
            Route("GET", "/openapi.json", self.description),
            Route("GET", "/models", self.models),
            Route("GET", "/v1/models", self.models),
            Route("GET", "/v1/models/{name}", self.model),
            Route("GET", "/metrics", self.prometheus, "admin"),
        ]

    async def docs(self, call: Call) -> Answer:
        """Show the interface."""
        page = docs_page(openapi(self.behind.listing(), self.settings, with_key=self.with_key))
        return Answer(page.encode(), content_type=b"text/html; charset=utf-8", headers=_page_headers(page))

    async def description(self, call: Call) -> Answer:
        """Describe the interface in OpenAPI."""
        return json_answer(openapi(self.behind.listing(), self.settings, with_key=self.with_key))

    async def models(self, call: Call) -> Answer:
        """List every version of every model, the default first."""
        models = [_described(model) for model in self.behind.listing()]
        return json_answer({"models": models, "max_body_mb": self.settings.max_body_mb})

    async def model(self, call: Call) -> Answer:
        """Describe the version that would answer."""
        return json_answer(_described(self.behind.select(call.parameters["name"], None, key=call.sticky_key)))

    async def prometheus(self, call: Call) -> Answer:
        """Return the series of all replicas of this machine."""
        text = await self.behind.run(self._text)
        return Answer(text.encode(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _text(self) -> str:
        models = self.behind.listing()  # as they are now: versions come and go while the service runs
        now = Snapshot() if self.watch is None else self.watch.gauges(models)
        for model in models:
            now.values["autodl_model_info", (model.name, model.version, model.dataset)] = 1
        return self.metrics.text(now)


def _described(model: ServedModel) -> dict[str, object]:
    return {**model.facts(), "classes": list(model.classes), "ready": True}


def _page_headers(page: str) -> list[Header]:
    """Return headers by which a browser runs only what stands in this very page, and loads nothing from elsewhere."""
    policy = (
        f"default-src 'none'; style-src {_hashes(page, 'style')}; script-src {_hashes(page, 'script')}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"permissions-policy", b"geolocation=(), microphone=()"),
        (b"cache-control", b"no-cache"),
    ]


def _hashes(page: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
