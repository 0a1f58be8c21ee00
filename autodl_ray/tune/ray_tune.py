"""Runs an engine's trials at places of Ray Tune."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Stopper
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from autodl_ray.runtime.resources import ResourcePlan, Shares
from autodl_ray.tune.bridge import Bridge, TrialCall
from autodl_ray.tune.engine import Engine
from autodl_ray.tune.mailbox import Mailbox
from autodl_ray.tune.place import MESSAGE, NUMBER, TrialJob, serve_place
from autodl_ray.tune.state import TrialState

__all__ = ["TrialJob", "run_trials"]

# Read by Tune on the driver; nothing is shown, logged, synced or saved by Tune: the journal is what counts.
_SILENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_RELEASE_S = 5.0


def run_trials(
    engine: Engine,
    job: TrialJob,
    *,
    settings: Callable[[Mapping[str, Any]], Any],
    folder: Path,
    plan: ResourcePlan,
    on_tick: Callable[[], None],
    on_end: Callable[[TrialState], None],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the engine's trials until it has no more, the deadline passed, or the stop was asked for.

    Args:
        engine: Decides and writes the journal.
        job: What every trial process needs.
        settings: Makes what a trial is called with from its params; runs on the driver.
        folder: Working folder: one folder a trial, and Tune's own throwaway files.
        plan: How many trials run at once, with which resources.
        on_tick: Called a few times a second, e.g. to show the progress.
        on_end: Called when a trial has ended.
        say: Called with a line when it turns out how many trials fit side by side.
    """
    bridge = Bridge(engine, settings, folder, Shares(plan), job.stop, on_tick=on_tick, on_end=on_end, say=say)
    scratch = folder / ".tune"
    shutil.rmtree(scratch, ignore_errors=True)
    with _silence():
        before = _free_cpus()
        shared = ray.put(job)
        trainable = tune.with_resources(functools.partial(serve_place, shared=[shared]), _request(plan))
        try:
            tune.Tuner(
                trainable,
                param_space={},
                tune_config=tune.TuneConfig(
                    search_alg=_JournalSearcher(bridge),
                    scheduler=_JournalScheduler(bridge),
                    num_samples=-1,
                    trial_name_creator=lambda trial: str(trial.trial_id),
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name="t",
                    storage_path=str(scratch.resolve()),
                    verbose=0,
                    callbacks=[_Ticker(bridge)],
                    stop=_StopLatecomers(bridge),
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                ),
            ).fit()
        finally:
            del shared
            _wait_for_release(before)
            shutil.rmtree(scratch, ignore_errors=True)
    if bridge.error is not None:
        raise bridge.error


def _wait_for_release(cpus: float) -> None:
    """Wait until the trials' processes have given their CPUs back, so that the next stage finds them."""
    deadline = time.monotonic() + _RELEASE_S
    while _free_cpus() < cpus and time.monotonic() < deadline:
        time.sleep(0.05)


def _free_cpus() -> float:
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free.get("CPU", 0.0)


def _request(plan: ResourcePlan) -> dict[str, float]:
    request = {"CPU": plan.cpus_per_trial}
    if plan.num_workers == 1 and plan.gpus_per_worker:
        request["GPU"] = plan.gpus_per_worker
    return request


class _JournalSearcher(Searcher):
    """Opens places while there is something to train."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(metric="epoch", mode="max")
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        call: TrialCall | str | None = None
        with self._bridge.guarded():
            call = self._bridge.open(trial_id)
        if not isinstance(call, TrialCall):
            return call
        return {"call": call, "mailbox": _mailbox(trial_id)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler is told first."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what is kept."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the journal is what is kept."""


class _JournalScheduler(FIFOScheduler):
    """Answers what the places say; Tune itself lets all of them run until they end."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if MESSAGE in result:  # what Tune adds when a place's function returns has none
            *before, row = json.loads(result[MESSAGE])
            put = functools.partial(Mailbox(_mailbox(trial.trial_id)).put, result[NUMBER])
            self._bridge.answer(trial.trial_id, row, before=before, put=put)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._left(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._left(trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        with self._bridge.guarded():
            self._bridge.died(trial.trial_id, _reason(trial))

    def _left(self, trial: Any) -> None:
        with self._bridge.guarded():
            self._bridge.left(trial.trial_id)
            Mailbox(_mailbox(trial.trial_id)).remove()


class _Ticker(TrialProgressCallback):
    """The heartbeat of Tune's loop, in the place of the callback that prints results at any verbosity."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing."""

    def on_trial_error(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing."""

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing."""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        with self._bridge.guarded():
            self._bridge.tick()


class _StopLatecomers(Stopper):
    """Ends what has not ended by itself some seconds after the stop or the deadline."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._bridge.is_late


def _mailbox(trial_id: str) -> str:
    """The name of a place's mailbox, unique in a cluster that several drivers share."""
    return f"{ray.get_runtime_context().get_job_id()}-{trial_id}"


def _reason(trial: Any) -> str:
    error = trial.get_error()
    first = str(error).strip().splitlines()[0] if error is not None and str(error).strip() else ""
    return f"its process died ({first or type(error).__name__})"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep Tune from printing, logging and warning, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in _SILENT}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    os.environ.update(_SILENT)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _lean():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Keep Tune from what costs seconds and is of no use here.

    To count callbacks for statistics that are off, it imports MLflow and others where they are installed (1.1 s). And
    it gives its processes a variable for PyTorch Lightning: so none of those that Ray has begun to start already would
    do, and each one is begun anew, with Ray imported twice (0.8 s for each place).
    """
    from ray.air._internal import usage
    from ray.tune.execution import class_cache

    count, variables = usage.tag_callbacks, class_cache.DEFAULT_ENV_VARS
    usage.tag_callbacks, class_cache.DEFAULT_ENV_VARS = (lambda callbacks: False), {}
    try:
        yield
    finally:
        usage.tag_callbacks, class_cache.DEFAULT_ENV_VARS = count, variables
