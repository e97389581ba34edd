"""The trained forecaster: autoregressive sampling of what the model has learned, windows × samples in one batch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from vsmd import checks, files, random
from vsmd.data.calendars import as_period
from vsmd.data.panels import Panel
from vsmd.forecasting.gaps import ending
from vsmd.forecasting.naive import sample_forecast
from vsmd.forecasting.outlook import LEVELS, outlook
from vsmd.forecasting.representation import REPRESENTATIONS, Representation, length_of
from vsmd.forecasting.series import Series, read
from vsmd.model import Model, load
from vsmd.networks.conditional import Conditional
from vsmd.samplers import as_solver

FORMAT = "vsmd-representation-1"
NUMBERS = 2**24  # windows x samples x horizon x series that are forecast at once: 128 MB

LARGEST = {"prediction_length": 10**5, "sampling_steps": 10**4, "num_samples": 10**6}  # that a file may ask for


class VSMDPredictor(Predictor):  # type: ignore[misc]  # GluonTS has no types
    """A GluonTS predictor of panels of d series; made by `VSMDEstimator.train`.

    model: of what `representation` makes of the series. solver, sampling_steps: of the reverse process, once
    a step of the horizon and for all paths together; a history is read once a window. Increments without drift have a
    symmetric law: every path drawn is used with its mirror image (antithetic draws), which halves the cost and centres
    the fan on the location. A history whose series end apart is drawn on from where the first of them ends. integer:
    samples are rounded. num_feat_dynamic_real, num_feat_static_real: features that the data sets must have.
    Same seed and data set, same samples.
    """

    def __init__(
        self,
        model: Model,
        representation: Representation,
        prediction_length: int,
        freq: str,
        *,
        solver: str = "exponential",
        sampling_steps: int = 10,
        denoise: bool = True,
        integer: bool = False,
        num_samples: int = 100,
        num_feat_dynamic_real: int = 0,
        num_feat_static_real: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(prediction_length=checks.positive_int("prediction_length", prediction_length))
        freq = as_period("2000-01-03", freq).freqstr
        as_solver(solver)
        self.model, self.representation, self.freq, self.solver = model, representation, freq, solver
        self.sampling_steps = checks.positive_int("sampling_steps", sampling_steps)
        self.denoise, self.integer = checks.flag("denoise", denoise), checks.flag("integer", integer)
        self.num_samples, self.seed = checks.positive_int("num_samples", num_samples), int(seed)
        self.num_feat_dynamic_real, self.num_feat_static_real = num_feat_dynamic_real, num_feat_static_real

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that made it."""
        counts = ("sampling_steps", "num_samples", "num_feat_dynamic_real", "num_feat_static_real")
        return {name: getattr(self, name) for name in ("solver", "denoise", "integer", "seed", *counts)}

    # --- forecasting ------------------------------------------------------------------------------------------------
    def predict(
        self, dataset: Iterable[dict[str, Any]], num_samples: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> Iterator[SampleForecast]:
        """Yield one SampleForecast a series, samples (num_samples, horizon, d) – (num_samples, horizon) if univariate.

        Raises ValueError for a series that is too short, has no value in the part that is read, another number of
        series than the training data, or lacks features.
        """
        count = checks.positive_int("num_samples", self.num_samples if num_samples is None else num_samples)
        dim = self.representation.dim
        series, number = iter(dataset), 0
        while items := list(islice(series, max(1, NUMBERS // (count * self.prediction_length * dim)))):
            pasts = [self._past(item, dim) for item in items]
            for length, group in groupby(zip(items, pasts), lambda pair: len(pair[1].values)):
                alike = list(group)
                lead = length - self.representation.history
                samples = self._sample([past for _, past in alike], lead, count, number, seed)
                for (item, _), draws in zip(alike, samples):
                    yield sample_forecast(draws, {**item, "start": as_period(item["start"], self.freq)})
                number += len(alike)

    def forecast(self, panel: Panel, levels: Sequence[float] = LEVELS, num_samples: int | None = None) -> pd.DataFrame:
        """Quantiles of the steps after the panel's end (`vsmd.forecasting.outlook`)."""
        return outlook(self, panel, levels, self.num_samples if num_samples is None else num_samples)

    def _past(self, item: dict[str, Any], dim: int) -> Series:
        """The part of a history that is read: what a forecast needs, and all from where a series ends on."""
        least, parts = self.representation.history, length_of(self.representation)
        features = (self.num_feat_dynamic_real, self.num_feat_static_real)
        past = read(item, self.freq, least, self.prediction_length, *features, parts)
        if past.values.shape[1] != dim:
            raise ValueError(f"target: {past.values.shape[1]} series; the predictor was trained on {dim}")
        gap = min(int(ending(past.values).max()), least)
        if len(past.values) < least + gap:
            said = f"must be at least {least + gap} ({parts} + {gap} since one of the series ends)"
            raise ValueError(f"target: {len(past.values)} time steps; {said}")
        past = past.last(least + gap)
        for values, where in ((past.values[gap:], ""), (past.values[:least], " before another one ends")):
            if empty := values.isnan().all(0).nonzero().flatten().tolist():
                raise ValueError(f"target: series {empty} have no value in the last {least} steps{where}")
        return past

    @torch.no_grad()
    def _sample(self, pasts: list[Series], lead: int, count: int, number: int, seed: int | None) -> np.ndarray:
        """Samples (windows, count, horizon, d) for windows number, number + 1, …; each window has its own stream.

        lead: the number of last steps that are drawn too, but for the values that are known there.
        """
        model, seed, representation = self.model, self.seed if seed is None else seed, self.representation
        process, device, steps = model.process, model.score.device, lead + self.prediction_length
        assert isinstance(model.network, Conditional)
        law, codes = process.prior_law(), model.network.on_codes()
        # prepared once: its tables serve every step of the horizon
        generation = model.generation(self.solver, self.sampling_steps, denoise=self.denoise, network=codes)
        streams = [random.generator(seed, "forecast", number + w) for w in range(len(pasts))]
        noise = random.BatchNoise(random.generator(seed, "forecast noise", number))
        mirrored = representation.symmetric and not lead
        draws = (count + 1) // 2 if mirrored else count
        known = torch.stack([past.last(lead).values for past in pasts]).to(device)
        pasts = [past.first(representation.history) for past in pasts]
        state, path = representation.begin(pasts, model.network, steps, device), []
        left = representation.dim - process.dim  # directions that the network does not model
        for step in range(steps):
            start = torch.cat([law.sample(draws, stream) for stream in streams])
            x = generation(start, noise, state.codes(draws)).to(device)
            others = torch.stack([torch.randn(draws, left, generator=stream) for stream in streams]).to(device)
            seen = known[:, step] if step < lead else None
            path.append(state.advance(x.unflatten(0, (len(pasts), draws)), others, seen).cpu())
        paths = torch.stack(path[lead:], 2)
        if mirrored:
            middle = representation.begin(pasts, model.network, steps, device)
            nothing = torch.zeros(len(pasts), 1, process.dim, device=device)
            centre = torch.stack([middle.advance(nothing).cpu() for _ in range(steps)], 2)
            images = torch.maximum(2 * centre - paths, representation.tensors["least"])
            paths = torch.cat([paths, images], 1)[:, :count]
        return (paths.round() if self.integer else paths).numpy()

    # --- files ------------------------------------------------------------------------------------------------------
    def serialize(self, path: Path | str) -> None:
        """Write the folder `path`: model and representation as safetensors, all else as JSON."""
        path = Path(path)
        with tempfile.TemporaryDirectory() as folder:  # GluonTS writes in place
            super().serialize(Path(folder))
            for file in Path(folder).iterdir():
                files.write_atomic(path / file.name, file.read_bytes())
        self.model.save(path / "model.safetensors")
        representation = self.representation
        info = {"settings": representation.settings}
        files.write(path / "representation.safetensors", FORMAT, representation.tensors, info)
        settings = {"model": representation.name, "prediction_length": self.prediction_length, "freq": self.freq}
        files.write_atomic(path / "predictor.json", json.dumps({**settings, **self.settings}, indent=1) + "\n")

    @classmethod
    def deserialize(cls, path: Path | str, device: str = "cpu", **kwargs: Any) -> VSMDPredictor:
        """Read a folder written by `serialize`, whose representation is in `REPRESENTATIONS`.

        Raises ValueError, naming the path or the representation, if something is missing or damaged.
        """
        path = Path(path)
        with files.refusing(path / "predictor.json", "in a folder written by VSMDPredictor.serialize"):
            settings = {**json.loads(files.regular(path / "predictor.json").read_text(encoding="utf-8"))}
            name = settings.pop("model")
        kind = REPRESENTATIONS[checks.one_of("model", name, REPRESENTATIONS)]
        tensors, info = files.read(path / "representation.safetensors", FORMAT)
        model = load(path / "model.safetensors", device)
        with files.refusing(path):
            for number, most in LARGEST.items():
                checks.in_range(number, settings[number], 1, most)
            representation = kind.restored(info["settings"], tensors)
            if (size := representation.size(representation.dim)) != model.process.dim:
                raise ValueError(f"the model has {model.process.dim} directions; must have {size}")
            return cls(model, representation, **settings)
