"""How many replicas fit on which CPUs: decided before anything starts, so that nothing can wait for ever."""

from __future__ import annotations

from dataclasses import dataclass

from autodl_ray.errors import ResourceError
from autodl_ray.spec import ServeSpec

__all__ = ["ReplicaPlan", "plan_replicas"]

# A Ray worker with onnxruntime and a tiny model: about 260 MB resident, as ps shows.
_REPLICA_BYTES = 300e6
_LEAST_CPUS = 0.01  # Ray counts in steps of 1e-4; below this a replica would starve anyway


@dataclass(frozen=True)
class ReplicaPlan:
    """What the replicas ask for.

    Attributes:
        num_cpus: Of one replica; a fraction where the replicas share the CPUs.
        num_threads: Calls that a replica works on at a time, each with one thread of onnxruntime.
        min_replicas: Kept at all times.
        max_replicas: Reached under load.
        line: The plan in one line, for the user.
    """

    num_cpus: float
    num_threads: int
    min_replicas: int
    max_replicas: int
    line: str


def plan_replicas(spec: ServeSpec, *, cpus: float, free_bytes: float, model_bytes: float = 0.0) -> ReplicaPlan:
    """Share ``cpus`` out among the replicas.

    Args:
        spec: What is wanted.
        cpus: CPUs that are free for replicas.
        free_bytes: Memory that is free.
        model_bytes: Size of the model files that every replica loads.

    Raises:
        ResourceError: No CPU is free, or the memory does not hold ``max_replicas``.
    """
    if cpus < _LEAST_CPUS * spec.max_replicas:
        raise ResourceError(
            "There are not enough CPUs for the replicas.",
            seen=f"{cpus:g} CPUs free, {spec.max_replicas} replicas",
            hint="lower --max-replicas, or free CPUs of the cluster",
        )
    needed = spec.max_replicas * (_REPLICA_BYTES + 3 * model_bytes)
    if needed > free_bytes:
        raise ResourceError(
            "There is not enough memory for the replicas.",
            seen=f"{spec.max_replicas} replicas need about {needed / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free",
            hint=f"lower --max-replicas to {max(1, int(free_bytes / (needed / spec.max_replicas)))}",
        )
    threads = max(1, min(spec.num_threads or int(cpus / spec.max_replicas), int(cpus)))
    # Rounded down, so that the sum stays within what there is.
    num_cpus = min(float(threads), int(cpus / spec.max_replicas * 1000) / 1000)
    return ReplicaPlan(
        num_cpus, threads, spec.min_replicas, spec.max_replicas, _line(spec, threads, cpus, shared=num_cpus < threads)
    )


def _line(spec: ServeSpec, threads: int, cpus: float, *, shared: bool) -> str:
    low, high = spec.min_replicas, spec.max_replicas
    replicas = f"{high} replica{'s' if high > 1 else ''}" if low == high else f"{low} to {high} replicas"
    line = f"{replicas} × {threads} thread{'s' if threads > 1 else ''} on {cpus:g} CPU{'s' if cpus != 1 else ''}"
    if spec.num_threads and threads < spec.num_threads:
        line += f" ({spec.num_threads} threads were asked for)"
    return line + (", which they share" if shared else "")
