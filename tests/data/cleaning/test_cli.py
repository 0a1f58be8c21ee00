"""`autodl data check` and `autodl data clean` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.cli import main
from tests.data.cleaning.makers import save, scene


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTODL_STORE", str(tmp_path / "store"))
    root = tmp_path / "photos"
    for number in range(24):
        save(scene(number, size=(48, 40)), root / ("cat" if number % 2 else "dog") / f"{number:02d}.png")
    (root / "dog" / "twin.png").write_bytes((root / "cat" / "01.png").read_bytes())
    return root


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["data", *arguments])
    return int(caught.value.code or 0)


def run_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    return document


def test_check_prints_tables_writes_reports_and_exits_by_strict(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("check", str(folder), "--fast", "-o", str(tmp_path / "out"), "--html", str(tmp_path / "page.html")) == 0
    said = capfd.readouterr().out
    assert "identical pictures with different labels" in said
    assert "The same bytes are labelled cat and dog: cat/01.png = dog/twin.png." in said
    assert "autodl data clean" in said
    assert (tmp_path / "page.html").read_text() == (tmp_path / "out" / "report.html").read_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == {"conflict": 1}
    assert run("check", str(folder), "--fast", "--strict") == 1
    (folder / "dog" / "twin.png").unlink()
    assert run("check", str(folder), "--fast", "--strict") == 0


def test_check_json_is_one_document_with_every_finding(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = run_json(capfd, "check", str(folder), "--fast")
    assert document["severities"] == {"error": 1, "warning": 0, "info": 0}
    (found,) = document["findings"]
    assert found["paths"] == found["drop"] == ["cat/01.png", "dog/twin.png"]
    assert document["kinds"]["conflict"]["sure"] == "1: a fact"


def test_published_lists_show_leaks(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    parts = {"train": names[:14], "val": names[14:-1], "test": names[-1:]}
    for name, part in parts.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    lists = [str(tmp_path / f"{name}.txt") for name in parts]
    document = run_json(capfd, "check", str(folder), "--fast", "--splits", *lists)
    assert document["sizes"] == {"train": 14, "val": 10, "test": 1}
    assert document["counts"]["leak"] == 1
    assert "The test split is sealed" in " ".join(document["notes"])


def test_clean_plans_and_only_apply_makes_a_version(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = run_json(capfd, "clean", str(folder), "--fast")
    assert (plan["applied"], plan["counts"], plan["pictures"]) == (False, {"drop": 2}, {"before": 25, "after": 23})
    assert run_json(capfd, "list")["versions"] == []
    done = run_json(capfd, "clean", str(folder), "--fast", "--apply", "--tag", "clean")
    assert done["applied"]
    assert run_json(capfd, "show", "clean")["parent"] == done["parent"]
    again = run_json(capfd, "check", "version:clean", "--fast", "--strict")
    assert again["findings"] == []
    assert again["version"] == done["version"]
    nothing = run_json(capfd, "clean", "version:clean", "--fast", "--apply")
    assert (nothing["applied"], nothing["changes"]) == (False, [])
    assert (folder / "dog" / "twin.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clean", "--drop", "blury"], "did you mean 'blurred'"),
        (["clean", "--relabel", "0.2"], "accepted: 0.5 to 1"),
        (["clean", "--relabel", "0.9", "--fast"], "which --fast leaves out"),
        (["check", "--format", "nonsense"], "nonsense"),
    ],
)
def test_bad_options_are_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    verb, *options = arguments
    assert run(verb, str(folder), *options) == 2
    assert said in capfd.readouterr().err


def test_a_version_of_nothing_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = (folder / "cat" / "01.png").read_bytes()
    for path in folder.rglob("*.png"):
        path.write_bytes(content)
    assert run("clean", str(folder), "--fast", "--apply") == 2
    assert "Nothing would be left of the data set." in capfd.readouterr().err
    assert run_json(capfd, "list")["versions"] == []


def test_what_is_not_there_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(folder) + "-not") == 2
    assert run("check", "version:nothing") == 2
    assert "Traceback" not in capfd.readouterr().err


def test_help_has_examples(capfd: pytest.CaptureFixture[str]) -> None:
    for verb in ("check", "clean"):
        assert run(verb, "--help") == 0
        assert f"autodl data {verb} photos/" in capfd.readouterr().out
