"""The rows that every forecaster must beat: three lines of numpy each, as a GluonTS predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from vsmd import checks, random
from vsmd.data.panels import later
from vsmd.forecasting.increments import as_values

Array = np.ndarray[Any, np.dtype[np.float64]]


def last_value(past: Array, horizon: int, samples: int, rng: np.random.Generator) -> Array:
    """The last value (d,), repeated: (samples, horizon, d), all the same."""
    return np.broadcast_to(past[-1], (samples, horizon, past.shape[1])).copy()


def random_walk(past: Array, horizon: int, samples: int, rng: np.random.Generator, *, window: int = 60) -> Array:
    """Gaussian random walk without drift; covariance: mean outer product of the last `window` increments."""
    steps = np.diff(past[-window - 1 :], axis=0)
    values, vectors = np.linalg.eigh(steps.T @ steps / len(steps))
    root = vectors * np.sqrt(values.clip(min=0))
    return past[-1] + (rng.standard_normal((samples, horizon, past.shape[1])) @ root.T).cumsum(1)


def seasonal_naive(past: Array, horizon: int, samples: int, rng: np.random.Generator, *, season: int) -> Array:
    """The value a season ago, the last season repeated as often as needed."""
    ahead = past[len(past) - season + np.arange(horizon) % season]
    return np.broadcast_to(ahead, (samples, horizon, past.shape[1])).copy()


NAIVE: dict[str, Callable[..., Array]] = {
    "last_value": last_value, "random_walk": random_walk, "seasonal_naive": seasonal_naive,
}  # fmt: skip


class NaivePredictor(Predictor):  # type: ignore[misc]  # GluonTS has no types
    """`last_value`, `random_walk` (window = 60) or `seasonal_naive` (season) for targets (d, T) or (T,).

    Raises ValueError for an unknown kind and for histories that are too short.
    """

    def __init__(self, kind: str, prediction_length: int, *, seed: int = 0, **options: int) -> None:
        self.kind = checks.one_of("kind", kind, NAIVE)
        super().__init__(checks.positive_int("prediction_length", prediction_length))
        for name, value in options.items():
            checks.positive_int(name, value)
        self.seed, self.rule = seed, partial(NAIVE[kind], **options)
        self.least = options.get("season", options.get("window", 60) + 1 if kind == "random_walk" else 1)

    def predict(self, dataset: Any, num_samples: int = 100, **kwargs: Any) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a series."""
        for number, item in enumerate(dataset):
            past = as_values(item["target"], "target", self.least).numpy()
            stream = np.random.default_rng(random.generator(self.seed, self.kind, number).initial_seed())
            draws = self.rule(past, self.prediction_length, num_samples, stream)
            draws = draws[..., 0] if np.ndim(item["target"]) == 1 else draws
            yield SampleForecast(draws, later(item["start"], np.shape(item["target"])[-1]), item.get("item_id"))
