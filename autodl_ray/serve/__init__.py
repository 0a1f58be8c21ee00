"""Bundles behind HTTP: the interface (`api`), the Ray Serve application (`app`) and how it is started (`service`)."""

__all__: list[str] = []
