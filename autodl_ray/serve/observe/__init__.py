"""What a service observes of its own work: requests kept with their answers, and drift away from the training."""

__all__: list[str] = []
