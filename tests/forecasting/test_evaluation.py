"""Scores against GluonTS's own MultivariateEvaluator, and coverage by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import from_wide
from vsmd.forecasting import NaivePredictor, coverage, forecast, scores_of
from vsmd.metrics import CRPS_QUANTILES


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_gluonts() -> None:
    from gluonts.evaluation import MultivariateEvaluator, make_evaluation_predictions

    noise = np.random.default_rng(0).standard_normal((140, 3)).cumsum(0) + [50, -20, 3]
    frame = pd.DataFrame(noise, index=pd.date_range("2024-01-01", periods=140), columns=list("abc"))
    panel = from_wide(frame, "D", 4, windows=3)
    predictor: Any = NaivePredictor("random_walk", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecasts, series = make_evaluation_predictions(panel.test, predictor, num_samples=100)
        evaluator = MultivariateEvaluator(CRPS_QUANTILES, target_agg_funcs={"sum": np.sum}, num_workers=0)
        metrics, _ = evaluator(list(series), list(forecasts))
    ours = scores_of(forecast(predictor, panel), panel.targets)
    assert ours["crps_sum"] == pytest.approx(metrics["m_sum_mean_wQuantileLoss"], rel=1e-5)
    assert ours["nd_sum"] == pytest.approx(metrics["m_sum_ND"], rel=1e-5)
    assert ours["crps"] == pytest.approx(metrics["mean_wQuantileLoss"], rel=1e-5)
    expected = metrics["Coverage[0.95]"] - metrics["Coverage[0.05]"]
    assert ours["coverage_90"] == pytest.approx(expected, abs=1e-9)


def test_coverage_by_hand() -> None:
    samples = np.arange(101.0).reshape(1, 101, 1, 1)  # quantile q is 100 q
    for target, expected in [(50.0, 9), (94.0, 1), (96.0, 0), (30.0, 6)]:
        assert sum(coverage(samples, np.full((1, 1, 1), target))) == expected
