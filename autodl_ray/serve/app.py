"""The Ray Serve application: one deployment whose replicas hold all models and versions, and how it scales.

Why one deployment, and not one a version behind a thin ingress: on two cores a hop between deployments costs CPU
that a small model needs, and a process a version costs 200 MB and a core's attention. Serve's rolling update stops a
replica before it starts the next (with one replica an outage) and knows no rollback. So a version is not a deployment
but a model in a process: a new one is tried in a process of its own (a crash hurts nobody), opened beside the old one,
answers its share of the requests in the same replica, and takes over, or goes, in one assignment. What is to be served
travels as ``user_config``, which Serve hands over without a restart.

In front of the replicas stands, on one machine, a door of our own (``serve/door``) instead of Serve's proxy, whose hop
costs CPU that the model needs; Serve starts, watches, scales and replaces the replicas all the same. On a cluster
Serve's own proxies (or HAProxy) ask the same application.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from autodl_ray.serve.api import create_app
from autodl_ray.serve.board import RayBoard
from autodl_ray.serve.bundles import check_bundles
from autodl_ray.serve.door.link import Link
from autodl_ray.serve.engine import Engine, ServedModel, open_models
from autodl_ray.serve.guard.keys import KeyRing
from autodl_ray.serve.http.access import AccessLog
from autodl_ray.serve.http.answers import Answer, json_answer
from autodl_ray.serve.http.calls import Call
from autodl_ray.serve.http.routes import Route
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.record import Recorder
from autodl_ray.serve.observe.watch import Watch
from autodl_ray.serve.plan import ReplicaPlan
from autodl_ray.serve.scaling import number_of_replicas
from autodl_ray.serve.settings import hash_key, read_api_key
from autodl_ray.serve.trial import try_bundle
from autodl_ray.serve.versions import Versions
from autodl_ray.spec import ServeSpec
from autodl_ray.spec.explain import validated

__all__ = ["BuildArgs", "Classifier", "application", "build"]

_DRAIN_S = 6.0


@serve.ingress()
class Classifier:
    """One replica: models, threads, and the HTTP application on top; ready once every model has answered.

    Args:
        bundles: (name, folder) of each model, the default first.
        settings: What it was asked to do.
        num_threads: Calls worked on at a time, each by one thread.
        key_hash: sha256 of the API key, or None.
        hosts: Host names under which it may be asked; None: any.
        local: Whether Ray runs on this machine alone.
        keys_file: File of API keys, or None.
        access_log: File that gets a JSON line a request, or None.
        metrics_folder: Where the replicas of this machine add up what ``/metrics`` shows, or None.
        door: Unix socket of the service's own door, on one machine; None: Ray's proxies ask.
        record: Folder that gets some of the requests with their answers, or None.
    """

    def __init__(
        self,
        *,
        bundles: tuple[tuple[str, str], ...],
        settings: dict[str, Any],
        num_threads: int,
        key_hash: str | None,
        hosts: tuple[str, ...] | None,
        local: bool,
        keys_file: str | None = None,
        access_log: str | None = None,
        metrics_folder: str | None = None,
        door: str | None = None,
        record: str | None = None,
    ) -> None:
        if local:
            _keep_on_loopback()
        self._settings = ServeSpec.model_validate(settings)
        self._hosts = hosts
        self._keys = KeyRing(None if keys_file is None else Path(keys_file), sha256=key_hash)
        self._log = None if access_log is None else AccessLog(Path(access_log))
        self._metrics = Metrics(None if metrics_folder is None else Path(metrics_folder))
        self._recorder = _recorder(record, self._settings, self._metrics)
        self._watch = _watch(self._settings, metrics_folder)
        self._engine = Engine(
            open_models(bundles, num_threads=1),
            num_threads=num_threads,
            max_pixels=self._settings.max_pixels,
            metrics=self._metrics,
            watch=self._watch,
        )
        self._engine.warm_up()
        target_ms = self._settings.latency_target_ms
        self._engine.tune(latency_target_s=None if target_ms is None else target_ms / 1000)
        replica = serve.get_replica_context().replica_tag
        self._versions = Versions(
            self._engine, RayBoard(), replica=replica, open_model=_open_warm, try_model=try_bundle
        )
        self._link: Link | None = None
        self._ready = False
        self._goals = ThreadPoolExecutor(1, "goal")  # one thread: goals are followed in their order
        gc.collect()
        gc.freeze()  # what the start left is never looked through again
        if door is not None:
            self._link = Link(
                Path(door),
                self._application(),
                name=replica,
                slots=self._settings.max_ongoing_requests,
                on_goal=self._versions.apply,
                state=self._versions.state,
            )
            self._link.open()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._application()

    def reconfigure(self, goal: dict[str, Any] | None) -> None:
        """Follow what is to be served, Serve's ``user_config``; raises nothing.

        The first time, before the replica is ready, it returns when the right versions answer; later at once.
        """
        if goal is None:
            return
        if not self._ready:
            self._ready = True
            self._versions.apply(goal)
        else:
            self._goals.submit(self._versions.apply, goal)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve's autoscaler what is under way here and at the door, and how long answers take."""
        pictures, latency_ms = self._engine.load()
        under_way = float(pictures)
        if self._link is not None:
            under_way = max(under_way, self._link.under_way) + self._link.waiting
        return {"under_way": under_way, "latency_ms": latency_ms}

    def check_health(self) -> None:
        """Raise when the application's loop stands still: Serve then replaces this replica."""
        if self._link is not None and not self._link.is_alive():
            raise RuntimeError("the event loop of the application stands still")

    def wake(self) -> None:
        """Do nothing: to be asked is what starts the first replica."""

    def __del__(self) -> None:
        if getattr(self, "_link", None) is not None:
            self._link.close(drain_s=_DRAIN_S - 1)  # type: ignore[union-attr]
        if hasattr(self, "_engine"):
            self._engine.close()
        if getattr(self, "_recorder", None) is not None:
            self._recorder.close()  # type: ignore[union-attr]

    async def _rollouts(self, call: Call) -> Answer:
        """Say what is served and how each rollout stands, as this replica knows it."""
        return json_answer(self._versions.state())

    def _application(self) -> ASGIApp:
        return create_app(
            self._engine,
            self._settings,
            keys=self._keys,
            hosts=self._hosts,
            metrics=self._metrics,
            log=self._log,
            recorder=self._recorder,
            watch=self._watch,
            own_ids=False,  # door and proxy send the id back
            more=(Route("GET", "/v1/rollouts", self._rollouts, "admin"),),
        )


