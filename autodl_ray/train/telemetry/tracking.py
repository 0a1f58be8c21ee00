"""The driver's side of MLflow: one process of its own tells the server, so that no training waits for it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from types import TracebackType

from autodl_ray.train.telemetry.config import LogConfig

__all__ = ["Tracker"]

_WAIT_S = 20.0
_LOG = "mlflow.log"


class Tracker:
    """Tells MLflow of a run while its block lasts; without a tracking URI it does nothing. Never raises.

    The process reads the files of metrics that trainings write: importing MLflow takes seconds that neither a
    training nor the driver has to pay, a server that hangs delays nobody, and one writer needs no locks. It ends with
    the block, or with this process. In MLflow the run is a parent, and every training a run nested in it.

    Args:
        config: Of the run, as :meth:`LogConfig.of` made it.

    Attributes:
        note: After the block: what went wrong, in one line; None when all was told.
    """

    def __init__(self, config: LogConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[str] | None = None
        self.note: str | None = None

    def __enter__(self) -> Tracker:
        config = self._config
        if config.mlflow is None or config.folder is None:
            return self
        config.folder.mkdir(parents=True, exist_ok=True)
        task = {"uri": config.mlflow, "run": config.run, "folder": str(config.folder)}
        with (config.folder / _LOG).open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autodl_ray.train.telemetry.mlflow_runs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )
        self._say(json.dumps(task))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._say("finished" if error is None else "failed")
        try:
            told, _ = self._process.communicate(timeout=_WAIT_S)
            self.note = told.strip() or None
            if self._process.returncode and self.note is None:
                self.note = f"MLflow was not told everything; see {self._config.folder}/{_LOG}"
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self.note = f"MLflow did not take everything within {_WAIT_S:.0f} s"

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended early; its exit code says so
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
