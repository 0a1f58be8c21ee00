"""What runs in the process of a place: trial after trial, as the driver hands them out."""

from __future__ import annotations

import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autodl_ray.errors import AutoDLError
from autodl_ray.runtime.stop import StopFlag
from autodl_ray.train.errors import WorkerLost
from autodl_ray.tune.bridge import Answer, TrialCall
from autodl_ray.tune.journal import plain
from autodl_ray.tune.mailbox import Mailbox

__all__ = ["MESSAGE", "NUMBER", "LetGo", "Line", "TrialJob", "serve_place"]

MESSAGE, NUMBER = "message", "number"
"""Keys of what a place reports to Tune: JSON of what it says, after the epochs that were held back; JSON because Tune
adds keys of its own and flattens what it finds."""

_WAIT_S = 0.1
_HOLD_S = 0.25


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a sweep share; travels once through the object store.

    Attributes:
        train: ``train(call, report=…, should_stop=…, deadline=…)`` trains one trial and reports after each epoch
            a mapping that has ``epoch``; what ``report`` raises has to come out again. It may ask the report whether
            that of an epoch ``may_wait``.
        stop: Whether the user asked to finish.
        deadline: Unix time at which the trials have to end.
    """

    train: Callable[..., None]
    stop: StopFlag
    deadline: float | None


def serve_place(config: dict[str, Any], shared: list[Any]) -> None:
    """What Tune runs in the process: train what is handed out, until it is told to end.

    Args:
        config: ``call``: the first trial; ``mailbox``: where answers lie.
        shared: A reference to the :class:`TrialJob`.
    """
    job, line = _fetch(shared[0]), Line(Mailbox(config["mailbox"]))
    answer = Answer("train", config["call"])
    while answer.kind != "end":
        if answer.call is None:
            time.sleep(_WAIT_S)
            answer = line.say({"idle": True})
        else:
            answer = _train(job, answer.call, line)


def _train(job: TrialJob, call: TrialCall, line: Line) -> Answer:
    """Train one trial; return what comes after it."""
    line.begin(call.looks)
    try:
        job.train(call, report=line, should_stop=job.stop.is_set, deadline=job.deadline)
    except LetGo as gone:
        return gone.answer
    except WorkerLost:
        raise  # the place dies with it, and the trial is begun once more: its settings are not to blame
    except Exception as error:
        if line.told is not None:  # whatever the training made of being let go
            return line.told
        traceback.print_exc()
        sys.stderr.flush()
        return line.say({"failed": _short(error), "traceback": traceback.format_exc()})
    return line.told or line.say({"done": True})


class LetGo(BaseException):
    """The trial is over, or paused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.kind)
        self.answer = answer


class Line:
    """Speaks to the driver; called, it reports an epoch."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._said = 0
        self._said_at = float("-inf")
        self._looks: tuple[int, ...] | None = None
        self._waits = False
        self._held: list[Mapping[str, Any]] = []
        self.told: Answer | None = None

    def begin(self, looks: tuple[int, ...] | None) -> None:
        """Begin with a trial that may be paused or ended after the epochs ``looks``; None: after any."""
        self._looks, self._waits, self.told = looks, False, None

    def may_wait(self, epoch: int) -> bool:
        """Whether the next report, of ``epoch``, is sent with a later one.

        It is where the trial goes on whatever the report says and the last message was sent a moment ago: a message
        costs as much as an epoch of a few milliseconds.
        """
        self._waits = (
            self._looks is not None and epoch not in self._looks and time.monotonic() - self._said_at < _HOLD_S
        )
        return self._waits

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Report an epoch; raise when the trial does not go on."""
        if self._waits:
            self._waits = False
            self._held.append(row)
            return
        answer = self.say(row)
        if answer.kind != "go_on":
            self.told = answer
            raise LetGo(answer)

    def say(self, row: Mapping[str, Any]) -> Answer:
        """Say something, and wait for the answer."""
        self.told = None
        self._said += 1
        rows, self._held = [*self._held, row], []
        tune.report({MESSAGE: json.dumps([dict(row) for row in rows], default=plain), NUMBER: self._said})
        answer: Answer = self._mailbox.take(self._said)
        self._said_at = time.monotonic()
        return answer


@functools.lru_cache(maxsize=1)
def _fetch(reference: ray.ObjectRef[TrialJob]) -> TrialJob:
    """Fetch the job once a process."""
    _end_quietly()
    job: TrialJob = ray.get(reference)
    return job


def _end_quietly() -> None:
    """Keep the end of this process out of the driver's output.

    Ray ends trial processes by SIGTERM; where the SystemExit of its handler falls into a callback of the garbage
    collector, Python prints it as an ignored exception (seen once).
    """
    before = sys.unraisablehook

    def without_exits(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, SystemExit):
            before(unraisable)

    sys.unraisablehook = without_exits


def _short(error: BaseException) -> str:
    """Return ``folder/file.py:line: ErrorType: message`` of the innermost frame, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}: " if frames else ""
    message = " ".join(f"{error.what} ({error.seen})".split() if isinstance(error, AutoDLError) else str(error).split())
    return f"{where}{type(error).__name__}: {message}"
