"""What the models behind the strategies are told of trials that finished, were cut short, failed, or run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autodl_ray.spec import Choice, Domain, Float, Int
from autodl_ray.tune.contracts import Observed, SearchContext
from autodl_ray.tune.proposers.bayes import BayesProposer
from autodl_ray.tune.proposers.bayes.targets import targets_of
from autodl_ray.tune.proposers.by_optuna import OptunaProposer, gp, tpe
from autodl_ray.tune.proposers.cma import ranks_of
from tests.tune.proposers.sweeps import SPACES, context_of, ended, made

LR: dict[str, Domain] = {"lr": Float(low=1e-5, high=1e-1, log=True)}


def trial(number: int, status: str, *values: float) -> Observed:
    """A trial that reported ``values`` at its epochs; its lr is its own."""
    curve = tuple(enumerate(values, start=1))
    best = max(values) if values else None
    return Observed(number, {"lr": 1e-4 * (number + 1)}, status, curve, best)  # type: ignore[arg-type]


EVERY = [
    trial(0, "finished", 0.1, 0.5, 0.4),
    trial(1, "stopped", 0.3, 0.2),
    trial(2, "paused", 0.35),
    trial(3, "failed"),
    trial(4, "running", 0.2),
    trial(5, "running"),
    trial(6, "failed", 0.9),
]


class TestOptuna:
    """The adapter."""

    @pytest.mark.parametrize("make", [tpe, gp])
    def test_states_and_values(self, make: type[OptunaProposer]) -> None:
        told = make(context_of(LR)).told(EVERY)
        states = [t.state.name for t in told]
        assert states == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "RUNNING", "RUNNING", "FAIL"]
        assert [t.value for t in told] == [0.5, 0.2, 0.35, None, None, None, None]  # the best; of pruned ones the last
        assert told[1].intermediate_values == {1: 0.3, 2: 0.2}
        assert [t.params["lr"] for t in told] == [o.params["lr"] for o in EVERY]

    def test_a_trial_is_told_again_when_it_went_on(self) -> None:
        proposer = tpe(context_of(LR))
        first = proposer.told(EVERY)
        resumed = [*EVERY[:2], trial(2, "running", 0.35), *EVERY[3:]]
        assert proposer.told(resumed)[2].state.name == "RUNNING"
        after = proposer.told([*EVERY[:2], trial(2, "finished", 0.35, 0.6, 0.7), *EVERY[3:]])
        assert (after[2].state.name, after[2].value) == ("COMPLETE", 0.7)
        assert after[1] is first[1]  # what has not changed is not made again

    def test_inactive_fields_are_absent_for_tpe_and_in_the_middle_for_gp(self) -> None:
        done = [ended(0, {"optimizer": "sgd", "momentum": 0.9})]
        assert tpe(context_of(SPACES["conditional"])).told(done)[0].params == {"optimizer": "sgd", "momentum": 0.9}
        whole = gp(context_of(SPACES["conditional"])).told(done)[0].params
        assert whole["weight_decay"] == pytest.approx((1e-6 * 1e-1) ** 0.5)

    def test_numbers_outside_move_to_the_end_and_words_without_a_place_are_left_out(self) -> None:
        proposer = tpe(context_of(LR))
        odd = [Observed(0, {"lr": 5.0}, "finished", ((1, 0.5),), 0.5), Observed(1, {"lr": "auto"}, "running", (), None)]
        assert [t.params for t in proposer.told(odd)] == [{"lr": 1e-1}]

    def test_of_many_trials_the_best_and_the_newest_are_told(self) -> None:
        history = [trial(n, "finished", 1.0 if n == 7 else n / 10_000) for n in range(800)]
        proposer = tpe(SearchContext({"lr": Float(low=1e-5, high=1.0, log=True)}, "max", 0, 1))
        kept = proposer._bounded(proposer.told(history))
        numbers = [t.number - 1 for t in kept]
        assert len(kept) == 300
        assert numbers == sorted(numbers)
        assert 7 in numbers
        assert set(range(550, 800)) < set(numbers)


class TestBayes:
    """Our Gaussian process."""

    def whole(self, *values: float) -> list[Observed]:
        """Three whole trials that gain 0.1, 0.2 and 0.3 after the second of three epochs."""
        return [trial(n, "finished", 0.1, v, v + 0.1 * (n + 1)) for n, v in enumerate(values)]

    def test_a_trial_that_was_cut_is_not_told_as_if_it_were_whole(self) -> None:
        told = targets_of([*self.whole(0.4, 0.5, 0.6), trial(3, "stopped", 0.2, 0.3)], "max")
        assert [t.value for t in told] == pytest.approx([0.5, 0.7, 0.9, 0.3 + 0.2])
        assert [t.kind for t in told] == ["measured"] * 3 + ["extrapolated"]
        assert told[3].spread == pytest.approx(1.4826 * 0.1 + 0.25 * 0.2)
        assert [t.spread for t in told[:3]] == [0.0] * 3

    def test_paused_and_running_trials_are_told_likewise_and_failed_ones_as_the_worst(self) -> None:
        history = [
            *self.whole(0.4, 0.5, 0.6),
            trial(3, "paused", 0.2, 0.3),
            trial(4, "running", 0.1),
            trial(5, "failed"),
        ]
        told = targets_of(history, "max")
        assert [(t.number, t.kind) for t in told[3:]] == [(3, "extrapolated"), (4, "extrapolated"), (5, "failed")]
        assert told[5].value == min(t.value for t in told[:5])
        assert told[5].spread > 0

    def test_before_three_are_whole_the_highest_epoch_that_three_reached_counts(self) -> None:
        history = [
            trial(0, "finished", 0.1, 0.2, 0.9),
            trial(1, "stopped", 0.1, 0.3),
            trial(2, "stopped", 0.1, 0.4),
            trial(3, "stopped", 0.25),
        ]
        told = targets_of(history, "max")
        assert [t.value for t in told] == pytest.approx([0.2, 0.3, 0.4, 0.25 + 0.2])

    def test_a_loss_is_turned_round(self) -> None:
        history = [trial(0, "finished", 0.9, 0.5), trial(1, "finished", 0.8, 0.6), trial(2, "finished", 0.7, 0.65)]
        assert [t.value for t in targets_of(history, "min")] == [-0.5, -0.6, -0.65]

    def test_no_more_than_128_are_told_and_the_best_is_among_them(self) -> None:
        history = [trial(n, "finished", 1.0 if n == 7 else n / 10_000) for n in range(500)]
        told = BayesProposer(SearchContext({"lr": Float(low=1e-5, high=1.0)}, "max", 0, 1)).told(history)
        assert len(told) == 128
        assert 7 in [t.number for t in told]

    def test_a_batch_without_results_is_spread(self) -> None:
        space: dict[str, Domain] = {"dropout": Float(low=0.0, high=1.0)}
        context = SearchContext(space, "max", 0, 1)
        history: list[Observed] = []
        for n in range(8):
            value = -((n / 7 - 0.45) ** 2)
            history.append(Observed(n, {"dropout": n / 7}, "finished", ((1, value),), value))
        batch = []
        for n in range(8, 12):
            params = BayesProposer(context).propose(n, 0, history)
            batch.append(float(params["dropout"]))
            history.append(Observed(n, params, "running", (), None))
        assert abs(batch[0] - 0.45) < 0.05
        gaps = [abs(a - b) for i, a in enumerate(batch) for b in batch[:i]]
        assert min(gaps) > 1e-4  # a smooth curve is nearly known: further away nothing is to be gained

    def test_it_finds_the_best_of_a_mixed_space(self) -> None:
        space: dict[str, Domain] = {
            "optimizer": Choice(values=("sgd", "adamw")),
            "batch_size": Int(low=8, high=256, log=True),
            "lr": Float(low=1e-5, high=1e-1, log=True),
        }
        assert best_of(space, "bayes") > 0.95
        assert best_of(space, "bayes") >= best_of(space, "random")


def best_of(space: dict[str, Domain], search: str) -> float:
    """Return the best of 25 trials on a smooth hill."""
    import math

    from autodl_ray.tune.proposers import make_proposer

    proposer = make_proposer(search, SearchContext(space, "max", 0, 1))
    history: list[Observed] = []
    for number in range(25):
        params = proposer.propose(number, 0, history)
        assert params is not None
        value = 1 - (math.log10(params["lr"]) + 3) ** 2 / 4 - (math.log2(params["batch_size"]) - 5) ** 2 / 20
        value -= 0.3 * (params["optimizer"] == "sgd")
        history.append(Observed(number, params, "finished", ((1, value),), value))
    return max(o.value or -9.0 for o in history)


class TestCma:
    """Ranks of a generation."""

    def test_finished_before_cut_before_failed(self) -> None:
        trials: Sequence[Observed] = [
            trial(0, "failed"),
            trial(1, "stopped", 0.9),
            trial(2, "stopped", 0.1, 0.2),
            trial(3, "finished", 0.1, 0.2, 0.3),
            trial(4, "finished", 0.1, 0.2, 0.5),
            trial(5, "paused", 0.1, 0.3),
        ]
        assert ranks_of(trials, "max") == [5, 4, 3, 1, 0, 2]
        assert ranks_of(trials, "min")[3:5] == [1, 0] or ranks_of(trials, "min")[3:5] == [0, 1]


@pytest.mark.parametrize("search", ["random", "qmc", "grid", "one_factor"])
def test_strategies_without_a_model_do_not_look_at_results(search: str) -> None:
    steps = made(search, SPACES["mixed"], 14)
    from autodl_ray.tune.proposers import make_proposer

    proposer = make_proposer(search, context_of(SPACES["mixed"], num_samples=14))
    for number, step in enumerate(steps):
        blank = [Observed(o.number, o.params, "running", (), None) for o in step.history]
        assert proposer.propose(number, 0, blank) == step.params
