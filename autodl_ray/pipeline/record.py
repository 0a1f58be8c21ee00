"""The record of a run: which spec, on which data, how much time was spent, which decisions were taken."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autodl_ray.artifacts import write_atomic
from autodl_ray.errors import StoreError
from autodl_ray.pipeline.planner import Action
from autodl_ray.pipeline.policies import policy_files
from autodl_ray.spec import ExperimentSpec, difference
from autodl_ray.spec.training import UNSEARCHED

__all__ = ["RunRecord", "identity_digest"]

_HEARTBEAT_S = 2.0


class RunRecord:
    """The file ``run.json`` of a run, and the lock that keeps a second driver out.

    Args:
        folder: Working folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "run.json"
        self._lock_file = folder / ".lock"
        self._data: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._guard = threading.Lock()
        self._counts = False  # whether seconds are this run's: not those of a refusal or a look-up

    @property
    def spent_s(self) -> float:
        """Seconds that all attempts so far have taken."""
        return float(self._data.get("spent_s", 0.0))

    @property
    def counted_s(self) -> float:
        """Seconds that count against the budget: those since trials, epochs or repeats were added to a finished run."""
        return self.spent_s - float(self._data.get("spent_before_s", 0.0))

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end."""
        return self._data.get("status") == "done"

    @property
    def is_new(self) -> bool:
        """Whether no attempt was made before."""
        return not self._data

    def begin(self, spec: ExperimentSpec, dataset_id: str) -> None:
        """Write down what is run; refuse another spec or other data under the same name.

        What only says how much may differ: the budget, and how many trials, epochs and repeats. More of a finished run
        goes on with it; where trials, epochs or repeats were added, the budget is given for them anew.

        Raises:
            StoreError: The name belongs to a run with another spec, other data or another policy in a policy file;
                the difference is shown.
        """
        wanted, policies = spec.model_dump(mode="json"), policy_files(spec)
        status = self._data.get("status", "begun")
        if self._data:
            rows = difference(_identity(self._data["spec"]), _identity(wanted))
            if self._data["dataset"] != dataset_id:
                rows.append(f"data (content, labels or splits): {self._data['dataset']} → {dataset_id}")
            before = self._data.get("policies", {})
            rows += [
                f"{word}: {before[word]} → {new}" for word, new in policies.items() if before.get(word, new) != new
            ]
            if rows:
                raise StoreError(
                    "A different run has this name:\n" + "\n".join(f"  - {row}" for row in rows),
                    seen=str(self._file.parent),
                    hint="give it another name with --name, or run the earlier line again to resume it",
                )
            before_amounts, amounts = _amounts(self._data["spec"]), _amounts(wanted)
            if any(amounts[name] > before_amounts[name] for name in amounts):
                if self.is_done and amounts["budget_s"] <= before_amounts["budget_s"]:
                    self._data["spent_before_s"] = self.spent_s
                status = "running"
                self._data["decisions"] = _enlarged(self._data.get("decisions", []), wanted)
        if self._data.get("spec") != wanted or self._data.get("status") != status:
            self._save(spec=wanted, dataset=dataset_id, status=status, **({"policies": policies} if policies else {}))

    def start(self) -> None:
        """From here on work is done, and its seconds count."""
        self._counts = True
        self._save(status="running")

    def action(self, step: int) -> dict[str, Any] | None:
        """Return the action that an earlier attempt took at ``step``; a resumed run takes the same one."""
        rows = self._data.get("decisions", [])
        return rows[step] if step < len(rows) else None

    def decided(self, step: int, action: Action) -> None:
        """Keep the action taken at ``step``."""
        rows = [*self._data.get("decisions", [])[:step], action.to_json()]
        self._save(decisions=rows)

    def fact(self, name: str) -> Any:
        """Return a fact that was noted, or None."""
        return self._data.get("facts", {}).get(name)

    def note(self, **facts: Any) -> None:
        """Note facts such as measured speeds."""
        self._save(facts={**self._data.get("facts", {}), **facts})

    def end(self, status: str) -> None:
        """Write how this attempt ended: ``done``, ``interrupted`` or ``failed``."""
        self._save(status=status)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Hold the run for this process and count its seconds, also when it is killed.

        Raises:
            StoreError: Another process works on the run.
        """
        with self._lock_file.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise StoreError(
                    "Another process works on this run.",
                    seen=f"process {lock.read().strip() or '?'} holds {self._lock_file.parent}",
                    hint="wait for it, stop it, or give another --name",
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            stop = threading.Event()
            clock = threading.Thread(target=self._count, args=(stop, self.spent_s), daemon=True)
            clock.start()
            try:
                yield
            finally:
                stop.set()
                clock.join()

    def _count(self, stop: threading.Event, before: float) -> None:
        started = time.monotonic()
        while not stop.wait(_HEARTBEAT_S):
            self._spend(before + time.monotonic() - started)
        self._spend(before + time.monotonic() - started)

    def _spend(self, seconds: float) -> None:
        if self._counts:
            self._save(spent_s=seconds)

    def _save(self, **changes: Any) -> None:
        with self._guard:
            self._data.update(changes)
            write_atomic(self._file, json.dumps(self._data, indent=1, ensure_ascii=False) + "\n")


def identity_digest(spec: ExperimentSpec, dataset_id: str) -> str:
    """Return a sha256 (hex) over what makes a run this run: its spec without name and budget, its policies, its data.

    Raises:
        SpecError: A policy file cannot be read.
    """
    files = policy_files(spec)
    content = json.dumps(
        [_identity(spec.model_dump(mode="json")), dataset_id, *([files] if files else [])], sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _identity(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a spec this spec: not its name, how much is done, how fast, or where it is told of."""
    left_out = ("name", "budget_s", "serve", "log", "repeat", "disk_limit")
    kept = {k: v for k, v in spec.items() if k not in left_out}
    kept["export"] = {k: v for k, v in kept["export"].items() if k != "formats"}
    kept["data"] = {**kept["data"], "path": Path(kept["data"]["path"]).name}
    kept["train"] = {k: v for k, v in kept["train"].items() if k not in (*UNSEARCHED, "epochs")}
    kept["tune"] = {k: v for k, v in kept["tune"].items() if k not in ("num_samples", "max_concurrent_trials")}
    return kept


def _amounts(spec: dict[str, Any]) -> dict[str, float]:
    """Return what says how much is done; ``auto`` is less than any number."""
    found = {
        "budget_s": spec["budget_s"],
        "num_samples": spec["tune"]["num_samples"],
        "epochs": spec["train"]["epochs"],
        "repeat": spec.get("repeat", 1),
    }
    return {name: -1.0 if value == "auto" else float(value) for name, value in found.items()}


def _enlarged(decisions: list[dict[str, Any]], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the decisions of an earlier attempt with the trials and epochs that are wanted now."""
    samples, epochs = spec["tune"]["num_samples"], spec["train"]["epochs"]
    if samples not in ("auto", 0) and not any(d["kind"] == "sweep" for d in decisions):
        return []  # a search is wanted now, which comes before the training
    wanted = {"sweep": ("num_samples", samples), "train": ("epochs", epochs)}
    enlarged = []
    for decision in decisions:
        name, number = wanted.get(decision["kind"], ("", "auto"))
        more = number != "auto" and number > decision[name]
        enlarged.append({**decision, name: number} if more else decision)
    return enlarged
