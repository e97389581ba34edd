"""The trained forecaster: autoregressive sampling of standardised increments, windows × samples in one batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor
from torch import Tensor

from vsmd import checks, random
from vsmd.data.panels import as_period, later
from vsmd.forecasting.increments import Increments, as_values
from vsmd.model import Model, load
from vsmd.networks.conditional import ConditionalMLP
from vsmd.samplers import integrate, make_solver, solver_class, time_grid
from vsmd.scores import Score

ROWS = 8_192  # paths that are sampled at once


class VSMDPredictor(Predictor):  # type: ignore[misc]  # GluonTS has no types
    """A GluonTS predictor of panels of d series; made by `VSMDEstimator.train`.

    model: of the standardised increments. increments: their representation. solver, sampling_steps: of the reverse
    process, once a step of the horizon and for all paths together. Without drift the law of the increments is
    symmetric: every path drawn is used with its mirror image (antithetic draws), which halves the cost and centres the
    fan on the last value. Same seed and data set, same samples.
    """

    def __init__(
        self,
        model: Model,
        increments: Increments,
        prediction_length: int,
        freq: str,
        *,
        solver: str = "heun",
        sampling_steps: int = 20,
        num_samples: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(prediction_length=checks.positive_int("prediction_length", prediction_length))
        as_period("2000-01-03", freq)
        solver_class(solver)
        self.model, self.increments, self.freq, self.solver = model, increments, freq, solver
        self.sampling_steps = checks.positive_int("sampling_steps", sampling_steps)
        self.num_samples, self.seed = checks.positive_int("num_samples", num_samples), seed

    @property
    def evaluations(self) -> int:
        """Network evaluations a step of the horizon."""
        return self.sampling_steps * solver_class(self.solver).evaluations

    def with_solver(self, solver: str, evaluations: int) -> VSMDPredictor:
        """The same predictor with another solver, at `evaluations` network evaluations a step of the horizon."""
        steps = max(1, checks.positive_int("evaluations", evaluations) // solver_class(solver).evaluations)
        names = ("num_samples", "seed")
        settings: dict[str, Any] = {n: getattr(self, n) for n in names} | {"solver": solver, "sampling_steps": steps}
        return VSMDPredictor(self.model, self.increments, self.prediction_length, self.freq, **settings)

    def predict(
        self, dataset: Iterable[dict[str, Any]], num_samples: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a series, samples (num_samples, horizon, d) – (num_samples, horizon) if univariate.

        Raises ValueError for a series that is too short, has missing values or another number of series than d.
        """
        count = checks.positive_int("num_samples", self.num_samples if num_samples is None else num_samples)
        series, number = iter(dataset), 0
        while items := list(islice(series, max(1, ROWS // count))):
            samples = self._sample([self._past(item) for item in items], count, number, seed)
            for item, draws in zip(items, samples):
                flat = np.ndim(item["target"]) == 1
                start = later(as_period(item["start"], self.freq), np.shape(item["target"])[-1])
                yield SampleForecast(draws[..., 0] if flat else draws, start, item.get("item_id"))
            number += len(items)

    def _past(self, item: dict[str, Any]) -> tuple[Tensor, int]:
        """The part of a history that is needed (history, d), and the calendar position of what follows it."""
        target = np.asarray(item["target"])
        least, dim = self.increments.history, self.model.process.dim
        values = as_values(target[..., -least:], "target", least)
        if values.shape[1] != dim:
            raise ValueError(f"target: {values.shape[1]} series; the predictor was trained on {dim}")
        return values, position_of(item["start"], self.freq) + target.shape[-1]

    @torch.no_grad()
    def _sample(self, pasts: list[tuple[Tensor, int]], count: int, number: int, seed: int | None) -> np.ndarray:
        """Samples (windows, count, horizon, d) for windows number, number + 1, …; each window has its own stream."""
        model, seed = self.model, self.seed if seed is None else seed
        process, device = model.process, model.score.device
        assert isinstance(model.network, ConditionalMLP)
        prior, times = process.prior_law(), time_grid(self.sampling_steps, model.t_min)
        solver = make_solver(
            self.solver, Score(process, model.network.on_codes()), times
        )  # its table serves every day of the horizon
        values = torch.stack([v for v, _ in pasts]).to(device)
        position = torch.tensor([p for _, p in pasts], device=device)
        streams = [random.generator(seed, "forecast", number + w) for w in range(len(pasts))]
        noise = random.generator(seed, "forecast noise", number)
        mirrored = not self.increments.drift
        draws = (count + 1) // 2 if mirrored else count
        start_values = values[:, -self.increments.difference :]
        state, path = self.increments.begin(values, position).repeat(draws), []
        for _ in range(self.prediction_length):
            solver.context = model.network.encode(state.context)
            start = torch.cat([prior.sample(draws, stream) for stream in streams]).to(device)
            xi = process.from_directions(integrate(solver, start, noise)[:, 0])
            if not bool(torch.isfinite(xi).all()):
                raise FloatingPointError(f"samples are not finite: sampling_steps={self.sampling_steps} are too few")
            path.append(state.advance(xi).cpu())
        paths = torch.stack(path, 1).unflatten(0, (len(pasts), draws))
        if mirrored:
            ahead = torch.arange(self.prediction_length) % self.increments.difference
            centre = start_values[:, ahead].cpu()[:, None]  # the forecast of zero increments
            paths = torch.cat([paths, 2 * centre - paths], 1)[:, :count]
        return paths.numpy()

    def serialize(self, path: Path | str) -> None:
        """Write the folder `path`: the model as safetensors, everything else as JSON."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        super().serialize(path)
        self.model.save(path / "model.safetensors")
        names = ("prediction_length", "freq", "solver", "sampling_steps", "num_samples", "seed")
        settings = {n: getattr(self, n) for n in names} | {"increments": self.increments.settings}
        temporary = path / "predictor.json.part"
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path / "predictor.json")

    @classmethod
    def deserialize(cls, path: Path | str, device: str = "cpu", **kwargs: Any) -> VSMDPredictor:
        """Read a folder written by `serialize`; ValueError naming the path if something is missing or damaged."""
        path = Path(path)
        try:
            settings = json.loads((path / "predictor.json").read_text(encoding="utf-8"))
            increments = Increments.from_settings(settings.pop("increments"))
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"path={str(path)!r}: must be a folder written by VSMDPredictor.serialize") from None
        model = load(path / "model.safetensors")
        model.network.to(checks.device("device", device))
        return cls(model, increments, **settings)


def position_of(start: Any, freq: str) -> int:
    """Number of steps of `freq` from the calendar's origin to `start`."""
    first = as_period(start, freq)
    return int(first.ordinal // first.freq.n)
