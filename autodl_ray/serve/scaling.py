"""How many replicas a service should have: by requests under way and, where one is wanted, by a latency.

:func:`wanted` is a pure function. :class:`Policy` hands it to Ray Serve's autoscaler, which calls it in its controller
and itself adds bounds and delays (Ray 2.60 wraps custom policies): what is wanted has to be wanted for
``upscale_delay_s`` or ``downscale_delay_s`` without a break before it is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autodl_ray.spec import ServeSpec

__all__ = ["Load", "Policy", "number_of_replicas", "wanted"]

_SLACK = 0.8  # one replica less has to be filled to this share only, so that it is not missed at once
_RECENT_S = 3.0
_LOOK_BACK_S = 11.0  # the shortest window that Ray 2.60 accepts without a warning is 10 s


@dataclass(frozen=True)
class Load:
    """What is asked of the replicas now.

    Attributes:
        replicas: That run.
        under_way: Requests at the replicas and waiting, of the whole service.
        latency_ms: Mean 95th percentile of the replicas that answered lately; 0: none did.
    """

    replicas: int
    under_way: float
    latency_ms: float = 0.0


def wanted(load: Load, *, target_ongoing: float, latency_target_ms: float | None = None) -> int:
    """Return the number of replicas that this load asks for, without bounds.

    Args:
        load: What is asked of them.
        target_ongoing: Requests under way that a replica should have.
        latency_target_ms: Latency (95th percentile) that is wanted; more replicas are added while it is above and
            each has more than one request under way: a lone request is not answered sooner by others.
    """
    now = load.replicas
    if load.under_way <= 0:
        return 0
    by_load = math.ceil(load.under_way / target_ongoing)
    if now == 0:
        return max(1, by_load)
    if latency_target_ms is not None and load.latency_ms > latency_target_ms and load.under_way > now:
        by_load = max(by_load, now + 1, math.ceil(now * min(2.0, load.latency_ms / latency_target_ms)))
    if by_load >= now:
        return by_load
    slow = latency_target_ms is not None and load.latency_ms > _SLACK * latency_target_ms
    if slow and load.under_way > 1:
        return now
    return min(now, max(1, math.ceil(load.under_way / (_SLACK * target_ongoing))))


class Policy:
    """The policy as Ray Serve calls it (``policy_function: autodl_ray.serve.scaling:Policy``).

    Args:
        target_ongoing: See :func:`wanted`.
        latency_target_ms: See :func:`wanted`.
    """

    def __init__(self, target_ongoing: float, latency_target_ms: float | None = None) -> None:
        self._target, self._latency_ms = target_ongoing, latency_target_ms

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas for an ``AutoscalingContext``, and the state to keep (none)."""
        raw = ctx.raw_metrics or {}
        alive = set(ctx.running_replicas)
        busy = [_recent(points) for key, points in raw.get("under_way", {}).items() if key in alive]
        slow = [_recent(points) for key, points in raw.get("latency_ms", {}).items() if key in alive]
        answering = [value for value in slow if value > 0]
        load = Load(
            ctx.current_num_replicas,
            max(sum(busy), ctx.total_num_requests if not busy else 0.0) + (ctx.total_queued_requests or 0.0),
            sum(answering) / len(answering) if answering else 0.0,
        )
        return wanted(load, target_ongoing=self._target, latency_target_ms=self._latency_ms), {}


def number_of_replicas(spec: ServeSpec) -> dict[str, Any]:
    """Return the options of a deployment of Serve that say how many replicas there are."""
    if spec.min_replicas == spec.max_replicas:
        return {"num_replicas": spec.max_replicas}
    kwargs = {"target_ongoing": spec.target_ongoing_requests, "latency_target_ms": spec.latency_target_ms}
    return {
        "autoscaling_config": {
            "min_replicas": spec.min_replicas,
            "max_replicas": spec.max_replicas,
            "policy": {"policy_function": "autodl_ray.serve.scaling:Policy", "policy_kwargs": kwargs},
            "target_ongoing_requests": spec.target_ongoing_requests,
            "upscale_delay_s": spec.upscale_delay_s,
            "downscale_delay_s": spec.downscale_delay_s,
            "look_back_period_s": _LOOK_BACK_S,
        }
    }


def _recent(points: Sequence[Any]) -> float:
    """Mean of the points (timestamp, value) of the last seconds before the newest."""
    if not points:
        return 0.0
    newest = max(point.timestamp for point in points)
    values = [point.value for point in points if point.timestamp > newest - _RECENT_S]
    return float(sum(values) / len(values))
