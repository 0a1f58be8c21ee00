"""The stages of a backbone, from its input to its top: what is unfrozen together and shares a learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

__all__ = ["MOST_STAGES", "Thaw", "backbone_stages"]

MOST_STAGES = 8
"""More than these are joined: EfficientNet-Lite0 has 9 blocks with its stem and its top, MobileNetV3-Small 14."""

_FEW = 4


def backbone_stages(backbone: nn.Module) -> tuple[tuple[nn.Module, ...], ...]:
    """Divide a backbone into stages, the input's first.

    The children are taken in the order in which they were registered, which is the order of the forward pass in every
    network of the zoo. While they are fewer than four, the largest container is opened. A layer starts a stage, a norm
    belongs to the layer before it, and what has no parameters belongs to none. Where that makes more than
    ``MOST_STAGES``, the two neighbours with the fewest parameters are joined.

    Returns:
        Modules of each stage; together they hold every parameter of the backbone, each once.
    """
    stages: list[list[nn.Module]] = []
    for module in _opened(backbone):
        if stages and _is_norm(module):
            stages[-1].append(module)
        else:
            stages.append([module])
    while len(stages) > MOST_STAGES:
        sizes = [_size(stage) for stage in stages]
        at = min(range(len(stages) - 1), key=lambda i: sizes[i] + sizes[i + 1])
        stages[at : at + 2] = [stages[at] + stages[at + 1]]
    return tuple(tuple(stage) for stage in stages)


def _opened(backbone: nn.Module) -> list[nn.Module]:
    """Return the children that hold parameters; while they are few, the largest container is opened."""
    if next(iter(backbone.parameters(recurse=False)), None) is not None:
        return [backbone]  # it has parameters of its own, which none of its children would bring along
    units = _with_parameters(backbone)
    while sum(not _is_norm(unit) for unit in units) < _FEW:
        closed = [unit for unit in units if isinstance(unit, nn.Sequential | nn.ModuleList)]
        if not closed:
            break
        at = units.index(max(closed, key=lambda unit: _size([unit])))
        units[at : at + 1] = _with_parameters(units[at])
    return units


def _with_parameters(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if _size([child])]


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _is_norm(module: nn.Module) -> bool:
    return all(p.ndim < 2 for p in module.parameters())


@dataclass
class Thaw:
    """Which stages of a backbone learn, as the schedule goes on (Howard and Ruder, ULMFiT, 2018).

    A frozen stage costs no backward pass, keeps the statistics of its norms and the state that the optimizer has of
    it. The head always learns.

    Attributes:
        stages: As :func:`backbone_stages` gave them.
        mode: ``none``: all learn, always; ``backbone``: none ever; ``gradual``: of K stages the i-th from the top
            joins at ``share`` · i / K.
        share: Of the schedule, after which all learn.
    """

    stages: tuple[tuple[nn.Module, ...], ...]
    mode: str
    share: float
    _learning: int = -1

    def wanted(self, position: float) -> int:
        """Return how many stages, from the top, learn at a position in [0, 1] of the schedule."""
        count = len(self.stages)
        if self.mode == "none":
            return count
        if self.mode == "backbone":
            return 0
        return min(count, int(position / self.share * count + 1e-9))

    def move_to(self, position: float) -> bool:
        """Freeze and unfreeze for this position; return whether something changed."""
        wanted = self.wanted(position)
        if wanted == self._learning or self.mode == "none":
            return False
        self._learning = wanted
        for index, stage in enumerate(self.stages):
            for module in stage:
                module.requires_grad_(index >= len(self.stages) - wanted)
        self.keep_still()
        return True

    def keep_still(self) -> None:
        """Set the frozen stages to evaluation; whoever sets the network to training calls this after."""
        if self.mode == "none":
            return
        for index, stage in enumerate(self.stages):
            for module in stage:
                module.train(index >= len(self.stages) - self._learning)
