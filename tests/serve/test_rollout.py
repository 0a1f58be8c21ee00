"""Whether a new version takes over, decided without Ray; and the versions of a replica that follow it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodl_ray.errors import InputError, SpecError
from autodl_ray.images import ImageArray
from autodl_ray.serve.board import MemoryBoard
from autodl_ray.serve.engine import Engine, ServedModel
from autodl_ray.serve.goal import Goal, NextVersion, parse_goal
from autodl_ray.serve.rollout import RolloutRules, Seen, decide, takes_new
from autodl_ray.serve.trial import smoke, try_bundle
from autodl_ray.serve.versions import Versions
from tests.serve.tiny import make_bundle

RULES = RolloutRules(min_requests=50, min_seconds=10, max_seconds=100)


def seen(requests: int, *, errors: int = 0, compared: int = 0, disagreed: int = 0, ms: float = 10) -> Seen:
    """Make a record of answers that all took ``ms``."""
    found = Seen(compared=compared, disagreed=disagreed)
    for number in range(requests):
        found.answered(ms / 1000, failed=number < errors)
    return found


@pytest.mark.parametrize(
    ("old", "new", "seconds", "decision", "reason"),
    [
        (seen(500), seen(49), 60, "hold", "49 answers"),
        (seen(500), seen(50), 9, "hold", "50 answers"),
        (seen(500), seen(50), 10, "promote", "50 answers in 10 s, 0 failed"),
        (seen(0), seen(3), 100, "promote", "little traffic"),
        (seen(0), seen(3, errors=1), 100, "roll back", "1 of 3 answers failed"),
        (seen(500), seen(10, errors=2), 1, "roll back", "2 of 10 answers failed"),
        (seen(500), seen(1000, errors=3), 60, "promote", "3 failed"),
        (seen(500, errors=100), seen(100, errors=20), 60, "promote", "20 failed"),
        (seen(500), seen(40, compared=40, disagreed=30), 5, "roll back", "30 of 40 pictures"),
        (seen(500), seen(60, compared=40, disagreed=6), 20, "promote", "60 answers"),
        (seen(500), seen(9, compared=9, disagreed=9), 5, "hold", "9 answers"),
        (seen(500, ms=10), seen(60, ms=25), 20, "roll back", "p95 of the latency"),
        (seen(500, ms=1), seen(60, ms=4), 20, "promote", "60 answers"),
        (seen(10, ms=1), seen(60, ms=400), 20, "promote", "60 answers"),
    ],
)
def test_decisions(old: Seen, new: Seen, seconds: float, decision: str, reason: str) -> None:
    verdict = decide(old, new, RULES, seconds=seconds)
    assert verdict.decision == decision
    assert reason in verdict.reason


def test_what_replicas_saw_adds_up() -> None:
    total = Seen.total([seen(30, ms=10).to_json(), seen(70, errors=2, compared=5, disagreed=1, ms=100).to_json()])
    assert (total.requests, total.errors, total.compared, total.disagreed) == (100, 2, 5, 1)
    assert total.quantile_ms(0.2) == pytest.approx(10, rel=0.21)
    assert total.quantile_ms(0.95) == pytest.approx(100, rel=0.21)
    assert Seen().quantile_ms(0.95) == 0


def test_a_share_of_the_keys_goes_to_the_new_version_and_stays_there() -> None:
    keys = [f"client-{i}".encode() for i in range(4000)]
    first = [takes_new(key, "r1", 0.2) for key in keys]
    assert sum(first) / len(keys) == pytest.approx(0.2, abs=0.03)
    assert first == [takes_new(key, "r1", 0.2) for key in keys]
    assert all(takes_new(key, "r1", 0.5) for key, taken in zip(keys, first, strict=True) if taken)
    assert first != [takes_new(key, "r2", 0.2) for key in keys]
    assert not any(takes_new(key, "r1", 0.0) for key in keys)
    assert all(takes_new(key, "r1", 1.0) for key in keys)


def test_a_goal_remembers_what_came_before() -> None:
    goal = Goal.of([("a", "a1"), ("b", "b1")])
    second = goal.with_next("a", NextVersion(bundle="a2", rollout="r2"))
    third = second.with_next("a", NextVersion(bundle="a3", rollout="r3"))
    assert [p.bundle for p in third.models[0].past] == ["a2"]
    assert third.taken_back("a").models[0].next is None
    assert [p.bundle for p in third.taken_back("a").models[0].past] == ["a2"]
    assert third.taken_back("a").taken_back("a").models == goal.models
    assert third.served_now("a", "a9").models[0].model_dump() == {"name": "a", "bundle": "a9", "past": (), "next": None}
    assert parse_goal(third.model_dump(mode="json")) == third
    with pytest.raises(InputError, match="no such model"):
        goal.taken_back("c")
    with pytest.raises(SpecError, match=r"models.0.bundle: Field required"):
        parse_goal({"models": [{"name": "a"}]})


def network(answer: int, *, fails: bool = False, seconds: float = 0.0) -> Callable[[Sequence[ImageArray]], Any]:
    """A model that always names one class."""

    def predict(images: Sequence[ImageArray]) -> Any:
        if fails:
            raise RuntimeError("out of memory")
        time.sleep(seconds)
        return np.eye(3, dtype=np.float32)[[answer] * len(images)]

    return predict


class Replica:
    """An engine with one model, its versions, and a stock of bundles by folder."""

    def __init__(self, board: MemoryBoard, stock: dict[str, Any], name: str = "r0") -> None:
        self.engine = Engine([self.model("first")], num_threads=2)
        self.stock, self.opened = stock, list[str]()
        self.versions = Versions(
            self.engine, board, replica=name, open_model=self.open, try_model=lambda f: stock[f].get("wrong")
        )

    def model(self, version: str, **options: Any) -> ServedModel:
        return ServedModel("m", version, "d", ("a", "b", "c"), network(options.pop("answer", 0), **options))

    def open(self, name: str, folder: str) -> ServedModel:
        self.opened.append(folder)
        if self.stock[folder].get("unusable"):
            raise RuntimeError("no such operator")
        return self.model(folder, **{k: v for k, v in self.stock[folder].items() if k != "wrong"})

    def ask(self, count: int) -> dict[str, int]:
        """Ask with different keys; returns how often each version answered."""
        found: dict[str, int] = {}

        async def all_of_them() -> None:
            for i in range(count):
                model = self.engine.select("m", key=f"k{i}")
                await self.engine.probabilities(model, [np.zeros((4, 4, 3), np.uint8)])
                found[model.version] = found.get(model.version, 0) + 1
            await asyncio.sleep(0.05)

        asyncio.run(all_of_them())
        return found

    def stage(self) -> str:
        following = self.versions.state()["models"]["m"]["next"]
        return "" if following is None else following["stage"]


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are versions here: the record of a bundle is not read."""

    class Info:
        def __init__(self, version: str) -> None:
            self.version = version

    monkeypatch.setattr("autodl_ray.serve.versions.open_bundle", lambda f, verify: (None, Info(f)))


