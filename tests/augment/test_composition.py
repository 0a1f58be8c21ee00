"""Composed policies: the grammar of a policy file, what each part does, round trips, mistakes, and odd documents."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_ray.augment import CATALOGUE, AugmentPolicy
from autodl_ray.augment.nodes import Chain, OneOf, Ready, SomeOf, Step
from autodl_ray.augment.presets import PRESETS
from autodl_ray.augment.reading import read_yaml
from autodl_ray.errors import SpecError
from autodl_ray.images import ImageArray

COMPOSED = """
policies:
  - one_of:
      - transform: {name: GaussianBlur}
      - transform: {name: MotionBlur}
        weight: 2
    probability: 0.3
  - some_of:
      n: [1, 2]
      steps:
        - transform: {name: Brightness, params: {factor: [0.5, 0.5]}}
        - transform: {name: Contrast}
        - policies:
            - transform: {name: Invert}
            - one_of: [{transform: {name: Grayscale}, probability: 0.5}]
          probability: 0.4
  - policies:
      - transform: {name: HorizontalFlip}
  - policy: rand_augment
    params: {num_ops: 2, magnitude: 9}
tiny_policies:
  - transform: {name: RandomShift}
"""


def policy(text: str) -> AugmentPolicy:
    parts = read_yaml(text, source="p.yaml")
    return AugmentPolicy("p", parts.steps, parts.tiny_steps)


def grey(value: int, side: int = 4) -> ImageArray:
    return np.full((side, side, 3), value, dtype=np.uint8)


def run(made: AugmentPolicy, image: ImageArray, seed: int) -> ImageArray:
    return made.apply(image, size=image.shape[0], fit="stretch", rng_seed=seed)


def mistakes(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        policy(text)
    return str(caught.value)


def test_the_grammar() -> None:
    made = policy(COMPOSED)
    one, some, chain, ready = made.steps
    assert isinstance(one, OneOf)
    assert (one.weights, one.probability) == ((1.0, 2.0), 0.3)
    assert isinstance(some, SomeOf)
    assert (some.low, some.high, some.replace, len(some.steps)) == (1, 2, False, 3)
    assert isinstance(some.steps[2], Chain)
    assert some.steps[2].probability == 0.4
    assert isinstance(chain, Chain)
    assert isinstance(ready, Ready)
    assert ready.recipe.model_dump() == {"num_ops": 2, "magnitude": 9.0}
    assert made.tiny_steps == (Step(CATALOGUE["RandomShift"]()),)


def test_the_remarks_of_the_shipped_file_are_a_policy() -> None:
    lines = (Path(__file__).parents[2] / "jobs" / "augment.yaml").read_text().split("\n")
    example = "policies:\n" + "\n".join(line[2:] for line in lines if line.startswith("#   "))
    kinds = [type(step).__name__ for step in policy(example).steps]
    assert kinds == ["Step", "OneOf", "SomeOf", "Chain", "Ready"]


@pytest.mark.parametrize("text", [COMPOSED, *(f"preset {name}" for name in PRESETS)])
def test_plain_data(text: str) -> None:
    made = AugmentPolicy.parse(text.split()[1]) if text.startswith("preset") else policy(text)
    document = yaml.safe_load(yaml.safe_dump(made.to_document()))
    again = AugmentPolicy.from_document(document, name=made.name)
    assert again == made
    assert again.digest == made.digest
    assert AugmentPolicy.parse(made.text).digest == made.digest
    assert pickle.loads(pickle.dumps(made)) == made
    assert b"albumentations" not in pickle.dumps(made)
    hash(made)


def test_the_digest_is_of_the_steps_on_every_machine() -> None:
    code = "from autodl_ray.augment import AugmentPolicy; print(AugmentPolicy.parse('strong').digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == AugmentPolicy.parse("strong").digest
    assert policy("policies: []").digest == AugmentPolicy("other").digest
    assert len({AugmentPolicy.parse(name).digest for name in PRESETS}) == len(PRESETS)
    assert AugmentPolicy.parse("strong", magnitude=0.6).digest != AugmentPolicy.parse("strong").digest


def test_one_of_goes_by_weight() -> None:
    made = policy("""
