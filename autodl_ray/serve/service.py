"""Starting the service on this machine (or the joined cluster) and stopping it, with nothing left behind."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autodl_ray.errors import InputError, ResourceError, StageError
from autodl_ray.runtime.cluster import ClusterInfo, ensure_ray, stop_ray
from autodl_ray.serve.bundles import ServedBundle, check_bundles
from autodl_ray.serve.plan import ReplicaPlan, plan_replicas
from autodl_ray.serve.settings import SERVE_ENVIRONMENT, hash_key
from autodl_ray.spec import ServeSpec

__all__ = ["APP_NAME", "Service", "check_port", "is_loopback", "start", "stop"]

APP_NAME = "autodl"
_START_TIMEOUT_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Service:
    """A service that has answered a request with every model.

    Attributes:
        url: Where it answers.
        bundles: What it serves, the default first.
        plan: Its replicas.
        seconds: What the start took.
    """

    url: str
    bundles: tuple[ServedBundle, ...]
    plan: ReplicaPlan
    seconds: float


def start(
    bundles: Sequence[str | Path],
    spec: ServeSpec,
    *,
    api_key: str | None = None,
    num_cpus: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Service:
    """Check everything, start Ray and the replicas, and return once a real request was answered by every model.

    Args:
        bundles: Folders (or ``NAME=FOLDER``); the first is the default model.
        spec: Where it listens and how it scales.
        api_key: Asked for as a bearer token; needed when ``spec.host`` is not loopback.
        num_cpus: CPUs of a local Ray; None: those of the machine.
        say: Told the plan in one line, before the replicas start.

    Raises:
        BundleError: A bundle is damaged or is none; before Ray starts.
        InputError: A host that others can reach, without an API key; before Ray starts.
        ResourceError: The port is in use, or the replicas do not fit.
        StageError: The replicas did not start.
    """
    began = time.monotonic()
    checked = check_bundles(bundles)
    _check_host(spec.host, api_key)
    check_port(spec.host, spec.port)
    _prepare_environment(spec.host)
    ours = not _ray_runs()
    cluster = ensure_ray(num_cpus=num_cpus, num_gpus=0, log_to_driver=False)
    try:
        plan = _plan(checked, spec, cluster)
        say(plan.line)
        _serve_start(spec, ours=ours and cluster.local)
        _deploy(checked, spec, plan, api_key=api_key, local=cluster.local)
        url = f"http://{_in_url(_reachable(spec.host))}:{spec.port}"
        for bundle in checked:
            _ask(spec, bundle.name, api_key)
    except BaseException:
        stop(leave_ray=not ours)
        raise
    return Service(url, checked, plan, time.monotonic() - began)


def stop(*, leave_ray: bool = False) -> None:
    """Let requests under way finish (6 s at most), stop the replicas, and end a local Ray with its processes.

    Args:
        leave_ray: Leave Ray running, for other work of this process.
    """
    import ray
    from ray import serve

    if ray.is_initialized():
        with contextlib.suppress(Exception):  # what does not end by itself is killed with Ray
            if os.environ.get("RAY_ADDRESS"):  # a joined cluster may serve other applications
                serve.delete(APP_NAME)
            else:
                serve.shutdown()  # type: ignore[no-untyped-call]
    if not leave_ray:
        stop_ray()


def check_port(host: str, port: int) -> None:
    """See that nobody listens on the port.

    Raises:
        ResourceError: It is in use (the next free one is named), or the host is not of this machine.
    """
    error = _bind(host, port)
    if error is None:
        return
    if isinstance(error, socket.gaierror) or error.errno not in (13, 98, 48):  # EACCES, EADDRINUSE (Linux, macOS)
        raise InputError("This host is not of this machine.", seen=f"{host}: {error.strerror}") from error
    free = next((p for p in range(max(port + 1, 1024), 65536) if _bind(host, p) is None), None)
    raise ResourceError(
        f"Port {port} of {host} is in use." if error.errno != 13 else f"Port {port} of {host} is not allowed.",
        hint=f"take the next free one: --port {free}" if free else "stop the other program",
    ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_host(host: str, api_key: str | None) -> None:
    if api_key is None and not is_loopback(host):
        raise InputError(
            "Others could reach this host, and nobody would be asked for a key.",
            seen=f"host {host}",
            accepted="127.0.0.1, or any host with an API key",
            hint="openssl rand -hex 32 > key.txt, then add --api-key-file key.txt",
        )


def _bind(host: str, port: int) -> OSError | None:
    """Try to listen as Ray's proxy will; None when it went well."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last service's TIME_WAIT is no user
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _prepare_environment(host: str) -> None:
    """Set what Ray's processes read when they start."""
    for name, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if is_loopback(host):
        # HAProxy would open its statistics and metrics ports on every interface.
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"


