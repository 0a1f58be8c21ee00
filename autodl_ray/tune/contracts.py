"""What a search is made of: a proposer of settings, a scheduler of trials, and what both are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autodl_ray.spec.sections import Domain

__all__ = ["GO_ON", "EarlierSweep", "Mode", "Observed", "Proposer", "Scheduler", "SearchContext", "Verdict"]

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Observed:
    """What a proposer or a scheduler knows of one trial.

    Attributes:
        number: Of the trial, from 0, in the order of proposal.
        params: Its settings; fields whose condition does not hold are absent.
        status: ``running``, ``paused`` (it may go on from its checkpoint), ``finished``, ``stopped`` (by the
            scheduler or the clock; it will not go on), or ``failed``.
        values: (epoch, metric) of each report, ascending; epochs count from 1.
        value: The best of them; None before the first report.
    """

    number: int
    params: Mapping[str, Any]
    status: Literal["running", "paused", "finished", "stopped", "failed"]
    values: tuple[tuple[int, float], ...]
    value: float | None

    @property
    def epochs(self) -> int:
        """The last epoch that was reported; 0 before the first."""
        return self.values[-1][0] if self.values else 0


class Proposer(Protocol):
    """Proposes settings; derives everything from the history, so that a resumed sweep goes on as if never stopped."""

    def propose(self, number: int, attempt: int, history: Sequence[Observed]) -> dict[str, Any] | None:
        """Return the settings of trial ``number``; another ``attempt`` gives another draw; None: there are no more.

        Args:
            number: Of the trial, from 0.
            attempt: 0, or more when an earlier draw was known already.
            history: The trials so far, in the order in which they were proposed.
        """
        ...


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial after a report.

    Attributes:
        kind: ``go_on``; ``pause``: its process is free for others, and it may go on later; ``stop``: it is over.
        reason: Why, for people; empty for ``go_on``.
    """

    kind: Literal["go_on", "pause", "stop"]
    reason: str = ""


GO_ON = Verdict("go_on")


class Scheduler(Protocol):
    """Shares the epochs out among the trials.

    It is told every report in the order of the journal, also when the journal is read again after a kill: it may
    keep what it derives from the reports, and nothing else. The same reports give the same verdicts.
    """

    @property
    def looks(self) -> tuple[int, ...] | None:
        """The epochs after which it may pause or stop a trial; None: after any."""
        ...

    def report(self, trial: Observed, history: Sequence[Observed]) -> Verdict:
        """Decide what becomes of ``trial``, which has just reported its last epoch (``history`` holds it too)."""
        ...

    def thaw(self, history: Sequence[Observed], candidate: Callable[[], Mapping[str, Any] | None]) -> int | None:
        """Return the number of the paused trial that goes on now; None: a new trial is begun.

        Called when a place is free. Not called while a journal is read: what was decided is in the journal.

        Args:
            history: The trials so far.
            candidate: Returns the settings that would be tried next (made at the first call, and then used); None:
                there are no new ones, so that only paused trials are left to choose from (or none).
        """
        ...


@dataclass(frozen=True)
class EarlierSweep:
    """A sweep of the store, as a warm start sees it.

    Attributes:
        name: Of its run.
        facts: What is known of its data: ``log_samples``, ``num_classes``, ``image_size``, …; compared by name.
        mode: Whether its metric was to fall or to rise.
        epochs: Of a whole trial.
        trials: In the order of proposal.
    """

    name: str
    facts: Mapping[str, float]
    mode: Mode
    epochs: int
    trials: tuple[Observed, ...]


@dataclass(frozen=True)
class SearchContext:
    """What proposers and schedulers are made from.

    Attributes:
        space: The ranges, by field.
        mode: Whether the metric is to fall or to rise.
        seed: Of everything random.
        epochs: Of a whole trial.
        baseline: The params of trial 0: the defaults of the searched fields (they may lie outside their ranges).
        num_samples: Trials in all.
        grace_period: Epochs before a trial may be stopped.
        reduction_factor: Of the trials at a rung, 1 in this many goes on.
        earlier: Sweeps of the store; empty without a warm start.
        facts: Of the data that is searched on now, to be compared with those of ``earlier``.
    """

    space: Mapping[str, Domain]
    mode: Mode
    seed: int
    epochs: int
    baseline: Mapping[str, Any] = field(default_factory=dict)
    num_samples: int = 0
    grace_period: int = 1
    reduction_factor: int = 3
    earlier: tuple[EarlierSweep, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
