"""The HTTP interface as a plain ASGI application: it knows nothing of Ray, and is tested without it."""

__all__: list[str] = []
