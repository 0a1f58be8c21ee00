"""Models and losses as a user would write them, named by dotted paths in tests; some of them are wrong on purpose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "broken_in_training",
    "convolutions",
    "greedy_allocator",
    "greedy_python",
    "greedy_torch",
    "insatiable",
    "margin",
    "no_gradient",
    "per_sample",
    "pictures_out",
    "two_sides",
    "wrong_shape",
]


def convolutions(image_size: int) -> nn.Module:
    """Two convolutions without norms: (N, 3, S, S) → (N, 12)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class Greedy(nn.Module):
    """Refuses more than ``most`` pictures in training, after its norm has taken note of them."""

    def __init__(self, error: BaseException, most: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.2))
        self.rest = convolutions(8)
        self.rest[0] = nn.Conv2d(8, 8, 3)
        self.error, self.most = error, most

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        if self.training and len(x) > self.most:
            raise self.error
        result: Tensor = self.rest(made)
        return result


def greedy_torch(image_size: int) -> nn.Module:
    """As a GPU runs out of memory."""
    return Greedy(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 10)


def greedy_python(image_size: int) -> nn.Module:
    """As Python runs out of memory."""
    return Greedy(MemoryError(), 10)


def greedy_allocator(image_size: int) -> nn.Module:
    """As torch's allocator of a processor runs out of memory."""
    return Greedy(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), 10)


def insatiable(image_size: int) -> nn.Module:
    """Not even one picture fits."""
    return Greedy(MemoryError(f"refuses 1 at {image_size} px"), 0)


def broken_in_training(image_size: int) -> nn.Module:
    """Fails for another reason."""
    return Greedy(RuntimeError("broken on purpose"), 10)


def two_sides(width: int, height: int) -> nn.Module:
    """Wants more than it is given."""
    return convolutions(width)


def pictures_out(image_size: int) -> nn.Module:
    """Forgets to pool and flatten."""
    return nn.Conv2d(3, 4, 3)


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of a margin loss, a scalar; for hard targets only."""
    return F.multi_margin_loss(logits, targets)


def per_sample(logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of each sample, with our options."""
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def wrong_shape(logits: Tensor, targets: Tensor) -> Tensor:
    """One value for each class of each sample."""
    return logits.softmax(1)


def no_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """A number that nothing can learn from."""
    return (logits.argmax(1) != targets).float().mean()
