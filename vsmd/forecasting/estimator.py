"""The GluonTS estimator: a data set in, a trained predictor out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from gluonts.model.estimator import Estimator
from torch import nn

from vsmd import checks
from vsmd.adaptation import Adaptation
from vsmd.data.panels import as_period
from vsmd.family import forward_process
from vsmd.forecasting.increments import Increments, check_context, check_location
from vsmd.forecasting.predictor import MODELS, Representation, VSMDPredictor
from vsmd.forecasting.series import Series, read, seasons
from vsmd.forecasting.stopping import EarlyStopping
from vsmd.forecasting.windows import SCALINGS, Windows
from vsmd.methods import METHODS
from vsmd.model import Model
from vsmd.networks.conditional import ConditionalMLP
from vsmd.networks.recurrent import Recurrent
from vsmd.samplers import as_solver
from vsmd.schedules import BetaSchedule
from vsmd.training import fit
from vsmd.training.data import Data

PAPER_DAMPING = 0.9  # R of the paper's underdamped forecasts
ADAPTATION = Adaptation(rounds=10, paths=500, nodes=20)  # standardised data: A has little way to go
CHECKS = 20  # how often early stopping looks, in a whole run
DEFAULTS: dict[str, dict[str, Any]] = {  # of the two models' networks and training
    "increments": {
        "basis": "principal",
        "width": 128,
        "depth": 3,
        "steps": 1_000,
        "batch_size": 512,
        "learning_rate": 2e-3,
    },
    "paper": {"basis": "coordinates", "width": 64, "depth": 2, "steps": 2_500, "batch_size": 32, "learning_rate": 1e-3},
}


class VSMDEstimator(Estimator):  # type: ignore[misc]  # GluonTS has no types
    """Probabilistic forecasts of d series together, by any of the six methods.

    A forward process `method` with `beta`, `damping` (default R = .9 where the method is underdamped) and
    `variational_score` is trained on one step ahead, given the past; forecasts feed their draws back in. Two models:

    - "increments": the step from a `location` over a local scale – the root mean square of the last `scale_window`
      ones, per series (`Increments`). location: "last", "season", "profile" (the mean of the last 7 seasons), or
      "linear", a rule fitted in closed form on the lags `lags_seq`, calendar, dynamic features and `factors` of the
      panel. context: what the network is told: any of "scales", "lags" (the last `lags` steps), "levels" and "seasons",
      or "none". drift: whether a drift may be learned (default: with a profile or a linear location). rank: of a panel
      too wide for one network. The network is a perceptron of `depth` layers of `width`.
    - "paper": windows scaled by `scaling` ("mean" or "std") and an LSTM, `depth` layers of `width`, that reads
      `context_length` steps (default 3 horizons) of lags `lags_seq` and time features (`Windows`); batch_size windows.

    basis "principal" works in principal axes and starts from the data's exact Gaussian law, correlations included.
    steps, batch_size, learning_rate and the network's size have each model's own defaults (`DEFAULTS`). bf16: the
    network works in bfloat16. patience: stop where the loss on the last `prediction_length` steps of the training data, kept
    back for it, has not improved in so many of 20 looks, and keep the best. solver, sampling_steps: of the reverse
    process. checkpoint: a file to resume training from. Targets may have missing values (NaN).
    Raises ValueError for bad arguments, and `train` for targets that are too short or constant.
    """

    def __init__(
        self,
        prediction_length: int,
        freq: str,
        *,
        model: str = "increments",
        method: str = "VSULD",
        beta: float | BetaSchedule = 6.0,
        damping: float | None = None,
        variational_score: str | None = None,
        basis: str | None = None,
        context_length: int | None = None,
        lags_seq: Sequence[int] | None = None,
        scaling: str = "std",
        num_feat_dynamic_real: int = 0,
        num_feat_static_real: int = 0,
        location: str = "last",
        factors: int = 0,
        scale_window: int = 60,
        context: Sequence[str] | str = ("scales",),
        lags: int = 2,
        drift: bool | None = None,
        rank: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        bf16: bool = False,
        patience: int | None = None,
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
        given = {
            "basis": basis, "width": width, "depth": depth, "steps": steps, "batch_size": batch_size,
            "learning_rate": learning_rate,
        }  # fmt: skip
        defaults = DEFAULTS[checks.one_of("model", model, MODELS)]
        chosen = {k: defaults[k] if v is None else v for k, v in given.items()}
        if damping is None and METHODS[method].damping not in (None, 1.0):
            damping = PAPER_DAMPING
        self.process: dict[str, Any] = {
            "beta": beta, "damping": damping, "variational_score": variational_score, "basis": chosen["basis"],
        }  # fmt: skip
        forward_process(method, (1,), **self.process)  # wrong arguments are told here, not after the data
        periods = seasons(freq)
        seq = None if lags_seq is None else tuple(checks.positive_int("lags_seq", lag) for lag in lags_seq)
        if seq == ():
            raise ValueError("lags_seq=(): must name at least one lag")
        self.representation: Representation
        if model == "paper":
            self.representation = Windows(
                context_length=checks.positive_int(
                    "context_length", 3 * self.prediction_length if context_length is None else context_length
                ),
                horizon=self.prediction_length,
                lags_seq=seq or (1, *(periods or (2,))),
                freq=freq,
                scaling=checks.one_of("scaling", scaling, SCALINGS),
            )
            chosen["batch_size"] = checks.positive_int("batch_size", chosen["batch_size"]) * self.prediction_length
        else:
            self.representation = Increments(
                location=check_location(location, periods, freq),
                lags_seq=seq or tuple(sorted({1, 2, 3, *periods, *(p + 1 for p in periods)})),
                periods=periods,
                factors=_count("factors", factors),
                scale_window=checks.positive_int("scale_window", scale_window),
                context=check_context(context),
                lags=checks.positive_int("lags", lags),
                drift=location in ("profile", "linear") if drift is None else drift,
                rank=None if rank is None else checks.positive_int("rank", rank),
            )
        as_solver(solver)
        self.network = {
            "width": checks.positive_int("width", chosen["width"]),
            "depth": checks.positive_int("depth", chosen["depth"]),
            "bf16": bool(bf16),
        }
        self.training: dict[str, Any] = {
            "steps": checks.positive_int("steps", chosen["steps"]),
            "batch_size": checks.positive_int("batch_size", chosen["batch_size"]),
            "learning_rate": checks.positive("learning_rate", chosen["learning_rate"]),
            "adaptation": adaptation or ADAPTATION, "device": checks.device("device", device), "progress": progress,
            "checkpoint": checkpoint,
        }  # fmt: skip
        self.sampling: dict[str, Any] = {
            "solver": solver,
            "sampling_steps": checks.positive_int("sampling_steps", sampling_steps),
            "num_samples": checks.positive_int("num_samples", num_samples),
        }
        self.features: dict[str, int] = {}
        for name, value in (("dynamic", num_feat_dynamic_real), ("static", num_feat_static_real)):
            self.features[f"num_feat_{name}_real"] = _count(f"num_feat_{name}_real", value)
        self.patience = None if patience is None else checks.positive_int("patience", patience)
        self.seed = seed

    def train(self, training_data: Iterable[dict[str, Any]], validation_data: Any = None) -> VSMDPredictor:
        """Train on a data set of targets (d, T) or (T,), all with the same d, and return the predictor."""
        if validation_data is not None:
            raise ValueError("validation_data: is not used by this estimator; `patience` keeps a part of the data back")
        kept = 0 if self.patience is None else self.prediction_length
        least = self.representation.history + self.prediction_length + kept
        series = [read(item, self.freq, least, 0, *self.features.values()) for item in training_data]
        if not series or len({s.values.shape[1] for s in series}) > 1:
            found = sorted({s.values.shape[1] for s in series})
            raise ValueError(f"training_data: {len(series)} items with {found} series; must be items of one number")
        cut = [s.first(len(s.values) - kept) for s in series]
        how = self.representation.fitted(cut)
        dim, data = series[0].values.shape[1], self._data(how, cut)
        process = forward_process(self.method, (how.size(dim),), **self.process)
        options: dict[str, Any] = {"network": self._network(dim, how), "seed": self.seed, **self.training}
        if self.patience is None:
            model = fit(process, data, **options)
        else:
            tails = [s.last(how.history + self.prediction_length) for s in series]
            model = self._stopped(process, data, self._data(how, tails), options)
        settings = {**self.sampling, **self.features, "seed": self.seed}
        return VSMDPredictor(model, how, self.prediction_length, self.freq, **settings)

    def _data(self, how: Representation, series: list[Series]) -> Data:
        """What `fit` trains on: a table of increments, or a sampler of windows."""
        if isinstance(how, Windows):
            return how.sampler(series)
        x, context = how.pairs(series, self.seed)
        return (x, context) if context.shape[1] else x

    def _stopped(self, process: Any, data: Data, held_out: Data, options: dict[str, Any]) -> Model:
        """Training that ends early; looks fall on the step before a checkpoint, so that a resume repeats none."""
        every = -(-options["steps"] // CHECKS)
        record = options["checkpoint"]
        assert self.patience is not None
        stopping = EarlyStopping(held_out, self.patience, self.seed, None if record is None else Path(record))
        looks = {*range(every - 1, options["steps"], every), max(1, options["steps"] - 1)} - {0}
        fit(process, data, checkpoint_every=every, snapshots=looks, on_snapshot=stopping, **options)
        model = stopping.best()
        model.network.to(options["device"])
        return model

    def _network(self, dim: int, how: Representation) -> nn.Module:
        given = sum(self.features.values())
        width, depth, bf16 = (self.network[name] for name in ("width", "depth", "bf16"))
        with torch.random.fork_rng(devices=[]):  # the weights are a function of the seed alone
            torch.manual_seed(self.seed)
            if isinstance(how, Windows):
                return Recurrent(
                    (dim,), how.lags_seq, how.horizon, how.features(given), hidden=width, layers=depth, bf16=bool(bf16)
                )
            shape, features = (how.size(dim),), how.features(dim, given)
            return ConditionalMLP(shape, features, width=width, depth=depth, bf16=bool(bf16))


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name}={value!r}: must be an integer >= 0")
    return int(value)
