"""The data stage: versions, ids, splits, what is skipped and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.artifacts import DatasetVersion, TestSamples, TrainSamples, ValSamples
from autodl_ray.data import load_version, run
from autodl_ray.data.facts import reading as check_module
from autodl_ray.errors import DatasetError, RunInterrupted
from autodl_ray.runtime import Context
from autodl_ray.spec import DataSpec
from tests.data.conftest import MakeFolder, lines_of, make_context, write_picture


def make(root: Path, context: Context, **split: Any) -> DatasetVersion:
    return run(DataSpec.model_validate({"path": str(root), "split": split}), context=context)


def findings(version: DatasetVersion) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(version.artifact.file("findings.json").read_text())
    return document


def opened(version: DatasetVersion, tmp_path: Path) -> TestSamples:
    return version.test.open(tmp_path / "opened.json", purpose="a test")


def test_stratified_and_whole(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 40, "b": 20, "c": 3})
    version = make(root, context)
    test = opened(version, tmp_path)
    assert (type(version.train), type(version.val), type(test)) == (TrainSamples, ValSamples, TestSamples)
    assert version.classes == ("a", "b", "c")
    assert Counter(version.val.labels.tolist()) == {0: 6, 1: 3, 2: 1}
    assert Counter(test.labels.tolist()) == {0: 6, 1: 3, 2: 1}
    ids = np.concatenate([version.train.ids, version.val.ids, test.ids])
    assert sorted(ids.tolist()) == list(range(63))
    assert all(version.classes[y] == p[0] for y, p in zip(version.train.labels, version.train.paths, strict=True))
    assert version.image_size == (12, 8)
    assert (version.train.root / version.train.paths[0]).is_file()


def test_the_id_is_of_content_labels_and_splits(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 6, "b": 6})
    first = make(root, context)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    other_store = make_context(tmp_path / "other")
    assert make(moved, other_store).id == first.id
    assert make(root, context).artifact.path == first.artifact.path
    assert make(root, make_context(tmp_path / "s1", seed=1)).id != first.id
    assert make(root, context, val=0.3).id != first.id
    write_picture(moved / "a" / "a 0.png", 1000)
    assert make(moved, other_store).id != first.id
    write_picture(moved / "a" / "a 0.png", 0)
    assert make(moved, other_store).id == first.id
    (moved / "a" / "a 0.png").rename(moved / "b" / "a 0.png")
    assert make(moved, other_store).id != first.id


def test_nothing_stored_names_the_place(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    make(make_folder({"a": 6, "b": 6}), context)
    for path in Path(context.store.root).rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()


def test_unchanged_files_are_not_read_again(
    make_folder: MakeFolder, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 6, "b": 6})
    for path in root.rglob("*.png"):
        os.utime(path, (1_000_000, 1_000_000))
    read: list[str] = []
    original = check_module.read_pictures

    def counted(*arguments: Any, **options: Any) -> Iterator[check_module.Reading]:
        for reading in original(*arguments, **options):
            read.append(arguments[0].records[reading.position].path.split("/")[-1])
            yield reading

    monkeypatch.setattr(check_module, "read_pictures", counted)
    monkeypatch.setattr(check_module, "_RACY_NS", 0)
    first = make(root, context)
    assert len(read) == 12
    read.clear()
    assert make(root, context).id == first.id
    assert read == []
    stamp = (root / "a" / "a 3.png").stat()
    write_picture(root / "a" / "a 3.png", 500)
    os.utime(root / "a" / "a 3.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert make(root, context).id != first.id  # even with the old time put back: the inode's change time differs
    assert read == ["a 3.png"]


def test_a_damaged_memory_is_read_over(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = make(root, context)
    for path in (Path(context.store.root) / "cache").glob("facts-*"):
        path.write_text("{")
    (first.artifact.path / "manifest.json").write_text("{")
    assert make(root, context).id == first.id


def test_load_version(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 6, 'b, with "commas"': 6})
    version = make(root, context)
    moved = root.rename(tmp_path / "moved")
    again = load_version(version.artifact, moved)
    assert (again.id, again.classes, again.image_size) == (version.id, version.classes, version.image_size)
    assert again.train.paths == version.train.paths
    assert np.array_equal(again.val.labels, version.val.labels)
    assert again.train.read(0)
    with pytest.raises(DatasetError, match="does not exist"):
        load_version(version.artifact, root)


def test_broken_pictures_are_skipped_and_listed(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 10, "b": 10})
    whole = (root / "a" / "a 1.png").read_bytes()
    (root / "a" / "a 0.png").write_bytes(b"")
    (root / "a" / "a 1.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "b 0.png").write_text("this is text")
    version = make(root, context)
    assert {(row["path"], row["reason"]) for row in findings(version)["unreadable"]} == {
        ("a/a 0.png", "The picture is empty (0 bytes)."),
        ("a/a 1.png", "The picture is truncated or damaged."),
        ("b/b 0.png", "This is not a picture."),
    }
    assert len(version.train) + len(version.val) + version.test.size == 17
    assert "3 unreadable pictures: a/a 0.png, a/a 1.png, b/b 0.png" in lines_of(context)
    for i in range(1, 3):
        (root / "b" / f"b {i}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="5 of 20 pictures cannot be read") as caught:
        make(root, context)
    assert "a/a 0.png (The picture is empty (0 bytes))" in str(caught.value)
    assert "at most 20%" in str(caught.value)


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_that_cannot_be_divided(make_folder: MakeFolder, context: Context, count: int) -> None:
    with pytest.raises(DatasetError, match="too few usable pictures") as caught:
        make(make_folder({"a": 6, "rare": count}), context)
    assert f"rare: {count}" in str(caught.value)
    assert "at least 3" in str(caught.value)


def test_a_class_of_one_picture_three_times(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 6})
    for i in range(4):
        write_picture(root / "b" / f"{i}.png", 99)
    with pytest.raises(DatasetError, match=r"b: 4 \(1 different\)"):
        make(root, context)


def test_identical_pictures_stay_together(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 30, "b": 30})
    for i in range(10):
        shutil.copy(root / "a" / f"a {i}.png", root / "a" / f"copy {i}.png")
    shutil.copy(root / "a" / "a 20.png", root / "b" / "wrong.png")
    for seed in range(5):
        context = make_context(tmp_path / f"s{seed}", seed=seed)
        version = make(root, context)
        test = opened(version, tmp_path / f"s{seed}")
        home = {p: s for s, part in (("t", version.train), ("v", version.val), ("e", test)) for p in part.paths}
        assert all(home[f"a/a {i}.png"] == home[f"a/copy {i}.png"] for i in range(10))
        assert home["a/a 20.png"] == home["b/wrong.png"]
        assert "1 identical pictures with different labels: a/a 20.png = b/wrong.png" in lines_of(context)


def test_given_folders(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({f"{s}/{c}": n for s, n in (("train", 6), ("val", 2), ("test", 3)) for c in "ab"})
    version = make(root, context)
    assert (len(version.train), len(version.val), version.test.size) == (12, 4, 6)
    assert {p.split("/")[0] for p in version.val.paths} == {"val"}
    assert {p.split("/")[0] for p in opened(version, tmp_path).paths} == {"test"}


def test_missing_splits_are_cut_from_train(make_folder: MakeFolder, context: Context) -> None:
    version = make(make_folder({"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 3}), context)
    assert (len(version.train), len(version.val), version.test.size) == (34, 6, 6)
    assert "gives no val (15%): cut from train" in lines_of(context)
    other = make(make_folder({"train/a": 20, "train/b": 20}, name="only_train"), context)
    assert (len(other.train), len(other.val), other.test.size) == (28, 6, 6)


def test_a_leak_between_given_folders_is_refused(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({f"{s}/{c}": 3 for s in ("train", "val", "test") for c in "ab"})
    shutil.copy(root / "train" / "a" / "a 0.png", root / "test" / "a" / "same.png")
    with pytest.raises(DatasetError, match="same picture lies in two splits") as caught:
        make(root, context)
    assert "test/a/same.png = train/a/a 0.png" in str(caught.value)


def test_a_class_without_training_pictures(make_folder: MakeFolder, context: Context) -> None:
    with pytest.raises(DatasetError, match="no picture in train") as caught:
        make(make_folder({"train/a": 6, "train/b": 6, "test/a": 2, "test/c": 2}), context)
    assert "seen: c" in str(caught.value)


def write_lists(folder: Path, **names: list[str]) -> dict[str, str]:
    """Write split lists and return the fields of the spec."""
    fields = {}
    for split, lines in names.items():
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
        fields[f"{split}_list"] = str(folder / f"{split}.txt")
    return fields


def test_published_lists(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 5, "b": 5})
    lists = write_lists(
        tmp_path,
        train=["a 0.png 1", "a/a 1.png", "# comment", "b 0.png 2", "b 1.png", ""],
        val=["a 2.png", "./b/b 2.png\t2"],
        test=["a 3.png,1", "b\\b 3.png"],
    )
    version = make(root, context, **lists)
    assert set(version.train.paths) == {"a/a 0.png", "a/a 1.png", "b/b 0.png", "b/b 1.png"}
    assert set(version.val.paths) == {"a/a 2.png", "b/b 2.png"}
    assert set(opened(version, tmp_path).paths) == {"a/a 3.png", "b/b 3.png"}
    assert findings(version)["unlisted"] == ["a/a 4.png", "b/b 4.png"]
    assert "2 pictures are in no published list" in lines_of(context)


def test_lists_may_lie_in_the_folder_and_their_leaks_are_closed(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 5, "b": 5})
    shutil.copy(root / "a" / "a 3.png", root / "b" / "b 0.png")  # test = train, another label
    shutil.copy(root / "a" / "a 2.png", root / "a" / "a 0.png")  # val = train
    shutil.copy(root / "b" / "b 3.png", root / "b" / "b 2.png")  # test = val
    write_lists(
        root,
        train=["a 0.png", "a 1.png", "b 0.png", "b 1.png"],
        val=["a 2.png", "b 2.png", "b 4.png", "a 4.png"],
        test=["a 3.png", "b 3.png"],
    )
    version = make(root, context, train_list="train.txt", val_list="val.txt", test_list="test.txt")
    assert version.train.paths == ("a/a 1.png", "b/b 1.png")
    assert set(version.val.paths) == {"a/a 2.png", "a/a 4.png", "b/b 4.png"}
    assert version.test.size == 2
    dropped = {(row["path"], row["same_as"]) for row in findings(version)["dropped"]}
    assert dropped == {("a/a 0.png", "a/a 2.png"), ("b/b 0.png", "a/a 3.png"), ("b/b 2.png", "b/b 3.png")}
    assert "b/b 0.png is left out of train: the same picture is in test (a/a 3.png)" in lines_of(context)


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (["gone.png"], r"not in the data folder[\s\S]*gone.png \(line 1\)"),
        (["same.png"], r"there more than once[\s\S]*same.png \(line 1: a/same.png, b/same.png\)"),
        (["a 0.png"], "Two split lists name the same file"),
    ],
)
def test_lists_that_do_not_fit(
    make_folder: MakeFolder, context: Context, tmp_path: Path, val: list[str], message: str
) -> None:
    root = make_folder({"a": 5, "b": 5})
    write_picture(root / "a" / "same.png", 60)
    write_picture(root / "b" / "same.png", 61)
    lists = write_lists(tmp_path, train=["a 0.png", "b 0.png"], val=val, test=["a 2.png", "b 2.png"])
    with pytest.raises(DatasetError) as caught:
        make(root, context, **lists)
    assert re.search(message, str(caught.value))


def test_a_list_may_name_an_unreadable_file(make_folder: MakeFolder, context: Context, tmp_path: Path) -> None:
    root = make_folder({"a": 9, "b": 9})
    (root / "a" / "a 0.png").write_bytes(b"")
    names = {
        s: [f"{c} {i}.png" for c in "ab" for i in r] for s, r in (("train", range(6)), ("val", (6,)), ("test", (7, 8)))
    }
    assert len(make(root, context, **write_lists(tmp_path, **names)).train) == 11


def test_a_missing_list(make_folder: MakeFolder, context: Context) -> None:
    with pytest.raises(DatasetError, match="split list does not exist"):
        make(make_folder({"a": 4, "b": 4}), context, train_list="t", val_list="v", test_list="e")


def test_the_wish_to_stop_is_heard(make_folder: MakeFolder, context: Context) -> None:
    root = make_folder({"a": 70, "b": 70})
    context.stop.set()
    with pytest.raises(RunInterrupted):
        make(root, context)


@pytest.mark.shared
def test_trashnet_with_its_published_split(context: Context) -> None:
    root = Path(os.environ.get("AUTODL_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "trashnet"
    if not root.is_dir():
        pytest.skip("the shared data sets are not here")
    lists = {f"{s}_list": str(root / "splits" / f"one-indexed-files-notrash_{s}.txt") for s in ("train", "val", "test")}
    version = make(root / "images", context, **lists)
    assert (len(version.train), len(version.val), version.test.size) == (1766, 328, 431)
    assert {row["path"] for row in findings(version)["dropped"]} == {"glass/glass176.jpg", "glass/glass389.jpg"}
    conflicts = [f["paths"] for f in findings(version)["faults"] if f["kind"] == "conflict"]
    assert ["glass/glass115.jpg", "metal/metal91.jpg"] in conflicts
