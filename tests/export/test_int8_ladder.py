"""Which way to INT8 is tried next, and whether it is delivered: pure decisions, without onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from autodl_ray.artifacts.bundle import VariantFigures
from autodl_ray.export.int8.attempt import rung_seconds
from autodl_ray.export.int8.gate import Int8Figures, decide, paired_loss
from autodl_ray.export.int8.ladder import RUNGS, Outcome, Rung, Step, ladder, next_rung
from autodl_ray.export.int8.sensitivity import divergence, float_sets
from autodl_ray.export.speed import SpeedRatio, speed_ratio
from autodl_ray.spec import ExportSpec

SECONDS: dict[Rung, float] = {r: 10.0 for r in RUNGS}


def step(*outcomes: Outcome, left_s: float = 1e9, linear_share: float = 0.0, spec: ExportSpec | None = None) -> Step:
    return next_rung(
        spec or ExportSpec(), outcomes, linear_share=linear_share, seconds=SECONDS, left_s=left_s
    )  # fmt: skip


def test_the_climb_of_a_network_that_loses_too_much() -> None:
    outcomes: list[Outcome] = []
    for rung in ("static", "equalised", "mixed", "qat"):
        assert step(*outcomes).rung == rung
        outcomes.append(Outcome(rung, 0.02, 2.0))
    assert step(*outcomes) == Step(None, "nothing is left to try")


def test_the_first_that_keeps_both_limits_ends_the_climb() -> None:
    assert step(Outcome("static", 0.005, 1.0)) == Step(None, "both limits are kept")
    assert step(Outcome("static", 0.02, 2.0), Outcome("equalised", -0.01, 2.0)).rung is None
    assert step(Outcome("static", 0.0051, 2.0)).rung == "equalised"


def test_mending_accuracy_is_pointless_where_all_in_8_bits_is_too_slow() -> None:
    assert step(Outcome("static", 0.02, 0.6)) == Step(None, "nothing is left to try")
    assert step(Outcome("static", 0.0, 0.6), linear_share=0.9).rung == "dynamic"
    # a mixed graph may be slow and the training still worth it
    slow_mixed = (Outcome("static", 0.02, 1.5), Outcome("equalised", 0.02, 1.5), Outcome("mixed", 0.0, 0.9))
    assert step(*slow_mixed).rung == "qat"


def test_what_could_not_be_made_is_not_mended() -> None:
    assert step(Outcome("static", None)) == Step(None, "nothing is left to try")
    assert step(Outcome("static", None), linear_share=0.6).rung == "dynamic"


def test_time_leaves_rungs_out_and_says_so() -> None:
    tight = step(Outcome("static", 0.02, 2.0), left_s=4.0)
    assert tight.rung is None
    assert tight.reason == "no time for equalised, mixed, qat: about 10 s needed, 4 s left"
    seconds = {**SECONDS, "equalised": 100.0}
    outcomes = (Outcome("static", 0.02, 2.0),)
    found = next_rung(ExportSpec(), outcomes, linear_share=0.0, seconds=seconds, left_s=50.0)
    assert found.rung == "mixed"
    assert step(left_s=-3.0).reason.endswith("about 10 s needed, 0 s left")


@pytest.mark.parametrize(
    ("spec", "share", "rungs"),
    [
        (ExportSpec(), 0.1, ("static", "equalised", "mixed", "qat")),
        (ExportSpec(), 0.5, ("static", "equalised", "mixed", "qat", "dynamic")),
        (ExportSpec(qat="off"), 0.1, ("static", "equalised", "mixed")),
        (ExportSpec(int8="static"), 0.9, ("static", "equalised", "mixed", "qat")),
        (ExportSpec(int8="dynamic"), 0.1, ("dynamic",)),
        (ExportSpec(int8="weights"), 0.1, ("weights",)),
        (ExportSpec(int8="off"), 0.1, ()),
    ],
)
def test_ladder_of_a_spec(spec: ExportSpec, share: float, rungs: tuple[str, ...]) -> None:
    assert ladder(spec, linear_share=share) == rungs


def test_estimates_grow_with_work() -> None:
    small = rung_seconds(calibration=16, val=50, images_per_s=2000, layers=4)
    large = rung_seconds(calibration=128, val=328, images_per_s=100, layers=50)
    assert set(small) == set(RUNGS)
    assert all(large[rung] >= small[rung] for rung in RUNGS)
    assert large["qat"] > large["mixed"] > large["equalised"]


def test_paired_loss_counts_only_pictures_that_one_has_right() -> None:
    labels = np.zeros(1000, dtype=np.int64)
    fp32, int8 = labels.copy(), labels.copy()
    fp32[:100] = 1  # both are wrong on 90 of these
    int8[:90] = 1
    int8[500:516] = 1
    found = paired_loss(fp32, int8, labels)
    assert (found.only_fp32, found.only_int8, found.pictures) == (16, 10, 1000)
    assert found.lost == pytest.approx(0.006)
    assert found.low < 0.0 < found.lost < found.high < 0.02
    same = paired_loss(fp32, fp32, labels)
    assert same.lost == 0.0
    assert same.low == pytest.approx(-same.high)
    assert 0.0 < same.high < 0.005


def test_interval_of_the_loss_covers() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        draws = rng.choice(3, size=300, p=[0.95, 0.03, 0.02])  # 1 point is lost
        labels = np.zeros(300, dtype=np.int64)
        found = paired_loss((draws == 2).astype(np.int64), (draws == 1).astype(np.int64), labels)
        covered += found.low <= 0.01 <= found.high
    assert 0.93 <= covered / 400 <= 0.99


def test_speed_ratio_is_that_of_the_rounds() -> None:
    machine = np.linspace(1.0, 9.0, 41)  # gets ever busier; both calls of a round meet the same
    found = speed_ratio(list(2.0 * machine), list(machine))
    assert (found.ratio, found.low, found.high, found.rounds) == (2.0, 2.0, 2.0, 41)
    noisy = speed_ratio([1.0, 1.2, 0.9, 1.1, 1.0], [1.0] * 5)
    assert noisy.low <= noisy.ratio == 1.0 <= noisy.high


def test_decision_says_the_noise() -> None:
    labels = np.zeros(200, dtype=np.int64)
    int8 = labels.copy()
    int8[:3] = 1
    figures = Int8Figures(
        fp32=VariantFigures(accuracy=1.0, images_per_s=100.0, bytes=1000),
        int8=VariantFigures(accuracy=0.985, images_per_s=300.0, bytes=260),
        loss=paired_loss(labels, int8, labels),
        speed=SpeedRatio(2.9, 2.7, 3.2, 15),
    )
    decision = decide(figures, ExportSpec())
    assert not decision.kept
    assert decision.reason == (
        "too inaccurate: 1.50 points of validation accuracy lost (95 % interval -0.7 to +3.6 lost, 200 pictures), "
        "at most 0.5 accepted"
    )
    kept = decide(figures, ExportSpec(max_drop=0.02))
    assert kept.kept
    assert kept.reason.startswith("2.90 times the speed of FP32 (2.70 to 3.20), 1.50 points")


def test_float_sets_double_and_leave_half() -> None:
    found = {f"layer{i}": float(i) for i in range(20)}
    sets = float_sets(found)
    assert [len(names) for names in sets] == [1, 2, 4, 8]
    assert sets[1] == ("layer19", "layer18")
    assert float_sets({"only": 1.0}) == []


def test_divergence_is_zero_only_for_equal_answers() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert divergence(logits, logits + 7.0) == pytest.approx(0.0, abs=1e-6)
    assert divergence(logits, -logits) > 0.1
