"""The one training loop: it cannot tell whether it runs in a trial's own process or in a group of workers."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.errors import StageError, StoreError
from autodl_ray.models.classifier import Classifier, save_weights
from autodl_ray.seeding import seed_for
from autodl_ray.train.checkpoint import BEST, load_checkpoint, save_checkpoint
from autodl_ray.train.config import FitConfig
from autodl_ray.train.counts import Counts, EpochStats
from autodl_ray.train.initial import initial_model
from autodl_ray.train.inputs import StepInputs
from autodl_ray.train.losses import classification_loss
from autodl_ray.train.memory import kept_memory
from autodl_ray.train.optim import MovingAverage, build_optimizer, set_lr
from autodl_ray.train.peers import Alone, Peers, StepVote
from autodl_ray.train.plan import Pace, lr_factor, plan_steps, steps_per_epoch
from autodl_ray.train.precision import Precision, autocast, faster_precision
from autodl_ray.train.result import FitResult, ProgressFile, rank_of, write_curves
from autodl_ray.train.slices import Slices, sliced
from autodl_ray.train.source import BatchLike, Source
from autodl_ray.train.threads import torch_threads
from autodl_ray.train.validate import validate

__all__ = ["fit"]

_EVAL_COST = 0.25  # of a validated picture in trained pictures, until it was timed


def fit(
    config: FitConfig,
    source: Source,
    *,
    folder: Path,
    report: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
    deadline: float | None = None,
    head_init: Path | None = None,
    num_threads: int | None = None,
    peers: Peers | None = None,
) -> FitResult:
    """Train, or go on training, in ``folder``.

    After each epoch the model is validated, ``last.pt`` and (when it is the best so far) ``best.safetensors`` are
    written, and then ``report`` is called with ``epoch`` (1-based), ``loss``, ``accuracy``, ``macro_f1`` (validation),
    ``train_loss`` (as it is minimised: of mixed, smoothed and weighted targets), ``lr``, ``images_per_s``,
    ``data_wait`` (share of the time), ``epoch_s`` and ``epochs_planned``.

    Args:
        config: Everything that decides the result.
        source: The batches.
        folder: Of this training alone; an unfinished one is continued, a finished one is only read.
        report: Called on rank 0; may raise to end the training.
        should_stop: Looked at before every step.
        deadline: Unix time by which this function must have returned; decides how many epochs are planned.
        head_init: A head that :func:`autodl_ray.train.head.fit_head` found, to start from.
        num_threads: Of torch; None: as they are.
        peers: The other workers; None: there are none.

    Raises:
        StoreError: The folder holds a training with another configuration, or cannot be written.
        StageError: The loss is no longer a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with kept_memory(), torch_threads(num_threads), torch.random.fork_rng(devices=[]):
        run = _Run(config, source, folder=folder, deadline=deadline, head_init=head_init, peers=peers or Alone())
        alone = run.peers.world_size == 1
        with (
            sliced(run.model.backbone, image_size=run.size, device=run.peers.device)
            if alone
            else nullcontext() as slices
        ):
            run.slices = slices
            return run.train(report, should_stop)