policies:
  - one_of:
      - transform: {name: Brightness, params: {factor: [0.5, 0.5]}}
      - transform: {name: Brightness, params: {factor: [0.1, 0.1]}}
        weight: 3
    probability: 0.8
""")
    seen = Counter(int(run(made, grey(200), seed)[0, 0, 0]) for seed in range(2000))
    assert set(seen) == {200, 100, 20}
    assert seen[200] / 2000 == pytest.approx(0.2, abs=0.03)
    assert seen[20] / seen[100] == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize(("again", "counts"), [("false", {1, 2, 3}), ("true", {1, 2, 3})])
def test_some_of_takes_as_many_as_asked(again: str, counts: set[int]) -> None:
    step = "{transform: {name: RGBShift, params: {most: 0}}}"
    made = policy(f"policies: [{{some_of: {{n: [1, 3], replace: {again}, steps: [{step}, {step}, {step}]}}}}]")
    (some,) = made.steps
    assert isinstance(some, SomeOf)
    rng = random.Random(0)
    seen = {len(some.choose(rng)) for _ in range(100)}
    assert seen == counts


def test_some_of_repeats_only_when_told() -> None:
    steps = tuple(Step(CATALOGUE["Invert"](), probability=p) for p in (0.1, 0.2, 0.3))
    rng = random.Random(0)
    once = [SomeOf(steps, 3, 3).choose(rng) for _ in range(200)]
    assert all(set(chosen) == set(steps) for chosen in once)
    assert len({tuple(chosen) for chosen in once}) == 6  # in every order
    assert any(len(set(SomeOf(steps, 3, 3, replace=True).choose(rng))) < 3 for _ in range(20))


def test_a_sequence_is_done_as_a_whole_or_not_at_all() -> None:
    made = policy("""
policies:
  - policies:
      - transform: {name: Brightness, params: {factor: [0.5, 0.5]}}
      - transform: {name: Brightness, params: {factor: [0.5, 0.5]}}
    probability: 0.5
""")
    seen = Counter(int(run(made, grey(200), seed)[0, 0, 0]) for seed in range(400))
    assert set(seen) == {200, 50}
    assert seen[50] / 400 == pytest.approx(0.5, abs=0.1)


def test_probability_zero_everywhere_is_the_fit_alone() -> None:
    rows = [{"transform": {"name": name}, "probability": 0} for name in CATALOGUE]
    rows += [
        {"one_of": rows[:3], "probability": 0.0},
        {"some_of": {"n": 2, "steps": rows[:3]}},
        {"policies": rows[:2]},
        {"policy": "augmix", "probability": 0},
    ]
    made = AugmentPolicy.from_document({"policies": rows})
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert all(np.array_equal(run(made, image, seed), image) for seed in range(5))


def test_all_mistakes_of_a_composed_policy_in_one_error() -> None:
    text = mistakes("""policies:
  - one_of: []
  - one_of:
      - transform: {name: GaussianBlurr}
        weight: 0
  - some_of: {n: 4, steps: [{transform: {name: Invert}}]}
  - some_of: {n: [2, 1], steps: [], replace: 3}
  - some_of: {steps: 3}
  - policy: randaugment
  - policy: rand_augment
    params: {magnitud: 9, num_ops: 99}
  - transform: {name: Invert}
    one_of: []
  - {probability: 0.1}
  - transform: {name: Invert}
    weight: 2
  - policies:
      - transform: {name: Invert}
        probability: yes
