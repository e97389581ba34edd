"""Naive rows against numbers worked out by hand, and on the exchange-rate benchmark where it is there."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from repro.studies.sets.panels import panel as named_panel
from vsmd.data.calendars import as_period
from vsmd.forecasting import NaivePredictor, accuracy, forecast

needs_data = pytest.mark.skipif(not os.environ.get("VSMD_DATA"), reason="VSMD_DATA is not set")


def items(*targets: Any) -> list[dict[str, Any]]:
    return [{"start": as_period("2024-01-01", "D"), "target": np.array(t, dtype=float)} for t in targets]


def test_last_value_and_season_by_hand() -> None:
    target = [[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]]
    (one,) = NaivePredictor("last_value", 3).predict(items(target), num_samples=2)
    assert one.samples.tolist() == [[[5, 5]] * 3] * 2
    assert str(one.start_date) == "2024-01-06"
    (two,) = NaivePredictor("seasonal_naive", 5, season=3).predict(items(target), num_samples=1)
    assert two.samples[0].tolist() == [[3, 7], [4, 6], [5, 5], [3, 7], [4, 6]]
    (flat,) = NaivePredictor("last_value", 3).predict(items(target[0]), num_samples=4)
    assert flat.samples.shape == (4, 3)


def test_random_walk_has_the_covariance_of_the_last_steps() -> None:
    steps = np.array([[9.0, 9.0], [1.0, 1.0], [-1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])  # window 4 leaves the first out
    target = np.vstack([np.zeros(2), steps.cumsum(0)]).T
    (walk,) = NaivePredictor("random_walk", 3, window=4).predict(items(target), num_samples=40_000)
    moved = walk.samples - target[:, -1]
    assert np.allclose(moved.mean(0), 0, atol=0.05)
    for h in range(3):  # (1 + 1 + 4 + 0)/4 = 1.5 each a step, covariance (1 - 1)/4 = 0
        assert np.allclose(np.cov(moved[:, h].T), (h + 1) * 1.5 * np.eye(2), atol=0.1)


def test_seasonal_bootstrap_by_hand() -> None:
    """Seasons of 2: three of them, so that the residual blocks are (10, 20) and (30, 40), with -1 times that beside."""
    first = [1.0, 2.0, 11.0, 22.0, 41.0, 62.0]
    target = np.array([first, [-v for v in first]])
    (drawn,) = NaivePredictor("seasonal_bootstrap", 3, season=2).predict(items(target), num_samples=200)
    assert np.array_equal(drawn.samples[..., 1], -drawn.samples[..., 0])  # drawn together across series
    paths = {tuple(path) for path in drawn.samples[..., 0].tolist()}
    once = {(51.0, 82.0): [61.0, 81.0], (71.0, 102.0): [81.0, 101.0]}  # a second season adds to the first
    assert paths == {(*block, third) for block, thirds in once.items() for third in thirds}
    (recent,) = NaivePredictor("seasonal_bootstrap", 2, season=2, window=1).predict(items(target), num_samples=20)
    assert {tuple(path) for path in recent.samples[..., 0].tolist()} == {(71.0, 102.0)}


def test_missing_values_count_as_the_one_before() -> None:
    nan = float("nan")
    (one,) = NaivePredictor("seasonal_naive", 3, season=3).predict(items([[nan, 1, 2, nan, 4]]), num_samples=1)
    assert one.samples[0].tolist() == [[2], [2], [4]]


def test_a_ragged_end_is_forecast_too() -> None:
    """The walk's spread grows with the gap, and what is missing there is no step of 0; seasons go on in their phase."""
    rng, nan = np.random.default_rng(0), float("nan")
    target = rng.choice([-1.0, 1.0], (2, 200)).cumsum(1)
    target[0, -20:] = nan
    (walk,) = NaivePredictor("random_walk", 3, window=60).predict(items(target), num_samples=4_000)
    assert np.allclose(walk.samples.var(0) / [[21, 1], [22, 2], [23, 3]], 1, atol=0.1)
    (one,) = NaivePredictor("seasonal_naive", 2, season=3).predict(items([[1, 2, 3, 4, nan], [1, 2, 3, 4, 5]]), 1)
    assert one.samples[0].tolist() == [[3, 3], [4, 4]]
    with pytest.raises(ValueError, match="target: 60 time steps before 20 missing; must be 61"):
        list(NaivePredictor("random_walk", 3).predict(items(target[:, 120:])))


def test_same_seed_same_samples() -> None:
    data = items(np.random.default_rng(0).standard_normal((2, 70)).cumsum(1))
    first, again, other = (next(NaivePredictor("random_walk", 3, seed=s).predict(data)).samples for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@needs_data
def test_exchange_rate_rows() -> None:
    panel = named_panel("exchange_rate_nips")
    last = accuracy(forecast(NaivePredictor("last_value", 30), panel, 1), panel.targets)
    assert last["crps_sum"] == pytest.approx(0.0062, abs=5e-5)
    walk = accuracy(forecast(NaivePredictor("random_walk", 30), panel, 2_000), panel.targets)
    assert walk["crps_sum"] == pytest.approx(0.0045, abs=2e-4)  # 100 samples, as the protocol has it, scatter by 2.2e-4


@needs_data
@pytest.mark.parametrize(("kind", "naive", "bootstrap"), [("load", 0.0744, 0.0565), ("renewables", 0.2452, 0.1895)])
def test_simbench_rows(kind: str, naive: float, bootstrap: float) -> None:
    panel = named_panel(f"simbench_{kind}")
    measured = accuracy(forecast(NaivePredictor("seasonal_naive", 24, season=24), panel, 1), panel.targets)
    assert measured["crps_sum"] == pytest.approx(naive, abs=5e-5)
    measured = accuracy(forecast(NaivePredictor("seasonal_bootstrap", 24, season=24), panel, 300), panel.targets)
    assert measured["crps_sum"] == pytest.approx(bootstrap, rel=0.06)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NaivePredictor("last", 3), "kind='last': must be one of"),
        (lambda: NaivePredictor("last_value", 0), "prediction_length=0"),
        (lambda: NaivePredictor("random_walk", 3, window=0), "window=0"),
        (lambda: NaivePredictor("seasonal_naive", 3), "season=None: must be an integer >= 1"),
        (lambda: list(NaivePredictor("random_walk", 3).predict(items(np.ones((2, 60))))), "60 time steps; must be at"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_season_of_the_last_value_asks_for_as_much_past() -> None:
    assert NaivePredictor("last_value", 2, season=7).least == 7
    assert NaivePredictor("last_value", 2).least == 1
