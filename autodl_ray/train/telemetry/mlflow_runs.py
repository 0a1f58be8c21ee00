"""The process that tells MLflow what the files of metrics say: a run, and its trainings nested in it."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autodl_ray.artifacts import write_atomic
from autodl_ray.train.telemetry.collect import read_about, trainings
from autodl_ray.train.telemetry.rows import EPOCHS, Row, read_rows

__all__ = ["STATE", "RunTeller", "main"]

STATE = "mlflow.json"

_EXPERIMENT = "autodl_ray"
_EVERY_S = 2.0
_BATCH = 500  # metrics a call; MLflow takes up to 1,000
_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "ended": "FINISHED", "failed": "FAILED"}


@dataclass
class RunTeller:
    """Brings MLflow up to date with a folder of metrics; what it was told is remembered in ``mlflow.json`` there.

    Attributes:
        client: ``mlflow.MlflowClient`` of the server or store.
        folder: ``RUN/metrics``.
        run: Name of the run.
        state: ``parent`` (id), and for each training its ``id``, the ``epochs`` that were told, and its ``status``.
    """

    client: Any
    folder: Path
    run: str
    state: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, uri: str, folder: Path, run: str) -> RunTeller:
        """Connect, and find or create the run."""
        client = _client(uri)
        teller = cls(client, folder, run)
        try:
            teller.state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            teller.state = {"parent": teller._create(run, {"autodl.run": run}), "trainings": {}}
            teller._remember()
        client.update_run(teller.state["parent"], status="RUNNING")
        return teller

    def tell(self) -> None:
        """Tell everything that is new since the last call."""
        for key in sorted(p for p in self.folder.iterdir() if p.is_dir()):
            for training in trainings(key):
                self._training(f"{key.name}/{training.name}", training)
        self._remember()

    def end(self, status: str) -> None:
        """Close the run, and those of its trainings that were killed."""
        for known in self.state["trainings"].values():
            if known["status"] == "RUNNING":
                self.client.set_terminated(known["id"], "KILLED")
        self.client.set_terminated(self.state["parent"], _STATUS.get(status, "KILLED"))

    def _training(self, name: str, folder: Path) -> None:
        known = self.state["trainings"].get(name)
        about = read_about(folder)
        if known is None:
            known = self.state["trainings"][name] = self._begin(name)
        if not known["params"]:
            self._params(known, about.get("params") or {})
        rows = [row for row in read_rows(folder / EPOCHS) if int(row["epoch"]) > known["epochs"]]
        metrics = [metric for row in rows for metric in _metrics(row)]
        for first in range(0, len(metrics), _BATCH):
            self.client.log_batch(known["id"], metrics=metrics[first : first + _BATCH])
        known["epochs"] = max((int(row["epoch"]) for row in rows), default=known["epochs"])
        status = _STATUS.get(str(about.get("status")), "RUNNING")
        if status != known["status"]:
            if status == "RUNNING":
                self.client.update_run(known["id"], status=status)
            else:
                self.client.set_terminated(known["id"], status, end_time=int(1000 * float(about["ended"])))
            known["status"] = status

    def _begin(self, name: str) -> dict[str, Any]:
        key, _, trial = name.partition("/")
        tags = {
            "mlflow.parentRunId": self.state["parent"],
            "autodl.run": self.run,
            "autodl.key": key,
            "autodl.trial": trial,
        }
        return {"id": self._create(name, tags), "params": False, "epochs": 0, "status": "RUNNING"}

    def _params(self, known: dict[str, Any], params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(known["id"], params=[Param(str(k), str(v)) for k, v in params.items()][:100])
        known["params"] = True

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        found = self.client.get_experiment_by_name(_EXPERIMENT)
        experiment = self.client.create_experiment(_EXPERIMENT) if found is None else found.experiment_id
        return str(self.client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)

    def _remember(self) -> None:
        write_atomic(self.folder / STATE, json.dumps(self.state, indent=1), durable=False)


def main() -> int:
    """Read what to do from standard input, and go on until it ends; a line of complaint goes to standard output."""
    os.nice(10)
    task = json.loads(sys.stdin.readline())
    uri, folder, run = task["uri"], Path(task["folder"]), task["run"]
    teller: RunTeller | None = None
    problem = ""
    for status in _until_told():
        try:
            teller = teller or RunTeller.open(uri, folder, run)
            teller.tell()
            if status is not None:
                teller.end(status)
            problem = ""
        except Exception as error:  # whatever the server or the network does, it is tried again
            text = _without_password(f"{type(error).__name__}: {error}", uri)
            sys.stderr.write(text + "\n")
            problem = " ".join(text.split())[:200]
    if problem:
        sys.stdout.write(f"MLflow at {_shown(uri)} was not told everything: {problem}\n")
    return 1 if problem else 0


def _until_told() -> Iterator[str | None]:
    """Yield None every two seconds, and at last how the run ended."""
    while True:
        if select.select([sys.stdin], [], [], _EVERY_S)[0]:
            yield sys.stdin.readline().strip() or "killed"
            return
        yield None


def _client(uri: str) -> Any:
    """Connect without telemetry and with short waits; the environment of this process is its own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # since 3.1x a folder as a store has to be allowed
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _metrics(row: Row) -> Iterator[Any]:
    from mlflow.entities import Metric

    at, epoch = int(1000 * float(row.get("time") or time.time())), int(row["epoch"])
    for name, value in row.items():
        if name in ("epoch", "time", "step"):
            continue
        many = [(f"{name}/{i:03d}", v) for i, v in enumerate(value)] if isinstance(value, list) else [(name, value)]
        yield from (Metric(key, float(number), at, epoch) for key, number in many if isinstance(number, int | float))


def _shown(uri: str) -> str:
    """The address without a password."""
    parts = urlsplit(uri)
    return parts.hostname or parts.path or uri


def _without_password(text: str, uri: str) -> str:
    """Some messages of the client hold the whole address."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(user + at, "") if user else text


if __name__ == "__main__":
    sys.exit(main())
