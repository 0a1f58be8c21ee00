"""The one training loop: it cannot tell whether it runs in a trial's own process or in a group of workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.errors import StageError
from autodl_ray.models.classifier import Classifier
from autodl_ray.train.batch_size import measure_batch_size
from autodl_ray.train.checkpoint import BEST, load_checkpoint
from autodl_ray.train.config import FitConfig
from autodl_ray.train.counts import EpochStats
from autodl_ray.train.files import EpochFiles
from autodl_ray.train.initial import initial_model
from autodl_ray.train.memory import kept_memory
from autodl_ray.train.peers import Alone, Peers, StepVote
from autodl_ray.train.plan import Pace, least_steps, lr_factor, plan_steps, steps_per_epoch
from autodl_ray.train.precision import check_precision
from autodl_ray.train.result import FitResult, ProgressFile, rank_of
from autodl_ray.train.slices import sliced
from autodl_ray.train.source import BatchLike, Source
from autodl_ray.train.state import TrainState, check_same
from autodl_ray.train.step import Place, StepOutcome, Stepper
from autodl_ray.train.telemetry import LogConfig, StepFacts, Telemetry
from autodl_ray.train.threads import torch_threads
from autodl_ray.train.validate import Validation, validate

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
    log: LogConfig | None = None,
    may_wait: Callable[[int], bool] | None = None,
) -> FitResult:
    """Train, or go on training, in ``folder``.

    After each epoch the model is validated, ``last.pt`` and (when it is the best so far) ``best.safetensors`` are
    written, and then ``report`` is called with ``epoch`` (1-based), ``loss``, ``accuracy``, ``macro_f1`` (validation),
    ``train_loss`` (as it is minimised: of mixed, smoothed and weighted targets), ``lr``, ``images_per_s``,
    ``data_wait`` (share of the time), ``epoch_s``, ``epochs_planned``, ``precision``, ``batch_size``, where it is
    smaller ``micro_batch``, and what :class:`~autodl_ray.train.telemetry.Telemetry` adds.

    A training that was stopped goes on in the middle of an epoch: no sample comes twice or not at all, and on a
    processor the result is bitwise that of an unbroken one. With more ``epochs`` than before it is extended (see
    :func:`~autodl_ray.train.plan.extended_position`).

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
        log: Where live metrics go; None: into ``folder``.
        may_wait: Whether nobody acts on the report of an epoch (1-based): then no file is written after it, and after
            a kill it is made again. None: somebody always does.

    Raises:
        StoreError: The folder holds a training with another configuration, or cannot be written.
        ResourceError: The device does not have the precision.
        StageError: The loss is no longer a number, or one picture does not fit into memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    peers = peers or Alone()
    check_precision(config.precision, peers.device)
    devices = [peers.device] if peers.device.type == "cuda" else []
    with kept_memory(), torch_threads(num_threads), torch.random.fork_rng(devices=devices):
        run = _Run(config, source, folder=folder, deadline=deadline, head_init=head_init, peers=peers)
        run.may_wait, slicing = may_wait, peers.world_size == 1 and not config.compile
        backbone = run.stepper.model.backbone
        with (
            sliced(backbone, image_size=run.size, device=peers.device) if slicing else nullcontext() as slices,
            Telemetry(
                folder, log or LogConfig(), rank=peers.rank, device=peers.device, num_samples=source.num_train
            ) as telemetry,
        ):
            run.stepper.slices = slices
            return run.train(report, should_stop, telemetry)


