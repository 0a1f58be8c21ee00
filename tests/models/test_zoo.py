"""The table of networks, and the choice among them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autodl_ray.errors import InputError
from autodl_ray.models.classifier import build
from autodl_ray.models.zoo import ZOO, choose, find_entry, with_recipe
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


@pytest.mark.parametrize(
    ("pictures", "num_train", "budget_s", "name"),
    [
        ((28, 28), 51_000, 1200, "small_resnet"),
        ((28, 28), 51_000, 600, "small_resnet"),
        ((28, 28), 51_000, 120, "small_cnn"),
        ((28, 28), 51_000, None, "small_resnet"),
        ((32, 32), 2000, 60, "small_resnet"),
        ((32, 32), 1999, 3600, "small_cnn"),
        ((8, 8), 51_000, 3600, "small_cnn"),
        ((64, 64), 40_000, 1200, "small_cnn"),
        ((64, 64), 40_000, 3600, "small_resnet"),
        ((128, 96), 51_000, 1200, "efficientnet_lite0"),
    ],
)
def test_auto_looks_at_how_many_tiny_pictures_and_how_much_time_there_are(
    pictures: tuple[int, int], num_train: int, budget_s: float | None, name: str
) -> None:
    entry, _, _ = choose(ModelSpec(), pictures, num_train=num_train, budget_s=budget_s)
    assert entry.name == name
    assert choose(ModelSpec(name="pixels"), pictures, num_train=num_train, budget_s=budget_s)[0].name == "pixels"


def test_a_recipe_fills_in_what_was_not_given_and_nothing_else() -> None:
    entry = ZOO["small_resnet"]
    given = TrainSpec(batch_size=32, lr=0.5)  # the default, but said
    filled = with_recipe(given, entry)
    assert (filled.batch_size, filled.lr, filled.weight_decay) == (32, 0.5, entry.recipe["weight_decay"])
    assert with_recipe(TrainSpec(), entry).batch_size == 128
    assert with_recipe(TrainSpec(), ZOO["small_cnn"]) == TrainSpec()
    for other in ZOO.values():
        assert set(other.recipe) <= set(TrainSpec.model_fields), other.name
        with_recipe(TrainSpec(), other)


@pytest.mark.parametrize(("size", "convolutions"), [(8, 7), (16, 10), (28, 10), (64, 10)])
def test_small_resnet_has_residuals_at_every_size(size: int, convolutions: int) -> None:
    model = build("small_resnet", num_classes=10, image_size=size, weights="none")
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == convolutions
    assert model.head.in_features == 128
    x = torch.randn(2, 3, size, size)
    assert model.train()(x).shape == (2, 10)
    block = next(m for m in model.modules() if type(m).__name__ == "_Residual")
    features = torch.randn(2, 64, 4, 4)
    assert torch.allclose(block.eval()(features) - block.branch(features), features, atol=1e-5)


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
