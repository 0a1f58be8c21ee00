"""A checkpoint is whole or passed over: cut, changed, deleted, a full disk; and the best weights that go with it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autodl_ray.errors import StoreError
from autodl_ray.train.checkpoint import Checkpoints, load_checkpoint


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": {"weight": torch.full((4, 4), float(step))},
        "history": "[]",
        "best": (0.5, -1.0),
        "scaler": None,
    }


def net(value: float) -> nn.Linear:
    made = nn.Linear(2, 2)
    nn.init.constant_(made.weight, value)
    return made


def weight_in(path: Path) -> float:
    return float(load_file(path)["weight"][0, 0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def flip_hash(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[25] ^= 1
    path.write_bytes(raw)


def delete(path: Path) -> None:
    path.unlink()


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(3))
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is not None
    assert notes == ()
    assert torch.equal(loaded.pop("model")["weight"], torch.full((4, 4), 3.0))
    assert loaded == {"step": 3, "history": "[]", "best": (0.5, -1.0), "scaler": None}


def test_nothing_there(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load() == (None, ())


@pytest.mark.parametrize("damage", [cut, cut_short, empty, flip, flip_hash, delete])
def test_damaged_newest_is_passed_over(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    for step in (1, 2, 3):
        Checkpoints(tmp_path).save(state(step))
    damage(tmp_path / "last.pt")
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is not None
    assert loaded["step"] == 2
    if damage is delete:
        assert notes == ()
    else:
        assert "last.pt is damaged" in notes[0]
        assert notes[0].endswith("the one before it is used")


def test_both_damaged_begins_anew_and_says_so(tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(state(step))
    cut(tmp_path / "last.pt")
    flip(tmp_path / "last.prev.pt")
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is None
    assert len(notes) == 2
    assert "last.prev.pt is damaged (its SHA-256 differs); the training begins anew" in notes[1]


def test_only_one_and_damaged(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    flip(tmp_path / "last.pt")
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is None
    assert notes[0].endswith("there is none before it: the training begins anew")


class FullDisk:
    """``os.write`` on a disk with room for so many more bytes; what is deleted gives none back unless told."""

    def __init__(self, room: int, freed: Path | None = None) -> None:
        self.room, self.freed, self.write = room, freed, os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if self.freed is not None and not self.freed.exists():
            self.room, self.freed = self.room + 10**6, None
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.write(descriptor, data[: self.room])
        self.room -= written
        return written


def test_full_disk_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    monkeypatch.setattr(os, "write", FullDisk(700))
    with pytest.raises(StoreError, match=r"checkpoint could not be written[\s\S]*No space left[\s\S]*free some space"):
        checkpoints.save(state(2))
    monkeypatch.undo()
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is not None
    assert (loaded["step"], notes) == (1, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt"]


def test_fallback_makes_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step))
    monkeypatch.setattr(os, "write", FullDisk(700, freed=tmp_path / "last.prev.pt"))
    checkpoints.save(state(3))
    monkeypatch.undo()
    assert [load_checkpoint(tmp_path)[0]["step"]] == [3]  # type: ignore[index]
    delete(tmp_path / "last.pt")
    assert [load_checkpoint(tmp_path)[0]["step"]] == [2]  # type: ignore[index]


def test_other_errors_of_the_disk_do_not_cost_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(state(step))

    def broken(descriptor: int, data: bytes) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(StoreError, match="broken"):
        Checkpoints(tmp_path).save(state(3))
    assert (tmp_path / "last.prev.pt").exists()


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    Checkpoints(tmp_path).save({"step": 1, "bad": Runs()})
    loaded, notes = Checkpoints(tmp_path).load()
    assert loaded is None
    assert "cannot be read" in notes[0]
    assert not (tmp_path / "ran").exists()


# -- the best weights


def keep(folder: Path, ranks: dict[int, float], *, keep: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for epoch, rank in ranks.items():
        checkpoints.keep_best(net(float(epoch)), rank=(rank, 0.0), epoch=epoch)
        checkpoints.save(state(epoch))
    return checkpoints


def test_best_epochs_in_order_and_no_more_files(tmp_path: Path) -> None:
    keep(tmp_path, {1: 0.1, 2: 0.5, 3: 0.3, 4: 0.4, 5: 0.5}, keep=3)
    places = ["best.safetensors", "best-2.safetensors", "best-3.safetensors"]
    assert [weight_in(tmp_path / name) for name in places] == [2.0, 5.0, 4.0]  # of equals the earlier one
    index = json.loads((tmp_path / "best.json").read_text())
    assert [(row["file"], row["epoch"]) for row in index] == list(zip(places, [2, 5, 4], strict=True))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == sorted(places)
    assert len(list((tmp_path / ".best").iterdir())) == 3
    assert all((tmp_path / name).stat().st_nlink == 2 for name in places)  # no space for the second name


def test_worse_epoch_is_not_written(tmp_path: Path) -> None:
    checkpoints = keep(tmp_path, {1: 0.5}, keep=1)
    assert not checkpoints.wants(rank=(0.4, 0.0), epoch=2)
    assert checkpoints.wants(rank=(0.6, 0.0), epoch=2)
    checkpoints.keep_best(net(9.0), rank=(0.4, 0.0), epoch=2)
    assert weight_in(tmp_path / "best.safetensors") == 1.0


def test_best_goes_back_to_what_the_checkpoint_knew(tmp_path: Path) -> None:
    checkpoints = keep(tmp_path, {1: 0.1, 2: 0.2}, keep=1)
    checkpoints.keep_best(net(3.0), rank=(0.3, 0.0), epoch=3)  # and killed before the checkpoint
    assert weight_in(tmp_path / "best.safetensors") == 3.0
    again = Checkpoints(tmp_path)
    again.load()
    assert weight_in(tmp_path / "best.safetensors") == 2.0
    again.keep_best(net(3.5), rank=(0.15, 0.0), epoch=3)  # trained again, elsewhere, and it came out worse
    assert weight_in(tmp_path / "best.safetensors") == 2.0


def test_resumed_with_fewer_to_keep(tmp_path: Path) -> None:
    keep(tmp_path, {1: 0.1, 2: 0.2, 3: 0.3}, keep=3)
    fewer = Checkpoints(tmp_path, keep=1)
    fewer.load()
    fewer.keep_best(net(4.0), rank=(0.4, 0.0), epoch=4)
    fewer.save(state(4))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["best.safetensors"]


def test_begun_anew_the_old_weights_stay_until_their_epochs_are_made_again(tmp_path: Path) -> None:
    keep(tmp_path, {1: 0.1, 2: 0.2}, keep=2)
    for name in ("last.pt", "last.prev.pt"):
        flip(tmp_path / name)
    anew = Checkpoints(tmp_path, keep=2)
    assert anew.load()[0] is None
    anew.keep_best(net(7.0), rank=(0.0, 0.0), epoch=1)
    anew.save(state(1))
    assert [weight_in(tmp_path / name) for name in ("best.safetensors", "best-2.safetensors")] == [2.0, 7.0]
    anew.keep_best(net(8.0), rank=(-0.1, 0.0), epoch=2)  # elsewhere, and it came out worse
    anew.save(state(2))
    assert [weight_in(tmp_path / name) for name in ("best.safetensors", "best-2.safetensors")] == [7.0, 8.0]


def test_an_index_that_is_not_readable_is_as_none(tmp_path: Path) -> None:
    keep(tmp_path, {1: 0.1}, keep=1)
    for name in ("last.pt", "last.prev.pt"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "best.json").write_text('[{"epoch": 1')
    anew = Checkpoints(tmp_path)
    assert anew.load() == (None, ())
    anew.keep_best(net(5.0), rank=(0.0, 0.0), epoch=1)
    assert weight_in(tmp_path / "best.safetensors") == 5.0


def test_weights_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = keep(tmp_path, {1: 0.1}, keep=1)

    def full(path: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("autodl_ray.models.classifier.write_atomic", full)
    with pytest.raises(StoreError, match=r"weights of the best epoch could not be written[\s\S]*No space left"):
        checkpoints.keep_best(net(2.0), rank=(0.2, 0.0), epoch=2)
    assert weight_in(tmp_path / "best.safetensors") == 1.0
