"""The paper's representation: windows of the panel, each scaled by its own context, read by an LSTM.

    x_t = (y_t - m)/s,   m = 0 and s = mean |y| ("mean"), or mean and standard deviation of y ("std"), of the context

per series. The network (`repro.studies.recurrent`) models x_t given the state of an LSTM that has read the lags of the
scaled values and the time features of every step up to t; forecasts feed their draws back in, step after step.

Importing this module makes it `VSMDEstimator(model="paper")`. A serialised predictor of it can be read after that too.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from gluonts.time_feature import time_features_from_frequency_str
from torch import Tensor, nn

from repro.studies.recurrent import Recurrent, State
from vsmd import checks
from vsmd.data.calendars import as_period
from vsmd.forecasting.gaps import carried
from vsmd.forecasting.representation import REPRESENTATIONS
from vsmd.forecasting.series import Series, checked_lags, seasons
from vsmd.forecasting.state import Paths
from vsmd.networks import NETWORKS
from vsmd.training.data import Data, Sampler

SCALINGS = ("mean", "std")
LEAST = 1e-2  # of a window's scale, as a share of the series' own over the training part: constant stretches
NO_CONTEXT = 50_000  # rows from which on a draw is for moments alone: no network sees so many, they get no context


@dataclass(frozen=True)
class Windows:
    """Windows of `context_length` steps and the `horizon` after them; `fitted` sets `least`, scales' lower bound (d,).

    lags_seq: the lags that the LSTM reads. scaling: "mean" or "std". freq: gives GluonTS's time features.
    """

    name: ClassVar[str] = "paper"
    defaults: ClassVar[dict[str, Any]] = {
        "basis": "coordinates", "width": 64, "depth": 2, "steps": 2_500, "batch_size": 32, "learning_rate": 1e-3,
    }  # fmt: skip

    context_length: int
    horizon: int
    lags_seq: tuple[int, ...]
    freq: str
    scaling: str = "std"
    least: Tensor | None = None

    @classmethod
    def configured(
        cls,
        horizon: int,
        freq: str,
        *,
        context_length: int | None = None,
        lags_seq: Sequence[int] | None = None,
        scaling: str = "std",
    ) -> Windows:
        """From the estimator's options; ValueError for bad ones. context_length: by default three horizons."""
        steps = 3 * horizon if context_length is None else context_length
        return cls(
            context_length=checks.positive_int("context_length", steps),
            horizon=horizon,
            lags_seq=checked_lags(lags_seq, (1, *(seasons(freq) or (2,)))),
            freq=freq,
            scaling=checks.one_of("scaling", scaling, SCALINGS),
        )

    @property
    def history(self) -> int:
        """Number of past values that a forecast needs."""
        return self.context_length + max(self.lags_seq)

    @property
    def rows(self) -> int:
        """Number of rows that one window of a batch has."""
        return self.horizon

    @property
    def symmetric(self) -> bool:
        """Whether draws come in antithetic pairs."""
        return False

    @property
    def dim(self) -> int:
        """Number d of series that it is fitted to."""
        assert self.least is not None
        return len(self.least)

    def size(self, dim: int) -> int:
        """Number of directions that the network models, of d = `dim` series: all."""
        return dim

    def features(self, extra: int = 0) -> int:
        """Number of features of a step, `extra` real ones among them."""
        return len(time_features_from_frequency_str(self.freq)) + extra

    def network(self, dim: int, extra: int, width: int, depth: int, bf16: bool) -> nn.Module:
        """An LSTM of `depth` layers of `width` for d = `dim` series and their features, and the score's network."""
        features = self.features(extra)
        return Recurrent((dim,), self.lags_seq, self.horizon, features, hidden=width, layers=depth, bf16=bf16)

    def fitted(self, series: Sequence[Series]) -> Windows:
        """The representation of training series; ValueError for constant ones."""
        values = torch.cat([s.values for s in series])
        spread = (values - values.nanmean(0)).square().nanmean(0).sqrt()
        level = values.abs().nanmean(0)
        if constant := (spread <= 1e-12 * level).nonzero().flatten().tolist():
            raise ValueError(f"target: series {constant} never change in the training part; leave constant series out")
        return dataclasses.replace(self, least=LEAST * (spread if self.scaling == "std" else level))

    def known(self, series: Series, ahead: int) -> Tensor:
        """Features (T + ahead, features) of the steps of a series and those after it: time, then real ones."""
        steps = len(series.values) + ahead
        multiple = as_period("2000-01-03", self.freq).freq.n
        kinds = time_features_from_frequency_str(self.freq)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # business-day periods: GluonTS uses them too
            index = pd.period_range(pd.Period(ordinal=series.position * multiple, freq=self.freq), periods=steps)
            time = [torch.as_tensor(np.array(kind(index), dtype=np.float32)) for kind in kinds]
        fixed = series.static.expand(steps, -1)
        return torch.cat([*(t[:, None] for t in time), series.dynamic[:steps], fixed], 1)

    def scales(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """m and s (windows, 1, d) of contexts (windows, context_length, d), missing values left out."""
        assert self.least is not None
        least = self.least.to(values)
        if self.scaling == "mean":
            scale = values.abs().nanmean(1, keepdim=True).nan_to_num()
            return torch.zeros_like(scale), torch.maximum(scale, least)
        middle = values.nanmean(1, keepdim=True).nan_to_num()
        scale = (values - middle).square().nanmean(1, keepdim=True).sqrt().nan_to_num()
        return middle, torch.maximum(scale, least)

    def sampler(self, series: Sequence[Series]) -> Sampler:
        """Training data: n rows, the steps of ceil(n / horizon) windows drawn evenly from all series, and contexts."""
        length = self.history + self.horizon
        values = torch.cat([s.values for s in series])
        filled = torch.cat([carried(s.values) for s in series])
        known = torch.cat([self.known(s, 0) for s in series])
        ends = torch.tensor([len(s.values) for s in series]).cumsum(0).tolist()
        starts = torch.cat([torch.arange(e - len(s.values), e - length + 1) for s, e in zip(series, ends)])

        def draw(n: int, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
            first = starts[torch.randint(len(starts), (-(-n // self.horizon),), generator=generator)]
            ahead = first[:, None] + torch.arange(self.history, length)
            middle, scale = self.scales(values[first[:, None] + torch.arange(max(self.lags_seq), self.history)])
            x = ((filled[ahead] - middle) / scale).flatten(0, 1)[:n].float()
            if n >= NO_CONTEXT:
                return x
            rows = first[:, None] + torch.arange(length)
            return x, torch.cat([((values[rows] - middle) / scale).float(), known[rows]], 2)

        return draw

    def training_data(self, series: Sequence[Series], seed: int = 0) -> Data:
        """The sampler of windows; its draws are those of the streams it is called with, whatever the seed."""
        return self.sampler(series)

    def begin(self, pasts: Sequence[Series], network: nn.Module, horizon: int, device: torch.device) -> WindowState:
        """The state of forecasts of `horizon` steps, one window for each of the `pasts`."""
        assert isinstance(network, Recurrent)
        return WindowState(self, pasts, network, horizon, device)

    @property
    def settings(self) -> dict[str, Any]:
        """The plain settings, as JSON values."""
        plain = {k: v for k, v in self.__dict__.items() if k != "least"}
        return plain | {"lags_seq": list(self.lags_seq)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What was fitted."""
        assert self.least is not None
        return {"least": self.least}

    @classmethod
    def restored(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Windows:
        """Inverse of `settings` and `tensors`."""
        values: dict[str, Any] = {**settings, "lags_seq": tuple(settings["lags_seq"]), **tensors}
        return cls(**values)


class WindowState:
    """The LSTM's state of all paths: the history is read once a window, then one step of the LSTM a day for all."""

    def __init__(
        self, windows: Windows, pasts: Sequence[Series], network: Recurrent, horizon: int, device: torch.device
    ) -> None:
        values = torch.stack([s.values for s in pasts]).to(device)
        known = torch.stack([windows.known(s, horizon) for s in pasts]).to(device)
        self.middle, self.scale = windows.scales(values[:, -windows.context_length :])  # (windows, 1, d)
        past = ((values - self.middle) / self.scale).float()
        self.values, self.network, self.lags = Paths(past.nan_to_num()), network, windows.lags_seq
        self.known, self.step = known[:, None, windows.history :], 0
        self.memory: State
        _, self.memory = network.read(network.inputs(torch.cat([past, known[:, : windows.history]], 2)))

    def codes(self, draws: int) -> Tensor:
        """The network's codes of the next step for all paths, window by window; one step of the LSTM."""
        parts = [*(self.values.lagged(lag) for lag in self.lags), self.known[:, :, self.step]]
        apart = max(p.shape[1] for p in parts)  # 1 as long as the paths of a window read the same
        inputs = torch.cat([p.expand(-1, apart, -1) for p in parts], 2).flatten(0, 1)
        hidden, cell = self.memory
        if len(inputs) > hidden.shape[1]:
            hidden, cell = hidden.repeat_interleave(apart, 1), cell.repeat_interleave(apart, 1)
        h, self.memory = self.network.read(inputs[:, None], (hidden, cell))
        self.step += 1
        return self.network.code(h[:, 0]).repeat_interleave(draws // apart, 0)

    def advance(self, x: Tensor, others: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Append scaled values (windows, draws, d), or what is known (windows, d); the values (windows, draws, d)."""
        if known is not None:
            seen = ((known[:, None] - self.middle) / self.scale).to(x)
            x = torch.where(seen.isnan(), x, seen)
        self.values.append(x)
        return self.middle + self.scale * x


REPRESENTATIONS[Windows.name] = Windows
NETWORKS[Recurrent.name] = "repro.studies.recurrent:Recurrent"
