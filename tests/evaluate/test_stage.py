"""The evaluate stage from files to report, with predictors whose answers are known."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from autodl_ray.artifacts import Store, TestSamples
from autodl_ray.errors import StageError, StoreError
from autodl_ray.evaluate import EvaluateInputs, EvaluationReport, run
from autodl_ray.evaluate import judge as judging
from autodl_ray.evaluate.thumbnails import thumbnails
from autodl_ray.images import ImageArray
from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
from autodl_ray.spec import EvaluateSpec

Predict = Callable[[Sequence[ImageArray]], npt.NDArray[np.float32]]
COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (230, 30, 30)}


def context(folder: Path, seed: int = 0) -> Context:
    return Context(Store(folder / "store"), "run", seed, Budget(60), SilentProgress(), StopFlag(folder / "stop"))


def colours(folder: Path, each: int = 6, names: Sequence[str] = ("blue", "green", "red")) -> TestSamples:
    """Plain pictures of three colours, of different sizes, in folders by class name."""
    paths, labels = [], []
    for label, (name, colour) in enumerate(zip(names, COLOURS.values(), strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.new("RGB", (20 + i % 3, 16), colour).save(folder / name / f"{i}.png")
            paths.append(f"{name}/{i}.png")
            labels.append(label)
    ids = np.arange(len(labels))
    return TestSamples(folder, ids, tuple(paths), np.asarray(labels), tuple(names))


def seer(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
    """Answers by colour: always right, with probability 0.9."""
    order = [2, 1, 0]  # blue, green, red are channels 2, 1, 0
    means = np.stack([image.reshape(-1, 3).mean(0)[order] for image in images])
    return np.where(means == means.max(1, keepdims=True), 0.9, 0.05).astype(np.float32)


def sometimes_wrong(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
    """As :func:`seer`, but pictures of 22 px width are answered with the next class."""
    p = seer(images)
    for i, image in enumerate(images):
        if image.shape[1] == 22:
            p[i] = np.roll(p[i], 1)
    return p


def inputs(samples: TestSamples, predict: Predict = sometimes_wrong, **more: Any) -> EvaluateInputs:
    facts: dict[str, Any] = {
        "model": {"name": "tiny", "version": "1", "source": "quick"},
        "dataset": {
            "id": "d1",
            "train": 30,
            "val": 6,
            "test": len(samples),
            "counts": {"train": dict.fromkeys(COLOURS, 10)},
        },
        "candidate_id": "c1",
    }
    return EvaluateInputs(predict=predict, samples=samples, **{**facts, **more})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_report_has_its_keys_and_reads_back(tmp_path: Path) -> None:
    made = run(EvaluateSpec(), inputs(colours(tmp_path / "data")), context=context(tmp_path))
    assert made.manifest.kind == "evaluation"
    assert made.manifest.inputs == {"candidate": "c1", "dataset": "d1"}
    assert set(made.manifest.files) == {"report.json", "report.html", "errors.csv", "predictions.csv"}
    document = json.loads(made.file("report.json").read_text())
    assert list(document) == [
        *("schema_version", "split", "created", "confidence", "scores", "images_per_s", "seconds", "skipped"),
        *("variants", "model", "dataset", "int8", "leaderboard", "curves", "openings", "made", "search"),
    ]
    assert list(document["scores"]) == [
        *("num_images", "num_right", "accuracy", "macro_f1", "top5_accuracy", "log_loss"),
        *("expected_calibration_error", "baseline", "classes", "confusion_matrix", "per_class", "most_confused"),
        "calibration",
    ]
    report = EvaluationReport.model_validate(document)
    assert report.scores.accuracy.value == made.meta["accuracy"] == pytest.approx(12 / 18)
    assert report.scores.confusion_matrix == ((4, 2, 0), (0, 4, 2), (2, 0, 4))
    assert document["made"]["packages"]["numpy"] == np.__version__


def test_errors_and_predictions_recompute_the_scores(tmp_path: Path) -> None:
    made = run(EvaluateSpec(), inputs(colours(tmp_path / "data")), context=context(tmp_path))
    answers, errors = rows(made.file("predictions.csv")), rows(made.file("errors.csv"))
    assert list(answers[0]) == ["path", "true", "predicted", "p_blue", "p_green", "p_red"]
    wrong = {row["path"] for row in answers if row["true"] != row["predicted"]}
    assert {row["path"] for row in errors} == wrong
    assert made.meta["accuracy"] == pytest.approx(1 - len(wrong) / len(answers))
    by_path = {row["path"]: row for row in answers}
    for row in errors:
        match = by_path[row["path"]]
        assert row["probability"] == match[f"p_{row['predicted']}"]
        assert row["probability_of_true"] == match[f"p_{row['true']}"]
    first = seer([np.asarray(Image.open(tmp_path / "data/blue/0.png"))])[0]
    assert [float(by_path["blue/0.png"][f"p_{c}"]) for c in COLOURS] == pytest.approx(first.tolist(), abs=1e-6)


def test_errors_come_worst_first(tmp_path: Path) -> None:
    def rising(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        p = np.array([[0.1 + 0.04 * i, 0.9 - 0.04 * i, 0.0] for i in range(len(images))], np.float32)
        return p

    made = run(EvaluateSpec(), inputs(colours(tmp_path / "data"), rising), context=context(tmp_path))
    chances = [float(row["probability_of_true"]) for row in rows(made.file("errors.csv"))]
    assert len(chances) > 5
    assert chances == sorted(chances)


def test_unreadable_pictures_are_counted_and_listed(tmp_path: Path) -> None:
    samples = colours(tmp_path / "data")
    (tmp_path / "data/blue/1.png").write_bytes(b"")
    (tmp_path / "data/green/2.png").write_text("no picture at all")
    (tmp_path / "data/red/3.png").unlink()
    made = run(EvaluateSpec(), inputs(samples, seer), context=context(tmp_path))
    report = EvaluationReport.model_validate_json(made.file("report.json").read_text())
    assert [(s.path, s.reason) for s in report.skipped] == [
        ("blue/1.png", "The picture is empty (0 bytes)."),
        ("green/2.png", "This is not a picture."),
        ("red/3.png", "No such file or directory"),
    ]
    assert report.scores.num_images == made.meta["num_images"] == 15
    assert report.scores.accuracy.value == 1.0
    assert "blue/1.png" in made.file("report.html").read_text()
    assert len(rows(made.file("predictions.csv"))) == 15


def test_a_split_without_a_readable_picture_is_an_error(tmp_path: Path) -> None:
    samples = colours(tmp_path / "data", each=1)
    for path in samples.paths:
        (tmp_path / "data" / path).write_bytes(b"x")
    with pytest.raises(StageError, match="No test picture can be read") as caught:
        run(EvaluateSpec(), inputs(samples), context=context(tmp_path))
    assert "3 in the split" in str(caught.value)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda images: np.zeros((len(images), 2), np.float32), "did not return probabilities"),
        (lambda images: np.full((len(images), 3), np.nan, np.float32), "finite: False"),
        (lambda images: 1 / 0, "failed on test pictures"),
    ],
)
def test_a_broken_predictor_is_named(tmp_path: Path, predict: Predict, message: str) -> None:
    with pytest.raises(StageError, match=message):
        run(EvaluateSpec(), inputs(colours(tmp_path / "data"), predict), context=context(tmp_path))


def test_the_same_question_is_answered_from_the_store(tmp_path: Path) -> None:
    samples, calls = colours(tmp_path / "data"), []

    def counted(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        calls.append(len(images))
        return seer(images)

    first = run(EvaluateSpec(), inputs(samples, counted), context=context(tmp_path))
    seen = len(calls)
    assert run(EvaluateSpec(), inputs(samples, counted), context=context(tmp_path)).id == first.id
    assert len(calls) == seen
    for changed in (
        lambda: run(EvaluateSpec(), inputs(samples, counted, candidate_id="c2"), context=context(tmp_path)),
        lambda: run(EvaluateSpec(confidence=0.9), inputs(samples, counted), context=context(tmp_path)),
        lambda: run(EvaluateSpec(confidence=0.9), inputs(samples, counted), context=context(tmp_path, seed=1)),
    ):
        before = len(calls)
        changed()
        assert len(calls) > before


def test_int8_is_judged_on_the_same_pictures(tmp_path: Path) -> None:
    given = inputs(
        colours(tmp_path / "data"),
        seer,
        others={"int8": sometimes_wrong},
        int8={"kept": False, "reason": "less accurate", "fp32": {"bytes": 4_000_000}, "int8": {"bytes": 1_000_000}},
    )
    made = run(EvaluateSpec(), given, context=context(tmp_path))
    report = EvaluationReport.model_validate_json(made.file("report.json").read_text())
    assert [v.name for v in report.variants] == ["int8"]
    assert report.variants[0].accuracy == report.variants[0].same_answer == pytest.approx(12 / 18)
    assert report.scores.accuracy.value == 1.0
    page = made.file("report.html").read_text()
    assert "INT8 against FP32" in page
    assert "4.0 MB" in page
    assert "INT8 is not delivered: less accurate" in page


def test_pictures_arrive_in_order_in_bounded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = colours(tmp_path / "data", each=30)
    monkeypatch.setattr(judging, "_BATCH_BYTES", 4 * 16 * 21 * 3)
    monkeypatch.setattr(judging, "_AHEAD_BYTES", 6 * 16 * 22 * 3)
    alive, most, lock = 0, 0, threading.Lock()
    decode = judging._decode

    def counted(samples: TestSamples, position: int) -> Any:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return decode(samples, position)

    def slow(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        nonlocal alive
        assert len(images) <= 5
        with lock:
            alive -= len(images)
        return seer(images)

    monkeypatch.setattr(judging, "_decode", counted)
    made = run(EvaluateSpec(), inputs(samples, slow), context=context(tmp_path))
    assert made.meta["accuracy"] == 1.0
    assert [row["path"] for row in rows(made.file("predictions.csv"))] == list(samples.paths)
    assert most <= 6 + 5 + 8  # ahead, in the batch, being decoded


def test_a_full_store_is_a_store_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    place = Context(Store(file / "store"), "run", 0, Budget(9), SilentProgress(), StopFlag(tmp_path / "stop"))
    with pytest.raises(StoreError, match="cannot be written"):
        run(EvaluateSpec(), inputs(colours(tmp_path / "data")), context=place)


def test_no_absolute_path_is_written(tmp_path: Path) -> None:
    made = run(EvaluateSpec(), inputs(colours(tmp_path / "data")), context=context(tmp_path))
    for file in made.path.iterdir():
        assert str(tmp_path) not in file.read_text(), file.name


# ---- the page


def page_of(tmp_path: Path, samples: TestSamples, predict: Predict = sometimes_wrong, **more: Any) -> str:
    spec = EvaluateSpec(worst=more.pop("worst", 24))
    return run(spec, inputs(samples, predict, **more), context=context(tmp_path)).file("report.html").read_text()


def test_the_page_needs_nothing_beside_itself(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        colours(tmp_path / "data"),
        leaderboard=[{"source": "quick", "accuracy": 0.9, "params": {"lr": 0.1}}],
        curves=[{"epoch": e, "accuracy": e / 5, "loss": 1 / e, "train_loss": 2 / e} for e in (1, 2, 3)],
        openings=[{"who": "anna", "when": "2026-01-01", "purpose": "candidate c1"}],
    )
    assert set(re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]{0,5})""", page)) == {"data:"}
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert page.count("data:image/jpeg;base64,") == 6
    for wanted in (
        "66.7",
        "Macro-F1",
        "Most confused pairs",
        "Leaderboard",
        "How training went",
        "by anna",
        "opened once",
    ):
        assert wanted in page, wanted
    assert "prefers-color-scheme: dark" in page


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<b>x<"  # a folder name cannot hold a slash
    samples = colours(tmp_path / "data", names=("a&'b", evil, 'q"c'))
    page = page_of(
        tmp_path,
        samples,
        model={"name": "<script>alert(1)</script>", "source": "<i>s</i>", "odd <k>": "<v>"},
        leaderboard=[{"<th>": "<td>", "params": {"<p>": "<q>"}}],
        openings=[{"who": "<who>", "when": "<when>", "purpose": "<what>"}],
        int8={"reason": "<reason>"},
        made={"<made>": "<fact>"},
        dataset={"id": "d", "<d>": ["<e>"]},
    )
    assert "&lt;b&gt;x&lt;" in page
    assert "a&amp;&#39;b" in page
    for raw in (evil, "<script>", "<i>", "<k>", "<v>", "<th>0", "<q>", "<who>", "<what>", "<reason>", "<fact>", "<e>"):
        assert raw not in page, raw


