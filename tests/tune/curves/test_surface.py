"""The process over settings and epochs: its gradient, its certainty where it has seen something."""

from __future__ import annotations

import numpy as np

from autodl_ray.tune.curves.surface import Points, _likelihood, _Pairs, _prior_theta, conditioned, fitted


def _points(sweeps: int) -> Points:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(10), 3)
    x = rng.uniform(size=(10, 3))[owner]
    return Points(x, np.tile([0.0, 0.3, 0.6], 10), owner, rng.normal(size=(30, sweeps)))


def test_gradient_is_that_of_finite_differences() -> None:
    points = _points(sweeps=4)
    pairs, values, theta = _Pairs.of(points), np.random.default_rng(1).normal(size=30), _prior_theta(3)
    _, slope = _likelihood(theta, values, pairs)
    step = 1e-5
    for i, direction in enumerate(np.eye(len(theta))):
        above, below = (_likelihood(theta + s * step * direction, values, pairs)[0] for s in (1, -1))
        assert abs((above - below) / (2 * step) - slope[i]) < 1e-5


def test_fit_raises_the_likelihood() -> None:
    points = _points(sweeps=0)
    values = points.x[:, 0] + points.t
    pairs, start = _Pairs.of(points), _prior_theta(3)
    found = fitted(points, values, steps=15)
    assert _likelihood(found, values, pairs)[0] < _likelihood(start, values, pairs)[0]
    assert found[0] < found[1]  # the only column that matters has the shortest length


def test_certain_where_seen_and_uncertain_far_away() -> None:
    points = _points(sweeps=0)
    values = points.x[:, 0] + points.t
    surface = conditioned(_prior_theta(3), points, values)
    mean, spread = surface.predict(points)
    far = Points(np.full((1, 3), 9.0), np.ones(1), np.array([-1]), np.zeros((1, 0)))
    assert np.abs(mean - values).max() < 0.05
    assert spread.max() < 0.1 < surface.predict(far)[1][0]
    assert np.allclose(surface.mean(points), mean)


def test_another_trial_of_the_same_settings_is_less_certain() -> None:
    points = _points(sweeps=0)
    surface = conditioned(_prior_theta(3), points, points.t)
    own = points.take(np.array([2]))
    other = Points(own.x, own.t, np.array([99]), own.told)
    assert surface.predict(own)[1][0] < surface.predict(other)[1][0]


def test_earlier_sweeps_are_believed_until_something_else_is_seen() -> None:
    told = np.linspace(-1, 1, 30)[:, None]
    points = Points(np.random.default_rng(0).uniform(size=(30, 3)), np.ones(30), np.arange(30), told)
    few = points.take(np.array([0]))
    agreed = conditioned(_prior_theta(3), few, few.mean).predict(points)[0]
    contradicted = conditioned(fitted(points, -points.mean, steps=15), points, -points.mean).predict(points)[0]
    assert np.corrcoef(agreed, told[:, 0])[0, 1] > 0.99
    assert np.corrcoef(contradicted, told[:, 0])[0, 1] < -0.9
