"""Drift: what it takes to be called so, and what it takes not to."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from autodl_ray.artifacts.reference import STATISTICS, Histogram, Reference, answers_document, picture_statistics
from autodl_ray.errors import BundleError
from autodl_ray.images import ImageArray, decode_image
from autodl_ray.seeding import rng_for
from autodl_ray.serve.answers import Made
from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine, ServedModel, open_models
from autodl_ray.serve.metrics import Metrics
from autodl_ray.serve.observe.distances import class_distance, js_divergence, psi, psi_distance, psi_limit
from autodl_ray.serve.observe.watch import Watch, drift_report
from autodl_ray.serve.observe.windows import Counts, Window
from tests.serve.conftest import Ask, asker, error_of
from tests.serve.tiny import CLASSES, make_bundle, picture

PHOTOS = Path(__file__).parents[2] / "jobs" / "samples"
ALWAYS = float("inf")
Change = Callable[[ImageArray], ImageArray]


@pytest.fixture(scope="module")
def photos() -> list[ImageArray]:
    """Real photos, small."""
    files = sorted(PHOTOS.rglob("*.jpg"))
    return [decode_image(file.read_bytes()) for file in files[:: max(1, len(files) // 150)]]


def answered(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return probabilities of ``count`` answers, of four classes that are not equally frequent."""
    logits = rng.normal(size=(count, 4)) + 3 * np.eye(4)[rng.choice(4, count, p=(0.5, 0.3, 0.15, 0.05))]
    shares = np.exp(logits)
    result: np.ndarray = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


@pytest.fixture(scope="module")
def reference(photos: list[ImageArray]) -> Reference:
    return Reference.of(
        [picture_statistics(photo) for photo in photos], answers_document(answered(300, rng_for(0, "reference")))
    )


