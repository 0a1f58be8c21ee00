"""Warm starts: what earlier sweeps of the store say of the next one.

``store`` reads them, ``facts`` tells how alike two data sets are, ``portfolio`` chooses settings that are good
somewhere on each, ``proposer`` tries these first.
"""

from __future__ import annotations

from autodl_ray.tune.warm.facts import facts_of
from autodl_ray.tune.warm.portfolio import portfolio
from autodl_ray.tune.warm.proposer import PortfolioProposer
from autodl_ray.tune.warm.store import earlier_sweeps

__all__ = ["PortfolioProposer", "earlier_sweeps", "facts_of", "portfolio"]
