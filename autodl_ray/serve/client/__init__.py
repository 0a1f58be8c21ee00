"""Clients of the service for Python: httpx and the standard library only, no Ray, no torch."""

from autodl_ray.serve.client.asynchronous import AsyncClient
from autodl_ray.serve.client.synchronous import Client
from autodl_ray.serve.client.words import (
    Heatmap,
    ModelFacts,
    Prediction,
    Probability,
    RequestRefused,
    ServiceUnavailable,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Heatmap",
    "ModelFacts",
    "Prediction",
    "Probability",
    "RequestRefused",
    "ServiceUnavailable",
]
