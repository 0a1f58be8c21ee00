"""Starting the service on this machine (or the joined cluster) and stopping it, with nothing left behind."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from autodl_ray.errors import InputError, ResourceError, StageError
from autodl_ray.runtime.cluster import ClusterInfo, ensure_ray, stop_ray
from autodl_ray.serve.bundles import ServedBundle, check_bundles
from autodl_ray.serve.door.door import Door, DoorSettings
from autodl_ray.serve.door.http import Limits
from autodl_ray.serve.first_answer import Address, await_answer
from autodl_ray.serve.goal import Goal, NextVersion, parse_goal
from autodl_ray.serve.observe.record import check_folder
from autodl_ray.serve.plan import ReplicaPlan, plan_replicas
from autodl_ray.serve.proxy import TIMEOUT_VARIABLE
from autodl_ray.serve.settings import SERVE_ENVIRONMENT, hash_key
from autodl_ray.serve.tls import Tls
from autodl_ray.spec import ServeSpec

if TYPE_CHECKING:
    from ray.serve import Application

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
    door: Door | None = None

    def roll_out(self, name: str, following: NextVersion) -> None:
        """Bring a new version of a model in beside the one that answers; :meth:`status` says how it goes.

        Nothing restarts.

        Raises:
            InputError: There is no such model, or the service is not this machine's own.
        """
        self._tell(self._goal().with_next(name, following))

    def take_back(self, name: str) -> None:
        """Take the newest version of a model back, whether it is on its way in or took over.

        Raises:
            InputError: As :meth:`roll_out`.
        """
        self._tell(self._goal().taken_back(name))

    def status(self) -> dict[str, Any]:
        """Return the figures of the door: replicas, requests under way and waiting, and each replica's versions."""
        return {} if self.door is None else self.door.figures()

    def _goal(self) -> Goal:
        if self.door is None:
            raise InputError("This service runs on a cluster.", hint="change it with: autodl deploy")
        first = Goal.of([(bundle.name, str(bundle.folder)) for bundle in self.bundles])
        return first if self.door.goal is None else parse_goal(self.door.goal)

    def _tell(self, goal: Goal) -> None:
        assert self.door is not None
        self.door.tell(goal.model_dump(mode="json"))


@dataclass
class _Running:
    """The one service of this process, as there is one Ray: what stop() has to close."""

    door: Door | None = None


_running = _Running()


