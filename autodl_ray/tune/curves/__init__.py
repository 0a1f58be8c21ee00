"""Search by a model of curves: what settings and epochs seen so far say of those not seen.

``surface`` is the model, ``beliefs`` what it says of a sweep, ``pool`` where candidates come from; ``proposer``,
``freeze_thaw`` and ``curve_stop`` decide. The model is a Gaussian process over settings and the logarithm of the epoch.
"""

from __future__ import annotations

from autodl_ray.tune.curves.curve_stop import CurveStop
from autodl_ray.tune.curves.freeze_thaw import FreezeThaw
from autodl_ray.tune.curves.proposer import CurveProposer

__all__ = ["CurveProposer", "CurveStop", "FreezeThaw"]
