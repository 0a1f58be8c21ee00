"""The table of networks, and the choice among them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autodl_ray.errors import InputError
from autodl_ray.models.classifier import build
from autodl_ray.models.zoo import ZOO, choose, find_entry
from autodl_ray.spec.sections import ModelSpec, TrainSpec


@pytest.mark.parametrize(
    ("pictures", "name", "size"),
    [
        ((8, 8), "small_cnn", 8),
        ((28, 28), "small_cnn", 28),
        ((30, 61), "small_cnn", 64),
        ((3, 2), "small_cnn", 8),
        ((65, 40), "efficientnet_lite0", 96),
        ((128, 96), "efficientnet_lite0", 128),
        ((256, 192), "efficientnet_lite0", 224),
        ((4000, 3000), "efficientnet_lite0", 224),
    ],
)
def test_auto_follows_the_pictures(pictures: tuple[int, int], name: str, size: int) -> None:
    entry, preprocess, weights = choose(ModelSpec(), pictures)
    assert (entry.name, preprocess.size) == (name, size)
    assert weights == ("packaged" if name == "efficientnet_lite0" else "none")
    assert (preprocess.mean, preprocess.std) == (entry.mean, entry.std)


def test_what_is_given_wins() -> None:
    spec = ModelSpec(name="resnet18", weights="none", image_size=100, fit="pad")
    entry, preprocess, weights = choose(spec, (640, 480))
    assert (entry.name, preprocess.size, preprocess.fit, weights) == ("resnet18", 100, "pad", "none")


def test_unknown_model_suggests_a_near_one() -> None:
    with pytest.raises(InputError, match=r"no such model[\s\S]*resnet8[\s\S]*did you mean 'resnet18'"):
        find_entry("resnet8")


@pytest.mark.parametrize(("name", "wanted"), [("small_cnn", "imagenet"), ("resnet18", "packaged")])
def test_weights_that_do_not_exist(name: str, wanted: str) -> None:
    with pytest.raises(InputError, match=rf"no such weights for {name}[\s\S]*accepted: auto, none, or a file"):
        choose(ModelSpec(name=name, weights=wanted), (224, 224))


def test_weights_file_must_exist_and_be_of_a_known_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        choose(ModelSpec(weights=str(tmp_path / "no.safetensors")), (224, 224))
    with pytest.raises(InputError, match=r"neither a known name[\s\S]*did you mean 'imagenet'"):
        choose(ModelSpec(weights="imagnet"), (224, 224))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_entry_builds_and_learns(name: str) -> None:
    size = 16 if ZOO[name].image_size == 0 else 64
    model = build(name, num_classes=3, image_size=size, weights="none", seed=1)
    logits = model.train()(torch.randn(4, 3, size, size))
    assert logits.shape == (4, 3)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_same_seed_same_weights_and_the_callers_state_stays() -> None:
    state = torch.get_rng_state()
    one, two, other = (build("small_cnn", num_classes=3, image_size=8, weights="none", seed=s) for s in (1, 1, 2))
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_param_spaces_are_fields_of_train() -> None:
    for entry in ZOO.values():
        assert set(entry.param_space) <= set(TrainSpec.model_fields), entry.name
