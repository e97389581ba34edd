"""The rows that every forecaster must beat: a few lines of numpy each, as a GluonTS predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from vsmd import checks, random
from vsmd.data.calendars import later
from vsmd.forecasting.gaps import carried, ending
from vsmd.forecasting.series import as_values

Array = np.ndarray[Any, np.dtype[np.float64]]


def random_walk(past: Array, horizon: int, samples: int, rng: np.random.Generator, *, window: int = 60) -> Array:
    """Gaussian random walk without drift; covariance: mean outer product of the last `window` increments."""
    steps = np.diff(past[-window - 1 :], axis=0)
    values, vectors = np.linalg.eigh(steps.T @ steps / len(steps))
    root = vectors * np.sqrt(values.clip(min=0))
    return past[-1] + (rng.standard_normal((samples, horizon, past.shape[1])) @ root.T).cumsum(1)


def seasonal_naive(past: Array, horizon: int, samples: int, rng: np.random.Generator, *, season: int) -> Array:
    """The value a season ago, the last season repeated as often as needed: (samples, horizon, d), all the same."""
    ahead = past[len(past) - season + np.arange(horizon) % season]
    return np.broadcast_to(ahead, (samples, horizon, past.shape[1])).copy()


def seasonal_bootstrap(
    past: Array, horizon: int, samples: int, rng: np.random.Generator, *, season: int, window: int = 60
) -> Array:
    """The value a season ago plus what that rule missed over one of the last `window` seasons, drawn whole.

    A season's residuals stay together, over its steps and across series; beyond one season they add up.
    """
    steps = past[season:] - past[:-season]
    blocks, count = -(-horizon // season), min(window, len(steps) // season)
    starts = len(steps) - season * (1 + rng.integers(count, size=(samples, blocks)))
    drawn = steps[starts[..., None] + np.arange(season)].cumsum(1)  # (samples, blocks, season, d)
    return (past[-season:] + drawn).reshape(samples, blocks * season, -1)[:, :horizon]


NAIVE: dict[str, Callable[..., Array]] = {
    "last_value": partial(seasonal_naive, season=1), "random_walk": random_walk, "seasonal_naive": seasonal_naive,
    "seasonal_bootstrap": seasonal_bootstrap,
}  # fmt: skip


class NaivePredictor(Predictor):  # type: ignore[misc]  # GluonTS has no types
    """One of the rules `NAIVE` for targets (d, T) or (T,): `last_value`, `random_walk` (window = 60),
    `seasonal_naive` (season) or `seasonal_bootstrap` (season, window = 60).

    A missing value counts as the one before it, but for those at the end, which are forecast too: series that end apart
    are drawn apart. Raises ValueError for an unknown kind, for an option that is missing or no integer >= 1, and for
    histories that are too short.
    """

    def __init__(self, kind: str, prediction_length: int, *, seed: int = 0, **options: int) -> None:
        self.kind = checks.one_of("kind", kind, NAIVE)
        super().__init__(checks.positive_int("prediction_length", prediction_length))
        seasonal = kind.startswith("seasonal")
        for name, value in {"season": None, **options}.items() if seasonal else options.items():
            checks.positive_int(name, value)
        self.seed, self.rule = seed, partial(NAIVE[kind], **options)
        least = {"last_value": options.get("season", 1), "random_walk": options.get("window", 60) + 1}
        self.least = options["season"] * (1 + (kind == "seasonal_bootstrap")) if seasonal else least[kind]

    def predict(self, dataset: Any, num_samples: int = 100, **kwargs: Any) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a series."""
        for number, item in enumerate(dataset):
            values = as_values(item["target"], "target", self.least, missing=True)
            past, gaps, horizon = carried(values).numpy(), ending(values).numpy(), self.prediction_length
            stream = np.random.default_rng(random.generator(self.seed, self.kind, number).initial_seed())
            draws = np.empty((num_samples, horizon, past.shape[1]))
            for gap in np.unique(gaps):
                series, known = gaps == gap, past[: len(past) - gap]
                if len(known) < self.least:
                    raise ValueError(f"target: {len(known)} time steps before {gap} missing; must be {self.least}")
                known = known if series.all() else known[:, series]
                draws[..., series] = self.rule(known, gap + horizon, num_samples, stream)[:, gap:]
            yield sample_forecast(draws, item)


def sample_forecast(draws: Array, item: dict[str, Any]) -> SampleForecast:
    """Draws (samples, horizon, d) of what follows an item, as GluonTS wants them: without d where it is univariate."""
    draws = draws[..., 0] if np.ndim(item["target"]) == 1 else draws
    return SampleForecast(draws, later(item["start"], np.shape(item["target"])[-1]), item.get("item_id"))
