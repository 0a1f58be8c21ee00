"""How settings are proposed: a proposal is a function of the seed, its number and what is known so far.

```
make_proposer(name, context) ─► Distinct(strategy)     .propose(number, 0, history) ─► settings | None
```

Strategies: ``random`` and ``qmc`` (:mod:`plain`), ``grid``, ``one_factor``, ``tpe`` and ``gp`` (:mod:`by_optuna`),
``cmaes``, ``bayes``; ``curves`` and ``portfolio`` are made elsewhere. What a strategy keeps between calls is derived
from the history and found again from it, so that a sweep that was killed and goes on proposes what an unbroken one
would have proposed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from autodl_ray.errors import SpecError, near_names
from autodl_ray.tune.contracts import Proposer, SearchContext
from autodl_ray.tune.proposers.distinct import Distinct, propose_distinct

__all__ = ["STRATEGIES", "Distinct", "make_proposer", "propose_distinct"]

STRATEGIES = {
    "bayes": "autodl_ray.tune.proposers.bayes:BayesProposer",
    "cmaes": "autodl_ray.tune.proposers.cma:CmaProposer",
    "curves": "autodl_ray.tune.curves:CurveProposer",
    "gp": "autodl_ray.tune.proposers.by_optuna:gp",
    "grid": "autodl_ray.tune.proposers.grid:GridProposer",
    "one_factor": "autodl_ray.tune.proposers.one_factor:OneFactorProposer",
    "portfolio": "autodl_ray.tune.warm:PortfolioProposer",
    "qmc": "autodl_ray.tune.proposers.plain:QmcProposer",
    "random": "autodl_ray.tune.proposers.plain:RandomProposer",
    "tpe": "autodl_ray.tune.proposers.by_optuna:tpe",
}


def make_proposer(name: str, context: SearchContext) -> Proposer:
    """Make a strategy; only its own module is imported.

    Args:
        name: Of the strategy, as in ``tune.search`` (without ``auto``).
        context: Ranges, direction, seed, baseline and size of the sweep.

    Returns:
        The strategy, which never names settings twice.

    Raises:
        SpecError: There is no such strategy.
        MissingExtraError: It needs a package that is not installed.
    """
    if name not in STRATEGIES:
        raise SpecError(
            "There is no such search.",
            seen=name,
            accepted=", ".join(sorted(STRATEGIES)),
            hint=near_names(name, STRATEGIES),
        )
    module, attribute = STRATEGIES[name].split(":")
    make: Callable[[SearchContext], Proposer] = getattr(import_module(module), attribute)
    return Distinct(make(context), context.space)
