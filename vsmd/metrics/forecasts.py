"""CRPS (continuous ranked probability score) of sample forecasts, and CRPS-Sum as the literature has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vsmd import checks
from vsmd.metrics._inputs import Array, real

CRPS_QUANTILES = tuple(k / 20 for k in range(1, 20))
"""The levels .05, .10, …, .95 of CRPS-Sum."""


def _forecast(samples: Array, target: Array) -> tuple[Tensor, Tensor]:
    x, y = real("samples", samples), real("target", target)
    if x.ndim < 1 or x.shape[1:] != y.shape:
        raise ValueError(f"target: shape {tuple(y.shape)}; must be that of one of the samples {tuple(x.shape)}")
    return x, y.to(x.device)


def _pinball(samples: Tensor, target: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Return 2 (1[y ≤ ŷ_q] - q)(ŷ_q - y) for each q, (len(quantiles), *shape).

    ŷ_q is the sample of rank (S - 1)q, rounded to the nearest and half to even, as in GluonTS's `SampleForecast`.
    """
    if not quantiles:
        raise ValueError("quantiles=(): must name at least one level")
    levels = torch.tensor([checks.in_range("quantiles", q, 0, 1) for q in quantiles], dtype=torch.float64)
    ranks = ((len(samples) - 1) * levels).round().long().to(samples.device)
    predicted = samples.sort(0).values[ranks]
    levels = levels.to(samples.device).view(-1, *[1] * target.ndim)
    return 2 * ((target <= predicted).double() - levels) * (predicted - target)


def crps(samples: Array, target: Array, quantiles: Sequence[float] | None = None) -> Tensor:
    """Return the CRPS of forecasts `samples` (S, *shape) at `target` (*shape), elementwise: (*shape).

    E|X - y| - ½ E|X - X'|, X and X' independent draws of the S samples: exactly ∫(F(z) - 1[z ≥ y])² dz for
    their empirical distribution function F (Gneiting, Raftery 2007), in S log S operations. In units of the
    target, 0 is perfect; one sample gives the absolute error. With `quantiles`, levels in [0, 1], the mean of
    twice their pinball losses instead.
    """
    x, y = _forecast(samples, target)
    if quantiles is not None:
        return _pinball(x, y, quantiles).mean(0)
    size = len(x)
    # E|X - X'| / 2 = Σ (2i - S - 1) x_(i) / S²; centred at y, so that it does not cancel far from 0
    x = x.sort(0).values - y
    ranks = torch.arange(1 - size, size, 2, dtype=torch.float64, device=x.device).view(-1, *[1] * y.ndim)
    return x.abs().mean(0) - (ranks * x).mean(0) / size


def quantile_crps_sum(samples: Array, target: Array, quantiles: Sequence[float] = CRPS_QUANTILES) -> float:
    """Return CRPS-Sum: the mean weighted quantile loss of the sum over the series; 0 is perfect.

    `samples` (S, …, horizon, series), `target` (…, horizon, series), leading axes (windows) optional. Both
    are summed over the series; then mean over q of Σ 2 (1[y ≤ ŷ_q] - q)(ŷ_q - y) / Σ|y|, sums over all
    windows and steps. Equals `m_sum_mean_wQuantileLoss` of GluonTS's `MultivariateEvaluator(quantiles,
    target_agg_funcs={"sum": np.sum})`. ValueError where all the sums are 0.
    """
    x, y = _forecast(samples, target)
    if y.ndim < 2:
        raise ValueError(f"target: shape {tuple(y.shape)}; must be (…, horizon, series)")
    x, y = x.sum(-1), y.sum(-1)
    weight = y.abs().sum()
    if weight == 0:
        raise ValueError("target: sums to 0 over the series at every step; the loss has no weight there")
    return (_pinball(x, y, quantiles).flatten(1).sum(1) / weight).mean().item()
