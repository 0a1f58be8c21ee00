"""`autodl data`: the verbs of versions, as a person or a script uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodl_ray.cli import main
from tests.data.conftest import MakeFolder, write_picture

Autodl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def autodl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Autodl:
    """Return a function that runs a verb and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODL_STORE", "runs")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["data", *arguments])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return run


def document(autodl: Autodl, *arguments: str, code: int = 0) -> dict[str, Any]:
    seen, out, err = autodl(*arguments, "--json")
    assert seen == code, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_way_of_a_data_set(make_folder: MakeFolder, autodl: Autodl) -> None:
    root = make_folder({"a": 10, "b": 10})
    code, out, _ = autodl("snapshot", "photos", "--tag", "raw", "-m", "as it came")
    assert code == 0
    assert "new version" in out
    assert "20 pictures, 2 classes" in out
    assert "next: autodl run version:raw" in out
    assert "unchanged: version" in autodl("snapshot", "photos")[1]
    write_picture(root / "a" / "a 0.png", 500)
    (root / "a" / "a 1.png").rename(root / "b" / "was a.png")
    (root / "b" / "b 0.png").unlink()
    changes = document(autodl, "diff", "raw", "photos")
    assert changes["counts"] == {
        "added": 0, "removed": 1, "relabelled": 1, "resplit": 0, "boxes": 0, "content": 1, "moved": 0,
    }  # fmt: skip
    assert "a/a 1.png → b/was a.png  a → b" in autodl("diff", "raw", "photos")[1]
    second = document(autodl, "snapshot", "photos", "--tag", "clean")
    versions = document(autodl, "list")["versions"]
    assert [row["tags"] for row in versions] == [["raw"], ["clean"]]
    assert (second["parent"], second["copied"]) == (versions[0]["version"], 1)
    out = autodl("list")[1]
    assert "as it came" in out
    assert "raw" in out
    shown = document(autodl, "show", "clean")
    assert sum(shown["counts"][split]["a"] for split in ("train", "val", "test")) == 9
    assert "pictures of each class" in autodl("show")[1]
    assert "20 files written" in autodl("checkout", "raw", "as-it-was")[1]
    assert document(autodl, "diff", "raw", "as-it-was")["counts"]["content"] == 0
    assert autodl("tag", "raw", "first")[0] == 0
    assert autodl("tag", "raw", "first", "--delete")[0] == 0
    assert document(autodl, "verify")["whole"] is True
    assert document(autodl, "gc")["freed_bytes"] == 0


def test_there_and_back_and_repaired(make_folder: MakeFolder, autodl: Autodl, tmp_path: Path) -> None:
    make_folder({"a": 8, "b": 8})
    autodl("snapshot", "photos", "--tag", "raw")
    assert "sent 16 of 16 files" in autodl("push", "raw", "remote")[1]
    assert "fetched 16 of 16 files" in autodl("pull", "raw", "remote", "--store", "other")[1]
    pack = next((tmp_path / "other" / "objects" / "packs").glob("*.pack"))
    pack.write_bytes(b"?" + pack.read_bytes()[1:])
    code, out, _ = autodl("verify", "--store", "other")
    assert code == 1
    assert "1 of 16 blobs are damaged" in out
    assert document(autodl, "verify", "--store", "other", code=1)["whole"] is False
    code, out, _ = autodl("verify", "--repair", "remote", "--store", "other")
    assert code == 0
    assert "repaired: 1 pictures came from the remote" in out
    version = document(autodl, "show", "raw")["version"]
    assert document(autodl, "gc", "--forget", "raw", "--apply", "--grace-hours", "0")["forgotten"] == [version]
    assert document(autodl, "list")["versions"] == []
    assert list((tmp_path / "runs" / "objects" / "packs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nix"], "The store holds no version"),
        (["snapshot", "gone"], "does not exist"),
        (["snapshot", "photos", "--tag", "a b"], "no name for a tag"),
        (["snapshot", "photos", "--by", "chance"], "data.split.by"),
        (["push", "latest", "gopher://x"], "The store holds no version"),
        (["pull", "latest", "nowhere"], "The store holds no version"),
        (["diff", "nix", "photos"], "The store holds no version"),
    ],
)
def test_what_is_not_usable(make_folder: MakeFolder, autodl: Autodl, arguments: list[str], message: str) -> None:
    make_folder({"a": 4, "b": 4})
    code, _, err = autodl(*arguments)
    assert (code, message in err) == (2, True), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "verb", ["snapshot", "list", "show", "diff", "checkout", "verify", "gc", "tag", "push", "pull"]
)
def test_every_verb_has_help_with_examples(autodl: Autodl, verb: str) -> None:
    code, out, _ = autodl(verb, "--help")
    assert code == 0
    assert f"autodl data {verb}" in out
    assert "--json" in out


def test_a_snapshot_imports_nothing_heavy(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Start-up is most of the time of a snapshot of a folder that did not change."""
    make_folder({"a": 4, "b": 4})
    code = (
        "import sys\n"
        "from autodl_ray.cli import _run\n"
        "for _ in range(2):\n"
        "    assert _run(['data', 'snapshot', 'photos', '--store', 'runs']) == 0\n"
        "heavy = {'torch', 'ray', 'sklearn', 'pandas', 'cv2', 'scipy', 'matplotlib', 'albumentations'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
