"""Bundles behind HTTP: the interface (`api`), what runs it (`app`, `service`), and clients of it (`Client`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodl_ray.serve.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Import the clients when they are used: replicas do without httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autodl_ray.serve import client

    return getattr(client, name)
