"""One optimizer step: forward and backward over micro-batches, scaling, clipping, the update, the moving average."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autodl_ray.images import ImageArray
from autodl_ray.models.classifier import Classifier
from autodl_ray.seeding import seed_for
from autodl_ray.train.compiling import Compiling
from autodl_ray.train.config import FitConfig
from autodl_ray.train.inputs import StepInputs
from autodl_ray.train.losses import make_loss
from autodl_ray.train.micro import MicroBatches, Undo, is_out_of_memory
from autodl_ray.train.optim import MovingAverage, build_optimizer, lr_by_group, set_lr
from autodl_ray.train.peers import Peers, StepVote
from autodl_ray.train.precision import autocast, choose_precision, precision_memory
from autodl_ray.train.scaling import make_scaler
from autodl_ray.train.slices import Slices
from autodl_ray.train.source import BatchLike
from autodl_ray.train.stages import Thaw, backbone_stages
from autodl_ray.train.telemetry import WeightWatch, clip_gradients, gradient_norm

__all__ = ["Place", "StepOutcome", "Stepper"]

Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


class Place(NamedTuple):
    """Where a step is: epoch and step of it (from 0), and the position in [0, 1] of the schedule before it."""

    epoch: int
    step: int
    position: float


@dataclass(frozen=True)
class StepOutcome:
    """What a step did.

    Attributes:
        loss: Mean over this worker's samples, as it was minimised.
        skipped: Whether the update was left out, because half precision overflowed.
        grad_norm: Before clipping; None where it was not measured.
        weight_norm: Of the weights that are trained; None unless it was asked for.
        update_ratio: Norm of the change over that of the weights; None unless it was asked for.
        accuracy: Share of this worker's samples that were right; None unless asked for, or where pictures are mixed.
    """

    loss: float
    skipped: bool
    grad_norm: float | None = None
    weight_norm: float | None = None
    update_ratio: float | None = None
    accuracy: float | None = None


class Stepper:
    """Network, optimizer and all that one step changes.

    Args:
        config: Of the training; its batch size is measured already.
        model: On its device, in training mode.
        peers: The other workers.
        folder: Of the training.
        precision: Where it was decided already; None: by the first step, where the configuration says ``auto``.

    Attributes:
        slices: Threads for parts of a batch; set by the caller.
        notes: What a person should know; taken away by the caller.
    """

    def __init__(
        self, config: FitConfig, model: Classifier, peers: Peers, *, folder: Path, precision: str | None = None
    ) -> None:
        self.config, self.model, self.peers = config, model, peers
        self.inputs = StepInputs(config, peers.device)
        weights = config.class_weights
        self.loss = make_loss(
            config.loss,
            num_classes=config.num_classes,
            label_smoothing=config.label_smoothing,
            class_weights=None if weights is None else torch.tensor(weights, device=peers.device),
            focal_gamma=config.focal_gamma,
        )
        self.optimizer = build_optimizer(model, config)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = MovingAverage(model, config.ema_decay) if config.ema_decay > 0 else None
        self.thaw = Thaw(backbone_stages(model.backbone), config.freeze, config.unfreeze_share)
        self.micro = MicroBatches.of(folder, config.micro_batch_size)
        self.undo = Undo(model)
        self.compiling = Compiling(model) if config.compile else None
        self.precision = precision or (None if config.precision == "auto" else str(config.precision))
        self.scaler = make_scaler(self.precision or "32", peers.device)
        self.slices: Slices | None = None
        self.notes: list[str] = []
        self._parallel: nn.Module | None = None  # made by the first step: DDP wants to know what learns
        self._right: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.peers.device

    def lr_by_group(self) -> dict[str, float]:
        """Return the learning rate of each group of parameters, as it is now."""
        return lr_by_group(self.optimizer)

    def delivered(self) -> Classifier:
        """Return the model that is validated and saved: with the averaged weights when they are averaged."""
        if self.average is None:
            return self.model
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average.state)
        return model

    # -- from and into a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.average.state if self.average else None,
            "ema_updates": self.average.updates if self.average else 0,
            "scaler": self.scaler.state_dict(),
            "precision": self.precision,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.state, self.average.updates = saved["ema"], saved["ema_updates"]
        if saved["precision"] is not None:
            self.precision = saved["precision"]
            self.scaler = make_scaler(saved["precision"], self.device)
        self.scaler.load_state_dict(saved["scaler"])

    # -- a step

    def step(self, batch: BatchLike, vote: StepVote, place: Place, *, factor: float, watch: bool) -> StepOutcome:
        """Do one step.

        Args:
            batch: This worker's part.
            vote: As the workers agreed.
            place: Of the step.
            factor: Share of the peak learning rates.
            watch: Whether to measure norms and accuracy.

        Raises:
            StageError: Not even one sample fits into memory, or half precision overflows all the time.
        """
        pictures, targets = self.inputs.mixed(batch, epoch=place.epoch, step=place.step)
        if self.thaw.move_to(place.position):
            self._parallel = None
        if self.precision is None:
            self._decide_precision(pictures, targets)
        if self._parallel is None:
            self._prepare(pictures, targets)
        set_lr(self.optimizer, factor)
        self._right = 0 if watch and targets.ndim == 1 else None
        seed = seed_for(self.config.seed, "step", place.epoch, place.step, self.peers.rank)
        loss = self._gradients(pictures, targets, vote, seed)
        return self._update(loss, len(targets), watch=watch)

    def _gradients(self, pictures: ImageArray, targets: Targets, vote: StepVote, seed: int) -> float:
        """Compute the gradients of a batch; where memory runs out, again with smaller micro-batches."""
        while True:
            failed = self._tried(pictures, targets, vote, seed)
            if isinstance(failed, float):
                return failed
            self.notes.append(self.micro.halve(len(targets), failed))
            if self.peers.world_size > 1:
                # The others wait in the averaging; all begin anew with smaller micro-batches.
                raise MemoryError(f"{type(failed).__name__}: {failed}") from failed

    def _tried(self, pictures: ImageArray, targets: Targets, vote: StepVote, seed: int) -> float | BaseException:
        """Return the loss of a batch, or why memory ran out; then nothing was changed."""
        self.undo.remember()
        self._seed(seed)
        try:
            return self._accumulate(pictures, targets, vote)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed: BaseException = error.with_traceback(None)  # its frames hold the activations
        self._forget()
        return failed

    def _accumulate(self, pictures: ImageArray, targets: Targets, vote: StepVote) -> float:
        if self.peers.world_size == 1 and not self.micro.cuts(len(targets)):
            return self._backward(*self.inputs.tensors(pictures, targets), 1.0)
        parts = self.micro.cut(len(targets))
        total = 0.0
        for part in parts:
            with self.peers.accumulating(part is parts[-1]):
                images, wanted = self.inputs.tensors(pictures[part], targets[part])
                # Workers average their gradients, and their shares of the batch may differ: each sample counts alike.
                share = len(wanted) * self.peers.world_size / vote.samples
                total += self._backward(images, wanted, share) * len(wanted)
        return total / len(targets)

    def _backward(self, images: Tensor, targets: Tensor, share: float) -> float:
        """Add the gradients of a micro-batch, whose mean loss counts by its share; return its loss."""
        model, precision = self.model, self.precision or "32"
        if self.slices is not None:
            logits = model.head(model.dropout(self.slices.features(model.backbone, images, precision)))
        else:
            with autocast(self.device, precision):
                logits = (self._parallel or model)(images)
        loss = self.loss(logits.float(), targets)
        torch.autograd.backward(self.scaler.scale(loss if share == 1.0 else loss * share))
        if self.slices is not None:
            self.slices.backward(model.backbone)
        if self._right is not None:
            self._right += int((logits.detach().argmax(1) == targets).sum())
        return float(loss.detach())

    def _update(self, loss: float, samples: int, *, watch: bool) -> StepOutcome:
        clip = self.config.grad_clip
        self.scaler.unscale(self.optimizer)
        norm: float | None = None
        if clip > 0:
            norm = clip_gradients(self.trained, clip)
        elif watch:
            norm = gradient_norm(self.trained)
        weights = WeightWatch(self.trained) if watch else None
        applied = self.scaler.step(self.optimizer)
        self.optimizer.zero_grad()
        if self.average is not None and applied:
            self.average.update(self.model)
        weight_norm, ratio = weights.after() if weights is not None else (None, None)
        return StepOutcome(
            loss,
            skipped=not applied,
            grad_norm=norm,
            weight_norm=weight_norm,
            update_ratio=ratio,
            accuracy=None if self._right is None else self._right / samples,
        )

    # -- before the first step

    def _decide_precision(self, pictures: ImageArray, targets: Targets) -> None:
        images, wanted = self.inputs.tensors(pictures, targets)
        if self.peers.world_size == 1:
            choice = precision_memory().choose(self.config.model, self.model, images, wanted)
        else:  # all have to time it together, and one may have joined later
            choice = choose_precision(self.model, images, wanted, mean=self.peers.mean)
        self.precision, self.scaler = choice.precision, make_scaler(choice.precision, self.device)
        self.notes.append(choice.note)

    def _prepare(self, pictures: ImageArray, targets: Targets) -> None:
        """Wrap the network for the workers, and try out what may fail before they wait for each other."""
        self._parallel = self.peers.wrap(self.model)
        alone = self.peers.world_size == 1
        if self.compiling is not None:
            self._try_compiled(pictures, targets)
        while not alone:
            failed = self._tried_apart(pictures, targets)
            if self.peers.mean(float(failed is not None)) == 0:
                break
            # A worker that had room goes on as the others do.
            error = failed or MemoryError("another worker ran out of memory")
            self.notes.append(self.micro.halve(len(targets), error))

    def _try_compiled(self, pictures: ImageArray, targets: Targets) -> None:
        assert self.compiling is not None
        began = time.perf_counter()
        try:
            failed: BaseException | None = self._tried_apart(pictures, targets)
        except Exception as error:  # of any of the many parts of the compiler
            failed = error
            self._forget()
        self.notes.append(self.compiling.settle(failed, time.perf_counter() - began))
        if self.compiling.failed:
            self.compiling = None

    def _tried_apart(self, pictures: ImageArray, targets: Targets) -> BaseException | None:
        """Try a micro-batch with gradients that are thrown away; return why memory ran out."""
        part = self.micro.cut(len(targets))[0]
        vote = StepVote(len(targets), 0, False)
        with self.peers.accumulating(False):
            seed = seed_for(self.config.seed, "try", self.peers.rank)
            tried = self._tried(pictures[part], targets[part], vote, seed)
        self._forget()
        return None if isinstance(tried, float) else tried

    def _forget(self) -> None:
        """Take back what a backward or forward pass left behind."""
        if self.slices is not None:
            self.slices.forget()
        self.optimizer.zero_grad()
        self.undo.restore()
        self._right = None if self._right is None else 0
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also looks for devices: 10 µs a step
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