class _Run:
    """One call of :func:`fit`."""

    may_wait: Callable[[int], bool] | None = None

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
        self.asked, self.source, self.folder, self.deadline, self.peers = config, source, folder, deadline, peers
        self.size = config.train_image_size or config.preprocess.size
        self.state = TrainState()
        self.files = EpochFiles(folder, keep=config.keep_checkpoints)
        saved = self._load()
        epochs_before = check_same(saved, config, folder) if saved is not None else config.epochs
        model = initial_model(
            config, head_init=head_init if saved is None else None, fresh=saved is None, device=peers.device
        )
        self.config = config = self._measured(config, model, saved)
        self.stepper = Stepper(config, model, peers, folder=folder)
        if saved is not None:
            self.state.unpack(saved, config, self.stepper)
            self.state.extend(epochs_before=epochs_before, config=config, num_train=source.num_train)
        self.epoch_steps = steps_per_epoch(source.num_train, config.batch_size)
        self.wanted = self.epoch_steps * config.epochs
        self.total = self.wanted
        self.pace = Pace(eval_guess_steps=_EVAL_COST * source.num_val / config.batch_size)
        self.progress = ProgressFile(folder)
        self.began = self.saved_at = time.perf_counter()
        self.leaves, self.owed = False, 0.0  # owed: the loss of the step before, not added up over the workers yet

    def _load(self) -> dict[str, Any] | None:
        if self.peers.rank != 0:  # only one may put the files of the best weights in order
            return load_checkpoint(self.folder)[0]
        saved, notes = self.files.checkpoints.load()
        for note in notes:
            self.state.note(note)
        return saved

    def _measured(self, config: FitConfig, model: Classifier, saved: dict[str, Any] | None) -> FitConfig:
        """Fill in a batch size that is to be measured, or what an earlier process measured."""
        if saved is not None:
            size, lr = saved["batch"]
            return replace(config, batch_size=int(size), lr=float(lr))
        if not config.batch_auto:
            return config
        choice = measure_batch_size(config, model, self.peers, num_train=self.source.num_train)
        self.state.note(choice.note)
        return choice.apply(config)

    def _save(self) -> None:
        now = time.perf_counter()
        self.state.counts.seconds += now - self.began
        self.began = now
        if self.peers.rank == 0:
            self.files.save(self.state.pack(self.asked, self.stepper), self.state.history)
        self.saved_at = time.perf_counter()

    # -- the loop

    def train(
        self, report: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool], telemetry: Telemetry
    ) -> FitResult:
        """Run the epochs that are left."""
        self.report, self.should_stop, self.telemetry = report, should_stop, telemetry
        config, counts = self.config, self.state.counts
        if counts.done:
            return self._result("finished")
        status: str | None = None
        epochs = self.source.train_epochs(
            start=counts.epoch,
            stop=config.epochs,
            batch_size=config.batch_size,
            augment=AugmentPolicy.parse(config.augment, magnitude=config.augment_magnitude),
            rank=self.peers.rank,
            world_size=self.peers.world_size,
            image_size=self.size,
            skip_batches=counts.in_epoch,
            balanced=config.balanced,
            replicate=config.replicate,
        )
        try:
            with self.files.settled():
                for batches in epochs:
                    status = self._epoch(batches)
                    if status is not None:
                        break
        finally:
            close = getattr(epochs, "close", None)
            if close is not None:
                close()
        return self._result(status or "finished")

    def _epoch(self, batches: Iterator[BatchLike]) -> str | None:
        """Train one epoch, or what is left of it; return how the training ended, or None when it goes on."""
        state = self.state
        counts = state.counts
        if counts.in_epoch == 0:
            state.stats = EpochStats()
        ended: str | None = None
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            wait_s = time.perf_counter() - began
            state.stats.wait_s += wait_s
            samples = 0 if batch is None else len(batch.labels)
            vote = self.peers.agree(StepVote(samples, self._plan(), self.should_stop(), loss=self.owed))
            state.stats.loss, self.owed = state.stats.loss + vote.loss, 0.0
            self.total = max(vote.total_steps, counts.step)
            if batch is None or vote.smallest == 0:
                break
            self.leaves = vote.leave  # the training goes on at once, elsewhere
            if vote.stop or vote.leave or counts.step >= self.total:
                ended = "stopped" if vote.stop or vote.leave else "finished"
                break
            if 0 < self.config.checkpoint_every_s <= began - self.saved_at and counts.in_epoch > 0:
                self._save()  # here, where what all workers know is the same
            self._step(batch, vote, began=began, wait_s=wait_s)
        if ended is None:
            counts.epoch, counts.in_epoch = counts.epoch + 1, 0
            ended = "finished" if counts.step >= self.total or counts.epoch >= self.config.epochs else None
        self._end_of_epoch(ended)
        return ended

    def _plan(self) -> int:
        if self.deadline is None:
            return self.wanted
        left, step_s, done = self.deadline - time.time(), self.pace.step_s(), self.state.counts.step
        if step_s is None:
            return done if done > 0 and left <= 0 else self.wanted
        facts = {"epoch_steps": self.epoch_steps, "done": done, "wanted": self.wanted}
        planned = plan_steps(time_left_s=left, step_s=step_s, eval_s=self.pace.eval_s(), **facts)
        if self.pace.is_sure:
            return planned
        return max(planned, least_steps(time_left_s=left, step_s=step_s, **facts))

    def _step(self, batch: BatchLike, vote: StepVote, *, began: float, wait_s: float) -> None:
        config, counts, stepper = self.config, self.state.counts, self.stepper
        watch = self.telemetry.wants_step(counts.step + 1)
        factor = lr_factor(config.schedule, counts.position, warmup=config.warmup)
        place = Place(counts.epoch, counts.in_epoch, counts.position)
        outcome = stepper.step(batch, vote, place, factor=factor, watch=watch)
        self._take_notes()
        self._count(outcome, vote, own=len(batch.labels))
        now = time.perf_counter()
        self.pace.steps.append(now - began)
        self.telemetry.step(
            StepFacts(
                step=counts.step,
                epoch=counts.epoch + 1,
                loss=outcome.loss,
                samples=vote.samples,
                wait_s=wait_s,
                step_s=now - began,
                lr=stepper.lr_by_group() if watch else {},
                accuracy=outcome.accuracy,
                grad_norm=outcome.grad_norm,
                weight_norm=outcome.weight_norm,
                update_ratio=outcome.update_ratio,
                loss_scale=stepper.scaler.scale_now,
                skipped=outcome.skipped,
                eta_s=self._eta_s() if watch else None,
            )
        )

    def _take_notes(self) -> None:
        for note in self.stepper.notes:
            self.state.note(note)
        self.stepper.notes.clear()

    def _count(self, outcome: StepOutcome, vote: StepVote, *, own: int) -> None:
        state, loss = self.state, outcome.loss
        counts = state.counts
        if not outcome.skipped:
            if not math.isfinite(loss):
                raise StageError(
                    "The training diverged: the loss is not a number.",
                    seen=f"loss {loss} in step {counts.step + 1} with lr {self.config.lr:g}",
                    hint="lower train.lr",
                )
            # A step that was left out does not move the schedule: those that are left share what remains of it.
            counts.position += (1 - counts.position) / max(1, self.total - counts.step)
            self.owed = loss * own
            state.stats.images += vote.samples
        counts.step += 1
        counts.in_epoch += 1
        self._show()

    def _eta_s(self) -> float | None:
        step_s = self.pace.step_s()
        if step_s is None:
            return None
        left = self.total - self.state.counts.step
        return left * step_s + -(-left // self.epoch_steps) * self.pace.eval_s()

    def _show(self, *, force: bool = False) -> None:
        if self.peers.rank != 0 or not (force or self.progress.is_due):
            return
        step_s, metric = self.pace.step_s(), self.config.metric
        scores = [row[metric] for row in self.state.history]
        facts = {
            "epoch": self.state.counts.epoch + 1,
            "step": self.state.counts.step,
            "steps": self.total,
            "images_per_s": round(self.config.batch_size / step_s, 2) if step_s else 0.0,
            "best": (min if metric == "loss" else max)(scores, default=None),
        }
        self.progress.update(facts, force=force)

    # -- after an epoch

    def _end_of_epoch(self, ended: str | None) -> None:
        """Validate, save, report. One that was stopped is only validated when it has no result, and does not go on."""
        state, counts = self.state, self.state.counts
        wanted = ended != "stopped" or not (state.history or self.leaves)
        if state.stats.images == 0 or not wanted:
            counts.done = ended == "finished"
            self._save()
            return
        row: dict[str, Any] = {"epoch": len(state.history) + 1, **state.stats.row()}
        row["train_loss"] = self.peers.mean(row["train_loss"])
        started = time.perf_counter()
        validation = self._validate()
        row.update(validation.scores)
        row.update(self._settings())
        row.update(self.telemetry.epoch(row, probabilities=validation.probabilities, labels=validation.labels))
        state.history.append(row)
        asks = None if ended else self.may_wait
        waits = asks is not None and self.files.may_wait and asks(int(row["epoch"]))
        self._keep_best(row, waits=waits)
        counts.done = ended == "finished"
        if not waits:
            self._save()
        self.pace.evals.append(time.perf_counter() - started)
        self._show(force=ended is not None or self.progress.is_due_after_epoch)
        if self.peers.rank == 0:
            self.report(dict(row))

    def _settings(self) -> dict[str, Any]:
        """What the row of an epoch says of how it was trained."""
        stepper, config = self.stepper, self.config
        settings: dict[str, Any] = {
            "lr": stepper.lr_by_group().get("backbone", max(stepper.lr_by_group().values())),
            "epochs_planned": -(-self.total // self.epoch_steps),
            "precision": stepper.precision,
            "batch_size": config.batch_size,
        }
        if stepper.micro.size is not None and stepper.micro.size * self.peers.world_size < config.batch_size:
            settings["micro_batch"] = stepper.micro.size
        return settings

    def _validate(self) -> Validation:
        config, stepper = self.config, self.stepper
        batches = self.source.val_batches(
            batch_size=2 * config.batch_size, rank=self.peers.rank, world_size=self.peers.world_size
        )
        validation = validate(
            self.stepper.delivered(),
            batches,
            preprocess=config.preprocess,
            precision=stepper.precision or "32",
            num_classes=config.num_classes,
            peers=self.peers,
            slices=stepper.slices,
            micro_batch=stepper.micro.size,
        )
        stepper.thaw.keep_still()
        return validation

    def _keep_best(self, row: dict[str, Any], *, waits: bool) -> None:
        counts, rank, epoch = self.state.counts, rank_of(row, self.config.metric), int(row["epoch"])
        if self.peers.rank == 0 and self.files.checkpoints.wants(rank=rank, epoch=epoch):
            self.files.keep_best(self.stepper.delivered(), rank=rank, epoch=epoch, waits=waits)
        if counts.best is None or rank > counts.best:
            counts.best, counts.best_epoch = rank, epoch

    def _result(self, status: str) -> FitResult:
        best, state = self.state.counts.best_epoch, self.state
        return FitResult(
            status="stopped" if status == "stopped" else "finished",
            epochs=len(state.history),
            best_epoch=best,
            metrics=dict(state.history[best - 1]) if best else {},
            history=tuple(state.history),
            precision=self.stepper.precision or "32",
            seconds=state.counts.seconds,
            weights_file=BEST if best else None,
            notes=(*state.notes, *self.telemetry.notes),
        )
