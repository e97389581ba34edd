"""CRPS-Sum and its companions, for any GluonTS predictor on any panel; what the `MultivariateEvaluator` gives.

True values that are missing (NaN) are left out of every measure; samples must be finite, and of the targets' shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vsmd import checks
from vsmd.data.panels import Panel
from vsmd.metrics import CRPS_QUANTILES, crps, quantile_crps_sum
from vsmd.metrics._inputs import real

LEVELS = tuple(k / 10 for k in range(1, 10))
"""Nominal coverages of `coverage`."""


def forecast(predictor: Any, panel: Panel, num_samples: int = 100) -> np.ndarray:
    """Samples (windows, num_samples, horizon, d) of a predictor for the test windows of a panel."""
    return np.stack([f.samples for f in predictor.predict(panel.histories, num_samples=num_samples)])


def quantiles(samples: np.ndarray, levels: Any) -> np.ndarray:
    """Sample quantiles by GluonTS's rule, the sample of rank (S - 1) q: (levels, windows, horizon, d)."""
    ranks = np.round((samples.shape[1] - 1) * np.asarray(levels)).astype(int)
    return np.moveaxis(np.sort(samples, 1)[:, ranks], 1, 0)


def _scored(samples: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, targets in float64, and which of these are there; ValueError for what cannot be scored."""
    drawn, targets = real("samples", samples).numpy(), real("targets", targets, finite=False).numpy()
    if drawn.ndim < 2 or drawn.shape[:1] + drawn.shape[2:] != targets.shape:
        raise ValueError(f"targets: shape {targets.shape}; must be (windows, horizon, d) of samples {drawn.shape}")
    if np.isinf(targets).any():
        raise ValueError("targets: hold infinite values; must be finite, or NaN where missing")
    if not (known := ~np.isnan(targets)).any():
        raise ValueError("targets: all are missing; at least one value is needed")
    return np.asarray(samples), targets, known


def accuracy(samples: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Measures of samples (windows, S, horizon, d) at targets (windows, horizon, d); lower is better but for coverage.

    crps_sum: of the sum over the series, 19 quantiles, weighted by sum |y| (`vsmd.metrics.quantile_crps_sum`). crps:
    the same over all series in place of their sum. nd_sum: sum |y - median| / sum |y| of the sum. coverage_90: share of
    true values between the .05 and the .95 quantile, over all series, windows and steps. Steps at which a series is
    missing do not count for the sum; ValueError where none is left.
    """
    samples, targets, known = _scored(samples, targets)
    complete = known.all(-1)
    if not complete.any():
        raise ValueError("targets: no step at which every series has a value; the sum cannot be scored")
    draws = np.moveaxis(samples, 1, 0)
    each, truth = torch.from_numpy(draws[:, known]), torch.from_numpy(targets[known])
    total, median = targets.sum(-1)[complete], quantiles(samples.sum(-1), [0.5])[0][complete]
    return {
        "crps_sum": quantile_crps_sum(torch.from_numpy(draws[:, complete]), torch.from_numpy(targets[complete])),
        "crps": float(crps(each, truth, CRPS_QUANTILES).sum() / truth.abs().sum()),
        "nd_sum": float(np.abs(total - median).sum() / np.abs(total).sum()),
        "coverage_90": _inside(samples, targets, known, 0.9),
    }


def coverage(samples: np.ndarray, targets: np.ndarray) -> list[float]:
    """Share of true values inside the central intervals of nominal coverage .1, …, .9 (`LEVELS`), in that order."""
    scored = _scored(samples, targets)
    return [_inside(*scored, level) for level in LEVELS]


def _inside(samples: np.ndarray, targets: np.ndarray, known: np.ndarray, level: float) -> float:
    low, high = quantiles(samples, [0.5 - level / 2, 0.5 + level / 2])
    return float(((low <= targets) & (targets <= high))[known].mean())


def pit(samples: np.ndarray, targets: np.ndarray, bins: int = 20) -> np.ndarray:
    """Histogram of the probability integral transform: shares (bins,) of true values by their rank among the samples.

    A value with l samples below and u not above it counts evenly over [l, u + 1] / (S + 1), so that ties – nights
    without sun – are no spikes (Czado, Gneiting, Held 2009). Calibrated forecasts give 1 / bins everywhere; a hump is
    too wide a forecast, a bowl too narrow a one.
    """
    (samples, targets, known), size = _scored(samples, targets), np.shape(samples)[1]
    low = ((samples < targets[:, None]).sum(1) / (size + 1))[known]
    high = (((samples <= targets[:, None]).sum(1) + 1) / (size + 1))[known]
    edges = np.linspace(0, 1, checks.positive_int("bins", bins) + 1)[:, None]
    return np.diff(((edges - low) / (high - low)).clip(0, 1).mean(1))
