"""Which network is trained: where there are candidates, the one whose frozen features do best on validation.

A head on frozen features takes seconds where a training takes minutes, and orders networks and inputs nearly as their
trainings do (Kornblith, Shlens and Le, "Do Better ImageNet Models Transfer Better?", 2019). It says nothing about
settings of the training itself (learning rate, augmentation): those are searched by training.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodl_ray.artifacts import DatasetVersion, LearningSamples, write_atomic
from autodl_ray.errors import SpecError
from autodl_ray.images import Preprocess
from autodl_ray.runtime import Context
from autodl_ray.seeding import rng_for, seed_for
from autodl_ray.spec import ExperimentSpec

if TYPE_CHECKING:
    from autodl_ray.models.zoo import ZooEntry

__all__ = ["Network", "Probe", "choose_network", "pick", "screening_facts"]

_FILE = "screening.json"
_TRAIN, _VAL = 2_000, 1_000  # pictures: enough to tell networks apart
_SHARE_OF_BUDGET = 0.15


@dataclass(frozen=True)
class Network:
    """A model of the zoo as this run uses it."""

    entry: ZooEntry
    preprocess: Preprocess
    weights: str


@dataclass(frozen=True)
class Probe:
    """What the frozen features of a candidate showed.

    Attributes:
        name: Of the network, with its input and weights.
        accuracy: Of a head on them, on validation pictures; NaN where the time was not enough to look.
        error: Standard error of the accuracy.
        cost: Multiplications a picture, roughly: parameters of the backbone times pixels of the input.
        seconds: That it took.
    """

    name: str
    accuracy: float
    error: float
    cost: float
    seconds: float


def choose_network(spec: ExperimentSpec, version: DatasetVersion, context: Context) -> Network:
    """Choose model, input and weights for the pictures of ``version``, how many they are, and the budget.

    Where ``model.candidates`` gives several, frozen features choose; what they chose is kept with the run.

    Raises:
        SpecError: A candidate has no trained weights, so that its frozen features say nothing.
    """
    from autodl_ray.models.zoo import choose

    networks = [
        Network(*choose(model, version.image_size, num_train=len(version.train), budget_s=spec.budget_s))
        for model in spec.model.alternatives()
    ]
    if not spec.model.candidates:
        return networks[0]
    untrained = [_name(network) for network in networks if network.weights == "none"]
    if untrained:
        raise SpecError(
            "Candidates are chosen by their frozen features, and these networks have no trained weights.",
            seen=f"model.candidates: {', '.join(untrained)}",
            accepted="networks with packaged or torchvision weights, or weights: FILE (see `autodl models`)",
        )
    known = screening_facts(context.folder)
    if known:
        return networks[int(known["chosen"])]
    return networks[_screen(networks, version, spec, context)]


def pick(probes: Sequence[Probe]) -> int:
    """Return the position of the cheapest candidate that is within one standard error of the best.

    Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984: the one-standard-error rule.
    """
    seen = [i for i, probe in enumerate(probes) if not math.isnan(probe.accuracy)]
    best = max(seen, key=lambda i: (probes[i].accuracy, -probes[i].cost))
    least = probes[best].accuracy - probes[best].error
    return min((i for i in seen if probes[i].accuracy >= least), key=lambda i: (probes[i].cost, -probes[i].accuracy))


def screening_facts(folder: Path) -> Mapping[str, Any] | None:
    """Return what was seen of the candidates of a run: ``chosen``, and a row each; None where nothing was."""
    file = folder / _FILE
    facts: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return facts


def _screen(networks: Sequence[Network], version: DatasetVersion, spec: ExperimentSpec, context: Context) -> int:
    rng = rng_for(spec.seed, "screening")
    train, val = (
        samples.take(np.sort(rng.permutation(len(samples))[:most]))
        for samples, most in ((version.train, _TRAIN), (version.val, _VAL))
    )
    until = context.budget.spent_s() + _SHARE_OF_BUDGET * context.budget.left_s()
    probes: list[Probe] = []
    for network in networks:
        if probes and context.budget.spent_s() >= until:
            probes.append(Probe(_name(network), math.nan, math.nan, _cost(network), 0.0))
            used = f"{_SHARE_OF_BUDGET:.0%} of the time is used"
            context.progress.say(f"candidate {_name(network)}: not looked at, {used}")
            continue
        probes.append(_probe(network, train, val, version, spec, context))
        last = probes[-1]
        context.progress.say(
            f"candidate {last.name}: {last.accuracy:.4f} ± {last.error:.4f} with frozen features, {last.seconds:.1f} s"
        )
    chosen = pick(probes)
    context.progress.say(f"chosen: {probes[chosen].name} (the cheapest within one standard error of the best)")
    facts = {"chosen": chosen, "candidates": [asdict(probe) for probe in probes]}
    write_atomic(context.folder / _FILE, json.dumps(facts, indent=1) + "\n")
    return chosen


def _probe(
    network: Network,
    train: LearningSamples,
    val: LearningSamples,
    version: DatasetVersion,
    spec: ExperimentSpec,
    context: Context,
) -> Probe:
    from autodl_ray.models.features import frozen_features
    from autodl_ray.train.head import fit_head

    began = time.monotonic()
    features, val_features = (
        frozen_features(
            network.entry,
            weights=network.weights,
            preprocess=network.preprocess,
            samples=samples,
            dataset_id=version.id,
            split=split,
            context=context,
        )
        for split, samples in (("train", train), ("val", val))
    )
    seed = seed_for(spec.seed, "screening head")
    fit = fit_head(features, train.labels, val_features, val.labels, num_classes=version.num_classes, seed=seed)
    accuracy = fit.scores["accuracy"]
    error = math.sqrt(max(accuracy * (1 - accuracy), 1e-4) / len(val))
    return Probe(_name(network), accuracy, error, _cost(network), round(time.monotonic() - began, 2))


def _name(network: Network) -> str:
    size, fit = network.preprocess.size, network.preprocess.fit
    return f"{network.entry.name} ({network.weights}) {size} px, {fit}"


def _cost(network: Network) -> float:
    from autodl_ray.models.classifier import build

    model = build(network.entry.name, num_classes=2, image_size=network.preprocess.size, weights="none")
    return float(sum(p.numel() for p in model.backbone.parameters()) * network.preprocess.size**2)
