"""The test split is sealed by construction: nothing that augments, samples, trains or selects takes it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts import SealedSplit, TestSamples, TrainSamples, ValSamples
from autodl_ray.data.sampling import class_counts, sample_weights
from autodl_ray.data.stream import StreamSource
from autodl_ray.data.stream.pictures import Pictures
from autodl_ray.errors import DatasetError
from autodl_ray.images import Preprocess

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "autodl_ray"
LEARNING = ("augment", "data/stream", "data/sampling.py", "train", "tune", "models", "export")
"""Where pictures are augmented, sampled, trained on, selected by, or used to calibrate."""
CLOSED = {"Samples", "TestSamples", "SealedSplit", "DatasetVersion"}
"""Types that are the test split, or may hold it."""

PLACES = [PACKAGE / place for place in LEARNING]
FILES = sorted(file for place in PLACES for file in (place.rglob("*.py") if place.is_dir() else [place]))


def names_in(annotation: ast.expr) -> set[str]:
    """Return the plain names of an annotation, of one in quotes too."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    found = set()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.split("[")[0].split(".")[-1])
    return found


def renamed(tree: ast.Module) -> dict[str, str]:
    """Return what imported names were called: ``from x import A as B`` gives B → A."""
    return {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


def taken_by(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Yield what each function and each class with fields takes: (name, names in its annotations)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            for argument in every:
                if argument is not None and argument.annotation is not None:
                    yield f"{node.name}({argument.arg})", names_in(argument.annotation)
        elif isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    yield f"{node.name}.{ast.unparse(field.target)}", names_in(field.annotation)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("TypeVar"):
            bounds = [word.value for word in node.keywords if word.arg == "bound"]
            yield ast.unparse(node), set().union(*(names_in(part) for part in [*node.args[1:], *bounds]))


def offences(text: str) -> list[str]:
    tree = ast.parse(text)
    was = renamed(tree)
    return [name for name, names in taken_by(tree) if {was.get(n, n) for n in names} & CLOSED]


def test_no_learning_function_takes_the_test_split() -> None:
    found = {file.relative_to(PACKAGE).as_posix(): offences(file.read_text(encoding="utf-8")) for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}


def test_no_learning_module_opens_it() -> None:
    for file in FILES:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not imported & {"TestSamples", "SealedSplit"}, file
        assert not {n.attr for n in nodes if isinstance(n, ast.Attribute)} & {"test", "_samples"}, file


def test_the_walk_sees_what_it_looks_for() -> None:
    text = """
from autodl_ray.artifacts import Samples as Any
S = TypeVar("S", bound=Any)
def a(x: "TestSamples"): ...
def b(*, x: list[artifacts.Samples] | None): ...
def c(self, *xs: Any): ...
async def d(x: Callable[["SealedSplit"], int]): ...
class E:
    x: DatasetVersion
    def f(self, x: TrainSamples, y: ValSamples) -> Samples: ...
"""
    assert sorted(offences(text)) == ["E.x", "TypeVar('S', bound=Any)", "a(x)", "b(x)", "c(xs)", "d(x)"]
    assert len(FILES) > 60


def test_the_walk_covers_every_function_that_takes_samples() -> None:
    takers = {
        name
        for file in FILES
        for name, names in taken_by(ast.parse(file.read_text(encoding="utf-8")))
        if names & {"TrainSamples", "ValSamples", "LearningSamples"}
    }
    assert {"sample_weights(train)", "make(train)", "make(val)", "of(samples)", "frozen_features(samples)"} <= takers


def part(kind: type[Any]) -> Any:
    return kind(Path("photos"), np.arange(2), ("a.png", "b.png"), np.array([0, 1]), ("a", "b"))


def test_a_call_without_types_is_refused_too() -> None:
    train, val, test = part(TrainSamples), part(ValSamples), part(TestSamples)
    sealed = SealedSplit(2, test)
    preprocess = Preprocess(size=8)
    calls: list[Callable[[Any], object]] = [
        sample_weights,
        class_counts,
        Pictures.of,
        lambda wrong: StreamSource.make(wrong, val, preprocess, seed=0),
        lambda wrong: StreamSource.make(train, wrong, preprocess, seed=0),
        _features,
    ]
    for call in calls:
        for wrong in (test, sealed):
            with pytest.raises(DatasetError) as caught:
                call(wrong)
            assert type(wrong).__name__ in str(caught.value)
            assert "TrainSamples" in str(caught.value) or "ValSamples" in str(caught.value)
    with pytest.raises(DatasetError, match="training stream does not take"):
        StreamSource.make(val, val, preprocess, seed=0)


def _features(samples: Any) -> object:
    from autodl_ray.models.features import frozen_features

    nothing: Any = None
    return frozen_features(
        nothing, weights="", preprocess=nothing, samples=samples, dataset_id="", split="test", context=nothing
    )


SNIPPET = """
from autodl_ray.artifacts import DatasetVersion
from autodl_ray.data.sampling import class_counts, sample_weights
from autodl_ray.data.stream import StreamSource
from autodl_ray.data.stream.pictures import Pictures
from autodl_ray.images import Preprocess
from pathlib import Path


def uses(version: DatasetVersion, preprocess: Preprocess) -> None:
    train, val, sealed = version.train, version.val, version.test
    test = sealed.open(Path("openings.json"), purpose="a check of types")
    sample_weights(train)
    StreamSource.make(train, val, preprocess, seed=0)
    Pictures.of(val)
    sample_weights(test)  # wrong
    sample_weights(val)  # wrong
    class_counts(sealed)  # wrong
    Pictures.of(test)  # wrong
    StreamSource.make(test, val, preprocess, seed=0)  # wrong
    StreamSource.make(train, test, preprocess, seed=0)  # wrong
    StreamSource.make(val, val, preprocess, seed=0)  # wrong
    StreamSource.make(train, sealed, preprocess, seed=0)  # wrong
    test.take([0])  # wrong
    sealed.read(0)  # wrong
"""


@pytest.mark.slow
def test_mypy_refuses_the_test_split(tmp_path: Path) -> None:
    file = tmp_path / "uses.py"
    file.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary", str(file)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wrong = {number for number, line in enumerate(SNIPPET.splitlines(), start=1) if line.endswith("# wrong")}
    said = {int(line.split(":")[1]) for line in made.stdout.splitlines() if ": error:" in line}
    assert said == wrong, made.stdout + made.stderr
    assert made.stdout.count("[arg-type]") == len(wrong) - 2
