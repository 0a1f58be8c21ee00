"""The Ray Serve application: one deployment whose replicas hold the models, and the settings by which it scales."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from autodl_ray.errors import SpecError
from autodl_ray.serve.api import create_app
from autodl_ray.serve.bundles import check_bundles
from autodl_ray.serve.engine import Engine, open_models
from autodl_ray.serve.plan import ReplicaPlan
from autodl_ray.serve.settings import hash_key, read_api_key
from autodl_ray.spec import ServeSpec

__all__ = ["BuildArgs", "Classifier", "application", "build"]

_LOOK_BACK_S = 11.0  # the shortest window that Ray 2.60 accepts without a warning is 10 s
_DRAIN_S = 6.0


@serve.ingress()
class Classifier:
    """One replica: models, threads, and the HTTP application on top; ready once every model has answered.

    Args:
        bundles: (name, folder) of each model, the default first.
        settings: What it was asked to do.
        num_threads: onnxruntime threads, and pictures worked on at a time.
        key_hash: sha256 of the API key, or None.
        hosts: Host names under which it may be asked; None: any.
        local: Whether Ray runs on this machine alone.
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
    ) -> None:
        if local:
            _keep_on_loopback()
        self._settings = ServeSpec.model_validate(settings)
        self._key_hash, self._hosts = key_hash, hosts
        self._engine = Engine(open_models(bundles, num_threads=num_threads), num_threads=num_threads)
        self._engine.warm_up()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return create_app(
            self._engine, max_body_mb=self._settings.max_body_mb, key_hash=self._key_hash, hosts=self._hosts
        )

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()


def application(
    bundles: Mapping[str, str | Path],
    spec: ServeSpec,
    plan: ReplicaPlan,
    *,
    key_hash: str | None = None,
    hosts: tuple[str, ...] | None = None,
    local: bool = False,
) -> Application:
    """Bind the deployment for these models and settings.

    Args:
        bundles: Name → folder, as every node sees it; the first is the default.
        spec: Limits and autoscaling.
        plan: CPUs, threads and number of the replicas.
        key_hash: sha256 of the API key, or None.
        hosts: Host names under which it may be asked; None: any.
        local: Whether Ray runs on this machine alone: then its replicas open no port to others.
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
        **_scaling(spec, plan),
    }
    deployment = serve.deployment(**options)(Classifier)
    return deployment.bind(
        bundles=tuple((name, str(Path(folder).resolve())) for name, folder in bundles.items()),
        settings=spec.model_dump(mode="json"),
        num_threads=plan.num_threads,
        key_hash=key_hash,
        hosts=hosts,
        local=local,
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


def _scaling(spec: ServeSpec, plan: ReplicaPlan) -> dict[str, Any]:
    if plan.min_replicas == plan.max_replicas:
        return {"num_replicas": plan.max_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": plan.min_replicas,
            "max_replicas": plan.max_replicas,
            "target_ongoing_requests": spec.target_ongoing_requests,
            "upscale_delay_s": spec.upscale_delay_s,
            "downscale_delay_s": spec.downscale_delay_s,
            "look_back_period_s": _LOOK_BACK_S,
        }
    }


class BuildArgs(BaseModel):
    """Arguments of :func:`build`, as they stand in a Serve config file (jobs/serve.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bundles: tuple[str, ...] = Field(min_length=1, description="FOLDER or NAME=FOLDER, as every node sees it")
    serve: ServeSpec = ServeSpec()
    num_cpus: float | None = Field(None, gt=0, description="of one replica; null: as many as threads")
    api_key_file: str | None = Field(None, description="file with the API key; null: $AUTODL_API_KEY, or none")
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
    wanted = _validated(args)
    spec = wanted.serve
    plan = ReplicaPlan(
        num_cpus=wanted.num_cpus or float(spec.num_threads),
        num_threads=spec.num_threads,
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        line="as the config file says",
    )
    key = read_api_key(Path(wanted.api_key_file) if wanted.api_key_file else None)
    folders = {bundle.name: bundle.folder for bundle in check_bundles(wanted.bundles)}
    return application(folders, spec, plan, key_hash=None if key is None else hash_key(key), hosts=wanted.hosts)


def _validated(args: dict[str, Any]) -> BuildArgs:
    try:
        return BuildArgs.model_validate(args)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SpecError("The arguments of the application are not valid.", seen="; ".join(reasons)) from error
