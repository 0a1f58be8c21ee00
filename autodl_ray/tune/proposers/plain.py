"""Strategies that do not look at results: independent draws, and points that fill the space evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autodl_ray.seeding import rng_for, seed_for
from autodl_ray.spec.sections import Domain
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.space import draw, is_active, ordered, value_at

__all__ = ["QmcProposer", "RandomProposer", "settings_at"]

_BLOCK = 128


@dataclass(frozen=True)
class RandomProposer:
    """Independent draws from the ranges."""

    context: SearchContext

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Draw; what is known does not matter."""
        return draw(self.context.space, rng_for(self.context.seed, "random", number, attempt))


class QmcProposer:
    """Points of a scrambled Sobol' sequence: as many as there are, they lie more evenly than random ones.

    Trial ``number`` gets the point of that number, so nothing has to be remembered. Further attempts take the same
    number of other scramblings: whole numbers and choices share points. Source: A. B. Owen, Scrambling Sobol' and
    Niederreiter-Xing points (1998), as in ``scipy.stats.qmc``.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._names = ordered(context.space)
        self._blocks: dict[tuple[int, int], list[list[float]]] = {}

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any]:
        """Return the settings at the point of ``number``; what is known does not matter."""
        block, row = divmod(number, _BLOCK)
        if (block, attempt) not in self._blocks:
            self._blocks = {k: v for k, v in self._blocks.items() if k[0] == block}
            self._blocks[block, attempt] = self._made(block, attempt)
        return settings_at(self._context.space, dict(zip(self._names, self._blocks[block, attempt][row], strict=True)))

    def _made(self, block: int, attempt: int) -> list[list[float]]:
        from scipy.stats import qmc

        seed = seed_for(self._context.seed, "qmc", attempt)
        sequence = qmc.Sobol(max(1, len(self._names)), scramble=True, rng=seed)
        if block:
            sequence.fast_forward(block * _BLOCK)
        points: list[list[float]] = sequence.random(_BLOCK)[:, : len(self._names)].tolist()
        return points


def settings_at(space: Mapping[str, Domain], point: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings at a point of the unit cube; ranges whose condition does not hold are left out.

    Args:
        space: The ranges.
        point: A number in [0, 1] for each of them.
    """
    params: dict[str, Any] = {}
    for name in ordered(space):
        if is_active(space[name], params):
            params[name] = value_at(space[name], point[name])
    return params
