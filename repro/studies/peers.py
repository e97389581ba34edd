"""Two forecasters that people would use instead: GluonTS's DeepAR, and a vector autoregression from statsmodels."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gluonts.model.estimator import Estimator
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from vsmd import checks, random
from vsmd.forecasting.evaluation import accuracy
from vsmd.forecasting.gaps import carried
from vsmd.forecasting.naive import sample_forecast
from vsmd.forecasting.series import as_values, seasons

Array = np.ndarray[Any, np.dtype[np.float64]]


class DeepAR(Estimator):  # type: ignore[misc]  # GluonTS has no types
    """GluonTS's DeepAR (Salinas et al. 2020) on panels: one network for all series, which it forecasts one by one.

    Its own defaults – 2 LSTM layers of 40, Student t, lags and time features of `freq`, batches of 32 – and an
    embedding of the series; `steps` of training. Samples of the series are joined by their index: what the series
    do together is not modelled, which the CRPS of their sum shows. Missing values are left to GluonTS.
    num_feat_dynamic_real: features that items must have. On the CPU, from `seed` alone, silent, and without a file left
    behind.
    """

    def __init__(
        self, prediction_length: int, freq: str, *, num_feat_dynamic_real: int = 0, steps: int = 5_000, seed: int = 0
    ) -> None:
        super().__init__()
        self.num_feat_dynamic_real = num_feat_dynamic_real
        self.prediction_length = checks.positive_int("prediction_length", prediction_length)
        self.steps, self.freq, self.seed = checks.positive_int("steps", steps), freq, seed
        seasons(freq)

    def train(self, training_data: Iterable[dict[str, Any]], validation_data: Any = None) -> PerSeries:
        """Train on items of targets (d, T), all with the same d."""
        from gluonts.torch.model.deepar import DeepAREstimator

        items = [one for item in training_data for one in _univariate(item)]
        count = max((int(item["feat_static_cat"][0]) for item in items), default=-1) + 1
        if not count:
            raise ValueError("training_data: 0 items")
        with _quietly(self.seed, "deepar"), tempfile.TemporaryDirectory() as folder:
            epoch = min(50, self.steps)
            trainer = {
                "max_epochs": -(-self.steps // epoch), "accelerator": "cpu", "logger": False,
                "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder,
            }  # fmt: skip
            estimator = DeepAREstimator(
                freq=self.freq,
                prediction_length=self.prediction_length,
                num_feat_static_cat=1,
                num_feat_dynamic_real=self.num_feat_dynamic_real,
                cardinality=[count],
                num_batches_per_epoch=epoch,
                trainer_kwargs=trainer,
            )
            predictor = estimator.train(items)
        return PerSeries(predictor.to("cpu"), self.prediction_length, self.seed)


class PerSeries(Predictor):  # type: ignore[misc]
    """A univariate predictor for panels: each series by itself, samples joined by their index."""

    def __init__(self, predictor: Any, prediction_length: int, seed: int) -> None:
        super().__init__(prediction_length)
        self.predictor, self.seed = predictor, seed

    def predict(self, dataset: Any, num_samples: int = 100, **kwargs: Any) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a panel."""
        for number, item in enumerate(dataset):
            with _quietly(self.seed, "deepar samples", number):
                forecasts = list(self.predictor.predict(_univariate(item), num_samples=num_samples))
            yield sample_forecast(np.stack([f.samples for f in forecasts], -1), item)


