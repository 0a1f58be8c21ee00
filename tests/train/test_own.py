"""Models and losses of the user's own: trained by dotted path, checked at once, with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from autodl_ray.errors import SpecError
from autodl_ray.models.custom import custom_entry, import_dotted
from autodl_ray.models.zoo import choose, find_entry
from autodl_ray.spec.sections import ModelSpec, TrainSpec
from autodl_ray.train.config import resolve
from autodl_ray.train.loop import fit
from autodl_ray.train.losses import classification_loss, load_loss, make_loss
from tests.train.sources import coloured, config_for

OWN = "tests.train.own_parts"


def run(folder: Path, **changes: Any) -> float:
    source = coloured()
    config = config_for(source, **{"epochs": 3, **changes})
    result = fit(config, source, folder=folder, report=lambda row: None, should_stop=lambda: False, num_threads=1)
    return float(result.metrics["accuracy"])


def test_an_own_model_is_chosen_trained_and_resolved(tmp_path: Path) -> None:
    entry, preprocess, weights = choose(ModelSpec(name=f"{OWN}:convolutions"), (40, 30))
    assert (entry.name, preprocess.size, weights) == (f"{OWN}:convolutions", 64, "none")
    config = resolve(TrainSpec(), entry, preprocess=preprocess, num_classes=3, weights=weights, epochs=1, seed=0)
    assert (config.model, config.freeze_norms) == (f"{OWN}:convolutions", False)
    assert run(tmp_path, model=f"{OWN}:convolutions", epochs=8, lr=3e-2) > 0.8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.here:make", r"module of model.name cannot be imported.*\n.*No module named.*\n.*PYTHONPATH"),
        (f"{OWN}:convolution", r"no such function for model.name.*\n.*no such name\n.*\n.*did you mean 'convolutions'"),
        (f"{OWN}:OWN", "no such function"),
        (
            f"{OWN}:two_sides",
            r"model is not usable.*\n.*missing a required argument: 'height'.*\n.*image_size: int",
        ),
    ],
)
def test_an_own_model_that_cannot_be_had(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        find_entry(name)


def test_an_own_model_with_other_shapes_says_so_when_it_is_built() -> None:
    with pytest.raises(SpecError, match=r"pictures_out: it maps \(2, 3, 8, 8\) to torch.float32 \(2, 4, 6, 6\)"):
        custom_entry(f"{OWN}:pictures_out").build_backbone(8)
    with pytest.raises(SpecError, match="it returned Tensor"):
        custom_entry("torch:zeros").build_backbone(8)
    with pytest.raises(SpecError, match=r"no dotted path.*\n.*a/b:c"):
        import_dotted("a/b:c", where="model.name")


@pytest.mark.parametrize("loss", ["focal", f"{OWN}:margin", f"{OWN}:per_sample"])
def test_losses_that_are_learned_with(tmp_path: Path, loss: str) -> None:
    assert run(tmp_path, loss=loss) > 0.8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:loss", "module of train.loss cannot be imported"),
        (f"{OWN}:convolutions", r"its parameters do not fit: too many positional arguments"),
        (f"{OWN}:wrong_shape", r"it returned torch.float32 of shape \(4, 3\) for 4 samples"),
        (f"{OWN}:no_gradient", "its result has no gradient"),
    ],
)
def test_an_own_loss_that_is_not_usable(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_loss(name, num_classes=3, soft=False)


def test_an_own_loss_is_tried_before_anything_starts() -> None:
    def resolved(**train: Any) -> None:
        entry, preprocess, weights = choose(ModelSpec(name="small_cnn"), (8, 8))
        spec = TrainSpec.model_validate(train)
        resolve(spec, entry, preprocess=preprocess, num_classes=3, weights=weights, epochs=1, seed=0)

    resolved(loss=f"{OWN}:margin")
    with pytest.raises(SpecError, match=r"margin: RuntimeError.*targets \(4, 3\)"):
        resolved(loss=f"{OWN}:margin", mixup=0.2)  # it takes hard targets only
    resolved(loss=f"{OWN}:per_sample", mixup=0.2)


def test_options_reach_an_own_loss() -> None:
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    made = make_loss(f"{OWN}:per_sample", num_classes=3, label_smoothing=0.2)
    wanted = F.cross_entropy(logits, targets, label_smoothing=0.2)
    assert made(logits, targets).item() == pytest.approx(wanted.item())


def test_focal_loss() -> None:
    made = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 4, generator=made), torch.randint(0, 4, (6,), generator=made)
    p = logits.softmax(1)[torch.arange(6), targets]
    assert classification_loss(logits, targets, gamma=2.0).item() == pytest.approx(
        (-((1 - p) ** 2) * p.log()).mean().item()
    )
    weights, kinds = torch.tensor([0.5, 1.0, 1.5, 1.0]), {"label_smoothing": 0.1}
    nearly = classification_loss(logits, targets, gamma=1e-9, class_weights=weights, **kinds)
    plain = classification_loss(logits, targets, class_weights=weights, **kinds)
    assert nearly.item() == pytest.approx(plain.item(), rel=1e-6)
    soft = F.one_hot(targets, 4).float()
    hard = classification_loss(logits, targets, gamma=2.0, class_weights=weights, **kinds)
    assert classification_loss(logits, soft, gamma=2.0, class_weights=weights, **kinds).item() == pytest.approx(
        hard.item()
    )
    sure = torch.tensor([[40.0, 0.0]], requires_grad=True)
    classification_loss(sure, torch.tensor([0]), gamma=0.5).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()
