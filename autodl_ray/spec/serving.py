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
    max_ongoing_requests: int = Field(16, ge=1, description="requests under way a replica accepts")
    max_queued_requests: int = Field(200, ge=-1, description="waiting requests before 429; -1: no limit")
    upscale_delay_s: float = Field(3, ge=0)
    downscale_delay_s: float = Field(60, ge=0)
    num_threads: int = Field(1, ge=1, le=256, description="onnxruntime threads a replica")
    max_body_mb: float = Field(20, gt=0, le=1000, description="largest accepted request")

    @model_validator(mode="after")
    def _ordered(self) -> ServeSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self
