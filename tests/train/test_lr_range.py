"""The range test finds where a network learns, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from autodl_ray.cli import app
from autodl_ray.cli.console import Console
from autodl_ray.data.samples import write_digits
from autodl_ray.errors import InputError
from autodl_ray.train.lr_range import RULE, lr_range_test, suggest
from tests.train.sources import config_for, digits


def test_digits_learn_where_it_says() -> None:
    source = digits()
    state = torch.get_rng_state()
    found = lr_range_test(config_for(source, lr=1e-3), source, steps=60, low=1e-6, high=10.0, num_threads=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.suggested is not None
    assert 1e-3 < found.suggested < 1e-1, "the zoo's own rate is 1e-2"
    assert found.suggested < found.lowest
    assert len(found.lrs) == len(found.losses) == len(found.smoothed)
    assert found.lrs[0] == pytest.approx(1e-6)
    again = lr_range_test(config_for(source, lr=5e-2), source, steps=60, low=1e-6, high=10.0, num_threads=1)
    assert again.losses == found.losses, "the configuration's own rate plays no part"


def test_it_ends_when_the_loss_explodes() -> None:
    source = digits()
    config = config_for(source, optimizer="sgd", grad_clip=0.0)
    found = lr_range_test(config, source, steps=60, low=1e-3, high=1e6, num_threads=1)
    assert found.ended.startswith("the loss was 4 times its best after")
    assert np.isfinite(found.losses).all()


def test_the_rule() -> None:
    rates = [10.0**k for k in range(-6, 1)]
    assert suggest(rates, [2.3, 2.3, 2.2, 1.5, 1.0, 1.2, 9.0]) == 1e-3
    assert suggest(rates, [2.3, 2.4, 2.5, 2.6, 2.7, 2.8, 2.9]) is None
    with pytest.raises(InputError, match=r"no range.*\n.*0.1 to 0.01 in 50 steps"):
        lr_range_test(config_for(digits()), digits(), steps=50, low=0.1, high=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(write_digits(tmp_path / "digits", n=200))


def autodl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "autodl_ray", *words], capture_output=True, text=True, check=False)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "lr.svg"
    made = autodl("lr-find", str(folder), "--steps", "20", "-o", str(out), "--store", str(tmp_path / "store"), "--json")
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert (document["rule"], document["lr_of_a_run"], document["batch_size"]) == (RULE, 1e-2, 32)
    assert len(document["lrs"]) <= 20
    assert out.read_text().startswith("<svg")
    assert "learning rate of the backbone" in out.read_text()


def test_the_command_refuses_what_it_cannot_do(folder: Path, tmp_path: Path) -> None:
    console = Console()
    try:
        with pytest.raises(InputError, match=r"unknown suffix.*\n.*lr.pdf\n.*.png or .svg"):
            app()(["lr-find", str(folder), "-o", str(tmp_path / "lr.pdf")], standalone_mode=False, obj=console)
    finally:
        console.close()
    shown = CliRunner().invoke(app(), ["lr-find", "--help"]).output
    assert "autodl lr-find photos/" in shown
