"""Forecasting of multivariate series as GluonTS models.

    estimator = VSMDEstimator(prediction_length=30, freq="B", method="VSULD")
    predictor = estimator.train(panel.train)                       # a GluonTS predictor
    forecasts = list(predictor.predict(panel.histories))           # SampleForecast, samples (100, 30, d)
    predictor.serialize(path); VSMDPredictor.deserialize(path)     # safetensors and JSON

    predictor.forecast(panel)                                      # quantiles of what follows the panel, a DataFrame
    name, scores = choose(panel, {"linear": {}, "profile": {"location": "profile"}, …})  # on earlier windows

`NaivePredictor` gives the rows that every forecaster must beat, `accuracy` gives CRPS-Sum and its companions.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using `json`-module")  # GluonTS would like a faster reader
    import gluonts.json  # noqa: F401

from vsmd.forecasting.choice import choose
from vsmd.forecasting.estimator import VSMDEstimator
from vsmd.forecasting.evaluation import accuracy, coverage, forecast, pit
from vsmd.forecasting.increments import Increments
from vsmd.forecasting.naive import NAIVE, NaivePredictor
from vsmd.forecasting.outlook import fan_chart, outlook
from vsmd.forecasting.predictor import VSMDPredictor

__all__ = [
    "NAIVE", "Increments", "NaivePredictor", "VSMDEstimator", "VSMDPredictor", "accuracy", "choose", "coverage",
    "fan_chart", "forecast", "outlook", "pit",
]  # fmt: skip