tiny_policies: {}
""")
    for row in (
        "policies[0].one_of (line 2): must hold at least one step",
        "policies[1].one_of[0].transform.name (line 4): unknown operation 'GaussianBlurr'; did you mean 'GaussianBlur'",
        "policies[1].one_of[0].weight (line 5): must be a number above 0 and at most 1,000,000, got 0",
        "policies[2].some_of.n (line 6): must be a whole number from 0 to 1, or [low, high] of such, got 4",
        "policies[3].some_of.n (line 7): must be a whole number from 0 to 0, or [low, high] of such, got [2, 1]",
        "policies[3].some_of.steps (line 7): must hold at least one step",
        "policies[3].some_of.replace (line 7): must be true or false, got 3",
        "policies[4].some_of (line 8): the key 'n' is missing",
        "policies[4].some_of.steps (line 8): must be a list of steps, got int",
        "policies[5].policy (line 9): unknown ready policy 'randaugment'; did you mean 'rand_augment'",
        "policies[6].params.magnitud (line 11): unknown parameter of rand_augment; did you mean 'magnitude'?",
        "policies[6].params.num_ops (line 11): must be operations in a row, 0 to 14; got 99",
        "policies[7] (line 12): is one step of transform and one_of at once; write one step each",
        "policies[8] (line 14): the key 'transform' is missing (or one of one_of, some_of, policies, policy)",
        "policies[9].weight (line 16): unknown key; known: transform, probability",
        "policies[10].policies[0].probability (line 19): must be a number from 0 to 1, got True",
        "tiny_policies (line 20): must be a list of steps, got dict",
    ):
        assert row in text
    assert "p.yaml has 17 mistakes:" in text


def test_documents_without_end_are_refused() -> None:
    assert "nested too deep" in mistakes("policies:\n- policies: " + "[{policies: " * 40 + "[]" + "}]" * 40)
    assert "nested too deep" in mistakes("policies: " + "[" * 5000)
    assert "nested too deep" in mistakes("policies: &a [*a]")
    laughs = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    )
    assert "holds too much" in mistakes(laughs + "policies: *j")
    assert "too large" in mistakes("#" * 1_000_001)


@pytest.mark.parametrize(
    "text",
    ["2001-99-99", "!!int x", "!!timestamp x", "!!float q", "{1: 2}", "{[1]: 2}", "{null: 1}", "!!binary x",
     "9" * 5000, "[1e999, .inf, 0x" + "f" * 400 + "]", "\0", "!!python/object:os.system x", "%", "? [a]", "<<: 1",
     "*a", "{policies: [{transform: {name: [1], params: {1: 2}}, probability: 1" + "0" * 400 + "}]}"],
)  # fmt: skip
def test_odd_documents_are_explained(text: str) -> None:
    assert "p.yaml" in mistakes(text)
    assert "p.yaml" in mistakes(f"policies: {text}")


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_operation_can_be_written_and_misspelt(name: str) -> None:
    made = AugmentPolicy.from_document({"policies": [{"transform": {"name": name}}]})
    assert AugmentPolicy.from_document(made.to_document()) == AugmentPolicy("policy", made.steps)
    for key in CATALOGUE[name].model_fields:
        for value in ({}, "x", None, -1e9, [[1]]):
            if value is None and key == "size":
                continue
            document = {"policies": [{"transform": {"name": name, "params": {key: value, "nonsense": 1}}}]}
            with pytest.raises(SpecError, match=rf"nonsense: unknown parameter of {name}"):
                AugmentPolicy.from_document(document)


_words: st.SearchStrategy[Any] = st.sampled_from(
    ("policies", "tiny_policies", "transform", "name", "params", "probability", "one_of", "some_of", "n", "steps",
     "policy", "weight", "replace", "Rotate", "degrees", "GaussianBlur", "sigma", "rand_augment", "magnitude")
)  # fmt: skip
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | _words | st.text(max_size=5)
_documents: st.SearchStrategy[Any] = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words | st.integers(), inner, max_size=4),
    max_leaves=25,
)


def read_or_none(document: object) -> AugmentPolicy | None:
    with suppress(SpecError):
        return AugmentPolicy.from_document(document)
    return None


@settings(max_examples=400, deadline=None)
@given(_documents)
def test_no_document_ends_in_a_traceback(document: object) -> None:
    for wrapped in (document, {"policies": document}, {"policies": [document]}):
        made = read_or_none(wrapped)
        assert made is None or AugmentPolicy.from_document(made.to_document()) == made


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*COMPOSED.split("\n"), *"[]{}:&*!,-\"'|>#%@`\0\t"]) | st.text(max_size=3), max_size=30)
)
def test_no_text_ends_in_a_traceback(lines: list[str]) -> None:
    with suppress(SpecError):
        read_yaml("\n".join(lines), source="p.yaml")


def test_a_file_that_is_a_folder_or_bytes(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for what in (str(tmp_path), str(tmp_path / "bytes.yaml"), "with\0zero", ""):
        with pytest.raises(SpecError, match="neither a preset nor a file"):
            AugmentPolicy.parse(what)
