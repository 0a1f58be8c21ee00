"""What is checked: the records of a data set, what was seen when they were read, and their splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from autodl_ray.artifacts.dataset import Split
from autodl_ray.data.facts.reading import PictureFacts
from autodl_ray.data.records import Listing, Record

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """A data set under examination.

    Attributes:
        listing: Its records, sorted by path.
        facts: What was seen when each record was read, in the same order.
        splits: Path → split; empty while nothing is divided. Where it is not, a picture that it does not name
            is in no split.
    """

    listing: Listing
    facts: Sequence[PictureFacts]
    splits: Mapping[str, Split] = field(default_factory=dict)

    @cached_property
    def good(self) -> list[int]:
        """Positions of the records whose picture could be read."""
        return [i for i, fact in enumerate(self.facts) if not fact.problem]

    @cached_property
    def open(self) -> list[int]:
        """Positions of the readable records outside the sealed test split."""
        return [i for i in self.good if self.split(i) != "test"]

    @cached_property
    def position(self) -> dict[str, int]:
        """Path → position."""
        return {record.path: i for i, record in enumerate(self.listing.records)}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every class: those that are declared, in their order, or else those that occur, sorted."""
        found = {name for record in self.listing.records for name in self.labels_of(record)}
        declared = self.listing.classes
        return (*declared, *sorted(found - set(declared)))

    def split(self, position: int) -> Split | None:
        """Return the split of a record; None where it has none."""
        return self.splits.get(self.listing.records[position].path)

    def splits_of(self, positions: Sequence[int]) -> tuple[str, ...]:
        """Return the distinct splits of some records, sorted."""
        return tuple(sorted({split for i in positions if (split := self.split(i)) is not None}))

    def sizes(self) -> dict[str, int]:
        """Return the readable pictures by split."""
        counted = Counter(split for i in self.good if (split := self.split(i)) is not None)
        return {name: counted[name] for name in ("train", "val", "test") if counted[name]}

    @staticmethod
    def labels_of(record: Record) -> list[str]:
        """Return the class of a picture, or those of its boxes."""
        if record.boxes is not None:
            return [box.label for box in record.boxes]
        return [] if record.label is None else [record.label]
