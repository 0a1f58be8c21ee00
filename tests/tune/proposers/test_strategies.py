"""What single strategies promise beyond the contract."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest

from autodl_ray.errors import MissingExtraError, SpecError
from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers import make_proposer
from autodl_ray.tune.proposers.grid import levels
from tests.tune.proposers.sweeps import SPACES, context_of, ended, made


class TestGrid:
    """Levels, order and evenness."""

    def test_levels_are_even_or_even_by_magnitude(self) -> None:
        assert levels(Float(low=0.0, high=1.0), 2) == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert levels(Float(low=1e-4, high=1e-2, log=True), 1) == [1e-4, 1e-3, 1e-2]
        assert levels(Int(low=1, high=4), 2) == [1, 2, 3, 4]
        assert levels(Choice(values=("a", "b")), 1) == ["a", "b"]

    def test_the_coarse_grid_is_walked_whole_before_the_finer_one(self) -> None:
        space: dict[str, Domain] = {"lr": Float(low=1e-4, high=1e-2, log=True), "dropout": Float(low=0.0, high=0.5)}
        found = [(s.params or {})["lr"] for s in made_plain("grid", space, 25)]
        assert Counter(found[:9]) == {1e-4: 3, 1e-3: 3, 1e-2: 3}
        assert len(set(found)) == 5

    def test_the_first_trials_of_a_large_grid_lie_evenly_in_it(self) -> None:
        space: dict[str, Domain] = {f"x{i}": Choice(values=(0, 1, 2)) for i in range(4)}
        found = [s.params or {} for s in made_plain("grid", space, 27)]  # a third of 81
        for name in space:
            assert all(7 <= count <= 11 for count in Counter(p[name] for p in found).values())


class TestOneFactor:
    """One cause a trial."""

    def test_exactly_one_factor_differs_and_each_is_changed_first(self) -> None:
        space = {name: SPACES["mixed"][name] for name in ("augment", "batch_size", "lr")}
        baseline = {"augment": "light", "batch_size": 32, "lr": 1e-3}
        proposer = make_proposer("one_factor", SearchContext(space, "max", 0, 9, baseline=baseline))
        history = [ended(0, baseline)]
        changed = []
        for number in range(1, 13):
            params = proposer.propose(number, 0, history)
            assert params is not None
            differing = [name for name in space if params[name] != baseline[name]]
            assert len(differing) == 1
            changed += differing
            history.append(ended(number, params))
        assert sorted(changed[:3]) == ["augment", "batch_size", "lr"]
        assert Counter(changed)["augment"] == 2  # it has no further value

    def test_a_baseline_outside_the_ranges_stays_what_it_is(self) -> None:
        space: dict[str, Domain] = {"lr": Float(low=1e-4, high=1e-2, log=True), "batch_size": Int(low=8, high=64)}
        baseline = {"lr": 0.5, "batch_size": "auto"}
        proposer = make_proposer("one_factor", SearchContext(space, "max", 0, 9, baseline=baseline))
        first = proposer.propose(1, 0, [ended(0, {"lr": 0.5})])
        assert first is not None
        assert (first["lr"] == 0.5) != (first["batch_size"] == "auto")

    def test_what_a_change_brings_in_has_its_default(self) -> None:
        proposer = make_proposer("one_factor", context_of(SPACES["conditional"]))
        found = [s.params or {} for s in made("one_factor", SPACES["conditional"], 6)]
        assert {"optimizer": "adamw", "weight_decay": 1e-4} in found
        assert all(p["momentum"] != 0.9 for p in found if p["optimizer"] == "sgd")
        assert proposer.propose(0, 0, []) == found[0]


def made_plain(search: str, space: dict[str, Domain], count: int) -> list[Any]:
    """As ``made``, for fields without defaults."""
    from tests.tune.proposers.sweeps import sweep

    return sweep(make_proposer(search, SearchContext(space, "max", 0, 9)), count)


def test_sobol_points_fill_a_range_evenly() -> None:
    space: dict[str, Domain] = {"dropout": Float(low=0.0, high=1.0)}
    values = sorted(float((s.params or {})["dropout"]) for s in made_plain("qmc", space, 64))
    assert all(i / 64 <= v <= (i + 1) / 64 for i, v in enumerate(values))


def test_sobol_points_go_on_past_a_block() -> None:
    space: dict[str, Domain] = {"dropout": Float(low=0.0, high=1.0)}
    values = sorted(float((s.params or {})["dropout"]) for s in made_plain("qmc", space, 256))
    assert all(i / 256 <= v <= (i + 1) / 256 for i, v in enumerate(values))


@pytest.mark.parametrize("search", ["tpe", "bayes", "cmaes"])
def test_models_find_the_good_end_of_a_range(search: str) -> None:
    space: dict[str, Domain] = {"lr": Float(low=1e-5, high=1.0, log=True)}
    proposer = make_proposer(search, SearchContext(space, "min", 0, 1, baseline={"lr": 0.9}))
    history: list[Observed] = []
    for number in range(30):
        params = proposer.propose(number, 0, history)
        assert params is not None
        loss = abs(params["lr"] - 1e-3)
        history.append(Observed(number, params, "finished", ((1, loss),), loss))
    late = sorted(float(o.params["lr"]) for o in history[20:])
    assert late[len(late) // 2] < 5e-2
    assert min(o.value or 1.0 for o in history) < 5e-4


class Counted(Sequence[Observed]):
    """A history that counts how many trials are read of it."""

    def __init__(self, trials: list[Observed]) -> None:
        self.trials = trials
        self.read = 0

    @overload
    def __getitem__(self, at: int) -> Observed: ...
    @overload
    def __getitem__(self, at: slice) -> list[Observed]: ...
    def __getitem__(self, at: int | slice) -> Observed | list[Observed]:
        found = self.trials[at]
        self.read += len(found) if isinstance(found, list) else 1
        return found

    def __iter__(self) -> Iterator[Observed]:
        for trial in self.trials:
            self.read += 1
            yield trial

    def __len__(self) -> int:
        return len(self.trials)


@pytest.mark.parametrize("search", ["random", "qmc", "grid", "one_factor"])
def test_a_proposal_after_a_thousand_reads_only_what_is_new(search: str) -> None:
    proposer = make_proposer(search, context_of(SPACES["mixed"], num_samples=1000))
    trials: list[Observed] = []
    for number in range(1000):
        params = proposer.propose(number, 0, trials)
        assert params is not None
        trials.append(ended(number, params))
    history = Counted(trials)
    assert proposer.propose(1000, 0, history) is not None
    assert history.read < 10


class TestFactory:
    """``make_proposer``."""

    def test_an_unknown_name_is_answered_with_a_near_one(self) -> None:
        with pytest.raises(SpecError, match="There is no such search") as caught:
            make_proposer("bayess", context_of(SPACES["int"]))
        assert "did you mean 'bayes'" in str(caught.value)

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cmaes", None)
        with pytest.raises(MissingExtraError, match="needs the package cmaes") as caught:
            make_proposer("cmaes", context_of(SPACES["int"]))
        assert "pip install 'autodl_ray[cmaes]'" in str(caught.value)
