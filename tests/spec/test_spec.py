"""The spec: read, checked with every mistake at once, written and hashed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from autodl_ray.errors import SpecError
from autodl_ray.spec import (
    DataSpec,
    ExperimentSpec,
    TrainSpec,
    difference,
    json_schema,
    load_spec,
    parse_seconds,
    parse_spec,
    render_spec,
    spec_digest,
    with_overrides,
)

LEAST: dict[str, Any] = {"data": {"path": "photos/"}}


def written(folder: Path, text: str) -> Path:
    file = folder / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def mistake(document: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec({**LEAST, **document})
    assert caught.value.exit_code == 2
    return str(caught.value)


# ---- written and read again


def test_the_rendered_spec_reads_back_as_the_same_spec(tmp_path: Path) -> None:
    spec = ExperimentSpec(data=DataSpec(path="photos/"))
    back = load_spec(written(tmp_path, render_spec()))
    assert back == spec
    assert spec_digest(back) == spec_digest(spec)


def test_a_spec_with_other_values_reads_back(tmp_path: Path) -> None:
    spec = parse_spec(
        {
            "name": "my-run.1",
            "seed": 2**32 - 1,
            "budget_s": "1h30m",
            "data": {"path": "mes photos/é: #1", "split": {"train_list": "a", "val_list": "b", "test_list": "c"}},
            "model": {"image_size": 224, "weights": "off", "fit": "pad"},
            "train": {"lr": 1e-5, "precision": "32", "epochs": 3, "augment": "none"},
            "tune": {
                "num_samples": 0,
                "param_space": {
                    "lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
                    "batch_size": {"type": "int", "low": 8, "high": 64},
                    "optimizer": {"type": "choice", "values": ["adamw", "sgd"]},
                },
            },
            "export": {"int8": "off"},
        }
    )
    back = load_spec(written(tmp_path, render_spec(spec)))
    assert back == spec
    assert spec_digest(back) == spec_digest(spec)


def test_every_key_is_rendered_and_every_section_has_its_comment() -> None:
    text = render_spec()
    for section in (ExperimentSpec, DataSpec, TrainSpec):
        for key in section.model_fields:
            assert f"{key}:" in text
    assert "epochs: auto  # passes over the training split (auto: what fits); ≥ 1" in text
    assert "optimizer: adamw  # adamw | sgd" in text
    assert "confidence: 0.95  # of the intervals; > 0.5, < 1" in text


def test_the_json_schema_describes_the_rendered_spec() -> None:
    schema = json.loads(json_schema())
    document = yaml.safe_load(render_spec())

    def compare(shown: dict[str, Any], described: dict[str, Any], path: str) -> None:
        while "$ref" in described:
            described = schema["$defs"][described["$ref"].rsplit("/", 1)[-1]]
        if isinstance(described["additionalProperties"], dict):  # a table of numbers by name, e.g. limits
            return
        assert described["additionalProperties"] is False, path
        assert set(shown) == set(described["properties"]), path
        for key, value in shown.items():
            if isinstance(value, dict):
                compare(value, described["properties"][key], f"{path}{key}.")

    compare(document, schema, "")
    assert schema["required"] == ["data"]


# ---- mistakes


def test_all_mistakes_are_in_one_error_with_paths_and_lines(tmp_path: Path) -> None:
    text = """\
data:
  path: x
  split: {val: 0.7}
buget_s: 10m
train:
  lr: fast
  epoch: 3
  batch_size: 0
model: resnet18
tune:
  param_space:
    lr: {type: flaot, low: 1, high: 2}
    dropout: {type: float, low: 0.5, high: 0.2}
