"""The walls of the house: which way imports point, where Ray is, and what every module has."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autodl_ray"
JOBS = PACKAGE.parent / "jobs"
MAX_LINES = 400

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"images", "errors", "seeding"}),
    frozenset({"artifacts", "spec"}),
    frozenset({"tasks", "models", "augment", "runtime"}),
    frozenset({"data", "train", "tune", "evaluate", "export", "serve"}),
    frozenset({"pipeline"}),
    frozenset({"cli", "jobs", "__main__"}),
)
STAGES = LAYERS[3]
BETWEEN_STAGES = {"train": ("data.stream",), "tune": ("train", "data.stream")}
RAY_PLACES = ("runtime", "data.stream", "data.ingest", "train", "tune", "serve")
HEAVY = ("torch", "torchvision", "ray", "sklearn", "matplotlib", "timm", "albumentations", "onnxruntime", "cv2")


def name_of(file: Path) -> str:
    """``autodl_ray/spec/load.py`` → ``autodl_ray.spec.load``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(f): f for f in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk(node: ast.AST, *, only_at_import: bool) -> Iterator[ast.AST]:
    """Walk a tree; ``only_at_import`` leaves out function bodies and ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if only_at_import and (isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child)):
            continue
        yield child
        yield from walk(child, only_at_import=only_at_import)


def imports(module: str, tree: ast.Module, *, is_package: bool, only_at_import: bool = False) -> Iterator[str]:
    """Yield the full dotted names that ``tree`` imports; ``from a import b`` gives ``a.b``."""
    for node in walk(tree, only_at_import=only_at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def imports_of(module: str, *, only_at_import: bool = False) -> list[str]:
    is_package = FILES[module].name == "__init__.py"
    return list(imports(module, tree_of(module), is_package=is_package, only_at_import=only_at_import))


def inside(module: str) -> str:
    """``autodl_ray.data.stream`` → ``data.stream``."""
    return module.removeprefix("autodl_ray").removeprefix(".")


def is_below(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def layer_of(part: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


def wrong_direction(module: str, target: str) -> str | None:
    """Say why ``module`` (inside name) must not import ``target`` (inside name); None when it may."""
    own, other = module.split(".")[0], target.split(".")[0]
    if own in ("", other) or other == "":
        return None
    mine, theirs = layer_of(own), layer_of(other)
    if mine is None or theirs is None:
        return f"{own if mine is None else other} is in no layer"
    if mine < theirs:
        return f"{own} is below {other}"
    if own in STAGES and other in STAGES:
        allowed = BETWEEN_STAGES.get(own, ())
        if not any(is_below(target, place) for place in allowed):
            return f"the stage {own} may import {', '.join(allowed) or 'no other stage'}"
    return None


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20
    assert "autodl_ray.spec.load" in FILES


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("errors", "spec", False),
        ("spec.load", "errors", True),
        ("artifacts.store", "runtime", False),
        ("models.zoo", "augment", True),
        ("train.loop", "data.stream", True),
        ("train.loop", "data.stream.StreamSource", True),
        ("train.loop", "data.streams", False),
        ("train.loop", "data.stage", False),
        ("tune.stage", "train.config", True),
        ("tune.stage", "data.stream", True),
        ("tune.stage", "data.ingest", False),
        ("train.loop", "tune", False),
        ("evaluate.stage", "export", False),
        ("serve.app", "pipeline", False),
        ("pipeline.run", "serve", True),
        ("pipeline.run", "cli", False),
        ("cli.run", "pipeline", True),
        ("data.stage", "no_such_layer", False),
    ],
)
def test_the_rule_itself(module: str, target: str, allowed: bool) -> None:
    assert (wrong_direction(module, target) is None) is allowed


def test_function_level_and_relative_imports_are_seen() -> None:
    source = (
        "def f():\n    from ..spec import load\n    import ray.data\nimport importlib\nimportlib.import_module('torch')"
    )
    found = list(imports("autodl_ray.data.stage", ast.parse(source), is_package=False))
    assert set(found) == {"importlib", "torch", "autodl_ray.spec.load", "ray.data"}
    early = list(imports("autodl_ray.data.stage", ast.parse(source), is_package=False, only_at_import=True))
    assert set(early) == {"importlib", "torch"}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module: str) -> None:
    targets = {inside(t) for t in imports_of(module) if is_below(t, "autodl_ray")}
    reasons = [f"{module} imports {t}: {why}" for t in sorted(targets) if (why := wrong_direction(inside(module), t))]
    assert not reasons, "\n".join(reasons)


@pytest.mark.parametrize("module", FILES)
def test_ray_is_imported_where_work_is_distributed_only(module: str) -> None:
    if any(is_below(inside(module), place) for place in RAY_PLACES):
        return
    found = [t for t in imports_of(module) if is_below(t, "ray")]
    assert not found, f"{module} imports {found}; Ray belongs into {', '.join(RAY_PLACES)}"


def module_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module in FILES:
        targets = set()
        for target in imports_of(module, only_at_import=True):
            while target and target not in FILES:
                target = target.rpartition(".")[0]
            if target and target != module:
                targets.add(target)
        graph[module] = targets
    return graph


def find_circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str] | None:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return None
        for target in sorted(graph[node]):
            if circle := visit(target, [*trail, node]):
                return circle
        done.add(node)
        return None

    for node in graph:
        if circle := visit(node, []):
            return circle
    return None


def test_no_circles() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    circle = find_circle(module_graph())
    assert circle is None, " → ".join(circle or [])


def public_modules() -> list[str]:
    return [
        module
        for module in FILES
        if not any(part.startswith("_") for part in module.split(".")) and len(tree_of(module).body) > 1
    ]


@pytest.mark.parametrize("module", public_modules())
def test_public_names_are_listed_sorted_and_there(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None)
    assert names is not None, f"{module} has no __all__"
    assert list(names) == ruff_sorted(names), f"__all__ of {module} is not sorted"
    missing = [name for name in names if not hasattr(loaded, name)]
    assert not missing, f"__all__ of {module} names {missing}"
    assert len(set(names)) == len(names)


def ruff_sorted(names: list[str]) -> list[str]:
    """Constants, then classes, then the rest: the order that ``ruff check --select RUF022`` keeps."""

    def group(name: str) -> int:
        return 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2

    return sorted(names, key=lambda name: (group(name), name))


@pytest.mark.parametrize("module", FILES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    doc = ast.get_docstring(tree_of(module))
    assert doc, f"{module} has no docstring"
    assert len(doc.split()) > 1, f"the docstring of {module} is one word"


@pytest.mark.parametrize("module", FILES)
def test_every_function_says_what_it_returns(module: str) -> None:
    silent = [
        f"{FILES[module].name}:{node.lineno} {node.name}"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is None
    ]
    assert not silent, f"no return annotation: {silent}"


@pytest.mark.parametrize("module", FILES)
def test_no_module_is_too_long(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines"


@pytest.mark.parametrize("module", FILES)
def test_no_machine_path_is_written_down(module: str) -> None:
    text = FILES[module].read_text(encoding="utf-8")
    found = re.findall(r"(?<![\w.}])/(?:work|root|home|tmp)/\S*", text)
    assert not found, f"{module} names {found}"


@pytest.mark.parametrize("module", ["autodl_ray", "autodl_ray.errors", "autodl_ray.spec", "autodl_ray.cli"])
def test_light_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [], f"import {module} loads {done.stdout.split()}"


def test_job_entry_points_use_the_public_way() -> None:
    for file in JOBS.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        used = [t for t in imports(f"jobs.{file.stem}", tree, is_package=False) if is_below(t, "autodl_ray")]
        reasons = [f"{file.name} imports {t}: {w}" for t in used if (w := wrong_direction("jobs", inside(t)))]
        assert not reasons, "\n".join(reasons)