class _Run:
    """One call of :func:`fit`."""

    def __init__(
        self,
        config: FitConfig,
        source: Source,
        *,
        folder: Path,
        deadline: float | None,
        head_init: Path | None,
        peers: Peers,
    ) -> None:
        self.config, self.source, self.folder, self.deadline, self.peers = config, source, folder, deadline, peers
        self.size = config.train_image_size or config.preprocess.size
        self.epoch_steps = steps_per_epoch(source.num_train, config.batch_size)
        self.wanted = self.epoch_steps * config.epochs
        self.total = self.wanted
        self.inputs = StepInputs(config, peers.device)
        weights = config.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights, device=peers.device)
        self.counts = Counts()
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.precision: Precision | None = None if config.precision == "auto" else config.precision
        self.pace = Pace(eval_guess_steps=_EVAL_COST * source.num_val / config.batch_size)
        self.progress = ProgressFile(folder)
        self.began = time.perf_counter()
        saved, note = load_checkpoint(folder)
        self.notes += [note] if note else []
        self.model = initial_model(
            config, head_init=head_init if saved is None else None, fresh=saved is None, device=peers.device
        )
        self.optimizer = build_optimizer(self.model, config)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay > 0 else None
        if saved is not None:
            self._restore(saved)
        self.parallel = peers.wrap(self.model)
        self.slices: Slices | None = None

    # -- from and into a checkpoint

    def _restore(self, saved: dict[str, Any]) -> None:
        was, wanted = json.loads(saved["config"]), json.loads(json.dumps(self.config.to_json()))
        if was != wanted:
            different = ", ".join(f"{k}: {was.get(k)} → {v}" for k, v in wanted.items() if was.get(k) != v)
            raise StoreError(
                "The folder holds a training with another configuration.",
                seen=f"{self.folder}: {different}",
                hint="choose another folder, or delete this one",
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.state, self.average.updates = saved["ema"], saved["ema_updates"]
        counts = saved["counts"]
        best = counts["best"]
        self.counts = Counts(**{**counts, "best": tuple(best) if best else None})
        self.history = json.loads(saved["history"])
        self.precision = saved["precision"]
        torch.set_rng_state(saved["rng"])

    def _save(self) -> None:
        self.counts.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        if self.peers.rank != 0:
            return
        save_checkpoint(
            self.folder,
            {
                "config": json.dumps(self.config.to_json()),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.average.state if self.average else None,
                "ema_updates": self.average.updates if self.average else 0,
                "counts": dict(vars(self.counts)),
                "history": json.dumps(self.history),
                "precision": self.precision,
                "rng": torch.get_rng_state(),
            },
        )

    # -- the loop

    def train(self, report: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]) -> FitResult:
        """Run the epochs that are left."""
        if self.counts.done:
            return self._result("finished")
        status: str | None = None
        epochs = self.source.train_epochs(
            start=self.counts.epoch,
            stop=self.config.epochs,
            batch_size=self.config.batch_size,
            augment=AugmentPolicy.parse(self.config.augment, magnitude=self.config.augment_magnitude),
            rank=self.peers.rank,
            world_size=self.peers.world_size,
            image_size=self.size,
            skip_batches=self.counts.in_epoch,
            balanced=self.config.balanced,
        )
        try:
            for batches in epochs:
                status = self._epoch(batches, report, should_stop)
                if status is not None:
                    break
        finally:
            close = getattr(epochs, "close", None)
            if close is not None:
                close()
        return self._result(status or "finished")

    def _epoch(
        self, batches: Iterator[BatchLike], report: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
    ) -> str | None:
        """Train one epoch, or what is left of it; return how the training ended, or None when it goes on."""
        counts, stats = self.counts, EpochStats()
        if counts.in_epoch == 0:
            torch.manual_seed(seed_for(self.config.seed, "dropout", counts.epoch, self.peers.rank))
        ended: str | None = None
        while True:
            waited = time.perf_counter()
            batch = next(batches, None)
            stats.wait_s += time.perf_counter() - waited
            vote = self.peers.agree(StepVote(0 if batch is None else len(batch.labels), self._plan(), should_stop()))
            self.total = max(vote.total_steps, counts.step)
            if batch is None or vote.smallest == 0:
                break
            if vote.stop or counts.step >= self.total:
                ended = "stopped" if vote.stop else "finished"
                break
            self._step(batch, vote, stats)
            self.pace.steps.append(time.perf_counter() - waited)
        if ended is None:
            counts.epoch, counts.in_epoch = counts.epoch + 1, 0
            ended = "finished" if counts.step >= self.total or counts.epoch >= self.config.epochs else None
        self._end_of_epoch(stats, ended, report)
        return ended

    def _plan(self) -> int:
        if self.deadline is None:
            return self.wanted
        step_s = self.pace.step_s()
        if step_s is None:
            return self.wanted
        return plan_steps(
            time_left_s=self.deadline - time.time(),
            step_s=step_s,
            eval_s=self.pace.eval_s(),
            epoch_steps=self.epoch_steps,
            done=self.counts.step,
            wanted=self.wanted,
        )

    def _step(self, batch: BatchLike, vote: StepVote, stats: EpochStats) -> None:
        config, counts = self.config, self.counts
        images, targets = self.inputs.make(batch, epoch=counts.epoch, step=counts.in_epoch)
        if self.precision is None:
            self.precision = self._decide_precision(images, targets)
        factor = lr_factor(config.schedule, counts.position, warmup=config.warmup)
        set_lr(self.optimizer, factor)
        loss = self._backward(images, targets, vote)
        if config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.trained, config.grad_clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)
        self._count(loss, vote, stats)

    def _backward(self, images: Tensor, targets: Tensor, vote: StepVote) -> float:
        """Compute the gradients of a batch; return its loss."""
        model, precision = self.model, self.precision or "32"
        if self.slices is not None:
            logits = model.head(model.dropout(self.slices.features(model.backbone, images, precision)))
        else:
            with autocast(self.peers.device, precision):
                logits = self.parallel(images)
        loss = classification_loss(
            logits.float(),
            targets,
            label_smoothing=self.config.label_smoothing,
            class_weights=self.class_weights,
        )
        # Workers average their gradients; the slices of a short last batch may differ by one sample.
        share = len(targets) * self.peers.world_size / vote.samples
        torch.autograd.backward(loss if share == 1.0 else loss * share)
        if self.slices is not None:
            self.slices.backward(model.backbone)
        return float(loss.detach())

    def _count(self, loss: float, vote: StepVote, stats: EpochStats) -> None:
        counts = self.counts
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise StageError(
                "The training diverged: the loss is not a number.",
                seen=f"loss {loss} in step {counts.step + 1} with lr {self.config.lr:g}",
                hint="lower train.lr",
            )
        counts.position += (1 - counts.position) / max(1, self.total - counts.step)
        counts.step += 1
        counts.in_epoch += 1
        stats.loss += loss * vote.samples
        stats.images += vote.samples
        self._show()

    def _show(self, *, force: bool = False) -> None:
        if self.peers.rank != 0 or not (force or self.progress.is_due):
            return
        step_s = self.pace.step_s()
        facts = {
            "epoch": self.counts.epoch + 1,
            "step": self.counts.step,
            "steps": self.total,
            "images_per_s": round(self.config.batch_size / step_s, 2) if step_s else 0.0,
            "best": max((row[self.config.metric] for row in self.history), default=None)
            if self.config.metric != "loss"
            else min((row["loss"] for row in self.history), default=None),
        }
        self.progress.update(facts, force=force)

    def _decide_precision(self, images: Tensor, targets: Tensor) -> Precision:
        votes = self.peers.mean(float(faster_precision(self.model, images, targets) == "bf16"))
        return "bf16" if votes > 0.5 else "32"

    # -- after an epoch

    def _end_of_epoch(self, stats: EpochStats, ended: str | None, report: Callable[[dict[str, Any]], None]) -> None:
        """Validate, save, report. A training that was stopped is only validated when it has no result yet."""
        wanted = ended != "stopped" or not self.history
        if stats.images == 0 or not wanted:
            self.counts.done = ended == "finished"
            self._save()
            return
        row: dict[str, Any] = {"epoch": len(self.history) + 1, **stats.row()}
        row["train_loss"] = self.peers.mean(row["train_loss"])
        started = time.perf_counter()
        row.update(self._validate())
        row["lr"] = max(float(group["lr"]) for group in self.optimizer.param_groups[:1])
        row["epochs_planned"] = -(-self.total // self.epoch_steps)
        row["precision"] = self.precision
        self.history.append(row)
        self._keep_best(row)
        self.counts.done = ended == "finished"
        self._save()
        self.pace.evals.append(time.perf_counter() - started)
        self._show(force=True)
        if self.peers.rank == 0:
            write_curves(self.folder, self.history)
            report(dict(row))

    def _validate(self) -> dict[str, float]:
        config = self.config
        batches = self.source.val_batches(
            batch_size=2 * config.batch_size, rank=self.peers.rank, world_size=self.peers.world_size
        )
        return validate(
            self._delivered(),
            batches,
            preprocess=config.preprocess,
            precision=self.precision or "32",
            num_classes=config.num_classes,
            peers=self.peers,
            slices=self.slices,
        )

    def _delivered(self) -> Classifier:
        """The model that is validated and saved: with the averaged weights when they are averaged."""
        if self.average is None:
            return self.model
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average.state)
        return model

    def _keep_best(self, row: dict[str, Any]) -> None:
        rank = rank_of(row, self.config.metric)
        if self.counts.best is not None and rank <= self.counts.best:
            return
        self.counts.best, self.counts.best_epoch = rank, int(row["epoch"])
        if self.peers.rank == 0:
            save_weights(self._delivered(), self.folder / BEST)

    def _result(self, status: str) -> FitResult:
        best = self.counts.best_epoch
        return FitResult(
            status="stopped" if status == "stopped" else "finished",
            epochs=len(self.history),
            best_epoch=best,
            metrics=dict(self.history[best - 1]) if best else {},
            history=tuple(self.history),
            precision=self.precision or "32",
            seconds=self.counts.seconds,
            weights_file=BEST if best else None,
            notes=tuple(self.notes),
        )
