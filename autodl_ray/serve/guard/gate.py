"""What stands before every handler: key, scope and rate; and the origins, which are asked before a path is known."""

from __future__ import annotations

from dataclasses import dataclass

from autodl_ray.serve.guard.keys import KeyRing
from autodl_ray.serve.guard.origins import Origins
from autodl_ray.serve.guard.rates import Rates
from autodl_ray.serve.http.answers import Refusal
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.routes import Need

__all__ = ["Gate"]

_WHO = (b"www-authenticate", b"Bearer")


@dataclass(frozen=True)
class Gate:
    """Lets a request through, or says why not.

    Attributes:
        keys: That open the service.
        origins: Host names and origins.
        rates: How often a key may ask.
    """

    keys: KeyRing
    origins: Origins
    rates: Rates

    def check(self, call: Call, need: Need) -> None:
        """Let ``call`` through to a handler that needs ``need``, and enter the name of its key.

        Raises:
            Refusal: 401 without a key, 403 for a key without that scope, 429 above its rate.
        """
        if need == "open":
            return
        rate = None
        if self.keys.needed:
            scheme, _, token = call.header(b"authorization").partition(" ")
            key = self.keys.find(token.strip()) if scheme.lower() == "bearer" else None
            if key is None:
                raise Refusal(401, "An API key is needed: send the header 'Authorization: Bearer KEY'.", [_WHO])
            call.key, rate = key.name, key.rate_limit_per_s
            if need not in key.scopes:
                raise Refusal(403, f"This key may not do that: it has no scope '{need}'.")
        if need == "predict":
            self.rates.take(call.key, rate)
