"""What people see of the service: the page to try a model on, and the description of the interface."""

__all__: list[str] = []