def _recorder(folder: str | None, settings: ServeSpec, metrics: Metrics) -> Recorder | None:
    if folder is None:
        return None
    most = int(settings.record_max_mb * 1e6)
    return Recorder(Path(folder), share=settings.record_share, max_bytes=most, metrics=metrics)


def _watch(settings: ServeSpec, metrics_folder: str | None) -> Watch | None:
    if not settings.drift_window:
        return None
    return Watch(settings.drift_window, None if metrics_folder is None else Path(metrics_folder) / "drift")


def _open_warm(name: str, folder: str) -> ServedModel:
    """Open a bundle and let it answer once, so that its first request is as fast as the others."""
    (model,) = open_models([(name, folder)], num_threads=1)
    model.predict([np.full((model.side, model.side, 3), 127, np.uint8)])
    return model


def application(
    bundles: Mapping[str, str | Path],
    spec: ServeSpec,
    plan: ReplicaPlan,
    *,
    key_hash: str | None = None,
    hosts: tuple[str, ...] | None = None,
    local: bool = False,
    keys_file: str | None = None,
    access_log: str | None = None,
    metrics_folder: str | None = None,
    door: Path | None = None,
    record: str | None = None,
) -> Application:
    """Bind the deployment for these models and settings.

    Args:
        bundles: Name → folder, as every node sees it; the first is the default.
        spec: Limits and autoscaling.
        plan: CPUs and threads of the replicas.
        key_hash: sha256 of the API key, or None.
        hosts: Host names under which it may be asked; None: any.
        local: Whether Ray runs on this machine alone: then its replicas open no port to others.
        keys_file: File of API keys, as every node sees it, or None.
        access_log: File on every node that gets a JSON line a request, or None.
        metrics_folder: Folder on every node where its replicas add up what ``/metrics`` shows, or None.
        door: Unix socket of the service's own door; None: Ray's proxies ask.
        record: Folder on every node that gets some of the requests with their answers, or None.
    """
    options = {
        "name": "Classifier",
        "ray_actor_options": {"num_cpus": plan.num_cpus},
        "max_ongoing_requests": spec.max_ongoing_requests,
        "max_queued_requests": spec.max_queued_requests,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "graceful_shutdown_timeout_s": _DRAIN_S,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_constructor_retry_count": 1,  # a model that cannot be loaded cannot be loaded a third time either
        **number_of_replicas(spec),
    }
    deployment = serve.deployment(**options)(Classifier)
    return deployment.bind(
        bundles=tuple((name, str(Path(folder).resolve())) for name, folder in bundles.items()),
        settings=spec.model_dump(mode="json"),
        num_threads=plan.num_threads,
        key_hash=key_hash,
        hosts=hosts,
        local=local,
        keys_file=keys_file,
        access_log=access_log,
        metrics_folder=metrics_folder,
        door=None if door is None else str(door),
        record=record,
    )


