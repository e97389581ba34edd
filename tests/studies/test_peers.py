"""The peers: what they recover of processes of their own kind, seeds, silence, and what they refuse."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro.studies.peers import FACTORS, FULL, VAR, DeepAR, FittedVAR
from vsmd.data.calendars import as_period


def items(values: Any, freq: str = "D") -> list[dict[str, Any]]:
    return [{"start": as_period("2024-01-01", freq), "target": np.asarray(values, dtype=float).T}]


def autoregression(steps: int, dim: int = 2, seed: int = 0) -> np.ndarray:
    """A walk whose increments are a VAR(1): x_t = x_{t-1} A + N(0, S)."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, dim))
    for t in range(1, steps):
        x[t] = x[t - 1] @ matrix(dim) + rng.standard_normal(dim) @ np.linalg.cholesky(covariance(dim)).T
    return x.cumsum(0)


def matrix(dim: int) -> np.ndarray:
    return 0.5 * np.eye(dim) + np.diag([0.3] * (dim - 1), 1)


def covariance(dim: int) -> np.ndarray:
    return 0.4 * np.eye(dim) + 0.6


def test_a_var_is_recovered() -> None:
    fit = FittedVAR.of(autoregression(10_000), 1)
    assert len(fit.lags) == 1
    back = np.diag(1 / fit.scale) @ fit.lags[0] @ np.diag(fit.scale)
    assert np.allclose(back, matrix(2), atol=0.04)
    assert np.allclose(fit.root.T @ fit.root * np.outer(fit.scale, fit.scale), covariance(2), atol=0.05)


def test_its_samples_have_the_law_of_the_process() -> None:
    """Mean and covariance two steps ahead, by hand."""
    past = autoregression(10_000)
    paths = FittedVAR.of(past, 1).sample(past, 2, 20_000, np.random.default_rng(0))
    step = past[-1] - past[-2]
    a, s = matrix(2), covariance(2)
    assert np.allclose(paths.mean(0)[1], past[-1] + step @ a + step @ a @ a, atol=0.15)
    spread = (np.eye(2) + a).T @ s @ (np.eye(2) + a) + s
    assert np.allclose(np.cov(paths[:, 1].T), spread, rtol=0.08)


def test_many_series_are_factors_and_the_rest() -> None:
    """Two common walks drive all series: their forecasts move together, as much as each moves."""
    rng, dim = np.random.default_rng(0), FULL + 5
    common = rng.standard_normal((3_000, 2)).cumsum(0)
    weights = rng.standard_normal((2, dim))
    past = common @ weights + 0.3 * rng.standard_normal((3_000, dim)).cumsum(0)
    fit = FittedVAR.of(past, 1)
    assert fit.loadings.shape == (FACTORS, dim)
    moved = fit.sample(past, 1, 4_000, rng)[:, 0] - past[-1]
    expected = weights.T @ weights + 0.09 * np.eye(dim)
    assert np.allclose(np.diag(np.cov(moved.T)), np.diag(expected), rtol=0.2)
    total = np.ones(dim) @ expected @ np.ones(dim)
    assert moved.sum(1).var() == pytest.approx(total, rel=0.2)


def test_the_season_is_found_by_validation() -> None:
    rng, days = np.random.default_rng(0), 60
    values = np.tile(10 * rng.standard_normal((24, 2)), (days, 1)) + 0.1 * rng.standard_normal((24 * days, 2))
    predictor = VAR(24, "h").train(items(values, "h"))
    assert predictor.fit.difference == 24
    (forecast,) = predictor.predict(items(values, "h"), num_samples=50)
    assert np.abs(forecast.samples.mean(0) - values[-24:]).max() < 0.5


def test_var_seeds_and_gaps() -> None:
    values = autoregression(400)
    values[100:104, 0] = np.nan
    first, again, other = (next(VAR(3, "D", seed=s).train(items(values)).predict(items(values))) for s in (0, 0, 1))
    assert first.samples.shape == (100, 3, 2)
    assert str(first.start_date) == "2025-02-04"
    assert np.array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)


def test_deepar_is_silent_repeatable_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    values = autoregression(120)
    values[50, 1] = np.nan
    state: Any = np.random.get_state()  # noqa: NPY002
    draw = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        predictor = DeepAR(3, "D", steps=2, seed=seed).train(items(values))
        drawn.append(next(predictor.predict(items(values), num_samples=7)).samples)
    assert drawn[0].shape == (7, 3, 2)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    after: Any = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], state[1])
    assert torch.equal(torch.get_rng_state(), draw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepAR(0, "D"), "prediction_length=0"),
        (lambda: DeepAR(3, "D", steps=0), "steps=0"),
        (lambda: DeepAR(3, "sometimes"), "freq='sometimes': must be"),
        (lambda: DeepAR(3, "D").train([]), "training_data: 0 items"),
        (lambda: VAR(3, "D").train([]), "training_data: 0 items; a VAR is fitted to one"),
        (lambda: VAR(3, "D").train(items(np.ones((20, 2)))), "20 time steps; must be at least 79"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_deepar_takes_features() -> None:
    """A series that is its feature: forecasts follow what is known ahead of time."""
    rng = np.random.default_rng(0)
    driver = (rng.random(400 + 5) < 0.5).astype(float)
    (item,) = items(np.stack([10 + 5 * driver[:400], 20 + 5 * driver[:400]], 1) + rng.normal(0, 0.05, (400, 2)))
    estimator = DeepAR(5, "D", num_feat_dynamic_real=1, steps=150, seed=0)
    predictor = estimator.train([{**item, "feat_dynamic_real": driver[None, :400]}])
    (forecast,) = predictor.predict([{**item, "feat_dynamic_real": driver[None]}], num_samples=40)
    high, low = (forecast.samples.mean(0)[driver[400:] == on] for on in (1, 0))
    assert len(high)
    assert len(low)
    assert (high.mean(0) - low.mean(0) > 2.5).all()
