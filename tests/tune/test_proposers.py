"""What every proposer has to keep to, whatever the ranges are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pytest

from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed
from autodl_ray.tune.proposers import PROPOSERS, propose_distinct
from autodl_ray.tune.space import contains, fingerprint, num_settings

SPACES: dict[str, dict[str, Domain]] = {
    "int": {"batch_size": Int(low=8, high=512)},
    "log int": {"batch_size": Int(low=8, high=512, log=True)},
    "log float": {"lr": Float(low=1e-5, high=1e-1, log=True)},
    "float": {"dropout": Float(low=0.0, high=0.5)},
    "choice": {"batch_size": Choice(values=tuple(range(8, 60)))},
    "mixed": {
        "lr": Float(low=1e-5, high=1e-1, log=True),
        "batch_size": Int(low=8, high=512, log=True),
        "augment": Choice(values=("none", "light", "strong")),
    },
}


def proposals(search: str, space: Mapping[str, Domain], *, n: int, seed: int = 0) -> list[Observed]:
    """Propose ``n`` trials; every third is stopped early, every seventh fails."""
    history: list[Observed] = []
    for number in range(n):
        params = propose_distinct(PROPOSERS[search](space, "max", seed), space, number, history)
        assert params is not None
        value = -sum(v % 97 / 97 for v in params.values() if isinstance(v, int))
        value -= sum(v for v in params.values() if isinstance(v, float))
        status = "failed" if number % 7 == 6 else "stopped" if number % 3 == 2 else "finished"
        history.append(Observed(len(history), params, status, ((1, value - 0.1), (2, value)), value))
    return history


@pytest.mark.parametrize("search", sorted(PROPOSERS))
class TestConformance:
    """The contract."""

    @pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
    def test_distinct_and_inside_the_ranges(self, search: str, space: Mapping[str, Domain]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = proposals(search, space, n=24)
        assert len({fingerprint(o.params) for o in made}) == 24
        for observed in made:
            assert sorted(observed.params) == sorted(space)
            assert all(contains(space[name], value) for name, value in observed.params.items())

    @pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
    def test_the_seed_and_the_history_decide_alone(self, search: str, space: Mapping[str, Domain]) -> None:
        first, again = proposals(search, space, n=14), proposals(search, space, n=14)
        assert [o.params for o in first] == [o.params for o in again]
        other = proposals(search, space, n=14, seed=1)
        assert [o.params for o in first] != [o.params for o in other]

    def test_types_are_those_of_the_ranges(self, search: str) -> None:
        for observed in proposals(search, SPACES["mixed"], n=12):
            assert [type(observed.params[n]) for n in ("augment", "batch_size", "lr")] == [str, int, float]

    def test_a_finite_space_is_walked_to_its_end_and_then_refuses(self, search: str) -> None:
        space: dict[str, Domain] = {"batch_size": Int(low=1, high=3), "augment": Choice(values=("none", "light"))}
        assert num_settings(space) == 6
        made = proposals(search, space, n=6)
        assert propose_distinct(PROPOSERS[search](space, "max", 0), space, 6, made) is None

    def test_defaults_outside_the_ranges_and_running_trials_are_bearable(self, search: str) -> None:
        space = SPACES["mixed"]
        history = proposals(search, space, n=12)
        odd = Observed(0, {"lr": 7.0, "batch_size": 3, "augment": "auto"}, "finished", ((1, 0.5),), 0.5)
        running = Observed(1, history[0].params, "running", (), None)
        params = propose_distinct(PROPOSERS[search](space, "max", 0), space, 14, [odd, *history, running])
        assert params is not None
        assert all(contains(space[name], value) for name, value in params.items())


def test_tpe_finds_the_good_end_of_a_range() -> None:
    space: dict[str, Domain] = {"lr": Float(low=1e-5, high=1.0, log=True)}
    history: list[Observed] = []
    for number in range(40):
        params = propose_distinct(PROPOSERS["tpe"](space, "min", 0), space, number, history)
        assert params is not None
        loss = abs(params["lr"] - 1e-3)
        history.append(Observed(len(history), params, "finished", ((1, loss),), loss))
    late = [float(o.params["lr"]) for o in history[20:]]
    assert sorted(late)[len(late) // 2] < 5e-2
    assert min(o.value or 1.0 for o in history) < 5e-4