def _keep_on_loopback() -> None:
    """Keep the port that this replica opens for calls between deployments on loopback.

    Ray Serve 2.60 opens it on every interface, asks for no token there and unpickles what it is sent
    (``add_port_to_grpc_server(self._server, "[::]:0")``); no setting changes that. On one machine nobody else needs it.
    """
    replica: Any = importlib.import_module("ray.serve._private.replica")
    add_port = replica.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> int:
        port: int = add_port(server, address.replace("[::]", "127.0.0.1"))
        return port

    replica.add_port_to_grpc_server = add_loopback_port


class BuildArgs(BaseModel):
    """Arguments of :func:`build`, as they stand in a Serve config file (jobs/serve.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bundles: tuple[str, ...] = Field(min_length=1, description="FOLDER or NAME=FOLDER, as every node sees it")
    serve: ServeSpec = ServeSpec()
    num_cpus: float | None = Field(None, gt=0, description="of one replica; null: as many as threads")
    api_key_file: str | None = Field(None, description="file with the API key; null: $AUTODL_API_KEY, or none")
    keys_file: str | None = Field(None, description="file of API keys on every node, by autodl keys create")
    access_log: str | None = Field(None, description="file on every node that gets a JSON line a request")
    metrics_folder: str | None = Field(None, description="folder on every node where replicas add up /metrics")
    record: str | None = Field(None, description="folder on every node that gets some of the requests with answers")
    hosts: tuple[str, ...] | None = Field(None, description="host names it may be asked under; null: any")


def build(args: dict[str, Any]) -> Application:
    """Build the application from a Serve config file: ``import_path: autodl_ray.serve.app:build``.

    Args:
        args: The fields of :class:`BuildArgs`, as the file has them.

    Raises:
        SpecError: The arguments are not valid.
        BundleError: A bundle is damaged or is none.
        InputError: The file of the API key cannot be read or is empty.
    """
    wanted = validated(BuildArgs, args, what="The arguments of the application are not valid.")
    spec = wanted.serve
    plan = ReplicaPlan(
        num_cpus=wanted.num_cpus or float(spec.num_threads or 1),
        num_threads=spec.num_threads or 1,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        line="as the config file says",
    )
    key = read_api_key(Path(wanted.api_key_file) if wanted.api_key_file else None)
    folders = {bundle.name: bundle.folder for bundle in check_bundles(wanted.bundles)}
    return application(
        folders,
        spec,
        plan,
        key_hash=None if key is None else hash_key(key),
        hosts=wanted.hosts,
        keys_file=wanted.keys_file,
        access_log=wanted.access_log,
        metrics_folder=wanted.metrics_folder,
        record=wanted.record,
    )
