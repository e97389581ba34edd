"""The GluonTS estimator: a data set in, a trained predictor out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gluonts.model.estimator import Estimator

from vsmd import checks
from vsmd.adaptation import Adaptation
from vsmd.data.panels import as_period
from vsmd.family import forward_process
from vsmd.forecasting.increments import Increments, as_values, check_context, seasons
from vsmd.forecasting.predictor import VSMDPredictor, position_of
from vsmd.methods import METHODS
from vsmd.networks.conditional import ConditionalMLP
from vsmd.samplers import solver_class
from vsmd.schedules import BetaSchedule
from vsmd.training import fit

PAPER_DAMPING = 0.9  # R of the paper's underdamped forecasts
ADAPTATION = Adaptation(rounds=10, paths=500, nodes=20)  # standardised data: A has little way to go


class VSMDEstimator(Estimator):  # type: ignore[misc]  # GluonTS has no types
    """Probabilistic forecasts of d series together, by any of the six methods: the model "increments".

    One-step increments over a local scale – the root mean square of the last `scale_window` of them, per series – are
    the data of a forward process `method` with `beta`, `damping` (default R = .9 where the method is underdamped) and
    `variational_score`; matrix "full" works in their principal axes and starts from their exact Gaussian law,
    correlations included. The forecast adds sampled increments to the last values, step after step (`Increments`,
    `VSMDPredictor`). difference: 1, or a season, to forecast from the values a season ago.

    context: what the network is told: any of "scales", "lags" (the last `lags` increments), "seasons" (of `freq`), or
    "none". drift: whether a drift may be learned. steps, batch_size, learning_rate: of training, a network of `depth`
    layers of `width`. solver, sampling_steps: of the reverse process. checkpoint: a file to resume training from.
    Raises ValueError for bad arguments, and `train` for targets that are too short, constant or have missing values.
    """

    def __init__(
        self,
        prediction_length: int,
        freq: str,
        *,
        method: str = "VSULD",
        beta: float | BetaSchedule = 6.0,
        damping: float | None = None,
        variational_score: str | None = None,
        matrix: str = "full",
        scale_window: int = 60,
        difference: int = 1,
        context: Sequence[str] | str = ("scales",),
        lags: int = 2,
        drift: bool = False,
        width: int = 128,
        depth: int = 3,
        steps: int = 1_000,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        adaptation: Adaptation | None = None,
        solver: str = "heun",
        sampling_steps: int = 20,
        num_samples: int = 100,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.prediction_length = checks.positive_int("prediction_length", prediction_length)
        as_period("2000-01-03", freq)
        self.freq, self.method = freq, checks.one_of("method", method, METHODS)
        if damping is None and METHODS[method].damping not in (None, 1.0):
            damping = PAPER_DAMPING
        self.process: dict[str, Any] = {
            "beta": beta, "damping": damping, "variational_score": variational_score, "matrix": matrix,
        }  # fmt: skip
        forward_process(method, (1,), **self.process)  # wrong arguments are told here, not after the data
        self.increments = Increments(
            scale_window=checks.positive_int("scale_window", scale_window),
            difference=checks.positive_int("difference", difference),
            context=check_context(context),
            lags=checks.positive_int("lags", lags),
            periods=seasons(freq),
            drift=drift,
        )
        solver_class(solver)
        self.network = {"width": checks.positive_int("width", width), "depth": checks.positive_int("depth", depth)}
        self.training: dict[str, Any] = {
            "steps": checks.positive_int("steps", steps),
            "batch_size": checks.positive_int("batch_size", batch_size),
            "learning_rate": checks.positive("learning_rate", learning_rate),
            "adaptation": adaptation or ADAPTATION, "device": checks.device("device", device), "progress": progress,
            "checkpoint": checkpoint,
        }  # fmt: skip
        self.sampling: dict[str, Any] = {
            "solver": solver,
            "sampling_steps": checks.positive_int("sampling_steps", sampling_steps),
            "num_samples": checks.positive_int("num_samples", num_samples),
        }
        self.seed = seed

    def train(self, training_data: Iterable[dict[str, Any]], validation_data: Any = None) -> VSMDPredictor:
        """Train on a data set of targets (d, T) or (T,), all with the same d, and return the predictor."""
        if validation_data is not None:
            raise ValueError("validation_data: is not used by this estimator; leave it out")
        items = list(training_data)
        least = self.increments.history + self.prediction_length
        series = [as_values(item["target"], "target", least) for item in items]
        if not series or len({v.shape[1] for v in series}) > 1:
            found = sorted({v.shape[1] for v in series})
            raise ValueError(f"training_data: {len(series)} items with {found} series; must be items of one number")
        how, dim = self.increments.fitted(series), series[0].shape[1]
        pairs = [how.pairs(v, position_of(item["start"], self.freq)) for v, item in zip(series, items)]
        x, context = (torch.cat(parts) for parts in zip(*pairs))
        network = self._network(dim, how)
        process = forward_process(self.method, (dim,), **self.process)
        data = (x, context) if context.shape[1] else x
        model = fit(process, data, network=network, seed=self.seed, **self.training)
        if model.process.basis is not None:  # laid out as after loading: the same rounding
            model = replace(model, process=replace(model.process, basis=model.process.basis.contiguous()))
        return VSMDPredictor(model, how, self.prediction_length, self.freq, seed=self.seed, **self.sampling)

    def _network(self, dim: int, how: Increments) -> ConditionalMLP:
        with torch.random.fork_rng(devices=[]):  # the weights are a function of the seed alone
            torch.manual_seed(self.seed)
            return ConditionalMLP((dim,), features=how.features(dim), **self.network)