"""
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, text))
    rows = str(caught.value).splitlines()
    assert rows[0].endswith("spec.yaml has 8 mistakes:")
    assert sorted(rows[1:-1]) == sorted(
        [
            "  - data.split.val (line 3): input should be less than 0.5, got 0.7",
            "  - buget_s (line 4): unknown key; did you mean 'budget_s'?",
            "  - train.lr (line 6): should be a valid number or 'auto', got 'fast'",
            "  - train.epoch (line 7): unknown key; did you mean 'epochs'?",
            "  - train.batch_size (line 8): should be greater than or equal to 1 or 'auto', got 0",
            "  - model (line 9): must be a section with keys of its own, got 'resnet18'",
            "  - tune.param_space.lr (line 12): unknown type 'flaot'; did you mean 'float'?",
            "  - tune.param_space.dropout (line 13): low must be below high, got 0.5 and 0.2",
        ]
    )
    assert rows[-1] == "  next: see `autodl spec init`"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"budget_s": 0}, "budget_s: input should be greater than 0, got 0"),
        ({"budget_s": "0s"}, "budget_s: input should be greater than 0, got '0s'"),
        ({"budget_s": -5}, "budget_s: input should be greater than 0, got -5"),
        ({"budget_s": "-5m"}, "budget_s: '-5m' is not a duration; write 90s, 10m or 1h30m"),
        ({"budget_s": "soon"}, "'soon' is not a duration"),
        ({"budget_s": ""}, "'' is not a duration"),
        ({"budget_s": "m10"}, "'m10' is not a duration"),
        ({"budget_s": True}, "true is not a duration"),
        ({"budget_s": float("nan")}, "budget_s: input should be a finite number"),
        ({"budget_s": None}, "budget_s: input should be a valid number, got None"),
        ({"seed": 1.5}, "seed: input should be a valid integer"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0"),
        ({"name": "a b"}, "name: string should match pattern"),
        ({"name": "../up"}, "name: string should match pattern"),
        ({"schema_version": 2}, "schema_version: input should be 1, got 2"),
        ({"data": {}}, "data.path: is required"),
        ({"data": {"path": 3}}, "data.path: input should be a valid string, got 3"),
        ({"data": {"path": "x", "split": {"test_list": "t"}}}, "give train_list, val_list and test_list together"),
        ({"train": None}, "train: must be a section with keys of its own, got None"),
        ({"train": {"epochs": 0}}, "train.epochs: should be greater than or equal to 1 or 'auto', got 0"),
        ({"train": {"lr": -1}}, "train.lr: should be greater than 0 or 'auto', got -1"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer: input should be 'adamw' or 'sgd', got 'adam'"),
        ({"train": {"cpus_per_worker": 0}}, "train.cpus_per_worker: should be greater than 0 or 'auto', got 0"),
        ({"tune": {"num_samples": -1}}, "tune.num_samples: should be greater than or equal to 0 or 'auto', got -1"),
        ({"tune": {"max_concurrent_trials": 0}}, "tune.max_concurrent_trials: should be greater than 0 or 'auto'"),
        ({"tune": {"param_space": {"lrr": {"type": "int", "low": 1, "high": 2}}}}, "lrr is no field of train; did you"),
        ({"tune": {"param_space": {"num_workers": {"type": "int", "low": 1, "high": 2}}}}, "is no field of train"),
        ({"tune": {"param_space": {"lr": {"low": 1, "high": 2}}}}, "param_space.lr: needs a type: one of float, int"),
        ({"tune": {"param_space": {"lr": {"type": "float", "low": 1, "high": 2, "lo": 1}}}}, "lr.lo: unknown key; did"),
        ({"tune": {"param_space": {"lr": {"type": "float", "low": 0, "high": 1, "log": True}}}}, "starts above 0"),
        ({"tune": {"param_space": {"dropout": {"type": "float", "low": 0.5, "high": 3.0}}}}, "less than 1, got 3.0"),
        ({"tune": {"param_space": {"optimizer": {"type": "choice", "values": ["adam"]}}}}, "got 'adam'"),
        ({"tune": {"param_space": {"optimizer": {"type": "choice", "values": []}}}}, "optimizer.values: tuple should"),
        ({"model": {"image_size": 4}}, "model: image_size is 8 to 1024 px, got 4"),
        ({"model": {"image_size": "big"}}, "model.image_size: should be a valid integer or 'auto', got 'big'"),
        ({"serve": {"min_replicas": 3}}, "serve: min_replicas 3 is above max_replicas 2"),
        ({"serve": {"port": 0}}, "serve.port: input should be greater than or equal to 1, got 0"),
        ({"zzzzz": 1}, "zzzzz: unknown key; known: schema_version, name, seed"),
    ],
)
def test_a_mistake_is_explained(section: dict[str, Any], message: str) -> None:
    shown = mistake(section)
    assert message in shown
    assert "has 1 mistake:" in shown
    assert "literal[" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data: is required"),
        ("- a\n- b\n", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("data: [", "not valid YAML"),
        ("data: {path: 2026-13-45}", "not valid YAML"),
        ("data: !!python/object:os.system {}", "not valid YAML"),
        ("data: {path: x}\nseed: 1\ndata: {path: y}\n", "data is given twice"),
        ("train:\n  lr: 1\n  lr: 2\n", "train.lr is given twice"),
        ("data: &a\n  path: *a\n", "contains itself"),
        ("[" * 1500, "not valid YAML"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_spec(written(tmp_path, text))


def test_lines_of_a_key_that_is_given_twice(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, "data: {path: x}\nseed: 1\nseed: 2\n"))
    assert caught.value.seen == "lines 2 and 3"


def test_a_missing_file_names_it_and_the_next_step(tmp_path: Path) -> None:
    for place in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpecError, match="cannot be read") as caught:
            load_spec(place)
        assert str(place) in str(caught.value)
        assert "autodl spec init" in str(caught.value)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path / "binary")


def test_yaml_words_that_are_not_words(tmp_path: Path) -> None:
    # YAML 1.1 reads `off` as false, `32` as a number and `1e-3` as text
    spec = load_spec(
        written(tmp_path, "data: {path: x}\nexport: {int8: off}\ntrain: {precision: 32, lr: 1e-3}\nbudget_s: 1e3")
    )
    assert spec.export.int8 == "off"
    assert spec.train.precision == "32"
    assert spec.train.lr == 1e-3
    assert spec.budget_s == 1000


def test_aliases_and_merge_keys_work(tmp_path: Path) -> None:
    text = "data: {path: x}\ntune:\n  param_space:\n    dropout: &d {type: float, low: 0.1, high: 0.2}\n    lr: *d\n"
    assert load_spec(written(tmp_path, text)).tune.param_space is not None


# ---- durations


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        *[("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), (" 2 m ", 120), ("1d", 86400)],
        *[("1H", 3600), ("1m30s", 90), (5, 5), (0.5, 0.5), ("1e2", 100)],
    ],
)
def test_durations(given: object, seconds: float) -> None:
    assert parse_seconds(given) == seconds
    assert parse_spec({**LEAST, "budget_s": given}).budget_s == seconds


@pytest.mark.parametrize("given", ["", "m", "10 minutes", "1:30", "-1m", "10mm", "1h-5m", "∞", "nan", False])
def test_nonsense_durations(given: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 90s, 10m or 1h30m"):
        parse_seconds(given)


# ---- digest, difference, overrides


def test_the_digest_does_not_depend_on_order_layout_or_written_defaults(tmp_path: Path) -> None:
    one = load_spec(written(tmp_path, "seed: 3\ndata: {path: x, max_unreadable: 0.1}\ntrain: {lr: 0.001, epochs: 5}\n"))
    other = load_spec(
        written(tmp_path, "train:\n  epochs: 5\n  lr: 1e-3\ndata:\n  max_unreadable: .1\n  path: x\nseed: 3")
    )
    defaults = load_spec(
        written(tmp_path, "seed: 3\ndata: {path: x, max_unreadable: 0.1}\ntrain: {lr: 0.001, epochs: 5}\n"
                          "serve: {target_ongoing_requests: 4, max_body_mb: 20}\nbudget_s: 10m\n")
    )  # fmt: skip
    assert spec_digest(one) == spec_digest(other) == spec_digest(defaults)
    assert len(spec_digest(one)) == 64


def test_every_change_changes_the_digest() -> None:
    seen = {spec_digest(parse_spec(LEAST))}
    for change in ({"seed": 1}, {"budget_s": 601}, {"train": {"lr": 0.1}}, {"data": {"path": "other"}}, {"name": "n"}):
        seen.add(spec_digest(parse_spec({**LEAST, **change})))
    assert len(seen) == 6


def test_difference_lists_keys_with_both_values() -> None:
    a = parse_spec({**LEAST, "train": {"lr": 0.001}}).model_dump(mode="json")
    b = parse_spec({**LEAST, "train": {"lr": 0.01}, "seed": 4, "budget_s": 60}).model_dump(mode="json")
    assert difference(a, b) == ["budget_s: 600.0 → 60.0", "seed: 0 → 4", "train.lr: 0.001 → 0.01"]
    assert difference(a, a) == []
    assert difference({"x": 1}, {}) == ["x: 1 → None"]
    assert difference({"x": {"y": 1}}, {"x": 2}) == ["x: {'y': 1} → 2"]


def test_overrides_are_laid_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "data: {path: x}\ntrain: {lr: 0.1}\n")
    spec = load_spec(file, {"train.lr": "1e-4", "train.epochs": 7, "budget_s": "2m", "tune.search": "random"})
    assert (spec.train.lr, spec.train.epochs, spec.budget_s, spec.tune.search) == (1e-4, 7, 120, "random")


def test_overrides_do_not_touch_what_they_are_laid_over() -> None:
    document = {"train": {"lr": 1}}
    assert with_overrides(document, {"train.lr": 2}) == {"train": {"lr": 2}}
    assert document == {"train": {"lr": 1}}
    with pytest.raises(SpecError, match=r"train\.lr\.x cannot be set: lr is not a section"):
        with_overrides(document, {"train.lr.x": 2})


def test_an_unknown_override_is_named() -> None:
    with pytest.raises(SpecError, match=r"train\.lrr: unknown key; did you mean 'lr'"):
        parse_spec(with_overrides(LEAST, {"train.lrr": 1}))


# ---- the sections


def test_sections_are_frozen() -> None:
    spec = parse_spec(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        spec.train.lr = 3  # type: ignore[misc, assignment]


def test_train_with_validates_again() -> None:
    spec = parse_spec({**LEAST, "train": {"epochs": 4}})
    changed = spec.train_with({"lr": 0.5})
    assert isinstance(changed, TrainSpec)
    assert (changed.lr, changed.epochs) == (0.5, 4)
    with pytest.raises(ValidationError):
        spec.train_with({"lr": -1})


def test_mode_follows_the_metric() -> None:
    assert parse_spec(LEAST).tune.mode == "max"
    assert parse_spec({**LEAST, "tune": {"metric": "loss"}}).tune.mode == "min"


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(SpecError, match="leave them to the environment") as caught:
        parse_spec({"data": {"path": "s3://mykey:mysecret@bucket/photos"}})
    assert "mysecret" not in str(caught.value)
    assert parse_spec({"data": {"path": "s3://bucket/a@b.zip"}}).data.path == "s3://bucket/a@b.zip"
