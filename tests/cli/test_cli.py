"""The command line: help with examples for every verb, exit codes, errors of a few lines, clean JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from autodl_ray.cli import app


def autodl(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autodl_ray", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def commands() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def walk(prefix: str, command: Any) -> None:
        for name, child in getattr(command, "commands", {}).items():
            found.append((f"{prefix}{name}", child))
            walk(f"{prefix}{name} ", child)

    walk("", typer.main.get_command(app()))
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[n for n, _ in commands()])
def test_every_verb_has_help_with_an_example(name: str, command: Any) -> None:
    text = command.help or ""
    assert "Examples:" in text
    assert f"autodl {name}" in text.split("Examples:")[1]
    for option in command.params:
        if option.param_type_name == "option" and option.name not in ("help", "install_completion", "show_completion"):
            assert option.help, f"--{option.name} of {name} has no help"


def test_verbs_are_the_ones_the_readme_names() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name, command in commands():
        if not getattr(command, "commands", None):
            assert f"autodl {name.split(' ')[0]}" in readme


def test_spec_init_prints_a_spec_that_validates(tmp_path: Path) -> None:
    printed = autodl("spec", "init")
    assert printed.returncode == 0
    file = tmp_path / "spec.yaml"
    file.write_text(printed.stdout)
    checked = autodl("spec", "validate", str(file), "--json")
    assert json.loads(checked.stdout) == {"file": str(file), "valid": True}
    shown = json.loads(autodl("spec", "show", str(file), "--json").stdout)
    assert shown["budget_s"] == 600.0


def test_the_schema_is_json() -> None:
    assert "properties" in json.loads(autodl("spec", "init", "--schema").stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "There is nothing to run."),
        (["run", "nowhere/"], "nowhere"),
        (["run", "nowhere/", "--budget", "0"], "budget_s"),
        (["run", "nowhere/", "--budget", "soon"], "write 90s, 10m or 1h30m"),
        (["run", "nowhere/", "--set", "train.lrr=1"], "did you mean 'lr'?"),
        (["run", "nowhere/", "--set", "train.lr"], "--set train.lr=1e-3"),
        (["run", "nowhere/", "--model", "resnet19"], "resnet18"),
        (
            ["run", "nowhere/", "--set", "train.loss=no_such_module:loss"],
            "The module of train.loss cannot be imported.",
        ),
        (["run", "nowhere/", "--search", "forest"], "'curves'"),
        (["run", "nowhere/", "--disk-limit", "2XB"], "write 500MB or 2GB"),
        (["rum", "nowhere/"], "No such command"),
        (["run", "--spec", "nowhere.yaml"], "autodl spec init"),
    ],
)
def test_bad_input_is_one_clear_error_and_exit_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = autodl(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 8
    assert done.stdout == "" or "error" not in done.stdout


def test_half_precision_without_a_gpu_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "autodl_ray", "run", "nowhere/", "--set", "train.precision=16"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120, env=hidden)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: Training in precision 16 is not possible on this device.")


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = autodl("run", str(tmp_path), "--store", str(blocked / "store"))
    assert done.returncode == 2
    assert "The store cannot be written." in done.stderr
