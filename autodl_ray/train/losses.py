"""The training loss: one function for hard and soft targets, and one of the user's own by its dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from autodl_ray.errors import SpecError
from autodl_ray.models.custom import import_dotted

__all__ = ["Loss", "classification_loss", "load_loss", "make_loss"]

_OPTIONS = ("label_smoothing", "class_weights")


class Loss(Protocol):
    """A training loss."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, C) float32 and targets, (B,) int64 or (B, C) float32, to the mean loss, a scalar."""
        ...


def make_loss(
    name: str,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    focal_gamma: float = 2.0,
) -> Loss:
    """Return the loss that ``train.loss`` names, with the settings of the training filled in.

    Args:
        name: ``cross_entropy``, ``focal`` or ``package.module:function``.
        num_classes: C.
        label_smoothing: See :func:`classification_loss`.
        class_weights: See :func:`classification_loss`.
        focal_gamma: Of ``focal``.

    Raises:
        SpecError: The user's function is not usable.
    """
    options: dict[str, Any] = {"label_smoothing": label_smoothing, "class_weights": class_weights}
    if ":" in name:
        return load_loss(name, num_classes=num_classes, soft=False, **options)
    gamma = focal_gamma if name == "focal" else 0.0

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return classification_loss(logits, targets, gamma=gamma, **options)

    return loss


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    gamma: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy, or focal loss, of a batch, as a scalar.

    The mean is over the samples, also with class weights: so the loss of a batch does not depend on how it is cut
    among workers. Weights whose mean over the training samples is 1 leave the size of the gradient as it was.

    Args:
        logits: (B, C) float32.
        targets: (B,) int64 classes, or (B, C) float32 rows that sum to 1 (soft labels of mixed pictures). A row
            with a single 1 gives the same loss as its class.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1)
            (Szegedy et al., Rethinking the Inception Architecture, 2016).
        class_weights: (C,) float32 factors, or None. A sample's loss, smoothing included, is multiplied by the factor
            of its class; a mixed one's parts each by their own. (torch's own ``weight`` would weigh the smoothed
            part by class: at 20:1 it teaches that a sixth of every common picture shows the rare class.)
        gamma: The part of the loss that each class has in a sample is multiplied by (1 - p) ** gamma, p being its
            probability (Lin et al., Focal Loss for Dense Object Detection, 2017); 0: cross-entropy.
    """
    if class_weights is None and gamma == 0:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    wanted = F.one_hot(targets, logits.shape[1]).to(logits.dtype) if targets.ndim == 1 else targets
    if class_weights is not None:
        wanted = wanted * class_weights
    smoothed = (1 - label_smoothing) * wanted + label_smoothing * wanted.mean(dim=1, keepdim=True)
    log_p = F.log_softmax(logits, dim=1)
    if gamma > 0:
        # 1 - p by expm1, and kept above 0: a power below 1 has no gradient there.
        smoothed = smoothed * (-torch.expm1(log_p)).clamp_min(1e-8) ** gamma
    return -(smoothed * log_p).sum() / len(logits)


def load_loss(name: str, *, num_classes: int, soft: bool, **options: Any) -> Loss:
    """Import a loss of the user's own, try it on four samples, and return it as a mean over samples.

    It is ``function(logits, targets)`` with (B, C) float32 logits and (B,) int64 targets, or (B, C) float32 soft
    labels where pictures are mixed. It returns the mean, a scalar, or the loss of each sample, (B,). It is given
    ``label_smoothing`` and ``class_weights`` ((C,) float32 or None) where its parameters have these names.

    Args:
        name: ``package.module:function``.
        num_classes: C.
        soft: Whether it will be given soft labels.
        options: Values of ``label_smoothing`` and ``class_weights``.

    Raises:
        SpecError: It cannot be imported, called so, or does not return such a loss with a gradient.
    """
    function: Callable[..., Any] = import_dotted(name, where="train.loss")
    taken = _taken_options(function, name)
    given = {"label_smoothing": 0.0, "class_weights": None, **options}
    kwargs = {key: given[key] for key in taken}

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        result: Tensor = function(logits, targets, **kwargs)
        return result.mean() if result.ndim else result

    _try(function, name, kwargs, num_classes=num_classes, soft=soft)
    return loss


def _taken_options(function: Callable[..., Any], name: str) -> list[str]:
    """Return which of our options the function takes."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that tells nothing of its parameters: the trial call will show
        return []
    taken = [key for key in _OPTIONS if key in signature.parameters]
    try:
        signature.bind(None, None, **dict.fromkeys(taken))
    except TypeError as error:
        raise _unusable(name, f"its parameters do not fit: {error}") from error
    return taken


def _try(function: Callable[..., Any], name: str, kwargs: dict[str, Any], *, num_classes: int, soft: bool) -> None:
    device = kwargs["class_weights"].device if isinstance(kwargs.get("class_weights"), Tensor) else None
    targets = torch.arange(4, device=device) % num_classes
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for given in (targets, F.one_hot(targets, num_classes).float())[: 1 + soft]:
            logits = torch.zeros(4, num_classes, requires_grad=True, device=device)
            try:
                result = function(logits, given, **kwargs)
            except Exception as error:
                raise _unusable(name, f"{type(error).__name__}: {error} (targets {tuple(given.shape)})") from error
            _check_result(result, name, of=f"targets {tuple(given.shape)}")


def _check_result(result: object, name: str, *, of: str) -> None:
    if not isinstance(result, Tensor):
        raise _unusable(name, f"it returned {type(result).__name__} for {of}")
    if tuple(result.shape) not in ((), (4,)) or not result.is_floating_point():
        raise _unusable(name, f"it returned {result.dtype} of shape {tuple(result.shape)} for 4 samples and {of}")
    if not result.requires_grad:
        raise _unusable(name, "its result has no gradient")


def _unusable(name: str, why: str) -> SpecError:
    return SpecError(
        "The loss is not usable.",
        seen=f"train.loss: {name}: {why}",
        accepted="function(logits (B, C) float32, targets (B,) int64 or (B, C) float32) that returns the mean, a "
        f"scalar, or the loss of each sample, (B,); {' and '.join(_OPTIONS)} are given where it takes them",
    )
