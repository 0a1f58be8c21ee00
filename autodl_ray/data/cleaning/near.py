"""Pictures that are nearly the same: found by a perceptual hash, verified by the detail of their pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from autodl_ray.data.cleaning.descriptors import COPY_SIDE, grey
from autodl_ray.data.cleaning.files import PROTECTION
from autodl_ray.data.cleaning.findings import Finding, finding
from autodl_ray.data.cleaning.looks import TINY_PX
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import some

__all__ = ["find_near", "likeness", "near_groups", "similar_hashes"]

_BANDS = 7
_MOST_BITS = 6
_CROWDED = 2_048
_WINDOW = 16
_MOST_PAIRS = 20
_PAIRS = 4_096
_LEAST = 0.85
_LEAST_TINY = 0.98
_LEAST_WHOLE = 0.9

Group = tuple[list[int], float]


def near_groups(
    subject: Subject,
    positions: Sequence[int],
    *,
    hashes: npt.NDArray[np.uint64],
    copies: npt.NDArray[np.uint8],
) -> list[Group]:
    """Group the pictures that are nearly the same.

    A pair is a candidate when at most 6 of 64 bits of its hashes differ, and is taken when what is left of both
    pictures after their light is taken out correlates by at least 0.85 (0.98 for pictures up to 64 px, among which
    likeness is common). Of TrashNet's pairs the hash alone takes 46, a third of them wrongly; what is verified are the
    same objects, photographed twice from one place.

    Args:
        subject: The data set.
        positions: N records.
        hashes: (N,) perceptual hashes.
        copies: (N, 32, 32, 3) small copies.

    Returns:
        Groups of positions in ``subject``, each with the least likeness that joined it. Groups with one content only
        are left out: these are identical.
    """
    contents = [subject.facts[i].sha256 for i in positions]
    pairs = similar_hashes(hashes)
    number = np.unique(np.array(contents), return_inverse=True)[1] if contents else np.zeros(0, dtype=np.int64)
    pairs = pairs[number[pairs[:, 0]] != number[pairs[:, 1]]]
    longer = np.array([max(subject.facts[i].width, subject.facts[i].height) for i in positions])
    joined = _Joined(len(positions))
    for start in range(0, len(pairs), _PAIRS):
        block = pairs[start : start + _PAIRS]
        alike = likeness(copies[block[:, 0]], copies[block[:, 1]])
        least = np.where(longer[block].max(axis=1) <= TINY_PX, _LEAST_TINY, _LEAST)
        for row in np.flatnonzero(alike >= least).tolist():
            joined.join(int(block[row, 0]), int(block[row, 1]), float(alike[row]))
    return _with_equals(joined.groups(), contents, positions)


def _with_equals(groups: Sequence[Group], contents: Sequence[str], positions: Sequence[int]) -> list[Group]:
    """Add the pictures that are identical to a member, and name positions instead of rows."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(contents):
        rows[content].append(row)
    whole = []
    taken: set[int] = set()
    for group, alike in groups:
        members = sorted({other for row in group for other in rows[contents[row]]} - taken)
        taken.update(members)
        if len({contents[row] for row in members}) > 1:
            whole.append(([positions[row] for row in members], alike))
    return whole


