"""Our fused optimizers beside torch's own: the same weights, and states that each of them can go on from."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from autodl_ray.train.fused import FusedAdamW, FusedOptimizer, FusedSGD

KINDS = ("adamw", "sgd", "sgd without momentum")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 5), nn.Linear(5, 3))
    return net.to(memory_format=torch.channels_last)


def groups(net: nn.Sequential) -> list[dict[str, Any]]:
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "lr": 0.05, "peak_lr": 0.05, "weight_decay": 0.1, "name": "head"},
        {"params": others, "lr": 0.02, "peak_lr": 0.02, "weight_decay": 0.0, "name": "head"},
    ]


def pair(kind: str, net: nn.Sequential, twin: nn.Sequential) -> tuple[FusedOptimizer, torch.optim.Optimizer]:
    if kind == "adamw":
        return FusedAdamW(groups(net)), torch.optim.AdamW(groups(twin), lr=0.1, fused=True)
    momentum = 0.9 if kind == "sgd" else 0.0
    twins = torch.optim.SGD(groups(twin), lr=0.1, momentum=momentum, nesterov=momentum > 0, fused=True)
    return FusedSGD(groups(net), momentum=momentum), twins


def train(net: nn.Sequential, optimizer: Any, *, first: int = 0, steps: int = 6, joins: int = 3) -> None:
    """Take some steps, with the learning rate moving; the convolution joins at step ``joins``."""
    for step in range(first, first + steps):
        net[0].requires_grad_(step >= joins)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] / (1 + step)
        images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(net(images), torch.arange(8) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()


def distance(net: nn.Module, twin: nn.Module) -> float:
    with torch.no_grad():
        return max(float((a - b).abs().max()) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_torchs_own(kind: str) -> None:
    net, twin = network(), network()
    ours, torchs = pair(kind, net, twin)
    begin = network()
    # torch's fused SGD takes no parameter that joins late, beside others with momentum: it learns from the first step.
    joins = 3 if kind == "adamw" else 0
    train(net, ours, joins=joins)
    train(twin, torchs, joins=joins)
    assert distance(net, twin) <= 1e-7
    assert distance(net, begin) > 1e-3
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_each_goes_on_from_the_state_of_the_other(kind: str) -> None:
    net, twin = network(), network()
    ours, torchs = pair(kind, net, twin)
    train(net, ours, joins=0)
    train(twin, torchs, joins=0)
    second, first = pair(kind, twin, net)  # ours on torch's weights, and torch's on ours
    second.load_state_dict(torchs.state_dict())
    first.load_state_dict(
        {
            "state": ours.state_dict()["state"],
            "param_groups": [
                {**made, **kept}
                for made, kept in zip(
                    first.state_dict()["param_groups"], ours.state_dict()["param_groups"], strict=True
                )
            ],
        }
    )
    train(net, first, first=6, joins=0)
    train(twin, second, first=6, joins=0)
    assert distance(net, twin) <= 1e-7


def test_a_loaded_state_is_a_copy() -> None:
    net, twin = network(), network()
    ours, other = FusedAdamW(groups(net)), FusedAdamW(groups(twin))
    train(net, ours)
    other.load_state_dict(ours.state_dict())
    before = {k: v.clone() for k, v in ours.state_dict()["state"][0].items()}
    train(twin, other, first=6)
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict()["state"][0].items())


def test_a_late_parameter_of_sgd_begins_as_at_a_first_step() -> None:
    net = network()
    ours = FusedSGD(groups(net), momentum=0.9)
    train(net, ours, steps=3)
    assert net[0].weight not in ours.state
    net[0].requires_grad_()
    nn.functional.cross_entropy(net(torch.ones(2, 3, 6, 6)), torch.tensor([0, 1])).backward()
    gradient, weight, group = net[0].weight.grad.clone(), net[0].weight.detach().clone(), ours.param_groups[0]
    ours.step()
    wanted = gradient + group["weight_decay"] * weight
    assert torch.allclose(ours.state[net[0].weight]["momentum_buffer"], wanted, atol=1e-7)
    assert torch.allclose(net[0].weight, weight - group["lr"] * 1.9 * wanted, atol=1e-7)


def test_parameters_of_several_types_are_stepped_apart() -> None:
    weights = [nn.Parameter(torch.ones(3, dtype=kind)) for kind in (torch.float32, torch.float64)]
    optimizer = FusedAdamW([{"params": weights, "lr": 0.1, "weight_decay": 0.0}])
    for weight in weights:
        weight.sum().backward()
    optimizer.step()
    assert [round(w[0].item(), 5) for w in weights] == [0.9, 0.9]


def test_a_state_of_other_groups_is_refused() -> None:
    net = network()
    optimizer = FusedAdamW(groups(net))
    with pytest.raises(ValueError, match="other groups"):
        FusedAdamW(groups(net)[:1]).load_state_dict(optimizer.state_dict())


def test_the_compiler_of_torch_is_not_imported() -> None:
    code = (
        "import sys, torch; from autodl_ray.train.fused import FusedAdamW as A; w = torch.nn.Parameter(torch.ones(2));"
        "o = A([{'params': [w], 'lr': 0.1, 'weight_decay': 0.0}]); w.sum().backward(); o.step(); o.zero_grad();"
        "o.load_state_dict(o.state_dict()); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
