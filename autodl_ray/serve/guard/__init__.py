"""Who may ask: API keys, host names, origins and rates."""

from autodl_ray.serve.guard.origins import LOOPBACK_HOSTS

__all__ = ["LOOPBACK_HOSTS"]
