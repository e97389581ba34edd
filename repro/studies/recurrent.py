"""The paper's forecaster: an LSTM over a window of the past, and a 1-D convolution network along the series' axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import checks
from vsmd.networks.conditional import Conditional
from vsmd.networks.layers import Fourier, zeroed

State = tuple[Tensor, Tensor]


class Recurrent(Conditional):
    """Score of the next values of d series given the state of an LSTM that has read what precedes them.

    context (windows, P + L, d + features): windows of scaled values – NaN where missing – and what is known beside
    them, P = max(lags). At each of the last L steps the LSTM (`layers` of `hidden`) reads the values `lags` steps
    before and the features; the network is for the values at the last `horizon` of them. So z, its row i at step
    i % horizon of window i // horizon, has at most windows * horizon rows. Missing values are read as 0, and where the
    value itself is missing the result is 0: nothing is learned from it.

    Codes: of a state h, per series and channel, and a shift for each of `blocks` residual blocks of `channels`,
        h <- h + V (tanh . sigmoid)(W * silu(h + E(noise level) + shift) + U codes),
    W a convolution of width 3 with dilations 1, 2, 1, 2, …; the last map starts at zero.
    Raises ValueError for a context of another shape.
    """

    name = "recurrent"

    def __init__(
        self,
        shape: tuple[int, ...],
        lags: tuple[int, ...],
        horizon: int,
        features: int = 0,
        hidden: int = 64,
        layers: int = 2,
        channels: int = 8,
        blocks: int = 4,
        frequencies: int = 16,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        (dim,) = tuple(checks.positive_int("shape", n) for n in shape)
        self.settings: dict[str, Any] = {
            "shape": [dim], "lags": list(lags), "horizon": horizon, "features": features, "hidden": hidden,
            "layers": layers, "channels": channels, "blocks": blocks, "frequencies": frequencies, "bf16": bf16,
        }  # fmt: skip
        self.lags = tuple(checks.positive_int("lags", lag) for lag in lags)
        self.horizon = checks.positive_int("horizon", horizon)
        self.dim, self.features, self.channels, self.blocks, self.bf16 = dim, features, channels, blocks, bf16
        self.lstm = nn.LSTM(len(lags) * dim + features, hidden, layers, batch_first=True)
        self.per_series = nn.Linear(hidden, 2 * dim)
        self.shift = nn.Linear(hidden, blocks * channels)
        self.fourier = Fourier(frequencies)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, 32), nn.SiLU(), nn.Linear(32, blocks * channels))
        self.first = nn.Conv1d(2, channels, 1)
        self.mixes = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, 3, padding=1 + i % 2, dilation=1 + i % 2) for i in range(blocks)
        )
        self.told = nn.ModuleList(nn.Conv1d(2, 2 * channels, 1) for _ in range(blocks))
        self.back = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(blocks))
        self.last = zeroed(nn.Conv1d(channels, 1, 1))

    # --- reading the past -------------------------------------------------------------------------------------------
    def inputs(self, context: Tensor | None) -> Tensor:
        """What the LSTM reads at the last L steps of a context: (windows, L, lags * d + features)."""
        reach, width = max(self.lags), self.dim + self.features
        if context is None or context.ndim != 3 or context.shape[2] != width or context.shape[1] <= reach:
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"context={got}: must be a tensor of shape (windows, more than {reach}, {width})")
        values, known = context[..., : self.dim].nan_to_num(), context[:, reach:, self.dim :]
        steps = context.shape[1]
        return torch.cat([*(values[:, reach - lag : steps - lag] for lag in self.lags), known], 2)

    def read(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The LSTM over inputs (n, steps, …) from a state: its outputs (n, steps, hidden) and the state after them."""
        with self.autocast(inputs.device):
            out, state = self.lstm(inputs, state)
        return out.to(inputs.dtype), (state[0].to(inputs.dtype), state[1].to(inputs.dtype))

    def code(self, h: Tensor) -> Tensor:
        """Codes (n, 2 d + blocks * channels) of the LSTM's outputs (n, hidden)."""
        with self.autocast(h.device):
            return torch.cat([self.per_series(h), self.shift(h)], 1).to(h.dtype)

    def encode(self, context: Tensor | None) -> Tensor:
        """Codes of the last `horizon` steps of each window, one window after the other."""
        return self.code(self.read(self.inputs(context))[0][:, -self.horizon :].flatten(0, 1))

    # --- the score's network ----------------------------------------------------------------------------------------
    def value(self, z: Tensor, log_snr: Tensor, codes: Tensor | None) -> Tensor:
        """The network's value for encoded contexts."""
        assert codes is not None
        codes = codes[: len(z)]
        told, shift = codes[:, : 2 * self.dim].unflatten(1, (2, self.dim)), codes[:, 2 * self.dim :]
        level = self.level(self.fourier(log_snr.mean(1, keepdim=True)))
        shifts = (shift + level).unflatten(1, (self.blocks, -1, 1))
        h = self.first(torch.stack([z, log_snr.expand_as(z) / 4], 1))
        for i, (mix, tell, back) in enumerate(zip(self.mixes, self.told, self.back)):
            up, gate = (mix(silu(h + shifts[:, i])) + tell(told)).chunk(2, 1)
            h = h + back(up.tanh() * gate.sigmoid())
        return self.last(silu(h))[:, 0]

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        value = super().forward(z, log_snr, context)
        assert context is not None
        missing = context[:, -self.horizon :, : self.dim].isnan().flatten(0, 1)[: len(z)]
        return value.masked_fill(missing, 0.0)
