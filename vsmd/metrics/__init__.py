"""Measures of quality: optimal transport, Fréchet distance, CRPS, memorising.

Functions of tensors (numpy arrays are taken too), float64 inside. All raise a one-line ValueError that names
the argument for an empty set, a wrong shape, or NaN and infinite values, and TypeError for what is no array of real
numbers.
"""

from vsmd.metrics.distances import frechet_distance, frechet_distance_of, sliced_wasserstein2, wasserstein2
from vsmd.metrics.forecasts import CRPS_QUANTILES, crps, quantile_crps_sum
from vsmd.metrics.neighbours import memorisation

__all__ = [
    "CRPS_QUANTILES", "crps", "frechet_distance", "frechet_distance_of", "memorisation", "quantile_crps_sum",
    "sliced_wasserstein2", "wasserstein2",
]  # fmt: skip