def goal(folder: str, rollout: str, **options: Any) -> dict[str, Any]:
    """A goal with one version on its way in."""
    rules = RolloutRules(min_requests=20, min_seconds=0)
    following = NextVersion(bundle=folder, rollout=rollout, rules=rules, **{"share": 0.5, **options})
    return Goal.of([("m", "first")]).with_next("m", following).model_dump(mode="json")


def until(condition: Callable[[], object]) -> None:
    """Wait a few seconds for a condition."""
    end = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_good_version_answers_its_share_and_takes_over_everywhere(no_files: None) -> None:
    board = MemoryBoard()
    one, two = Replica(board, {"good": {}}, "r1"), Replica(board, {"good": {}}, "r2")
    for replica in (one, two):
        replica.versions.apply(goal("good", "r"))
        until(lambda replica=replica: "m" in replica.engine.next)  # type: ignore[misc]
    assert 10 < one.ask(60)["good"] < 50
    until(lambda: one.stage() == two.stage() == "took over")  # the second one has not been asked at all
    assert two.ask(5) == {"good": 5}
    late = Replica(board, {"good": {}}, "r3")
    late.versions.apply(goal("good", "r"))
    assert late.ask(5) == {"good": 5}  # before anything else: it follows what was decided
    late.stock["first"] = {}
    late.versions.apply(Goal.of([("m", "first")]).model_dump(mode="json"))
    assert late.ask(5) == {"first": 5}  # taken back


