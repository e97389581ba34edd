"""The forecasting experiments of notebook 05: what one run is, for the six methods and for the naive rows."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from vsmd.data.panel_sources import panel
from vsmd.data.panels import Panel
from vsmd.experiments.runs import Result
from vsmd.forecasting import NAIVE, NaivePredictor, VSMDEstimator, coverage, forecast, scores_of
from vsmd.forecasting.evaluation import LEVELS, quantiles
from vsmd.forecasting.increments import seasons

Row = dict[str, Any]
CRPS_COLUMNS = [
    "dataset", "protocol", "method", "model", "a_mode", "solver", "nfe", "seed", "selected", "crps_sum", "crps",
    "nd_sum", "coverage_90", "train_seconds", "forecast_seconds", "peak_rss_mb",
]  # fmt: skip
SELECTED = {"VSULD": ("heun", 40)}  # method, solver and evaluations a step that validation (table crps_selection) chose
FAN = [0.05, 0.25, 0.5, 0.75, 0.95]  # quantiles of the fan charts
FAN_SERIES = 3


def panel_of(dataset: str, protocol: str) -> Panel:
    """The panel under a protocol: "original" (its test windows), or "rolling20", 20 windows that end its training part.

    The second never sees a test window: it is what configurations are chosen by.
    """
    full = panel(dataset)
    return full if protocol == "original" else full.validation(20)


def _rows(
    key: Row, samples: np.ndarray, data: Panel, seconds: tuple[float, float]
) -> tuple[Row, list[Row], np.ndarray]:
    """The row of crps.csv, those of crps_coverage.csv, and the fan chart's quantiles of one set of forecasts."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    timing = {"train_seconds": seconds[0], "forecast_seconds": seconds[1], "peak_rss_mb": round(peak, 1)}
    row = {**key, **scores_of(samples, data.targets), **timing}
    shares = [{**key, "level": level, "coverage": c} for level, c in zip(LEVELS, coverage(samples, data.targets))]
    fan = np.moveaxis(quantiles(samples[..., :FAN_SERIES], FAN), 0, -1)  # (windows, horizon, series, quantile)
    index = np.indices(fan.shape[:3]).reshape(3, -1).T
    return {c: row.get(c) for c in CRPS_COLUMNS}, shares, np.hstack([index, fan.reshape(-1, len(FAN))])


def baselines(dataset: str, seeds: list[int], protocol: str = "original", samples: int = 100) -> Result:
    """The naive rows: last_value, seasonal_naive, and for each seed random_walk (covariance of the last 60 steps)."""
    warnings.simplefilter("ignore", FutureWarning)  # pandas and GluonTS about business-day periods
    data = panel_of(dataset, protocol)
    rows: list[Row] = []
    shares: list[Row] = []
    fans: dict[str, np.ndarray] = {}
    for kind in NAIVE:
        options = {"season": max(seasons(data.freq) or (5,))} if kind == "seasonal_naive" else {}
        for seed in seeds if kind == "random_walk" else seeds[:1]:
            start = time.perf_counter()
            drawn = forecast(NaivePredictor(kind, data.prediction_length, seed=seed, **options), data, samples)
            key = {"dataset": dataset, "protocol": protocol, "method": kind, "seed": seed, "selected": 0}
            row, share, fan = _rows(key, drawn, data, (0.0, time.perf_counter() - start))
            rows.append(row)
            shares += share
            if kind == "random_walk" and seed == seeds[0]:
                fans[f"fan_{dataset}_{protocol}_{kind}_{seed}"] = fan
    return Result({"crps": rows, "crps_coverage": shares}, fans)


def run(
    dataset: str,
    method: str,
    seed: int,
    protocol: str = "original",
    steps: int = 1_000,
    samples: int = 100,
    solvers: list[str] = ["heun"],  # noqa: B006 - never mutated
    nfes: list[int] = [40],  # noqa: B006
    workdir: Path | None = None,
) -> Result:
    """Train one method with one seed, forecast all windows with each solver at each number of evaluations a step."""
    warnings.simplefilter("ignore", FutureWarning)
    data = panel_of(dataset, protocol)
    checkpoint = None if workdir is None else workdir / "training.safetensors"
    estimator = VSMDEstimator(
        data.prediction_length, data.freq, method=method, steps=steps, seed=seed, checkpoint=checkpoint
    )
    start = time.perf_counter()
    predictor = estimator.train(data.train)
    trained = time.perf_counter() - start
    base: Row = {
        "dataset": dataset, "protocol": protocol, "method": method, "model": "increments",
        "a_mode": predictor.model.process.variational_score,
    }  # fmt: skip
    rows: list[Row] = []
    shares: list[Row] = []
    fans: dict[str, np.ndarray] = {}
    for solver in solvers:
        for nfe in nfes:
            predictor = predictor.with_solver(solver, nfe)
            start = time.perf_counter()
            drawn = forecast(predictor, data, samples)
            seconds = (trained, time.perf_counter() - start)
            chosen = int(protocol == "original" and SELECTED.get(method) == (solver, nfe))
            key = {**base, "solver": solver, "nfe": nfe, "seed": seed, "selected": chosen}
            row, share, fan = _rows(key, drawn, data, seconds)
            rows.append(row)
            if (solver, nfe) == (solvers[0], nfes[0]):
                shares += share
                fans[f"fan_{dataset}_{protocol}_{method}_{seed}"] = fan
    return Result({"crps": rows, "crps_coverage": shares}, fans)


CANDIDATES: dict[str, dict[str, Any]] = {
    "scales": {},
    "no context": {"context": "none"},
    "scales, lags": {"context": ("scales", "lags")},
    "scales, 3,000 steps": {"steps": 3_000},
    "scales, drift": {"drift": True},
    "scales, diagonal": {"matrix": "diagonal"},
}


def candidate(dataset: str, name: str, seed: int, method: str = "VSULD", steps: int = 1_000) -> Result:
    """CRPS-Sum of one of the `CANDIDATES` on the 20 windows that end the training part: a row of crps_selection."""
    warnings.simplefilter("ignore", FutureWarning)
    data = panel_of(dataset, "rolling20")
    settings = {"steps": steps, **CANDIDATES[name]}
    estimator = VSMDEstimator(data.prediction_length, data.freq, method=method, seed=seed, **settings)
    scores = scores_of(forecast(estimator.train(data.train), data), data.targets)
    key = {"dataset": dataset, "candidate": name, "method": method, "seed": seed}
    return Result({"crps_selection": [{**key, **scores}]})


def available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those of the data sets that can be had here, and for the others the reason why not."""
    here: list[str] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            panel(name)
            here.append(name)
        except (FileNotFoundError, ImportError, ValueError) as error:
            missing[name] = str(error)
    return here, missing


__all__ = ["CANDIDATES", "CRPS_COLUMNS", "available", "baselines", "candidate", "panel_of", "run"]
