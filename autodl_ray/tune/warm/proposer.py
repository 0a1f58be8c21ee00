"""Strategy ``portfolio``: good settings of earlier sweeps first, then ``curves``, which knows those sweeps too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.curves import CurveProposer
from autodl_ray.tune.space import fingerprint
from autodl_ray.tune.warm.portfolio import portfolio

__all__ = ["PortfolioProposer"]

_SIZE = 8


class PortfolioProposer:
    """The portfolio's settings that were not tried yet, in its order; then those of ``curves``."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._curves = CurveProposer(context)

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Return settings; without earlier sweeps the portfolio is empty."""
        tried = {fingerprint(h.params) for h in history} if self._portfolio else set()
        left = [params for params in self._portfolio if fingerprint(params) not in tried]
        if attempt < len(left):
            return dict(left[attempt])
        return self._curves.propose(number, attempt - len(left), history)

    @cached_property
    def _portfolio(self) -> list[dict[str, Any]]:
        return portfolio(self._context, _SIZE)