def _univariate(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The series of an item as items of their own, their number as static category."""
    target = as_values(item["target"], "target", 1, missing=True).T.numpy().astype(np.float32)
    shared = {"start": item["start"]} | {k: item[k] for k in ("feat_dynamic_real",) if k in item}
    return [{**shared, "target": row, "feat_static_cat": [i]} for i, row in enumerate(target)]


@contextmanager
def _quietly(seed: int, *labels: str | int) -> Iterator[None]:
    """Global random states set from the seed and put back after; no log lines or warnings of the libraries."""
    stream, before = random.generator(seed, *labels).initial_seed(), np.random.get_state()  # noqa: NPY002 - GluonTS's
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "gluonts")]
    levels = [logger.level for logger in loggers]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        torch.manual_seed(stream)
        np.random.seed(stream % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


FULL = 30  # series, beyond which a VAR is one of factors
FACTORS = 20
MOST_LAGS = 5
TRIED = 5  # windows of the training part that choose between differences


@dataclass(frozen=True)
class FittedVAR:
    r"""y_t - y_{t-m} = scale (f_t loadings + u_t), m the difference, with two autoregressions:

        f_t = constant + sum_i f_{t-i} A_i + N(0, S),   u_t = rho u_{t-1} + N(0, (1 - rho^2) variance)

    lags: A (p, k, k); root: R with S = R^T R. u and its parts (d,) are 0 where all series are factors, k = d.
    """

    difference: int
    scale: Array
    loadings: Array
    constant: Array
    lags: Array
    root: Array
    rho: Array
    variance: Array

    @classmethod
    def of(cls, values: Array, difference: int) -> FittedVAR:
        """Fitted to values (T, d) by least squares; the number of lags by the Bayesian information criterion."""
        from statsmodels.tsa.api import VAR as Regression

        x = values[difference:] - values[:-difference]
        scale = x.std(0)
        scale[scale == 0] = 1.0
        x, dim = x / scale, x.shape[1]
        loadings = np.eye(dim)
        if dim > FULL:
            loadings = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :FACTORS].T
        factors = x @ loadings.T
        most = max(0, min(MOST_LAGS, len(x) // (20 * len(loadings))))
        model = Regression(factors)
        order = int(model.select_order(most).bic)
        regression = model.fit(order, trend="c")
        rest = x - factors @ loadings
        spread = (rest**2).sum(0)
        rho = np.where(spread > 1e-12 * len(x), (rest[1:] * rest[:-1]).sum(0) / np.maximum(spread, 1e-300), 0.0)
        variances, vectors = np.linalg.eigh(
            np.cov((factors[order:] - regression.fittedvalues).T).reshape(2 * (len(loadings),))
        )
        return cls(
            difference,
            scale,
            loadings,
            np.asarray(regression.params)[0],
            np.transpose(np.asarray(regression.coefs).reshape(order, *variances.shape, *variances.shape), (0, 2, 1)),
            (vectors * np.sqrt(variances.clip(min=0))).T,
            rho.clip(-0.999, 0.999),
            spread / len(x) * (dim > FULL),
        )

    def sample(self, past: Array, horizon: int, samples: int, rng: np.random.Generator) -> Array:
        """Paths (samples, horizon, d) after values (T, d), T at least `difference` + lags + 1."""
        m, p = self.difference, len(self.lags)
        x = (past[m:] - past[:-m])[-p - 1 :] / self.scale
        factors = [np.tile(f, (samples, 1)) for f in x @ self.loadings.T]
        rest = x[-1] - x[-1] @ self.loadings.T @ self.loadings
        paths = [np.tile(y, (samples, 1)) for y in past[-m:]]
        for _ in range(horizon):
            noise = rng.standard_normal((samples, len(self.loadings))) @ self.root
            factors.append(self.constant + noise + sum(factors[-i] @ self.lags[i - 1] for i in range(1, p + 1)))
            innovation = np.sqrt((1 - self.rho**2) * self.variance)
            rest = self.rho * rest + innovation * rng.standard_normal((samples, len(self.scale)))
            paths.append(paths[-m] + self.scale * (factors[-1] @ self.loadings + rest))
        return np.stack(paths[m:], 1)


class VAR(Estimator):  # type: ignore[misc]
    """A vector autoregression on increments, Gaussian residuals simulated.

    Differences of one step or of one of the seasons of `freq`: what forecasts the last `TRIED` windows of the training
    part best (CRPS-Sum). Lags, at most 5, by the Bayesian information criterion (statsmodels). Beyond 30 series it is
    a VAR of 20 principal components, the rest of each series an autoregression of its own. Missing values are carried
    forward; features are not used.
    """

    def __init__(self, prediction_length: int, freq: str, *, seed: int = 0) -> None:
        super().__init__()
        self.prediction_length = checks.positive_int("prediction_length", prediction_length)
        self.seed, self.differences = seed, (1, *seasons(freq))

    def train(self, training_data: Iterable[dict[str, Any]], validation_data: Any = None) -> VARPredictor:
        """FittedVAR to one item of targets (d, T)."""
        items = list(training_data)
        if len(items) != 1:
            raise ValueError(f"training_data: {len(items)} items; a VAR is fitted to one")
        horizon, held = self.prediction_length, self.prediction_length * TRIED
        least = held + 2 * max(self.differences) + 10 * MOST_LAGS
        values = carried(as_values(items[0]["target"], "target", least, missing=True)).numpy()
        ends = [len(values) - held + w * horizon for w in range(TRIED)]
        truth = np.stack([values[end : end + horizon] for end in ends])
        trials = {}
        for difference in self.differences if len(self.differences) > 1 else ():
            fit = FittedVAR.of(values[: ends[0]], difference)
            rng = np.random.default_rng(random.generator(self.seed, "var trials", difference).initial_seed())
            trials[difference] = accuracy(np.stack([fit.sample(values[:e], horizon, 100, rng) for e in ends]), truth)
        best = min(trials, key=lambda m: trials[m]["crps_sum"], default=self.differences[0])
        return VARPredictor(FittedVAR.of(values, best), self.prediction_length, self.seed)


class VARPredictor(Predictor):  # type: ignore[misc]
    """Simulates a fitted VAR; made by `VAR.train`."""

    def __init__(self, fit: FittedVAR, prediction_length: int, seed: int) -> None:
        super().__init__(prediction_length)
        self.fit, self.seed = fit, seed

    def predict(self, dataset: Any, num_samples: int = 100, **kwargs: Any) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a panel."""
        least = self.fit.difference + len(self.fit.lags) + 1
        for number, item in enumerate(dataset):
            past = carried(as_values(item["target"], "target", least, missing=True)).numpy()
            rng = np.random.default_rng(random.generator(self.seed, "var", number).initial_seed())
            yield sample_forecast(self.fit.sample(past, self.prediction_length, num_samples, rng), item)
