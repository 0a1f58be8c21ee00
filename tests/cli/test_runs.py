"""`autodl runs`, as a user types it: tables, JSON, exit codes and what is said of damaged runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.cli import _run
from tests.pipeline.history.made import spec_of, trials_of, write_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("store")
    answers = [(f"p{i}.png", "ab"[i % 2], "ab"[i % 2]) for i in range(20)]
    write_run(place, "base", trials=trials_of(12), answers=answers, accuracy=0.91)
    write_run(place, "wide", spec=spec_of(seed=1, train={"dropout": 0.5}), answers=answers, accuracy=0.95)
    (place / "torn").mkdir()
    (place / "torn" / "run.json").write_text("{")
    return place


def autodl(*words: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = _run(["runs", *words])
    seen = capfd.readouterr()
    return code, seen.out, seen.err


def document(*words: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, err = autodl(*words, "--json", capfd=capfd)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_list_names_every_run_and_what_is_wrong_with_one(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = autodl("list", "--store", str(store), capfd=capfd)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("base", "wide", "torn"))]
    assert "damaged: torn: torn/run.json is damaged: " in out
    rows = document("list", "--store", str(store), "--sort", "validation", capfd=capfd)["runs"]
    assert [row["name"] for row in rows] == ["wide", "base", "torn"]
    rows = document("list", "--store", str(store), "--sort", "trials", capfd=capfd)["runs"]
    assert rows[0]["name"] == "base"


def test_an_empty_store_and_a_missing_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = autodl("list", "--store", str(tmp_path), capfd=capfd)
    assert (code, out) == (0, "The store has no runs yet: autodl run photos/\n")
    code, _, err = autodl("list", "--store", str(tmp_path / "no"), capfd=capfd)
    assert code == 2
    assert err.startswith("error: There is no such store.")
    code, _, err = autodl("list", "--store", "s3://bucket/x", capfd=capfd)
    assert code == 2
    assert "Runs are read from a folder" in err


def test_show_tells_leaderboard_plan_and_decisions(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = autodl("show", "base", "--trials", "--store", str(store), capfd=capfd)
    assert (code, err) == (0, "")
    for text in ("* train", "exported", "1. train: the full schedule fits", "epoch 1: paused (others are better"):
        assert text in out
    found = document("show", "base", "--trials", "--store", str(store), capfd=capfd)
    assert found["leaderboard"][0]["chosen"] is True
    assert len(found["trials"]["sweep"]) == 12
    assert found["trials"]["sweep"][0]["value"] == max(t["value"] for t in found["trials"]["sweep"])


def test_a_run_that_has_not_ended_shows_what_its_journals_hold(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, "half", trials=trials_of(8))
    (folder / "leaderboard.json").unlink()
    (folder / "train.journal.jsonl").unlink()
    board = document("show", "half", "--store", str(tmp_path), capfd=capfd)["leaderboard"]
    assert {row["source"] for row in board} == {f"sweep t{i:04d}" for i in range(8)}
    scores = [row["accuracy"] for row in board]
    assert scores == sorted(scores, reverse=True)
    code, out, _ = autodl("show", "half", "--store", str(tmp_path), capfd=capfd)
    assert code == 0
    assert "delivered nothing yet" in out


def test_an_unknown_run_ends_with_2_and_the_near_name(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (("show", "bose"), ("importance", "bose"), ("compare", "bose", "wide"), ("export", "bose", "x.csv")):
        code, _, err = autodl(*words, "--store", str(store), capfd=capfd)
        assert code == 2
        assert "did you mean 'base'?" in err


def test_compare_names_the_factors_and_warns(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = autodl("compare", "base", "wide", "--store", str(store), capfd=capfd)
    assert (code, err) == (0, "")
    for text in (
        "train.dropout",
        "warning: 2 factors differ (seed, train.dropout)",
        "+0.0400",
        "--repeat 3",
        "McNemar",
    ):
        assert text in out
    found = document("compare", "base", "wide", "--store", str(store), capfd=capfd)
    assert [f["name"] for f in found["factors"]] == ["seed", "train.dropout"]
    assert found["differences"][0]["interval"] is None
    code, _, err = autodl("compare", "base", "base", "--store", str(store), capfd=capfd)
    assert code == 2
    assert "two different runs" in err


def test_importance_shows_shares_and_draws(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "bars.svg"
    code, out, err = autodl("importance", "base", "--plot", str(plot), "--store", str(store), capfd=capfd)
    assert (code, err) == (0, "")
    assert "lr" in out
    assert "12 trials are few" in out
    assert "<svg" in plot.read_text()
    code, _, err = autodl("importance", "wide", "--store", str(store), capfd=capfd)
    assert code == 1
    assert "too few trials" in err


def test_export_writes_what_it_names(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = document("export", "base", str(tmp_path / "t.csv"), "--store", str(store), capfd=capfd)
    assert [Path(f).name for f in found["files"]] == ["t.csv", "t-curves.csv"]
    assert all(Path(f).stat().st_size > 100 for f in found["files"])
    code, _, err = autodl("export", "base", str(tmp_path / "t.doc"), "--store", str(store), capfd=capfd)
    assert code == 2
    assert ".csv, .parquet, .json" in err