def start(
    bundles: Sequence[str | Path],
    spec: ServeSpec,
    *,
    api_key: str | None = None,
    keys_file: Path | None = None,
    access_log: Path | None = None,
    record: Path | None = None,
    tls: Tls | None = None,
    num_cpus: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Service:
    """Check everything, start Ray and the replicas, and return once a real request was answered by every model.

    Args:
        bundles: Folders (or ``NAME=FOLDER``); the first is the default model.
        spec: Where it listens and how it scales.
        api_key: Asked for as a bearer token; needed when ``spec.host`` is not loopback.
        keys_file: Keys that open it too, made by ``autodl keys create``.
        access_log: File that gets a JSON line a request.
        record: Folder that gets some of the requests with their answers.
        tls: Certificate and key; None: plain HTTP.
        num_cpus: CPUs of a local Ray; None: those of the machine.
        say: Told the plan in one line, before the replicas start.

    Raises:
        BundleError: A bundle is damaged or is none; before Ray starts.
        InputError: A host that others can reach, without an API key, or a folder for requests that cannot be written;
            before Ray starts.
        ResourceError: The port is in use, or the replicas do not fit.
        StageError: The replicas did not start.
    """
    from autodl_ray.serve.guard.origins import LOOPBACK_HOSTS

    began = time.monotonic()
    checked = check_bundles(bundles)
    key_hash = None if api_key is None else hash_key(api_key)
    _check_host(spec.host, with_key=api_key is not None or keys_file is not None)
    check_port(spec.host, spec.port)
    if record is not None:
        check_folder(record)
    _prepare_environment(spec.host)
    ours = not _ray_runs()
    cluster = ensure_ray(num_cpus=num_cpus, num_gpus=0, log_to_driver=False)
    from autodl_ray.serve.app import application

    try:
        plan = _plan(checked, spec, cluster)
        say(plan.line)
        door = _running.door = _open_door(spec, cluster, tls) if cluster.local else None
        _serve_start(spec, ours=ours and cluster.local, own_door=door is not None, tls=tls)
        needs_key = key_hash is not None or keys_file is not None
        target = application(
            {bundle.name: bundle.folder for bundle in checked},
            spec,
            plan,
            key_hash=key_hash,
            hosts=LOOPBACK_HOSTS if is_loopback(spec.host) and not needs_key else None,
            local=cluster.local,
            keys_file=None if keys_file is None else str(keys_file.resolve()),
            access_log=None if access_log is None else str(access_log.resolve()),
            metrics_folder=None if cluster.folder is None else str(cluster.folder / "metrics"),
            door=None if door is None else door.socket,
            record=None if record is None else str(record.resolve()),
        )
        _deploy(target)
        address = Address(spec.host, spec.port, tls=tls is not None)
        for bundle in checked:
            await_answer(address, bundle.name, api_key=api_key, only_health=api_key is None and keys_file is not None)
    except BaseException:
        stop(leave_ray=not ours)
        raise
    return Service(address.url, checked, plan, time.monotonic() - began, door)


def stop(*, leave_ray: bool = False) -> None:
    """Let requests under way finish (6 s at most), stop the replicas, and end a local Ray with its processes.

    Args:
        leave_ray: Leave Ray running, for other work of this process.
    """
    import ray
    from ray import serve

    door, _running.door = _running.door, None
    if door is not None:
        door.close(drain_s=6.0)
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


def _check_host(host: str, *, with_key: bool) -> None:
    if not with_key and not is_loopback(host):
        raise InputError(
            "Others could reach this host, and nobody would be asked for a key.",
            seen=f"host {host}",
            accepted="127.0.0.1, or any host with an API key",
            hint="autodl keys create NAME --file keys.json, then add --keys-file keys.json",
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
    except UnicodeError as error:  # no name of a host at all
        return socket.gaierror(socket.EAI_NONAME, str(error))
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


def _open_door(spec: ServeSpec, cluster: ClusterInfo, tls: Tls | None) -> Door:
    from ray import serve

    def wake() -> None:
        with contextlib.suppress(Exception):  # asked again while requests wait
            serve.get_app_handle(APP_NAME).wake.remote().result(timeout_s=30)

    folder = cluster.folder or Path(tempfile.gettempdir())
    settings = DoorSettings(
        spec.host,
        spec.port,
        Limits(body_bytes=int(spec.max_body_mb * 1e6)),
        max_queued=spec.max_queued_requests,
        max_wait_s=spec.max_wait_s,
        answer_s=spec.request_timeout_s,
        ssl=None if tls is None else tls.context(),
    )
    door = Door(folder / f"door-{os.getpid()}.sock", settings, wake=wake)
    door.open()
    return door


def _serve_start(spec: ServeSpec, *, ours: bool, own_door: bool, tls: Tls | None) -> None:
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    # The proxy and the replicas inherit the controller's environment; a Ray that we started has it already, and
    # its waiting workers can be used, which saves a second.
    variables = {**SERVE_ENVIRONMENT, TIMEOUT_VARIABLE: str(spec.request_timeout_s)}
    environment = None if ours else {"runtime_env": {"env_vars": variables}}
    serve.start(
        proxy_location="Disabled" if own_door else "HeadOnly",
        http_options=None if own_door else _http_options(spec, tls),
        controller_options=environment,
    )


def _http_options(spec: ServeSpec, tls: Tls | None) -> dict[str, Any]:
    options: dict[str, Any] = {"host": spec.host, "port": spec.port, "request_timeout_s": spec.request_timeout_s}
    return options if tls is None else {**options, **tls.options()}


def _deploy(target: Application) -> None:
    from ray import serve
    from ray.serve import RunTarget

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


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
