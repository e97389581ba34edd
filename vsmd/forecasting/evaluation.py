"""CRPS-Sum and its companions, for any GluonTS predictor on any panel; what the `MultivariateEvaluator` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vsmd.data.panels import Panel
from vsmd.metrics import CRPS_QUANTILES, crps, quantile_crps_sum

LEVELS = tuple(k / 10 for k in range(1, 10))
"""Nominal coverages of `coverage`."""


def forecast(predictor: Any, panel: Panel, num_samples: int = 100) -> np.ndarray:
    """Samples (windows, num_samples, horizon, d) of a predictor for the test windows of a panel."""
    return np.stack([f.samples for f in predictor.predict(panel.histories, num_samples=num_samples)])


def quantiles(samples: np.ndarray, levels: Any) -> np.ndarray:
    """Sample quantiles by GluonTS's rule, the sample of rank (S - 1) q: (levels, windows, horizon, d)."""
    ranks = np.round((samples.shape[1] - 1) * np.asarray(levels)).astype(int)
    return np.moveaxis(np.sort(samples, 1)[:, ranks], 1, 0)


def scores_of(samples: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores of samples (windows, S, horizon, d) at targets (windows, horizon, d); lower is better but for coverage.

    crps_sum: of the sum over the series, 19 quantiles, weighted by sum |y| (`vsmd.metrics.quantile_crps_sum`). crps:
    the same over all series in place of their sum. nd_sum: sum |y - median| / sum |y| of the sum. coverage_90: share of
    true values between the .05 and the .95 quantile, over all series, windows and steps.
    """
    draws = torch.from_numpy(np.moveaxis(samples, 1, 0))
    truth = torch.from_numpy(np.asarray(targets, dtype=np.float64))
    total, median = targets.sum(-1), quantiles(samples.sum(-1), [0.5])[0]
    low, high = quantiles(samples, [0.05, 0.95])
    return {
        "crps_sum": quantile_crps_sum(draws, truth),
        "crps": float(crps(draws, truth, CRPS_QUANTILES).sum() / truth.abs().sum()),
        "nd_sum": float(np.abs(total - median).sum() / np.abs(total).sum()),
        "coverage_90": float(((low <= targets) & (targets <= high)).mean()),
    }


def coverage(samples: np.ndarray, targets: np.ndarray) -> list[float]:
    """Share of true values inside the central intervals of nominal coverage .1, …, .9 (`LEVELS`), in that order."""
    bounds = [quantiles(samples, [0.5 - level / 2, 0.5 + level / 2]) for level in LEVELS]
    return [float(((low <= targets) & (targets <= high)).mean()) for low, high in bounds]
