"""The strategy ``bayes``: what it is told, its kernel, its acquisition, on the package bayesian-optimization."""

from __future__ import annotations

from autodl_ray.tune.proposers.bayes.proposer import BayesProposer

__all__ = ["BayesProposer"]
