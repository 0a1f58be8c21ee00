"""Where replicas leave what they saw of a rollout and find what was decided: Ray's key-value store, or a dictionary."""

from __future__ import annotations

import json
import threading
from typing import Any, Protocol

from autodl_ray.serve.rollout import Verdict

__all__ = ["Board", "MemoryBoard", "RayBoard"]

_NAMESPACE = b"autodl-rollout"


class Board(Protocol):
    """Shared by all replicas of a service. The first decision about a rollout stands."""

    def report(self, rollout: str, replica: str, seen: dict[str, Any]) -> None:
        """Leave what this replica has seen so far."""

    def reports(self, rollout: str) -> list[dict[str, Any]]:
        """Return what every replica has left."""

    def settle(self, rollout: str, verdict: Verdict) -> Verdict:
        """Propose a decision; returns the one that stands."""

    def verdict(self, rollout: str) -> Verdict | None:
        """Return the decision, if there is one."""


class MemoryBoard:
    """A board within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, dict[str, Any]]] = {}
        self._verdicts: dict[str, Verdict] = {}

    def report(self, rollout: str, replica: str, seen: dict[str, Any]) -> None:
        """Leave what this replica has seen so far."""
        with self._lock:
            self._seen.setdefault(rollout, {})[replica] = seen

    def reports(self, rollout: str) -> list[dict[str, Any]]:
        """Return what every replica has left."""
        with self._lock:
            return list(self._seen.get(rollout, {}).values())

    def settle(self, rollout: str, verdict: Verdict) -> Verdict:
        """Propose a decision; returns the one that stands."""
        with self._lock:
            return self._verdicts.setdefault(rollout, verdict)

    def verdict(self, rollout: str) -> Verdict | None:
        """Return the decision, if there is one."""
        return self._verdicts.get(rollout)


class RayBoard:
    """A board in the key-value store of the cluster, which outlives every replica."""

    def report(self, rollout: str, replica: str, seen: dict[str, Any]) -> None:
        """Leave what this replica has seen so far."""
        _kv()._internal_kv_put(f"seen/{rollout}/{replica}", json.dumps(seen), namespace=_NAMESPACE)

    def reports(self, rollout: str) -> list[dict[str, Any]]:
        """Return what every replica has left."""
        kv = _kv()
        keys = kv._internal_kv_list(f"seen/{rollout}/", namespace=_NAMESPACE)
        values = [kv._internal_kv_get(key, namespace=_NAMESPACE) for key in keys]
        return [json.loads(value) for value in values if value]

    def settle(self, rollout: str, verdict: Verdict) -> Verdict:
        """Propose a decision; returns the one that stands."""
        value = json.dumps([verdict.decision, verdict.reason])
        _kv()._internal_kv_put(f"verdict/{rollout}", value, overwrite=False, namespace=_NAMESPACE)
        return self.verdict(rollout) or verdict

    def verdict(self, rollout: str) -> Verdict | None:
        """Return the decision, if there is one."""
        value = _kv()._internal_kv_get(f"verdict/{rollout}", namespace=_NAMESPACE)
        return Verdict(*json.loads(value)) if value else None


def _kv() -> Any:
    from ray.experimental import internal_kv

    return internal_kv
