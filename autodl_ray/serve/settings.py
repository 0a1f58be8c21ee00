"""What the service is told: its settings with options on top, the API key, and settings of Ray Serve's processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodl_ray.errors import InputError

if TYPE_CHECKING:
    from autodl_ray.spec import ServeSpec

__all__ = ["API_KEY_VARIABLE", "SERVE_ENVIRONMENT", "check_api_key", "hash_key", "read_api_key", "with_options"]

API_KEY_VARIABLE = "AUTODL_API_KEY"

SERVE_ENVIRONMENT: Mapping[str, str] = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "autodl_ray.serve.proxy:middlewares",
    # 10 s by default: one replica more would come after 40 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}
"""Read by Ray Serve's controller, proxies and replicas when they start: set it on every node before Ray starts."""


def hash_key(key: str) -> str:
    """Return the sha256 of an API key: what replicas are given in its stead."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def read_api_key(file: Path | None) -> str | None:
    """Return the API key from a file or from ``AUTODL_API_KEY``; None when neither is given.

    Raises:
        InputError: The file cannot be read, or the key is empty or has spaces.
    """
    if file is None:
        key = os.environ.get(API_KEY_VARIABLE)
        source = f"${API_KEY_VARIABLE}"
    else:
        source = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("The file of the API key cannot be read.", seen=f"{file}: {error}") from error
    return None if key is None else check_api_key(key, source)


def check_api_key(key: str, source: str) -> str:
    """Return an API key that can be sent in a header.

    Raises:
        InputError: It is empty, or has spaces or characters that are not ASCII.
    """
    if len(key.split()) != 1 or not key.isascii():
        raise InputError(
            "The API key is not usable.",
            seen=f"{source}: {len(key)} characters",
            accepted="one word of ASCII characters",
            hint="make one with: openssl rand -hex 32",
        )
    return key


def with_options(carried: Mapping[str, Any] | None, options: Mapping[str, Any]) -> ServeSpec:
    """Lay options over the settings that are there already; one bound of the replicas moves the other.

    Args:
        carried: Fields of a ``ServeSpec``, as a bundle or a deployed application has them.
        options: Fields that were asked for; None: not asked for.

    Raises:
        SpecError: They are not valid.
    """
    from autodl_ray.spec import ServeSpec  # here: the clients read their key from this module, and need no pydantic
    from autodl_ray.spec.explain import validated

    given = {name: value for name, value in options.items() if value is not None}
    values: dict[str, Any] = {**ServeSpec().model_dump(), **(carried or {}), **given}
    if "max_replicas" not in given:
        values["max_replicas"] = max(values["max_replicas"], values["min_replicas"])
    if "min_replicas" not in given:
        values["min_replicas"] = min(values["max_replicas"], values["min_replicas"])
    return validated(ServeSpec, values, what="The settings of the service are not valid.")
