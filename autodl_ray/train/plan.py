"""How many steps fit into the time that is left, and which learning rate belongs to which of them: pure functions."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Pace", "extended_position", "least_steps", "lr_factor", "plan_steps", "steps_per_epoch"]

_RESERVE_S = 1.0  # for writing the last checkpoint and returning
_SURE_AFTER, _USUAL_AFTER = 5, 10  # steps


def steps_per_epoch(num_train: int, batch_size: int) -> int:
    """Return the steps of one pass; the last batch may be short."""
    return max(1, -(-num_train // batch_size))


def plan_steps(
    *,
    time_left_s: float,
    step_s: float,
    eval_s: float,
    epoch_steps: int,
    done: int,
    wanted: int,
) -> int:
    """Decide the total number of steps, so that training and the validation after each epoch end in time.

    The last epoch may be a part of one: its steps are followed by a validation like those of a whole one.

    Args:
        time_left_s: Seconds until everything has to be written.
        step_s: Seconds a step, waiting for data included.
        eval_s: Seconds of one validation with its checkpoint.
        epoch_steps: Steps of a whole epoch.
        done: Steps done so far.
        wanted: Steps of all epochs that are wanted.

    Returns:
        The total, in [done, wanted]; ``done`` when not even one more step fits.

    Example:
        >>> plan_steps(time_left_s=61, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=100)
        50
        >>> plan_steps(time_left_s=31, step_s=1, eval_s=5, epoch_steps=50, done=0, wanted=100)
        25
    """
    left = time_left_s - _RESERVE_S
    total = done
    while total < wanted:
        to_end_of_epoch = min(epoch_steps - total % epoch_steps, wanted - total)
        affordable = math.floor((left - eval_s) / step_s + 1e-9) if step_s > 0 else to_end_of_epoch
        if affordable < to_end_of_epoch:
            return total + _worth(affordable, total, done, epoch_steps)
        total += to_end_of_epoch
        left -= to_end_of_epoch * step_s + eval_s
    return total


def least_steps(*, time_left_s: float, step_s: float, epoch_steps: int, done: int, wanted: int) -> int:
    """Return the total that is not planned away while only a few steps were timed: those of the epoch under way.

    On a busy machine the first steps may take a hundred times as long as the others, and a validation that is guessed
    from them would fill the time that is left: the training would end after two steps. As soon as not even one more
    step fits, it ends all the same. Arguments as in :func:`plan_steps`.
    """
    if time_left_s - _RESERVE_S < step_s:
        return done
    return min(wanted, (done // epoch_steps + 1) * epoch_steps)


def _worth(steps: int, total: int, done: int, epoch_steps: int) -> int:
    """A last part of less than a tenth of an epoch is not worth a validation of its own."""
    if total > done and steps < epoch_steps / 10:
        return 0
    return max(0, steps)


def lr_factor(schedule: Literal["one_cycle", "cosine", "constant"], position: float, *, warmup: float = 0.2) -> float:
    """Return the share of the peak learning rate at a position in [0, 1] of the training.

    It rises for the first ``warmup`` of it, then falls along a cosine to nearly 0. ``one_cycle`` rises along a cosine
    from 1/25 (Smith and Topin 2017, without the momentum), ``cosine`` along a line from 1/100 (Goyal et al. 2017;
    Loshchilov and Hutter 2017), and ``constant`` rises so too, and stays.
    """
    if position < warmup:
        part = position / warmup
        if schedule == "one_cycle":
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * part))
        return 0.01 + 0.99 * part
    if schedule == "constant":
        return 1.0
    return max(1e-4, 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup))))


def extended_position(position: float, *, planned: int, wanted: int) -> float:
    """Return where in its schedule a training is whose number of steps is raised afterwards.

    As if the larger number had been planned from the start: a finished training of 4 epochs that is to have 8 goes on
    in the middle of the schedule of 8. The learning rate jumps up there, as at a warm restart (Loshchilov and Hutter,
    SGDR, 2017), and falls to nothing again; the best weights so far are kept.

    Example:
        >>> extended_position(1.0, planned=100, wanted=200)
        0.5
    """
    return position * planned / max(wanted, planned, 1)


@dataclass
class Pace:
    """How fast it goes: seconds of the latest steps and of validations.

    Attributes:
        eval_guess_steps: How many steps a validation takes, as long as none was timed.
    """

    eval_guess_steps: float
    steps: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    evals: deque[float] = field(default_factory=lambda: deque(maxlen=3))

    def step_s(self) -> float | None:
        """Seconds a step; None before the second one.

        The first step of a process warms up and times the precisions: on a busy machine it took 37 s where the others
        took 0.3, and a plan made from it ended the training after that step.
        """
        if len(self.steps) < 2:
            return None
        usual = list(self.steps)[1:] if len(self.steps) < 20 else list(self.steps)
        # Of few the median: one that was held up says little. Of more the mean: waiting for data comes in bursts.
        return statistics.median(usual) if len(usual) < _USUAL_AFTER else sum(usual) / len(usual)

    @property
    def is_sure(self) -> bool:
        """Whether enough steps were timed to end a training within an epoch because of them."""
        return len(self.steps) > _SURE_AFTER

    def eval_s(self) -> float:
        """Seconds of a validation with its checkpoint."""
        if self.evals:
            return max(self.evals)
        return self.eval_guess_steps * (self.step_s() or 0.0)