def drawn(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a colour."""
    red, green, blue = map(int, rng.integers(0, 255, 3))
    return red, green, blue


def watched(reference: Reference, pictures: Sequence[ImageArray], rows: np.ndarray) -> dict[str, object]:
    """Look at pictures and report."""
    window = Window(reference, 1000)
    for image, row in zip(pictures, rows, strict=True):
        window.add(image, row)
    return drift_report(("a", "b", "c", "d"), reference, window.counts(), window=1000)


@pytest.mark.parametrize("size", [50, 200, 1000])
def test_the_training_s_own_distribution_raises_no_alarm(size: int) -> None:
    """The reference and each window are drawn from one population: 200 times, well below 5 % false alarms."""
    alarms = 0
    for round_ in range(200):
        rng = rng_for(round_, "resample", size)
        rows = np.column_stack([rng.lognormal(size=400) for _ in range(4)] + [rng.choice([0.75, 1.0, 1.33], 400)] * 2)
        reference = Reference.of(rows.tolist(), answers_document(answered(400, rng)))
        columns = [rng.lognormal(size=size) for _ in range(4)] + [rng.choice([0.75, 1.0, 1.33], size)] * 2
        seen = answered(size, rng)
        histograms = [reference.statistics[name] for name in STATISTICS] + [reference.confidence]
        bins = {
            name: np.bincount(np.searchsorted(h.edges, values, side="right"), minlength=len(h.counts)).tolist()
            for name, h, values in zip(
                (*STATISTICS, "confidence"), histograms, [*columns, seen.max(axis=1)], strict=True
            )
        }
        counts = Counts(size, 1.0, bins, np.bincount(seen.argmax(axis=1), minlength=4).tolist())
        alarms += drift_report(("a", "b", "c", "d"), reference, counts, window=1000)["verdict"] == "drifting"
    assert alarms < 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda photo: (photo * 0.4).astype(np.uint8), "brightness"),
        (lambda photo: np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(3))), "sharpness"),
        (lambda photo: np.asarray(Image.fromarray(photo).convert("L").convert("RGB")), "saturation"),
        (lambda photo: photo[: photo.shape[0] // 3], "aspect_ratio"),
    ],
    ids=["darkened", "blurred", "grey", "cut"],
)
def test_changed_photos_are_noticed_and_named(
    photos: list[ImageArray], reference: Reference, change: Change, named: str
) -> None:
    rows = answered(len(photos), rng_for(1, "rows"))
    assert watched(reference, photos, rows)["verdict"] == "stable"
    report = watched(reference, [change(photo) for photo in photos], rows)
    assert report["verdict"] == "drifting"
    assert named in report["drifting"]  # type: ignore[operator]


def test_one_class_only_is_noticed_and_few_pictures_say_nothing(photos: list[ImageArray], reference: Reference) -> None:
    rows = answered(len(photos), rng_for(1, "rows"))
    alone = np.zeros_like(rows) + np.array([0.03, 0.9, 0.04, 0.03], np.float32)
    report = watched(reference, photos, np.where(rows.max(axis=1, keepdims=True) > 2, rows, alone))
    assert report["verdict"] == "drifting"
    assert "classes" in report["drifting"]  # type: ignore[operator]
    few = watched(reference, photos[:49], alone[:49])
    assert (few["verdict"], few["seen"]) == ("too few", 49)


def test_distances_are_those_of_the_literature() -> None:
    assert psi((100, 100), (100, 100)) == 0
    assert psi((100_000, 300_000), (200_000, 200_000)) == pytest.approx(0.25 * math.log(3), abs=1e-3)
    assert js_divergence((5, 0), (0, 9)) == 1
    assert js_divergence((1, 1), (7, 7)) == 0
    assert psi_limit(10**9, 10**9, bins=10) == pytest.approx(0.25)
    noise = 1 / 50 + 1 / 400  # 29.0: the 0.99875 quantile of chi-square with 9 degrees of freedom is 27.2
    assert psi_limit(50, 400, bins=10) == pytest.approx(27.2 * noise, rel=0.02)
    assert psi_distance((50, 50), (49, 0)).verdict == "too few"
    assert psi_distance((9, 9), (500, 0)).verdict == "too few"
    assert class_distance((200, 200), (500, 10)).verdict == "drifting"
    assert class_distance((200, 200), (250, 260)).verdict == "stable"


def test_bins_hold_a_tenth_each_and_a_constant_is_told_from_all_else() -> None:
    even = Histogram.of(np.arange(1000))
    assert (len(even.counts), sum(even.counts)) == (10, 1000)
    assert all(99 <= count <= 101 for count in even.counts)
    constant = Histogram.of([28.0] * 200)
    for value, expected in ((28.0, 200), (27.9, 0), (28.1, 0)):
        assert constant.counts[np.searchsorted(constant.edges, value, side="right")] == expected
    assert sum(Histogram.of([3.0]).counts) == 1


def test_statistics_are_what_they_say() -> None:
    grey = picture_statistics(np.full((30, 60, 3), 90, np.uint8))
    assert grey == pytest.approx((90, 0, 0, 0, 2, math.sqrt(1800)), abs=1e-3)
    red = picture_statistics(np.full((1, 1, 3), (255, 0, 0), np.uint8))
    assert red == pytest.approx((0.299 * 255, 0, 255, 0, 1, 1), abs=1e-3)
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::2] = 255
    assert picture_statistics(stripes)[3] > 1


def test_a_reference_survives_its_file_and_a_damaged_one_is_refused(reference: Reference, tmp_path: Path) -> None:
    document = json.loads(json.dumps(reference.to_json()))
    assert Reference.from_json(document) == reference
    document["statistics"]["contrast"]["counts"] = [1]
    with pytest.raises(BundleError, match=r"reference\.json is damaged"):
        Reference.from_json(document)
    (tmp_path / "reference.json").write_text('{"pictures": 3')
    with pytest.raises(BundleError, match=r"reference\.json is damaged"):
        Reference.read(tmp_path / "reference.json")


@pytest.fixture(scope="module")
def watched_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ask, Engine, Watch]]:
    """A bundle whose training was red, green and blue pictures, and one that does not say; every picture is seen."""
    root = tmp_path_factory.mktemp("drift")
    rng = rng_for(0, "colours")
    images = [decode_image(picture(drawn(rng))) for _ in range(120)]
    (model,) = open_models([("colours", make_bundle(root))], num_threads=1)
    reference = Reference.of([picture_statistics(i) for i in images], answers_document(model.predict(images)))
    made = make_bundle(root / "with", reference=reference)
    watch = Watch(100, root / "counts", share=ALWAYS)
    metrics = Metrics()
    engine = Engine(open_models([("colours", made), ("old", root / "colours" / "bundle")], num_threads=1),
                    metrics=metrics, watch=watch)  # fmt: skip
    yield asker(create_app(engine, metrics=metrics, watch=watch)), engine, watch
    engine.close()


def test_the_route_says_too_few_then_stable_then_drifting(watched_app: tuple[Ask, Engine, Watch]) -> None:
    ask, _, _ = watched_app
    rng = rng_for(1, "colours")
    first = ask("GET", "/v1/models/colours/drift").json()
    assert (first["verdict"], first["seen"], first["since"]) == ("too few", 0, None)
    for _ in range(60):
        ask("POST", "/predict", content=picture(drawn(rng)))
    report = ask("GET", "/v1/models/colours/drift").json()
    assert (report["verdict"], report["seen"], report["drifting"]) == ("stable", 60, [])
    assert set(report["statistics"]) == {*STATISTICS, "confidence"}
    assert set(report["classes"]["seen"]) == set(CLASSES)
    described = ask("GET", "/openapi.json").json()["paths"]["/v1/models/{name}/drift"]["get"]["responses"]["200"]
    assert set(described["content"]["application/json"]["example"]) <= set(report)
    assert report["reference"] == {"train_pictures": 120, "validation_answers": 120}
    files = [("f", (f"{i}.png", picture((15, 9, 40)))) for i in range(110)]
    ask("POST", "/predict", files=files)
    report = ask("GET", "/v1/models/colours/drift").json()
    assert (report["verdict"], report["seen"]) == ("drifting", 100)
    assert {"brightness", "classes"} <= set(report["drifting"])
    text = ask("GET", "/metrics").text
    assert 'autodl_drifting{model="colours",version="0123456789ab"} 1' in text
    assert 'autodl_drift_pictures{model="colours",version="0123456789ab"} 100' in text
    assert 'autodl_drift_distance{statistic="brightness",model="colours"' in text
    assert 'autodl_drifting{model="old"' not in text


def test_who_has_no_reference_or_no_watch_answers_404_with_the_reason(
    watched_app: tuple[Ask, Engine, Watch], ask: Ask
) -> None:
    assert "'old' (version 0123456789ab) has no reference.json" in error_of(
        watched_app[0]("GET", "/v1/models/old/drift"), 404
    )
    assert "drift_window is 0" in error_of(ask("GET", "/v1/models/colours/drift"), 404)
    assert "did you mean 'colours'" in error_of(watched_app[0]("GET", "/v1/models/colour/drift"), 404)


def test_pictures_of_a_heatmap_are_not_watched(watched_app: tuple[Ask, Engine, Watch]) -> None:
    _, engine, watch = watched_app
    image = decode_image(picture())
    model = engine.models["colours"]
    looked: list[ServedModel] = []
    watch.look, original = lambda model, *_, **__: looked.append(model), watch.look  # type: ignore[method-assign]
    try:
        engine._work(model, [(Made([image]), 0.0)])
        assert looked == []
        engine._work(model, [([image], 0.0)])
        assert looked == [model]
    finally:
        watch.look = original  # type: ignore[method-assign]


def test_replicas_of_a_machine_are_added_up_while_they_live(
    watched_app: tuple[Ask, Engine, Watch], tmp_path: Path
) -> None:
    model = watched_app[1].models["colours"]
    assert model.reference is not None
    image = decode_image(picture())
    row = model.predict([image])[0]
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mine, theirs = (Watch(10, tmp_path, share=ALWAYS, name=name) for name in (os.getpid(), other.pid))
        for watch in (mine, theirs):
            watch.look(model, image, row, seconds=1.0)
        counts = mine.counts(model, model.reference)
        assert (counts.seen, counts.replicas, sum(counts.classes)) == (2, 2, 2)
        assert mine.report(model, model.reference)["window"] == 20
    finally:
        other.communicate(b"\n")
    assert mine.counts(model, model.reference).seen == 1


def test_looking_takes_its_share_of_the_time_and_no_more(watched_app: tuple[Ask, Engine, Watch]) -> None:
    model = watched_app[1].models["colours"]
    assert model.reference is not None
    image = decode_image(picture(size=(400, 300)))
    row = model.predict([image])[0]
    watch = Watch(10_000)
    for _ in range(1000):
        watch.look(model, image, row, seconds=0.001)  # 1 s of answers: 10 ms
    assert 1 <= watch.counts(model, model.reference).seen < 300


def test_counts_that_cannot_be_left_for_others_fail_no_request(
    photos: list[ImageArray], reference: Reference, tmp_path: Path
) -> None:
    watch = Watch(10, tmp_path / "counts", share=ALWAYS)
    (tmp_path / "counts").rmdir()
    model = ServedModel("m", "1", "d", ("a", "b", "c", "d"), lambda images: answered(len(images), rng_for(0, "m")),
                        reference=reference)  # fmt: skip
    for _ in range(2):
        watch.look(model, photos[0], answered(1, rng_for(0, "look"))[0], seconds=1.0)
    assert watch.counts(model, reference).seen >= 1
