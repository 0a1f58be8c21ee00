"""Which split each unit goes to: stratified by class, by group, or by hash. Pure functions of names and counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodl_ray.artifacts.dataset import Split
from autodl_ray.seeding import rng_for, seed_for

__all__ = ["Unit", "grouped", "hashed", "stratified"]

_MOST_MOVES = 200_000  # looked at while a division by group is made more even
_MOST_SWAPS = 4_000_000
_LEAST_GAIN = 1e-5  # of the sum; less is rounding

Shares = Mapping[Split, float]
Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """What goes to one split as a whole.

    Attributes:
        key: Its name; no two are equal.
        size: Pictures.
        counts: Pictures that show each class.
    """

    key: str
    size: int
    counts: Mapping[str, int]


def stratified(strata: Mapping[str, Sequence[tuple[str, int]]], shares: Shares, *, seed: int) -> dict[str, Split]:
    """Give each unit a split: in each stratum the shares, and at least one unit a split where there are enough.

    Each stratum is shuffled by itself, so that another one does not move it.

    Args:
        strata: (key, size) of the units by stratum.
        shares: Of the pictures for each split that is cut off; the rest is train.
        seed: Root seed.
    """
    places: dict[str, Split] = {}
    for name, units in strata.items():
        ordered = sorted(units)
        order = rng_for(seed, "split", name).permutation(len(ordered))
        shuffled = sorted((ordered[i] for i in order), key=lambda unit: unit[1])  # stable: large units come last
        places.update(_deal(shuffled, shares))
    return places


def hashed(keys: Iterable[str], shares: Shares, *, seed: int) -> dict[str, Split]:
    """Give each key the split that its hash falls into: of (seed, key) and the shares alone.

    Another key never moves it. A larger share of ``val`` moves samples from train to val alone.
    """
    return {key: _falls(seed_for(seed, "split", key) / 2**32, shares) for key in keys}


def grouped(units: Sequence[Unit], shares: Shares, *, seed: int) -> dict[str, Split]:
    """Give each unit a split, so that sizes and classes come as close to the shares as whole units allow.

    The largest units are placed first, each where the sum of (have - want)² / want over splits and classes (and the
    size, which counts as much as all classes) grows least; then units are moved and exchanged while that lowers the
    sum. Where units are few, other orders are tried too. Every split has a unit, and every class has one in train,
    where that is possible.

    Args:
        units: At least one a split.
        shares: Of the pictures for each split that is cut off; the rest is train.
        seed: Root seed; decides between units that are as good.
    """
    ordered = sorted(units, key=lambda unit: unit.key)
    rng = rng_for(seed, "split", "groups")
    shuffled = [[ordered[i] for i in rng.permutation(len(ordered))] for _ in range(_attempts(len(ordered)))]
    shuffled[0].sort(key=lambda unit: -unit.size)
    searches = [_Search(chosen, shares) for chosen in shuffled]
    for search in searches:
        search.run()
    best = min(searches, key=lambda search: search.cost())
    return {unit.key: best.splits[place] for unit, place in zip(best.units, best.places, strict=True)}


def _attempts(count: int) -> int:
    """Few units have few good divisions, and are tried quickly."""
    return max(1, min(8, 300 // count))


def _deal(units: Sequence[tuple[str, int]], shares: Shares) -> dict[str, Split]:
    total = sum(size for _, size in units)
    left = list(units)
    places: dict[str, Split] = {}
    for position, (split, share) in enumerate(shares.items()):
        wanted = max(1, round(total * share))
        reserve = len(shares) - position  # one unit for each split that comes later, train included
        taken = first = 0
        while taken < wanted and len(left) - first > reserve:
            key, size = left[first]
            places[key] = split
            taken, first = taken + size, first + 1
        left = left[first:]
    places.update((key, "train") for key, _ in left)
    return places


def _falls(value: float, shares: Shares) -> Split:
    bound = 0.0
    for split, share in shares.items():
        bound += share
        if value < bound:
            return split
    return "train"


class _Search:
    """The division by group while it is looked for."""

    def __init__(self, units: Sequence[Unit], shares: Shares) -> None:
        self.units = units
        self.splits: tuple[Split, ...] = ("train", *shares)
        fractions = np.array([1 - sum(shares.values()), *shares.values()])
        names = sorted({name for unit in units for name in unit.counts})
        column = {name: i for i, name in enumerate(names)}
        self.table: Table = np.zeros((len(units), len(names) + 1))  # the last column is the size
        for row, unit in zip(self.table, units, strict=True):
            row[-1] = unit.size
            for name, count in unit.counts.items():
                row[column[name]] = count
        self.want: Table = np.outer(fractions, self.table.sum(axis=0))
        importance = np.ones(len(names) + 1)
        importance[-1] = max(1, len(names))
        self.scale: Table = importance / np.maximum(self.want, 1e-9)
        self.have: Table = np.zeros_like(self.want)
        self.places = [0] * len(units)
        self.members = [0] * len(self.splits)

    def run(self) -> None:
        """Look for a division."""
        self.place()
        self.cover_train()
        self.fill()
        self.refine()

    def cost(self) -> float:
        """Return the sum, with what must not be counted first: splits without a unit, classes without one in train."""
        missing = self.members.count(0) + int((self.have[0] == 0).sum())
        return 1e12 * missing + round(float(((self.have - self.want) ** 2 * self.scale).sum()), 6)

    def place(self) -> None:
        """Put every unit where the sum grows least, in the order given."""
        for i, row in enumerate(self.table):
            self.places[i] = int(np.argmin(self._growth(row)))
            self._count(i, self.places[i], +1)

    def cover_train(self) -> None:
        """Bring each class that train lacks there, by the unit whose move costs least."""
        for column in range(self.table.shape[1] - 1):
            if self.have[0, column] == 0:
                having = [int(i) for i in np.flatnonzero(self.table[:, column])]
                self._move_best([i for i in having if self._may_leave(i)], 0)

    def fill(self) -> None:
        """Give every split that has none a unit."""
        for target, _ in enumerate(self.splits):
            if self.members[target] == 0:
                spare = [i for i in range(len(self.places)) if self.members[self.places[i]] > 1]
                self._move_best([i for i in spare if self._may_leave(i)] or spare, target)

    def refine(self) -> None:
        """Move single units, and exchange two, while that lowers the sum."""
        count = len(self.places)
        swaps = count * count <= _MOST_SWAPS // 4
        for _ in range(max(1, min(10, (_MOST_SWAPS // (count * count)) if swaps else _MOST_MOVES // count))):
            improved = [self._improve(i) or (swaps and self._exchange(i)) for i in range(count)]
            if not any(improved):
                return

    def _improve(self, i: int) -> bool:
        if not self._may_leave(i):
            return False
        gains = self._gains(i)
        target = int(np.argmin(gains))
        if gains[target] >= -_LEAST_GAIN:
            return False
        self._move(i, target)
        return True

    def _exchange(self, i: int) -> bool:
        """Exchange unit i with the unit of another split that lowers the sum most."""
        mine, theirs = self.places[i], np.array(self.places)
        change = self.table - self.table[i]  # what the split of i gains, and the other one loses
        off = self.have - self.want
        gains = (change * (2 * off[mine] + change) * self.scale[mine]).sum(axis=1)
        gains += (change * (change - 2 * off[theirs]) * self.scale[theirs]).sum(axis=1)
        sign = np.where(theirs == 0, -1.0, 1.0 if mine == 0 else 0.0)[:, None]
        loses_class = ((self.have[0] > 0) & (self.have[0] + sign * change <= 0)).any(axis=1)
        gains = _rounded(gains)
        gains[(theirs == mine) | loses_class] = 0.0
        j = int(np.argmin(gains))
        if gains[j] >= -_LEAST_GAIN:
            return False
        self._move(i, int(theirs[j]))
        self._move(j, mine)
        return True

    def _may_leave(self, i: int) -> bool:
        """Whether unit i is neither the last of its split nor the last of a class in train."""
        place, row = self.places[i], self.table[i, :-1]
        if self.members[place] <= 1:
            return False
        return place != 0 or not bool(((row > 0) & (self.have[0, :-1] <= row)).any())

    def _growth(self, row: Table) -> Table:
        """Return how much the sum grows when ``row`` is added to each split: (S,)."""
        return _rounded((row * (2 * (self.have - self.want) + row) * self.scale).sum(axis=1))

    def _gains(self, i: int) -> Table:
        """Return how the sum changes when unit i is moved to each split: (S,)."""
        row, place = self.table[i], self.places[i]
        growth = self._growth(row)
        leaving = (row * (row - 2 * (self.have[place] - self.want[place])) * self.scale[place]).sum()
        gains = _rounded(growth + leaving)
        gains[place] = 0.0
        return gains

    def _move_best(self, candidates: Sequence[int], target: int) -> None:
        if len(candidates) > 0:
            self._move(min(candidates, key=lambda i: float(self._gains(i)[target])), target)

    def _move(self, i: int, target: int) -> None:
        self._count(i, self.places[i], -1)
        self.places[i] = target
        self._count(i, target, +1)

    def _count(self, i: int, place: int, sign: int) -> None:
        self.have[place] += sign * self.table[i]
        self.members[place] += sign


def _rounded(values: Table) -> Table:
    """Cut the last digits off, in which machines differ (a sum is added up in the order of their registers)."""
    return np.round(values, 6)
