"""Accuracy against GluonTS's own MultivariateEvaluator, and coverage by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import from_wide
from vsmd.forecasting import NaivePredictor, accuracy, coverage, forecast, pit
from vsmd.metrics import CRPS_QUANTILES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gaps", [False, True])
def test_accuracy_is_those_of_gluonts(gaps: bool) -> None:
    from gluonts.evaluation import MultivariateEvaluator, make_evaluation_predictions

    noise = np.random.default_rng(0).standard_normal((140, 3)).cumsum(0) + [50, -20, 3]
    if gaps:
        noise[[-11, -7, -3], [0, 1, 0]] = np.nan
    frame = pd.DataFrame(noise, index=pd.date_range("2024-01-01", periods=140), columns=list("abc"))
    panel = from_wide(frame, "D", 4, windows=3)
    predictor: Any = NaivePredictor("random_walk", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecasts, series = make_evaluation_predictions(panel.test, predictor, num_samples=100)
        evaluator = MultivariateEvaluator(CRPS_QUANTILES, target_agg_funcs={"sum": np.sum}, num_workers=0)
        metrics, _ = evaluator(list(series), list(forecasts))
    ours = accuracy(forecast(predictor, panel), panel.targets)
    assert ours["crps"] == pytest.approx(metrics["mean_wQuantileLoss"], rel=1e-5)
    if gaps:  # in the sum GluonTS counts a missing value as zero, and its coverage is a mean over windows
        return
    assert ours["crps_sum"] == pytest.approx(metrics["m_sum_mean_wQuantileLoss"], rel=1e-5)
    assert ours["nd_sum"] == pytest.approx(metrics["m_sum_ND"], rel=1e-5)
    expected = metrics["Coverage[0.95]"] - metrics["Coverage[0.05]"]
    assert ours["coverage_90"] == pytest.approx(expected, abs=1e-9)


def test_coverage_by_hand() -> None:
    samples = np.arange(101.0).reshape(1, 101, 1, 1)  # quantile q is 100 q
    for target, expected in [(50.0, 9), (94.0, 1), (96.0, 0), (30.0, 6)]:
        assert sum(coverage(samples, np.full((1, 1, 1), target))) == expected


def test_missing_truth_counts_nowhere() -> None:
    rng = np.random.default_rng(0)
    samples, targets = rng.standard_normal((2, 50, 4, 3)), rng.standard_normal((2, 4, 3)) + 5
    changed = targets.copy()
    changed[1] = np.nan
    assert accuracy(samples, changed) == accuracy(samples[:1], targets[:1])
    assert coverage(samples, changed) == coverage(samples[:1], targets[:1])
    assert np.array_equal(pit(samples, changed), pit(samples[:1], targets[:1]))
    changed[0, :, 1] = np.nan
    with pytest.raises(ValueError, match="no step at which every series has a value"):
        accuracy(samples, changed)


@pytest.mark.parametrize("measure", [accuracy, coverage, pit])
def test_what_cannot_be_scored_is_refused(measure: Any) -> None:
    rng = np.random.default_rng(0)
    samples, targets = rng.standard_normal((2, 50, 4, 3)), rng.standard_normal((2, 4, 3)) + 5
    for bad in (np.nan, np.inf):
        broken = samples.copy()
        broken[1, 7, 2, 0] = bad
        with pytest.raises(ValueError, match="samples: 1 of 1200 values are NaN or infinite"):
            measure(broken, targets)
    with pytest.raises(ValueError, match="targets: hold infinite values"):
        measure(samples, np.where(targets > targets.min(), targets, np.inf))
    with pytest.raises(ValueError, match="targets: all are missing"):
        measure(samples, np.full_like(targets, np.nan))
    with pytest.raises(ValueError, match=r"targets: shape \(1, 4, 3\); must be"):
        measure(samples, targets[:1])
    with pytest.raises(TypeError, match="samples: must hold real numbers"):
        measure(samples.astype(str), targets)


def test_pit_by_hand() -> None:
    samples = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)

    def shares(target: float, bins: int = 4) -> list[float]:
        return pit(samples, np.full((1, 1, 1), target), bins).round(12).tolist()

    assert shares(0.5) == [1, 0, 0, 0]  # of four ranks the lowest
    assert shares(2.5) == [0, 0, 1, 0]
    assert shares(2.0) == [0, 0.5, 0.5, 0]  # a tie with one sample: two ranks
    assert shares(2.5, 2) == [0, 1]


def test_pit_of_the_samples_own_law_is_flat() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(5, size=(1, 100, 40_000, 1)).astype(float)  # many ties
    flat = pit(drawn, rng.integers(5, size=(1, 40_000, 1)).astype(float), 10)
    assert flat.sum() == pytest.approx(1)
    assert np.abs(flat - 0.1).max() < 0.005