def _plan(bundles: tuple[ServedBundle, ...], spec: ServeSpec, cluster: ClusterInfo) -> ReplicaPlan:
    import ray

    size = float(sum(bundle.model_bytes for bundle in bundles))
    if cluster.local:
        free = float(psutil.virtual_memory().available)
        return plan_replicas(spec, cpus=cluster.cpus, free_bytes=free, model_bytes=size)
    resources = ray.available_resources()  # type: ignore[no-untyped-call]
    free = float(resources.get("memory", 0.0))
    return plan_replicas(spec, cpus=resources.get("CPU", 0.0), free_bytes=free, model_bytes=size)


def _ray_runs() -> bool:
    import ray

    return bool(ray.is_initialized())


def _serve_start(spec: ServeSpec, *, ours: bool) -> None:
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    # The proxy and the replicas inherit the controller's environment; a Ray that we started has it already, and
    # its waiting workers can be used, which saves a second.
    environment = None if ours else {"runtime_env": {"env_vars": dict(SERVE_ENVIRONMENT)}}
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": spec.host, "port": spec.port},
        controller_options=environment,
    )


def _deploy(
    bundles: tuple[ServedBundle, ...], spec: ServeSpec, plan: ReplicaPlan, *, api_key: str | None, local: bool
) -> None:
    from ray import serve
    from ray.serve import RunTarget

    from autodl_ray.serve.app import application
    from autodl_ray.serve.guard import LOOPBACK_HOSTS

    target = application(
        {bundle.name: bundle.folder for bundle in bundles},
        spec,
        plan,
        key_hash=None if api_key is None else hash_key(api_key),
        hosts=LOOPBACK_HOSTS if is_loopback(spec.host) and api_key is None else None,
        local=local,
    )
    serve.run_many(
        [RunTarget(target, name=APP_NAME, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    _wait_until_running()


def _wait_until_running() -> None:
    from ray import serve

    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        status = serve.status().applications.get(APP_NAME)
        if status is not None and status.status == "RUNNING":
            return
        if status is not None and status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise StageError("The replicas did not start.", seen=_last_line(status.message))
        time.sleep(_POLL_S)
    raise StageError(
        f"The replicas did not start within {_START_TIMEOUT_S:.0f} s.",
        seen=_last_line(status.message) if status is not None else None,
        hint="free CPUs and memory, or lower --min-replicas",
    )


def _ask(spec: ServeSpec, model: str, api_key: str | None) -> None:
    """Send a small picture to one model and expect its answer."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            status, answer = _post(spec, f"/predict?model={model}&top_k=1", _small_png(), api_key)
        except OSError as error:  # the proxy has not opened its port yet
            status, answer = 0, {"error": str(error)}
        if status == 200:
            return
        if status not in (0, 404, 503) or time.monotonic() > deadline:
            raise StageError("The service started but does not answer.", seen=f"{status}: {answer.get('error')}")
        time.sleep(_POLL_S)


def _post(spec: ServeSpec, path: str, body: bytes, api_key: str | None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(_reachable(spec.host), spec.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Authorization": f"Bearer {api_key}"} if api_key else {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(content)
    except ValueError:
        return response.status, {"error": content[:200].decode(errors="replace")}


def _small_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (127, 127, 127)).save(buffer, "PNG")
    return buffer.getvalue()


def _reachable(host: str) -> str:
    """A name under which this machine reaches a service that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