def similar_hashes(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the pairs of rows whose hashes differ by at most 6 bits.

    64 bits are cut into 7 bands: with 6 different bits at least one band is equal, so only pictures that share a band
    are compared. Time and memory stay bounded where many pictures are alike: in a band of more than 2,048 each is
    compared with its 16 neighbours in the order of the hashes alone, and of all pairs the 20 a picture with the
    fewest different bits are kept.

    Returns:
        (P, 2) int64, the lower row first, the most similar pairs first.
    """
    found = [np.zeros(0, dtype=np.int64)]
    edges = np.linspace(0, 64, _BANDS + 1).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.lexsort((hashes, band))
        starts = np.flatnonzero(np.r_[True, np.diff(band[order]) != 0])
        for rows in np.split(order, starts[1:]):
            if len(rows) > 1:
                found.append(_close(hashes, rows))
    keys = np.sort(np.concatenate(found))
    keys = keys[np.diff(keys, prepend=-1) != 0]  # np.unique hashes, and takes 12 s for 5 million such numbers
    pairs = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    return pairs[np.argsort(bits, kind="stable")[: _MOST_PAIRS * len(hashes)]]


def _close(hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the similar pairs among rows, each as one number: lower row × 2³² + higher row."""
    values = hashes[rows]
    reach = len(rows) - 1 if len(rows) <= _CROWDED else _WINDOW
    found = []
    for step in range(1, reach + 1):
        near = np.flatnonzero(np.bitwise_count(values[:-step] ^ values[step:]) <= _MOST_BITS)
        one, other = rows[near], rows[near + step]
        found.append((np.minimum(one, other) << 32) | np.maximum(one, other))
    return np.concatenate(found)


def likeness(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return how alike pictures are in their detail.

    Both copies are made grey and lose their local mean over 5 × 5 px, which takes out light, exposure and shading;
    the result is the highest correlation over shifts of one pixel. It is 0 where the whole copies correlate by less
    than 0.9, and where a copy is flat.

    Args:
        one: (P, 32, 32, 3) uint8.
        other: (P, 32, 32, 3) uint8.

    Returns:
        (P,) float32 in [-1, 1].
    """
    from scipy.ndimage import uniform_filter

    first, second = grey(one), grey(other)
    result = np.zeros(len(one), dtype=np.float32)
    worth = np.flatnonzero(_correlation(first, second) >= _LEAST_WHOLE)  # a tenth of the work for most pairs
    if not len(worth):
        return result
    first, second = (
        image[worth] - uniform_filter(image[worth], size=(0, 5, 5), mode="nearest") for image in (first, second)
    )
    inner = slice(2, COPY_SIDE - 2)
    best = np.full(len(worth), -1.0, dtype=np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = second[:, 2 + down : COPY_SIDE - 2 + down, 2 + right : COPY_SIDE - 2 + right]
            best = np.maximum(best, _correlation(first[:, inner, inner], moved))
    result[worth] = best
    return result


def _correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    a, b = (image.reshape(len(image), -1) for image in (one, other))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a * a).mean(axis=1) * (b * b).mean(axis=1))
    product = (a * b).mean(axis=1)
    result: npt.NDArray[np.float32] = np.where(spread > 0.5, product / np.maximum(spread, 1e-6), 0)
    return result


def find_near(subject: Subject, groups: Sequence[Group]) -> Iterator[Finding]:
    """Yield a finding for each group: across splits, with different labels, or merely nearly the same."""
    for group, alike in groups:
        records = [subject.listing.records[i] for i in group]
        paths = [record.path for record in records]
        named = some(paths, 3)
        splits = subject.splits_of(group)
        labels = sorted({str(record.label) for record in records if record.label is not None})
        shared: dict[str, object] = {"sure": min(1.0, alike), "splits": splits}
        home = max(PROTECTION[subject.split(i)] for i in group)
        if len(splits) > 1:
            drop = tuple(p for i, p in zip(group, paths, strict=True) if PROTECTION[subject.split(i)] < home)
            said = f"Nearly the same picture lies in {' and '.join(splits)} ({alike:.0%} alike in detail): {named}."
            yield finding("near_leak", paths, said, drop=drop, **shared)
        if len(labels) > 1:
            said = f"Nearly the same picture is labelled {' and '.join(labels)} ({alike:.0%} alike in detail): {named}."
            yield finding("near_conflict", paths, said, **shared)
        elif len(splits) <= 1:
            said = f"{len(paths)} pictures are nearly the same ({alike:.0%} alike in detail): {named}."
            yield finding("near_duplicate", paths, said, drop=tuple(paths[1:]), **shared)


class _Joined:
    """Sets that grow together (union-find), each with the least likeness that joined it."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))
        self._least: dict[int, float] = {}

    def _root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, one: int, other: int, alike: float) -> None:
        """Put two rows into one set."""
        a, b = self._root(one), self._root(other)
        least = min(alike, self._least.pop(a, 1.0), self._least.pop(b, 1.0)) if a != b else min(alike, self._least[a])
        self._parent[max(a, b)] = min(a, b)
        self._least[min(a, b)] = least

    def groups(self) -> list[Group]:
        """Return the sets with more than one row."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row in range(len(self._parent)):
            root = self._root(row)
            if root in self._least:
                rows[root].append(row)
        return [(members, self._least[root]) for root, members in sorted(rows.items())]
