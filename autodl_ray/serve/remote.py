"""A service on a running cluster, changed by declaration: the config of `serve deploy`, sent to the dashboard."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autodl_ray.errors import InputError, StageError
from autodl_ray.serve.goal import Goal, NextVersion, parse_goal
from autodl_ray.serve.scaling import number_of_replicas
from autodl_ray.serve.settings import SERVE_ENVIRONMENT
from autodl_ray.spec import ServeSpec
from autodl_ray.spec.explain import validated

__all__ = [
    "Cluster",
    "application_config",
    "deploy_config",
    "goal_of",
    "next_version",
    "without",
]

_DEPLOYMENT = "Classifier"
_PATH = "/api/serve/applications/"
_TIMEOUT_S = 30.0


def application_config(
    name: str, goal: Goal, spec: ServeSpec, *, route_prefix: str = "/", args: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return one application of a Serve config.

    What may change without a restart stands under ``deployments`` (replicas, limits, ``user_config``); what is built
    from stands under ``args`` and restarts the replicas when it changes. So ``args`` names the bundles of the first
    start only through the goal: a replica that starts later follows the goal before it answers.

    Args:
        name: Of the application.
        goal: What is to be served.
        spec: Limits and scaling.
        route_prefix: Under which paths it answers.
        args: Further fields of :class:`autodl_ray.serve.app.BuildArgs`.
    """
    options: dict[str, Any] = {
        "name": _DEPLOYMENT,
        "max_ongoing_requests": spec.max_ongoing_requests,
        "max_queued_requests": spec.max_queued_requests,
        "user_config": goal.model_dump(mode="json"),
        **number_of_replicas(spec),
    }
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": "autodl_ray.serve.app:build",
        "args": {**(args or {}), "bundles": [f"{m.name}={m.bundle}" for m in goal.models], "serve": _fixed(spec)},
        "deployments": [options],
    }


def deploy_config(applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> dict[str, Any]:
    """Return a whole Serve config: the goal of the cluster, what is not in it is deleted.

    Args:
        applications: Of :func:`application_config`.
        host: Where the proxies listen; it and ``port`` count only when Serve first starts on the cluster.
        port: See ``host``.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "controller_options": {"runtime_env": {"env_vars": dict(SERVE_ENVIRONMENT)}},
        "logging_config": {"encoding": "JSON", "log_level": "INFO", "enable_access_log": False},
        "applications": [dict(application) for application in applications],
    }


def goal_of(application: Mapping[str, Any]) -> Goal:
    """Return what a deployed application is to serve.

    Raises:
        SpecError: It is none of ours.
    """
    options = next(iter(application.get("deployments") or [{}]))
    return parse_goal(options.get("user_config"))


def without(applications: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Return the applications but one."""
    return [application for application in applications if application["name"] != name]


@dataclass(frozen=True)
class Cluster:
    """The dashboard of a Ray cluster.

    Attributes:
        address: ``http://HOST:8265``.
        token: Of Ray's token authentication, or None.
    """

    address: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, address: str | None) -> Cluster:
        """Take the address, or that of ``RAY_DASHBOARD_ADDRESS``; the token is read from the environment or its file.

        Raises:
            InputError: There is no address, or it is none.
        """
        found = address or os.environ.get("RAY_DASHBOARD_ADDRESS")
        if not found:
            raise InputError(
                "The cluster is not named.",
                accepted="--address http://HEAD:8265, or $RAY_DASHBOARD_ADDRESS",
                hint="on this machine alone, use: autodl serve",
            )
        if not found.startswith(("http://", "https://")) or not found.isprintable() or " " in found:
            raise InputError("The address of the dashboard is no URL.", seen=found, accepted="http://HEAD:8265")
        return cls(found.rstrip("/"), _token())

    def details(self) -> dict[str, Any]:
        """Return what Serve says of itself: ``applications`` by name, with ``status`` and ``deployments``.

        Raises:
            InputError: Something else than a dashboard answers.
        """
        content = self._ask("GET") or b"{}"
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError("This is not the dashboard of a cluster.", seen=self.address, accepted="http://HEAD:8265")
        return found

    def deployed(self) -> list[dict[str, Any]]:
        """Return the applications as they were declared."""
        applications = self.details().get("applications", {})
        return [a["deployed_app_config"] for a in applications.values() if a.get("deployed_app_config")]

    def put(self, config: Mapping[str, Any]) -> None:
        """Declare the goal of the whole cluster."""
        self._ask("PUT", json.dumps(config).encode())

    def delete(self) -> None:
        """End Serve on the cluster, with all applications."""
        self._ask("DELETE")

    def wait(self, name: str, *, timeout_s: float = 300.0) -> None:
        """Wait until an application runs.

        Raises:
            StageError: It failed, or did not run in time.
        """
        until = time.monotonic() + timeout_s
        while True:
            found = self.details().get("applications", {}).get(name, {})
            status, message = found.get("status", "NOT_STARTED"), str(found.get("message", ""))
            if status == "RUNNING":
                return
            if status in ("DEPLOY_FAILED", "UNHEALTHY") or time.monotonic() > until:
                lines = message.strip().splitlines()
                raise StageError(f"The application is {status}.", seen=lines[-1] if lines else None)
            time.sleep(0.5)

    def _ask(self, method: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.address + _PATH, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            raise self._explained(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise InputError(
                "The dashboard of the cluster does not answer.", seen=f"{self.address}: {error}", hint="see --address"
            ) from error

    def _explained(self, error: urllib.error.HTTPError) -> Exception:
        if error.code in (401, 403):
            return InputError(
                "The cluster asks for its token." if error.code == 401 else "The token is not the cluster's.",
                accepted="RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token",
            )
        text = error.read(2000).decode(errors="replace").strip().splitlines()
        return StageError("The cluster refused the change.", seen=f"{error.code}: {text[-1] if text else error.reason}")


def next_version(bundle: str, *, share: float, shadow: float, rules: Mapping[str, Any]) -> NextVersion:
    """Return a new version on its way in, as an attempt of its own.

    Raises:
        SpecError: A share or a rule is not valid.
    """
    rollout = f"r{time.time_ns():x}"
    value = {"bundle": bundle, "rollout": rollout, "share": share, "shadow": shadow, "rules": dict(rules)}
    return validated(NextVersion, value, what="How the new version comes in is not valid.")


def _fixed(spec: ServeSpec) -> dict[str, Any]:
    """Leave out of the build arguments what changes without a restart."""
    light = {
        "host", "port", "min_replicas", "max_replicas", "max_ongoing_requests", "max_queued_requests",
        "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s",
    }  # fmt: skip
    return {name: value for name, value in spec.model_dump(mode="json").items() if name not in light}


def _token() -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
