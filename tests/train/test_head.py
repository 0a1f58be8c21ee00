"""The head on frozen features against scikit-learn, and its choice of strength."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from autodl_ray.data.sampling import class_weights
from autodl_ray.errors import BundleError, InputError
from autodl_ray.train.head import L2_GRID, HeadFit, _distinct_columns, fit_head, load_head, save_head
from tests.train.sources import digits


@pytest.fixture(scope="module")
def fitted() -> HeadFit:
    return fit_head(*features(), num_classes=10, seed=0)


def features() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    source = digits()

    def flat(images: np.ndarray) -> np.ndarray:
        return images[..., 0].reshape(len(images), -1).astype(np.float32)

    return flat(source.images), source.labels, flat(source.val_images), source.val_labels


def test_as_good_as_scikit_learn_on_raw_features(fitted: HeadFit) -> None:
    x, y, vx, _ = features()
    fit = fitted
    mean, std = x.mean(0), x.std(0)
    std[std == 0] = 1
    peer = LogisticRegression(C=1 / (fit.l2 * len(x)), max_iter=500, tol=1e-5).fit((x - mean) / std, y)
    theirs = peer.predict_proba((vx - mean) / std)
    logits = vx @ fit.weight.T + fit.bias
    ours = np.exp(logits - logits.max(1, keepdims=True))
    ours /= ours.sum(1, keepdims=True)
    assert np.abs(ours - theirs).max() < 0.03
    assert fit.scores["accuracy"] >= 0.95


def test_class_weights_are_scikit_learns_and_help_a_rare_class() -> None:
    x, y, vx, vy = features()
    kept = np.flatnonzero((y != 8) | (np.cumsum(y == 8) % 20 == 1))
    x, y = x[kept], y[kept]
    weights = tuple(class_weights(y, 10).tolist())
    plain, fit = (fit_head(x, y, vx, vy, num_classes=10, seed=0, class_weights=w) for w in (None, weights))
    mean, std = x.mean(0), x.std(0)
    std[std == 0] = 1
    peer = LogisticRegression(C=1 / (fit.l2 * len(x)), max_iter=1000, tol=1e-5, class_weight=dict(enumerate(weights)))
    theirs = peer.fit((x - mean) / std, y).predict_proba((vx - mean) / std)
    logits = vx @ fit.weight.T + fit.bias
    ours = np.exp(logits - logits.max(1, keepdims=True))
    ours /= ours.sum(1, keepdims=True)
    assert np.abs(ours - theirs).max() < 0.05
    before, after = (((vx @ f.weight.T + f.bias).argmax(1) == vy)[vy == 8].mean() for f in (plain, fit))
    assert after > before + 0.1


def test_strength_is_chosen_on_validation(fitted: HeadFit) -> None:
    fit = fitted
    losses = {row["l2"]: row["loss"] for row in fit.rows}
    assert set(losses) <= set(L2_GRID)
    assert losses[fit.l2] == min(losses.values())
    assert fit.scores["loss"] == pytest.approx(losses[fit.l2], abs=1e-3)


def test_constant_and_huge_features_do_no_harm() -> None:
    x, y, vx, vy = features()
    extra, val_extra = (np.column_stack([v, np.full(len(v), 7, np.float32), v[:, :1] * 0 + 1e6]) for v in (x, vx))
    fit = fit_head(extra, y, val_extra, vy, num_classes=10, seed=0)
    assert np.isfinite(fit.weight).all()
    assert fit.scores["accuracy"] >= 0.95


def test_equal_columns_change_the_head_by_nothing_but_the_sharing_of_weights() -> None:
    x, y, vx, vy = features()
    rare = np.zeros((len(x), 2), np.float32)
    rare[-1, 1] = 9.0  # equal to a constant column but for the last row
    wide, val_wide = np.column_stack([x, x, rare]), np.column_stack([vx, vx, vx[:, :2] * 0])
    columns = _distinct_columns(wide)
    constant = len(np.unique(x, axis=1).T)
    assert len(columns.first) == constant + 1
    assert np.array_equal(wide[:, columns.first][:, columns.kind], wide)
    once, twice = (fit_head(a, y, b, vy, num_classes=10, seed=0) for a, b in ((x, vx), (wide, val_wide)))
    assert twice.weight.shape == (10, 130)
    np.testing.assert_allclose(twice.weight[:, :64], twice.weight[:, 64:128], atol=1e-6)
    assert twice.scores["accuracy"] == pytest.approx(once.scores["accuracy"], abs=0.01)


def test_class_without_training_samples() -> None:
    x, y, vx, vy = features()
    fit = fit_head(x, y, vx, vy, num_classes=11, seed=0)
    assert fit.weight.shape == (11, 64)
    assert fit.scores["accuracy"] >= 0.95


def test_many_rows_are_searched_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodl_ray.train.head._MAX_SEARCH_VALUES", 1)
    fit = fit_head(*features(), num_classes=10, seed=0)
    assert fit.scores["accuracy"] >= 0.95


def test_saved_and_read(fitted: HeadFit, tmp_path: Path) -> None:
    fit = fitted
    save_head(fit, tmp_path / "head.safetensors")
    weight, bias = load_head(tmp_path / "head.safetensors")
    assert np.array_equal(weight.numpy(), fit.weight)
    assert np.array_equal(bias.numpy(), fit.bias)
    (tmp_path / "head.safetensors").write_bytes(b"no")
    with pytest.raises(BundleError, match="The head cannot be read"):
        load_head(tmp_path / "head.safetensors")


def test_shapes_that_do_not_belong_together() -> None:
    x, y, vx, vy = features()
    with pytest.raises(InputError, match="do not belong together"):
        fit_head(x, y[:-1], vx, vy, num_classes=10, seed=0)
    with pytest.raises(InputError, match="no samples"):
        fit_head(x[:0], y[:0], vx, vy, num_classes=10, seed=0)
