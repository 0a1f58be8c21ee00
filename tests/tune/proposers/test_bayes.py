"""The Gaussian process of ``bayes``: its likelihood, its fit and what it registers."""

from __future__ import annotations

import numpy as np
import pytest

from autodl_ray.tune.proposers.bayes.data import Data
from autodl_ray.tune.proposers.bayes.fit import Plausibility, drawn, most_plausible
from autodl_ray.tune.proposers.bayes.kernel import BOUNDS, FieldMatern
from autodl_ray.tune.proposers.bayes.posterior import Posterior

GROUPS = np.array([0, 1, 1, 2])


def data(count: int = 30) -> Data:
    generator = np.random.default_rng(3)
    points = generator.random((count, 4))
    values = np.sin(6 * points[:, 0]) + points[:, 3] + 0.01 * generator.standard_normal(count)
    return Data(points, points, (values - values.mean()) / values.std(), 0.1 * generator.random(count))


def test_the_likelihood_and_its_gradient_are_those_of_scikit_learn() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor

    found, kernel = data(), FieldMatern(tuple(GROUPS), (0.3, 0.5, 0.9), 1e-3, 1.2)
    theirs = GaussianProcessRegressor(kernel, alpha=found.variances + 1e-6, optimizer=None)
    theirs.fit(found.points, found.values)
    value, slope = theirs.log_marginal_likelihood(kernel.theta, eval_gradient=True)
    ours, our_slope = Plausibility(found, GROUPS, 1e-6).likelihood(kernel.theta)
    assert ours == pytest.approx(value)
    assert our_slope == pytest.approx(slope)


def test_the_fit_tells_the_fields_that_matter_from_the_others() -> None:
    found = data()
    bounds = np.log([BOUNDS["length_scale"]] * 3 + [BOUNDS["noise"], BOUNDS["variance"]])
    plausibility = Plausibility(found, GROUPS, 1e-10)
    theta, negative = most_plausible(plausibility, bounds)
    value, slope = plausibility(theta)
    assert value == pytest.approx(-negative)
    assert np.abs(slope).max() < 0.05
    assert theta[0] < theta[1]  # the sine bends; the second field is not in the values


def test_the_posterior_is_that_of_scikit_learn() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor

    found, kernel = data(), FieldMatern(tuple(GROUPS), (0.3, 0.5, 0.9), 1e-3, 1.2)
    theirs = GaussianProcessRegressor(kernel, alpha=found.variances + 1e-6, optimizer=None)
    theirs.fit(found.points, found.values)
    new = np.random.default_rng(5).random((6, 4))
    mean, deviation = Posterior(theirs, np.empty((0, 4))).predict(new)
    means, deviations = theirs.predict(new, return_std=True)
    assert mean == pytest.approx(means)
    assert deviation == pytest.approx(deviations)


def test_many_trials_in_a_good_place_promise_nothing_of_a_corner_far_from_all() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor

    generator = np.random.default_rng(4)
    good, others = 0.2 + 0.05 * generator.random((20, 2)), np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.9]])
    values = np.concatenate([np.ones(20), -np.ones(3)])
    regressor = GaussianProcessRegressor(FieldMatern((0, 1), (0.1, 0.1), 1e-4), optimizer=None, normalize_y=False)
    regressor.fit(np.concatenate([good, others]), (values - values.mean()) / values.std())
    corner = Posterior(regressor, np.empty((0, 2))).mean(np.array([[1.0, 1.0]]))
    assert corner[0] < -0.5  # in deviations from the targets' mean, where a closed one would leave it


def test_a_singular_matrix_is_implausible_and_no_error() -> None:
    points = np.zeros((2, 4))
    twice = Data(points, points, np.array([1.0, -1.0]), np.full(2, -1e-12))  # as rounding may leave it
    theta = np.array([0.0, 0.0, 0.0, -800.0, 0.0])
    assert Plausibility(twice, GROUPS, 0.0)(theta)[0] == -np.inf


def test_draws_are_plausible_differ_and_are_decided_by_the_seed() -> None:
    bounds = np.log([BOUNDS["length_scale"]] * 3 + [BOUNDS["noise"], BOUNDS["variance"]])
    plausibility = Plausibility(data(), GROUPS, 1e-10)
    best, negative = most_plausible(plausibility, bounds)
    draws = [drawn(plausibility, bounds, seed) for seed in (0, 0, *range(1, 12))]
    assert (draws[0][0] == draws[1][0]).all()
    assert np.array([theta for theta, _ in draws]).std(axis=0).min() > 0.05
    for theta, value in draws:
        assert value == pytest.approx(-plausibility(theta)[0])
        assert negative - 1e-6 <= value < negative + 20
        assert ((theta >= bounds[:, 0]) & (theta <= bounds[:, 1])).all()
    assert best[0] < np.median([theta[1] for theta, _ in draws])
