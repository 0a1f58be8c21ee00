"""Small real trainings for the tests of the Ray side: a linear net on scikit-learn's digits, in numpy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.tune.bridge import TrialCall

EPOCHS = 9


@dataclass(frozen=True)
class Digits:
    """Softmax regression by gradient descent; goes on from ``w.npy`` in the trial's folder.

    Attributes:
        log: Every process and epoch that was trained is written here.
        wait_s: Seconds an epoch takes at least.
        die_once: This trial kills its process in its third epoch, the first time.
        die: This trial always does.
        fail: This trial raises.
    """

    log: Path
    wait_s: float = 0.0
    die_once: str = ""
    die: str = ""
    fail: str = ""

    def __call__(
        self,
        call: TrialCall,
        *,
        report: Callable[[Mapping[str, Any]], None],
        should_stop: Callable[[], bool],
        deadline: float | None,
    ) -> None:
        """Train the epochs that are left."""
        from sklearn.datasets import load_digits

        data = load_digits()
        x, y = data.data[:300] / 16.0, np.eye(10)[data.target[:300]]
        saved = call.folder / "w.npy"
        w, first = (np.load(saved), call.known_epochs) if saved.exists() else (np.zeros((64, 10)), 0)
        for epoch in range(first + 1, EPOCHS + 1):
            until = time.time() + self.wait_s
            while time.time() < until:
                if should_stop() or (deadline is not None and time.time() > deadline):
                    return
                time.sleep(0.01)
            self._misbehave(call, epoch)
            p = np.exp(x @ w)
            w += call.settings["lr"] * x.T @ (y - p / p.sum(1, keepdims=True)) / len(x)
            np.save(saved, w)
            with self.log.open("a") as stream:
                stream.write(f"{call.trial} {epoch} {os.getpid()}\n")
            accuracy = float(((x @ w).argmax(1) == y.argmax(1)).mean())
            report({"epoch": epoch, "accuracy": accuracy, "epoch_s": 0.01, "epochs_planned": EPOCHS})

    def _misbehave(self, call: TrialCall, epoch: int) -> None:
        if call.trial == self.fail:
            raise ValueError("the wrong shape")
        flag = call.folder / "died"
        if epoch == 3 and (call.trial == self.die or (call.trial == self.die_once and not flag.exists())):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