def test_a_perfect_model_has_no_mistakes_to_show(tmp_path: Path) -> None:
    samples = colours(tmp_path / "data")
    made = run(EvaluateSpec(), inputs(samples, seer), context=context(tmp_path))
    page = made.file("report.html").read_text()
    assert "every test picture was answered right" in page
    assert "No class was taken for another" in page
    assert made.file("errors.csv").read_text() == "path,true,predicted,probability,probability_of_true\n"
    low, high = made.meta["macro_f1_interval"]
    assert low < high == 1.0


def test_a_class_without_test_pictures(tmp_path: Path) -> None:
    whole = colours(tmp_path / "data")
    keep = np.flatnonzero(whole.labels != 1)
    samples = TestSamples(
        whole.root, whole.ids[keep], tuple(whole.paths[i] for i in keep), whole.labels[keep], whole.classes
    )
    made = run(EvaluateSpec(), inputs(samples, seer), context=context(tmp_path))
    report = EvaluationReport.model_validate_json(made.file("report.json").read_text())
    assert report.scores.macro_f1.value == 1.0
    assert report.scores.per_class[1].support == 0
    assert "–" in made.file("report.html").read_text()


def test_a_model_no_better_than_guessing_is_called_so(tmp_path: Path) -> None:
    def blue(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        return np.tile(np.array([[0.8, 0.1, 0.1]], np.float32), (len(images), 1))

    page = page_of(tmp_path, colours(tmp_path / "data"), blue)
    assert "no better than that" in page
    assert "over-confident" in page


def test_worst_zero_shows_no_pictures(tmp_path: Path) -> None:
    page = page_of(tmp_path, colours(tmp_path / "data"), worst=0)
    assert "data:image" not in page
    assert "6 mistakes: see errors.csv" in page


def test_many_classes_and_pictures_stay_below_three_megabytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    noise = Image.fromarray(random.integers(0, 255, (300, 400, 3), dtype=np.uint8))
    noise.save(tmp_path / "data/noise.jpg", quality=95)
    classes = tuple(f"class number {i:04d}" for i in range(120))
    labels = np.arange(240) % 120
    samples = TestSamples(tmp_path / "data", np.arange(240), ("noise.jpg",) * 240, labels, classes)

    def drawn(images: Sequence[ImageArray]) -> npt.NDArray[np.float32]:
        p = random.dirichlet(np.full(120, 0.05), len(images))
        return p.astype(np.float32)

    spec = EvaluateSpec(worst=200)
    made = run(spec, inputs(samples, drawn), context=context(tmp_path))
    assert made.manifest.files["report.html"].bytes < 3_000_000
    assert made.file("report.html").read_text().count("<figcaption>") == 200
    fit = thumbnails(samples, range(200), total_chars=100_000)
    assert 5 < len(fit) < 200
    assert sum(map(len, fit)) <= 100_000
    report = EvaluationReport.model_validate_json(made.file("report.json").read_text())
    assert report.scores.top5_accuracy is not None


def test_rows_with_nan_are_valid_json(tmp_path: Path) -> None:
    made = run(
        EvaluateSpec(),
        inputs(
            colours(tmp_path / "data"),
            leaderboard=[{"source": "sweep t1", "accuracy": float("nan"), "loss": np.float32("inf")}],
            curves=[{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 0.5}],
        ),
        context=context(tmp_path),
    )

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(made.file("report.json").read_text(), parse_constant=refuse)