def test_a_version_that_fails_is_rolled_back_and_the_old_one_answers_for_it(no_files: None) -> None:
    replica = Replica(MemoryBoard(), {"bad": {"fails": True}})
    replica.versions.apply(goal("bad", "r"))
    until(lambda: "m" in replica.engine.next)
    assert sum(replica.ask(40).values()) == 40  # no exception reached a client
    until(lambda: replica.stage() == "rolled back")
    assert "answers failed" in replica.versions.state()["models"]["m"]["next"]["reason"]
    assert replica.ask(5) == {"first": 5}


def test_a_shadow_answers_nobody_and_is_compared(no_files: None) -> None:
    replica = Replica(MemoryBoard(), {"other": {"answer": 1}})
    replica.versions.apply(goal("other", "r", share=0.0, shadow=1.0))
    until(lambda: "m" in replica.engine.next)
    assert replica.ask(40) == {"first": 40}
    until(lambda: replica.stage() == "rolled back")
    assert "names another class" in replica.versions.state()["models"]["m"]["next"]["reason"]


def test_a_version_that_fails_its_trial_is_not_opened(no_files: None) -> None:
    replica = Replica(MemoryBoard(), {"bad": {"wrong": "3 probes differ"}})
    replica.versions.apply(goal("bad", "r"))
    until(lambda: replica.stage() == "rolled back")
    assert replica.opened == []
    assert replica.versions.state()["models"]["m"]["next"]["reason"] == "not served: 3 probes differ"
    replica.versions.apply({"models": "nonsense"})
    assert "not valid" in replica.versions.state()["errors"][""]
    assert replica.ask(3) == {"first": 3}


def test_a_version_that_cannot_be_opened_touches_nothing(no_files: None) -> None:
    replica = Replica(MemoryBoard(), {"bad": {"unusable": True}})
    replica.versions.apply(goal("bad", "r"))
    until(lambda: replica.stage() == "rolled back")
    reason = "RuntimeError: no such operator"
    assert replica.versions.state()["models"]["m"]["next"]["reason"] == f"not served: {reason}"
    replica.versions.apply(Goal.of([("m", "bad")]).model_dump(mode="json"))
    assert replica.versions.state()["errors"] == {"m": reason}
    assert replica.ask(3) == {"first": 3}


def test_a_version_that_left_is_let_go(no_files: None) -> None:
    replica = Replica(MemoryBoard(), {"second": {}})
    first = weakref.ref(replica.engine.models["m"])
    replica.versions.apply(Goal.of([("m", "second")]).model_dump(mode="json"))
    gc.collect()
    assert first() is None
    assert replica.ask(3) == {"second": 3}


def test_a_trial_says_what_is_wrong(bundle: Path, tmp_path: Path) -> None:
    assert smoke(bundle) is None
    assert smoke(tmp_path / "none") is not None
    broken = make_bundle(tmp_path, model=b"no model")
    assert str(try_bundle(broken)).startswith("The model cannot be loaded.")
    assert try_bundle(broken, timeout_s=0.01) == "it did not answer within 0 s"
