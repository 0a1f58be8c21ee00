"""What every strategy has to keep to, over every kind of range."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pytest

from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.proposers import STRATEGIES, make_proposer, propose_distinct
from autodl_ray.tune.space import contains, fingerprint, is_inside, num_settings
from tests.tune.proposers.sweeps import BASELINE, SPACES, context_of, ended, made, sweep

FINITE: dict[str, dict[str, Domain]] = {
    "plain": {"batch_size": Int(low=1, high=3), "augment": Choice(values=("none", "light"))},
    "conditional": {
        "augment": Choice(values=("none", "light", "strong")),
        "batch_size": Int(low=30, high=33),
        "optimizer": Choice(values=("adamw", "sgd"), when={"augment": ("none",), "batch_size": (30, 31)}),
    },
}
SEARCHES = sorted(STRATEGIES)
_SLOW = {"gp": 15, "bayes": 15}


@pytest.mark.parametrize("search", SEARCHES)
class TestEveryStrategy:
    """The contract of :class:`autodl_ray.tune.contracts.Proposer`, as made by ``make_proposer``."""

    @pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
    def test_runs_as_many_different_trials_as_asked_for(self, search: str, space: Mapping[str, Domain]) -> None:
        count = _SLOW.get(search, 24)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            steps = made(search, space, count, at_once=2)
        params = [step.params for step in steps if step.params is not None]
        assert len({fingerprint(p) for p in params}) == count
        for p in params:
            if search == "one_factor":  # its defaults may lie outside; here they do not
                assert set(p) <= set(space)
            assert is_inside(space, p), p

    @pytest.mark.parametrize("space", FINITE.values(), ids=FINITE.keys())
    def test_walks_a_finite_space_to_its_end_and_then_refuses(self, search: str, space: Mapping[str, Domain]) -> None:
        size = {"plain": 6, "conditional": 14}["plain" if len(space) == 2 else "conditional"]
        assert num_settings(space) == size
        if search == "one_factor":  # what differs from the defaults in one field
            size = {6: 3 + 1, 14: 2 + 3}[size]
        steps = made(search, space, size + 1)
        assert [step.params is None for step in steps] == [False] * size + [True]
        assert len({fingerprint(step.params or {}) for step in steps[:-1]}) == size

    @pytest.mark.parametrize("name", ["conditional", "mixed"])
    def test_the_seed_decides(self, search: str, name: str) -> None:
        first, again, other = (made(search, SPACES[name], 13, seed=seed) for seed in (0, 0, 1))
        assert [s.params for s in first] == [s.params for s in again]
        assert ([s.params for s in first] == [s.params for s in other]) == (search == "grid")

    @pytest.mark.parametrize("name", ["int", "conditional", "mixed"])
    def test_a_sweep_cut_anywhere_goes_on_as_the_unbroken_one(self, search: str, name: str) -> None:
        steps = made(search, SPACES[name], 16, at_once=3)
        points = range(1, 16) if search not in _SLOW else (4, 12, 14, 15)
        for cut in points:
            anew = make_proposer(search, context_of(SPACES[name], num_samples=16))
            assert anew.propose(cut, 0, steps[cut].history) == steps[cut].params, cut

    def test_a_proposer_may_be_asked_again_about_the_past(self, search: str) -> None:
        proposer = make_proposer(search, context_of(SPACES["mixed"], num_samples=14))
        steps = sweep(proposer, 14)
        for cut in (13, 4):
            assert proposer.propose(cut, 0, steps[cut].history) == steps[cut].params

    def test_more_trials_of_a_finished_sweep_go_on_with_it(self, search: str) -> None:
        few, many = (sweep(make_proposer(search, context_of(SPACES["mixed"], num_samples=n)), 14) for n in (6, 14))
        assert [s.params for s in few] == [s.params for s in many]

    def test_what_runs_is_not_proposed_again(self, search: str) -> None:
        space = FINITE["plain"]
        proposer = make_proposer(search, context_of(space))
        first = proposer.propose(0, 0, [])
        history: list[Observed] = []
        while first is not None:
            assert fingerprint(first) not in {fingerprint(o.params) for o in history}
            history.append(Observed(len(history), first, "running", (), None))
            first = proposer.propose(len(history), 0, history)
        assert len(history) == (4 if search == "one_factor" else 6)

    def test_types_are_those_of_the_ranges(self, search: str) -> None:
        kinds = {"augment": str, "augment_magnitude": float, "batch_size": int, "lr": float}
        for step in made(search, SPACES["mixed"], 13):
            assert step.params is not None
            assert all(type(value) is kinds[name] for name, value in step.params.items()), step.params

    def test_defaults_outside_the_ranges_are_bearable(self, search: str) -> None:
        space = SPACES["mixed"]
        history = [o for o in (ended(i, s.params or {}) for i, s in enumerate(made(search, space, 13)))]
        odd = ended(0, {"lr": 7.0, "batch_size": "auto", "augment": "auto", "augment_magnitude": 0.5})
        low = ended(13, {"lr": 1e-9, "batch_size": 3, "augment": "none"})
        proposer = make_proposer(search, context_of(space))
        params = propose_distinct(proposer, space, 15, [odd, *history[1:], low, ended(14, BASELINE)])
        assert params is not None
        assert all(contains(space[name], value) for name, value in params.items())

    def test_a_history_of_failures_is_bearable(self, search: str) -> None:
        space = SPACES["mixed"]
        proposer = make_proposer(search, context_of(space))
        history: list[Observed] = []
        for number in range(14):
            params = proposer.propose(number, 0, history)
            assert params is not None
            history.append(Observed(number, params, "failed", (), None))
        assert len({fingerprint(o.params) for o in history}) == 14

    def test_equal_values_everywhere_are_bearable(self, search: str) -> None:
        proposer = make_proposer(search, context_of(SPACES["mixed"]))
        history: list[Observed] = []
        for number in range(13):
            params = proposer.propose(number, 0, history)
            assert params is not None
            history.append(Observed(number, params, "finished", ((1, 0.5),), 0.5))


def test_floats_are_numbers_within_their_ends() -> None:
    space: dict[str, Domain] = {"lr": Float(low=1e-4, high=1e-3, log=True)}
    for search in ("random", "qmc", "grid"):
        values = [float((s.params or {})["lr"]) for s in made(search, space, 40)]
        assert min(values) >= 1e-4
        assert max(values) <= 1e-3
