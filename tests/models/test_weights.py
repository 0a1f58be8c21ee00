"""Pretrained weights: packaged, by name without a network, and local files of every kind."""

from __future__ import annotations

import os
import pickle
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autodl_ray.errors import BundleError, InputError, ResourceError
from autodl_ray.models.classifier import Classifier, build, load_weights, save_weights, set_head
from autodl_ray.models.weights import load_pretrained, weights_tag
from autodl_ray.models.zoo import ZOO


def small(num_classes: int = 3, *, seed: int = 0) -> Classifier:
    return build("small_cnn", num_classes=num_classes, image_size=8, weights="none", seed=seed)


def test_packaged_weights_know_imagenet() -> None:
    """The features of two very similar pictures are nearer than those of two different ones."""
    from sklearn.datasets import load_sample_image

    model = build("efficientnet_lite0", num_classes=2, image_size=224, weights="packaged").eval()
    pictures = [torch.from_numpy(load_sample_image(n).copy()) for n in ("china.jpg", "flower.jpg")]
    china, flower = (p.permute(2, 0, 1)[None].float() / 127.5 - 1 for p in pictures)

    def features(x: torch.Tensor) -> torch.Tensor:
        scaled = torch.nn.functional.interpolate(x, size=(224, 224), mode="bilinear", antialias=True)
        with torch.inference_mode():
            return torch.nn.functional.normalize(model.backbone(scaled))[0]

    same = features(china) @ features(china.flip(3))
    assert same > 0.9
    assert same > features(china) @ features(flower) + 0.3


def test_name_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(
        urllib.request, "_opener", None
    )  # urllib keeps the proxies of its first call: for this test only
    with pytest.raises(ResourceError, match=r"could not be fetched[\s\S]*efficientnet_lite0[\s\S]*weights none"):
        build("resnet18", num_classes=2, image_size=64, weights="imagenet")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_local_file_with_another_number_of_classes(tmp_path: Path, suffix: str) -> None:
    source, path = small(5, seed=1), tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    model = small(3)
    notes = load_pretrained(model, ZOO["small_cnn"], str(path))
    assert notes == ("the classifier head has 5 classes, not 3: it was left out",)
    assert torch.equal(
        model.backbone.state_dict()["features.0.weight"], source.state_dict()["backbone.features.0.weight"]
    )


def test_plain_torchvision_file_fits_with_its_classifier(tmp_path: Path) -> None:
    import torchvision

    network = torchvision.models.resnet18(num_classes=3)
    torch.save(network.state_dict(), tmp_path / "r.pt")
    model = build("resnet18", num_classes=3, image_size=64, weights=str(tmp_path / "r.pt")).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(model(x), network.eval()(x), atol=1e-5)


def test_file_of_another_architecture_shows_keys(tmp_path: Path) -> None:
    save_file({"stem.weight": torch.zeros(2), "stem.bias": torch.zeros(2)}, tmp_path / "o.safetensors")
    with pytest.raises(InputError, match=r"do not fit small_cnn[\s\S]*stem.weight[\s\S]*features.0.weight"):
        load_pretrained(small(), ZOO["small_cnn"], str(tmp_path / "o.safetensors"))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("false",)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"w": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"more than tensors[\s\S]*state_dict"):
        load_pretrained(small(), ZOO["small_cnn"], str(tmp_path / "evil.pt"))


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1, 2, 3])[:5])
    with pytest.raises(InputError, match=r"damaged|more than tensors"):
        load_pretrained(small(), ZOO["small_cnn"], str(tmp_path / name))


def test_file_without_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="no state_dict"):
        load_pretrained(small(), ZOO["small_cnn"], str(tmp_path / "list.pt"))


def test_tag_of_a_file_is_its_content(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"same")
    assert weights_tag(str(tmp_path / "a.pt")) == weights_tag(str(tmp_path / "b.pt"))
    assert weights_tag("packaged") == "packaged"


def test_saved_weights_come_back_and_truncated_ones_do_not(tmp_path: Path) -> None:
    model, other = small(seed=1), small(seed=2)
    save_weights(model, tmp_path / "m.safetensors")
    load_weights(other, tmp_path / "m.safetensors")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(BundleError, match="of another model"):
        load_weights(small(5), tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:100])
    with pytest.raises(BundleError, match="cannot be read"):
        load_weights(other, tmp_path / "m.safetensors")


def test_head_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"does not fit[\s\S]*\(5, 64\)"):
        set_head(small(3), torch.zeros(5, 64), torch.zeros(5))
