"""The tree of errors: as drawn, with exit codes, and whole after a journey between processes."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from autodl_ray import errors
from autodl_ray.errors import AutoDLError, SpecError, StoreError, near_names

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AutoDLError)]


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Read the drawing in the docstring: name → (parent, exit code where one is written)."""
    drawing = (errors.__doc__ or "").split("```")[1]
    found: dict[str, tuple[str | None, int | None]] = {}
    trail: list[tuple[int, str]] = []
    for line in drawing.strip("\n").splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)(?:.*\bexit (\d+))?", line)
        assert match is not None, line
        depth, name, code = len(match[1]) // 4, match[2], match[3]
        trail = [t for t in trail if t[0] < depth]
        found[name] = (trail[-1][1] if trail else None, int(code) if code else None)
        trail.append((depth, name))
    return found


def test_the_tree_is_as_drawn() -> None:
    drawn = drawn_tree()
    assert {c.__name__ for c in CLASSES} == set(drawn)
    for name, (parent, code) in drawn.items():
        cls = getattr(errors, name)
        assert cls.__base__.__name__ == (parent or "Exception"), name
        if code is not None:
            assert cls.exit_code == code, name


def test_exit_codes() -> None:
    codes = {c.__name__: c.exit_code for c in CLASSES}
    assert codes["AutoDLError"] == codes["StageError"] == 1
    assert codes["RunInterrupted"] == 130
    inputs = [c for c in CLASSES if issubclass(c, errors.InputError)]
    assert len(inputs) == 7
    assert {c.exit_code for c in inputs} == {2}


def test_every_error_is_public() -> None:
    assert {c.__name__ for c in CLASSES} <= set(errors.__all__)
    assert all(c.__doc__ for c in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_is_whole_after_pickling(cls: type[AutoDLError]) -> None:
    error = cls("What.", seen=3, accepted="1 or 2", hint="try 1")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert (twin.what, twin.seen, twin.accepted, twin.hint) == ("What.", "3", "1 or 2", "try 1")
        assert str(twin) == str(error)
        assert twin.exit_code == error.exit_code


def test_notes_survive_pickling() -> None:
    error = SpecError("What.")
    error.add_note("while reading a.yaml")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while reading a.yaml"]


def _fail() -> None:
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise StoreError("Cannot write.", seen="a/b", hint="free some space") from error


def test_an_error_crosses_processes_with_its_fields() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(StoreError, match="Cannot write") as caught,
    ):
        pool.submit(_fail).result(timeout=60)
    assert (caught.value.seen, caught.value.hint) == ("a/b", "free some space")
    assert "No space left on device" in str(caught.value.__cause__)


def test_the_message_says_what_seen_accepted_next_in_that_order() -> None:
    error = SpecError("lr is not usable.", seen=-1.0, accepted="above 0", hint="write 0.001")
    assert str(error) == "lr is not usable.\n  seen: -1.0\n  accepted: above 0\n  next: write 0.001"
    assert str(SpecError("Only this.")) == "Only this."
    assert str(SpecError("Falsy.", seen=0)) == "Falsy.\n  seen: 0"
    assert str(SpecError("Empty.", seen="")) == "Empty.\n  seen: "


def test_near_names() -> None:
    assert near_names("resnet8", ["resnet18", "small_cnn"]) == "did you mean 'resnet18'?"
    assert near_names("zzz", ["resnet18"]) is None
    assert near_names("x", []) is None
    both = near_names("train_lis", ["train_list", "train_lists"])
    assert both is not None
    assert " or " in both
