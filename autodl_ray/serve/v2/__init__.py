"""The Open Inference Protocol V2 over HTTP, as unmodified clients of Triton and KServe speak it."""

__all__: list[str] = []
