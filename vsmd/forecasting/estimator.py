"""The GluonTS estimator: a data set in, a trained predictor out."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import torch
from gluonts.model.estimator import Estimator

from vsmd import checks, diagnostics, random
from vsmd.adaptation import Adaptation
from vsmd.data.calendars import as_period
from vsmd.family import forward_process
from vsmd.forecasting.predictor import VSMDPredictor
from vsmd.forecasting.representation import REPRESENTATIONS, length_of
from vsmd.forecasting.series import read
from vsmd.forecasting.stopping import EarlyStopping
from vsmd.methods import METHODS
from vsmd.model import Model
from vsmd.samplers import as_solver
from vsmd.schedules import BetaSchedule
from vsmd.training import fit
from vsmd.training.data import Data

DAMPING = 0.9  # R of underdamped forecasts
ADAPTATION = Adaptation(rounds=10, paths=500, nodes=20)  # standardised data: A has little way to go
LOOKS = 20  # how often early stopping looks at the loss, in a whole run


class VSMDEstimator(Estimator):  # type: ignore[misc]  # GluonTS has no types
    """Probabilistic forecasts of d series together, by any of the six methods.

    A forward process `method` with `beta`, `damping` (default R = .9 where the method is underdamped) and
    `variational_score` is trained on one step ahead, given the past; forecasts feed their draws back in. model: any
    representation in `REPRESENTATIONS`; `options` are those of its `configured`. "increments" (`Increments`) is the
    step from a `location` over a local scale, the root mean square of the last `scale_window` ones (60), per series;
    its network is a perceptron of `depth` layers of `width`. Its options:

    - location: "last" (default of frequencies without a season, such as "B"), "season", "profile" (the mean of the last
      7 seasons), or "linear" (default of the others), a rule fitted in closed form on the lags `lags_seq`, calendar,
      dynamic features and `factors` (0) of the panel.
    - context: what the network is told, any of "scales", "lags" (the last `lags` steps, 2), "levels" and "seasons", or
      "none"; default "scales", and "seasons" where there are some and the location is not the last value.
    - drift: whether a drift may be learned (default: with a profile or a linear location).
    - rank: of a panel too wide for one network (default None).

    basis "principal" works in principal axes and starts from the data's exact Gaussian law, correlations included.
    steps, batch_size, learning_rate and the network's size have each representation's own `defaults`. bf16: the network
    works in bfloat16. patience: the last `prediction_length` steps of the training data are kept back; training stops
    where the loss on them has not improved in so many of 20 looks, and the best network is kept. solver,
    sampling_steps, denoise: of the reverse process. integer: forecasts are counts, rounded. checkpoint: a file to
    resume training from. Targets may have missing values (NaN).

    Raises ValueError for bad arguments, TypeError for options that the representation does not have, and `train`
    ValueError for targets that are too short or constant.
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
        num_feat_dynamic_real: int = 0,
        num_feat_static_real: int = 0,
        width: int | None = None,
        depth: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        bf16: bool = False,
        patience: int | None = None,
        adaptation: Adaptation | None = None,
        solver: str = "exponential",
        sampling_steps: int = 10,
        denoise: bool = True,
        integer: bool = False,
        num_samples: int = 100,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        checkpoint: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.prediction_length = checks.positive_int("prediction_length", prediction_length)
        self.freq, self.method = as_period("2000-01-03", freq).freqstr, checks.one_of("method", method, METHODS)
        kind = REPRESENTATIONS[checks.one_of("model", model, REPRESENTATIONS)]
        choices = {"basis": basis, "width": width, "depth": depth, "steps": steps, "batch_size": batch_size,
                   "learning_rate": learning_rate}  # fmt: skip
        chosen = kind.defaults | {name: value for name, value in choices.items() if value is not None}
        self.process = _process(method, beta, damping, variational_score, chosen["basis"])
        self.representation = kind.configured(self.prediction_length, self.freq, **options)
        sizes = {n: checks.positive_int(n, chosen[n]) for n in ("width", "depth", "steps", "batch_size")}
        self.network: dict[str, Any] = {n: sizes[n] for n in ("width", "depth")} | {"bf16": checks.flag("bf16", bf16)}
        self.training: dict[str, Any] = {
            "steps": sizes["steps"], "batch_size": sizes["batch_size"] * self.representation.rows,
            "learning_rate": checks.positive("learning_rate", chosen["learning_rate"]), "progress": progress,
            "adaptation": adaptation or ADAPTATION, "device": checks.device("device", device), "checkpoint": checkpoint,
        }  # fmt: skip
        as_solver(solver)
        counts = (("sampling_steps", sampling_steps), ("num_samples", num_samples))
        self.sampling: dict[str, Any] = {n: checks.positive_int(n, count) for n, count in counts}
        told = (("denoise", denoise), ("integer", integer))
        self.sampling |= {"solver": solver} | {n: checks.flag(n, value) for n, value in told}
        features = {"num_feat_dynamic_real": num_feat_dynamic_real, "num_feat_static_real": num_feat_static_real}
        self.features = {name: checks.non_negative_int(name, value) for name, value in features.items()}
        self.patience = None if patience is None else checks.positive_int("patience", patience)
        self.seed = seed

    def train(self, training_data: Iterable[dict[str, Any]], validation_data: Any = None) -> VSMDPredictor:
        """Train on a data set of targets (d, T) or (T,), all with the same d, and return the predictor."""
        if validation_data is not None:
            raise ValueError("validation_data: is not used by this estimator; `patience` keeps a part of the data back")
        held_out = 0 if self.patience is None else self.prediction_length
        least = self.representation.history + self.prediction_length + held_out
        parts = f"{length_of(self.representation)} + horizon" + " + patience's horizon" * bool(held_out)
        dynamic, static = self.features.values()
        series = [read(item, self.freq, least, 0, dynamic, static, parts) for item in training_data]
        if not series or len({s.values.shape[1] for s in series}) > 1:
            dims = sorted({s.values.shape[1] for s in series})
            raise ValueError(f"training_data: {len(series)} items with {dims} series; must be items of one number")
        training = [s.first(len(s.values) - held_out) for s in series]
        representation = self.representation.fitted(training)
        dim, data = series[0].values.shape[1], representation.training_data(training, self.seed)
        process = forward_process(self.method, (representation.size(dim),), **self.process)
        with random.first_weights(torch.Generator().manual_seed(self.seed)):
            network = representation.network(dim, sum(self.features.values()), **self.network)
        options: dict[str, Any] = {"network": network, "seed": self.seed, "units": "raw", **self.training}
        words = copy_context()
        words.run(diagnostics.COLUMN.set, "series" if process.dim == dim else "axis")
        if self.patience is None:
            model = words.run(fit, process, data, **options)
        else:
            ends = [s.last(representation.history + self.prediction_length) for s in series]
            model = words.run(self._stopped, process, data, representation.training_data(ends, self.seed), options)
        settings = {**self.sampling, **self.features, "seed": self.seed}
        return VSMDPredictor(model, representation, self.prediction_length, self.freq, **settings)

    def _stopped(self, process: Any, data: Data, held_out: Data, options: dict[str, Any]) -> Model:
        """Training that ends early; looks fall on the step before a checkpoint, so that a resume repeats none."""
        every = -(-options["steps"] // LOOKS)
        record = options["checkpoint"]
        assert self.patience is not None
        stopping = EarlyStopping(held_out, self.patience, self.seed, None if record is None else Path(record))
        looks = {*range(every - 1, options["steps"], every), max(1, options["steps"] - 1)} - {0}
        fit(process, data, checkpoint_every=every, snapshots=looks, on_snapshot=stopping, **options)
        model = stopping.best()
        model.network.to(options["device"])
        return model


def _process(
    method: str, beta: float | BetaSchedule, damping: float | None, variational_score: str | None, basis: str
) -> dict[str, Any]:
    """Arguments of `forward_process`; wrong ones are told here, not after the data."""
    if damping is None and METHODS[method].damping not in (None, 1.0):
        damping = DAMPING
    options: dict[str, Any] = {
        "beta": beta, "damping": damping, "variational_score": variational_score, "basis": basis, "prior": "gaussian",
    }  # fmt: skip
    forward_process(method, (1,), **options)
    return options
