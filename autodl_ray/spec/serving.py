"""The part of a specification that says where the HTTP service listens, what it accepts and how it scales."""

from __future__ import annotations

from pydantic import Field, model_validator

from autodl_ray.spec.values import Section

__all__ = ["ServeSpec"]


class ServeSpec(Section):
    """The HTTP service: where it listens and how it scales."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(2, ge=1, le=1000)
    target_ongoing_requests: float = Field(4, gt=0, description="requests under way a replica aims at")
    latency_target_ms: float | None = Field(
        None, gt=0, description="95th percentile that batches and replicas are chosen for; null: speed alone"
    )
    max_ongoing_requests: int = Field(16, ge=1, description="requests under way a replica accepts")
    max_queued_requests: int = Field(200, ge=-1, description="waiting requests before 429; -1: no limit")
    max_wait_s: float = Field(
        0.5, gt=0, description="on one machine: a request that would wait longer for its turn gets 429"
    )
    upscale_delay_s: float = Field(2, ge=0)
    downscale_delay_s: float = Field(30, ge=0)
    num_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="threads a replica; each works on one call; null: the CPUs by max_replicas, with autodl deploy one",
    )
    max_body_mb: float = Field(20, gt=0, le=1000, description="largest accepted request")
    max_pixels: int = Field(50_000_000, ge=1, le=1_000_000_000, description="of a picture, looked up before decoding")
    max_pictures: int = Field(256, ge=1, le=1024, description="in one request")
    request_timeout_s: float = Field(60, gt=0, le=3600, description="most a request may take; clients may ask for less")
    rate_limit_per_s: float | None = Field(
        None, gt=0, description="requests a second of one API key at one replica, twice as many at once; null: no limit"
    )
    record_share: float = Field(0.01, ge=0, le=1, description="of the requests that --record keeps, by their id")
    record_max_mb: float = Field(500, gt=0, description="of all recorded files; then nothing more is kept")
    drift_window: int = Field(
        1000, ge=0, le=100_000, description="pictures of a replica that are held against the training; 0: none"
    )
    allow_urls: bool = Field(False, description="fetch pictures from public web addresses that a request names")
    cors_origins: tuple[str, ...] = Field((), description="origins whose pages may ask, e.g. https://shop.example")

    @model_validator(mode="after")
    def _ordered(self) -> ServeSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self
