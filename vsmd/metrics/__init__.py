"""Measures of quality: bend of paths, optimal transport, Fréchet distance, CRPS, memorising.

Functions of tensors (numpy arrays are taken too), float64 inside. All raise a one-line ValueError that names
the argument for an empty set, a wrong shape, or NaN and infinite values, and TypeError for what is no array of real
numbers.
"""

from vsmd.metrics.distances import frechet_distance, frechet_distance_of, sliced_wasserstein2, wasserstein2
from vsmd.metrics.forecasts import CRPS_QUANTILES, crps, quantile_crps_sum
from vsmd.metrics.neighbours import memorisation
from vsmd.metrics.paths import bend, path_energy, rectified_straightness, straightness

__all__ = [
    "CRPS_QUANTILES", "bend", "crps", "frechet_distance", "frechet_distance_of", "memorisation", "path_energy",
    "quantile_crps_sum", "rectified_straightness", "sliced_wasserstein2", "straightness", "wasserstein2",
]  # fmt: skip
