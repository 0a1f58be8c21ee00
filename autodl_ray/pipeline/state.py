"""What the steps of a run share: the data, the network, the stream, and the models that may win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autodl_ray.artifacts import DatasetVersion
from autodl_ray.data.stream import StreamSource
from autodl_ray.pipeline.feeding import Balanced, balance, open_stream
from autodl_ray.pipeline.result import LeaderboardRow
from autodl_ray.pipeline.screening import Network, choose_network
from autodl_ray.runtime import Context
from autodl_ray.runtime.cluster import ensure_ray
from autodl_ray.spec import ExperimentSpec

if TYPE_CHECKING:
    from autodl_ray.train.telemetry import LogConfig

__all__ = ["Contender", "Run", "begin", "decide_metric", "ranked"]


@dataclass(frozen=True)
class Contender:
    """A model that may win: where its weights lie and how it did on the validation split."""

    network: Network
    weights_file: Path
    row: LeaderboardRow
    curve: tuple[Mapping[str, Any], ...] = ()


@dataclass
class Run:
    """What the steps of one attempt share.

    Attributes:
        spec: What is wanted.
        context: The surroundings.
        version: The data.
        network: The model that is searched and trained.
        contenders: The best model of each step so far.
        rows: The leaderboard so far.
        speeds: Measured: infer_per_s, export_s, train_per_s.
        facts: What is noted with the run at its end: ``repeat``, ``limits``.
        log: Where live metrics go; None: nowhere that is kept.
    """

    spec: ExperimentSpec
    context: Context
    version: DatasetVersion
    network: Network
    contenders: list[Contender] = field(default_factory=list)
    rows: list[LeaderboardRow] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    head_init: Path | None = None
    log: LogConfig | None = None
    _source: StreamSource | None = None
    _balanced: Balanced | None = None

    @property
    def source(self) -> StreamSource:
        """The stream of training batches; made when the first trial needs it."""
        if self._source is None:
            ensure_ray(Path(self.context.store.root))
            self._source = open_stream(
                self.version,
                self.network.preprocess,
                seed=self.spec.seed,
                max_unreadable=self.spec.data.max_unreadable,
            )
        return self._source

    @property
    def balanced(self) -> Balanced:
        """What is done about unequal classes; decided once, and said."""
        if self._balanced is None:
            self._balanced = balance(self.spec.data, self.version, context=self.context)
        return self._balanced

    @property
    def metric(self) -> Literal["accuracy", "macro_f1"]:
        """What the leaderboard is sorted by; losses of different recipes are not comparable."""
        return "macro_f1" if self.spec.tune.score == "macro_f1" else "accuracy"

    def best(self) -> Contender:
        """Return the contender with the best validation metric (ties: the cheaper one)."""
        return max(self.contenders, key=lambda c: (round(getattr(c.row, self.metric), 6), -c.row.seconds))


def begin(spec: ExperimentSpec, version: DatasetVersion, context: Context) -> Run:
    """Choose the network, and fill in its recipe where the specification gives nothing itself."""
    from autodl_ray.models.zoo import with_recipe

    network = choose_network(spec, version, context)
    train = with_recipe(spec.train, network.entry)
    given = {name: getattr(spec, name) for name in spec.model_fields_set}
    return Run(ExperimentSpec.model_validate({**given, "train": train}), context, version, network)


def decide_metric(run: Run) -> None:
    """Decide ``tune.metric: auto``: macro F1 where something is done about unequal classes, else accuracy."""
    if run.spec.tune.metric != "auto":
        return
    metric = "accuracy" if run.balanced.way == "none" else "macro_f1"
    if metric == "macro_f1":
        run.context.progress.say("models are chosen by macro F1, because the classes are unequal (tune.metric)")
    run.spec = run.spec.model_copy(update={"tune": run.spec.tune.model_copy(update={"metric": metric})})


def ranked(rows: list[LeaderboardRow], metric: Literal["accuracy", "macro_f1"]) -> list[LeaderboardRow]:
    """Return the leaderboard, best validation ``metric`` first, ties by cost."""
    return sorted(rows, key=lambda r: (-round(getattr(r, metric), 6), r.seconds))
