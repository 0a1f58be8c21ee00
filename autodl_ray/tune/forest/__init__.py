"""Search by a model of curves: what settings and epochs seen so far say of those not seen.

``surface`` is the model, ``beliefs`` what it says of a sweep, ``pool`` where candidates come from; ``proposer``,
``freeze_thaw`` and ``curve_stop`` decide. The strategy is called ``forest`` after its prototype, an ensemble of trees;
the model is a Gaussian process.
"""

from __future__ import annotations

from autodl_ray.tune.forest.curve_stop import CurveStop
from autodl_ray.tune.forest.freeze_thaw import FreezeThaw
from autodl_ray.tune.forest.proposer import ForestProposer

__all__ = ["CurveStop", "ForestProposer", "FreezeThaw"]
