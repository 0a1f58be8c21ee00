"""A batch cut into slices, each in a thread of its own: what independent samples allow.

torch splits every single operation over its threads and waits for the slowest, several hundred times a step. That is
as fast as slices on an idle machine, but as soon as another process (decoding pictures, say) takes a core now and
then, all wait for the thread that lost it. Measured for a bf16 step of EfficientNet-Lite0 with 32 pictures on two
cores, one of them also used by a busy process: 9.6 s with two torch threads, 1.0 to 1.8 s with two slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autodl_ray.train.precision import autocast

__all__ = ["Slices", "independent_samples", "sliced"]

_WORTH_SLICING_PX = 64  # below this an operation is shorter than handing it over


def independent_samples(network: nn.Module) -> bool:
    """Whether the output of a sample does not depend on the others in its batch, in training too."""
    from autodl_ray.models.folding import is_folded

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return all(is_folded(m) for m in network.modules() if isinstance(m, norms))


@dataclass
class Slices:
    """The threads, and the backbone's features whose backward pass is still to come.

    Attributes:
        pool: As many threads as slices.
        count: How many.
    """

    pool: ThreadPoolExecutor
    count: int
    _parts: Sequence[Tensor] = field(default=(), init=False)
    _joined: Tensor | None = field(default=None, init=False)

    def map(self, function: Callable[[Tensor], Tensor], images: Tensor) -> list[Tensor]:
        """Apply ``function`` to the slices of (N, …), each in its thread, in order."""
        return list(self.pool.map(function, images.chunk(self.count)))

    def features(self, backbone: nn.Module, images: Tensor, precision: str) -> Tensor:
        """Return the features (N, D) float32 of a batch, as a leaf; :meth:`backward` needs its gradient."""

        def forward(part: Tensor) -> Tensor:
            with autocast(part.device, precision):
                result: Tensor = backbone(part)
            return result.float()

        self._parts = self.map(forward, images)
        self._joined = torch.cat([part.detach() for part in self._parts]).requires_grad_()
        return self._joined

    def backward(self, backbone: nn.Module) -> None:
        """Add the gradients of the backbone's parameters that learn, in the order of the slices."""
        assert self._joined is not None
        assert self._joined.grad is not None
        params = [p for p in backbone.parameters() if p.requires_grad]
        if not params:
            self.forget()
            return
        gradients = torch.split(self._joined.grad, [len(part) for part in self._parts])

        def backward(pair: tuple[Tensor, Tensor]) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(pair[0], params, pair[1], allow_unused=True)

        for made in self.pool.map(backward, zip(self._parts, gradients, strict=True)):
            for parameter, gradient in zip(params, made, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        self.forget()

    def forget(self) -> None:
        """Let go of the features, and of the activations behind them."""
        self._parts, self._joined = (), None


@contextmanager
def sliced(network: nn.Module, *, image_size: int, device: torch.device) -> Iterator[Slices | None]:
    """Use the threads that torch has now for slices, where the network and the machine allow it; else yield None."""
    threads = torch.get_num_threads()
    suits = device.type == "cpu" and image_size > _WORTH_SLICING_PX and independent_samples(network)
    if threads < 2 or not suits or not list(network.parameters()):
        yield None
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(
        threads, thread_name_prefix="autodl-slice", initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield Slices(pool, threads)
    finally:
        pool.shutdown()
        torch.set_num_threads(threads)
