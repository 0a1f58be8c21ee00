"""The route that tells how far the last pictures of a model are from its training."""

from __future__ import annotations

from dataclasses import dataclass

from autodl_ray.serve.answers import Answers
from autodl_ray.serve.http.answers import Answer, Refusal, json_answer
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.routes import Route
from autodl_ray.serve.observe.watch import Watch

__all__ = ["Observed"]


@dataclass(frozen=True)
class Observed:
    """The handler.

    Attributes:
        behind: Whose models are told.
        watch: What looks at their pictures; None: nobody does.
    """

    behind: Answers
    watch: Watch | None

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("GET", "/v1/models/{name}/drift", self.drift, "admin")]

    async def drift(self, call: Call) -> Answer:
        """Compare the last pictures of a version with its training."""
        model = self.behind.select(call.parameters["name"], call.query("version"), key=call.sticky_key)
        if self.watch is None:
            raise Refusal(404, "Nobody watches for drift here: drift_window is 0.")
        if model.reference is None:
            raise Refusal(
                404,
                f"The bundle of {model.name!r} (version {model.version}) has no reference.json to compare with: it was "
                "made without one. Make it again with autodl run.",
            )
        return json_answer(await self.behind.run(self.watch.report, model, model.reference))
