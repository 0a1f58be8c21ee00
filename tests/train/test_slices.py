"""A batch in slices has the gradients of the whole batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from autodl_ray.models.classifier import Classifier, build
from autodl_ray.models.folding import freeze_norms
from autodl_ray.train.slices import independent_samples, sliced

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network() -> Classifier:
    model = build("efficientnet_lite0", num_classes=3, image_size=96, weights="none").train()
    freeze_norms(model.backbone, 96)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def test_gradients_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    model, images, labels = network().double(), torch.randn(5, 3, 96, 96).double(), torch.tensor([0, 1, 2, 0, 1])
    nn.functional.cross_entropy(model(images), labels).backward()
    wanted = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with sliced(model.backbone, image_size=96, device=CPU) as slices:
        assert slices is not None
        assert torch.get_num_threads() == 1
        logits = model.head(slices.features(model.backbone, images, "32").double())
        nn.functional.cross_entropy(logits, labels).backward()
        slices.backward(model.backbone)
    assert torch.get_num_threads() == 2
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad - wanted[name]).norm() <= 1e-5 * wanted[name].norm() + 1e-8, name


def test_slices_run_in_threads_of_their_own_and_in_order() -> None:
    names: list[str] = []

    def note(part: torch.Tensor) -> torch.Tensor:
        names.append(threading.current_thread().name)
        return part

    with sliced(network().backbone, image_size=96, device=CPU) as slices:
        assert slices is not None
        parts = slices.map(note, torch.arange(5))
    assert torch.cat(parts).tolist() == [0, 1, 2, 3, 4]
    assert all(name.startswith("autodl-slice") for name in names)


def test_only_where_samples_are_independent_and_worth_it() -> None:
    plain = build("efficientnet_lite0", num_classes=3, image_size=96, weights="none")
    assert not independent_samples(plain.backbone)
    assert independent_samples(network().backbone)
    with sliced(plain.backbone, image_size=96, device=CPU) as slices:
        assert slices is None
    with sliced(network().backbone, image_size=64, device=CPU) as slices:
        assert slices is None
    torch.set_num_threads(1)
    with sliced(network().backbone, image_size=96, device=CPU) as slices:
        assert slices is None
