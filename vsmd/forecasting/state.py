"""Recurrent state of forecasts: one history a window, shared by its paths, and what the paths have added to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vsmd.forecasting.contexts import CLIP, Past
from vsmd.forecasting.locations import regressors
from vsmd.forecasting.series import Series

if TYPE_CHECKING:
    from vsmd.forecasting.increments import Increments


class Paths:
    """`draws` paths a window that share its past (windows, H, d): looking back does not copy it."""

    def __init__(self, past: Tensor) -> None:
        self.past, self.added = past, list[Tensor]()

    def lagged(self, lag: int) -> Tensor:
        """The values `lag` steps before the next one: (windows, draws, d), or (windows, 1, d) from the past."""
        if lag <= len(self.added):
            return self.added[-lag]
        return self.past[:, None, self.past.shape[1] + len(self.added) - lag]

    def append(self, values: Tensor) -> None:
        """Add one step (windows, draws, d)."""
        self.added.append(values)


class IncrementState:
    """Of `draws` paths a window by the "increments" representation: values, standardised past, running scales.

    `context` (windows, draws or 1, features) and `scale` are those of the next step; `advance` takes its increments.
    """

    def __init__(
        self, increments: Increments, pasts: Sequence[Series], network: Any, horizon: int, device: torch.device
    ) -> None:
        rule = increments.rule
        assert rule is not None
        assert increments.long_run is not None
        values = torch.stack([rule.filled(s) for s in pasts])
        residuals = torch.stack([increments.residuals(s)[1] for s in pasts])
        self.increments, self.network = increments.to(device), network
        self.step, self.horizon = 0, horizon
        start = torch.tensor([s.position + increments.history for s in pasts])
        steps = start[:, None] + torch.arange(increments.reach - increments.history, 0)
        relative = (residuals / increments.long_run[steps % len(increments.long_run)]).to(device)
        self.values = Paths(values[:, -increments.reach :].to(device))
        self.relative = Paths(relative.nan_to_num())
        self.observed = Paths((~relative.isnan()).double())
        ahead = [regressors(s, rule.periods, horizon)[increments.history :] for s in pasts]
        self.regressors = torch.stack(ahead).to(device)
        self.features = torch.stack([s.features(0, horizon) for s in pasts]).to(device)
        self.position = start.to(device)
        self.windows = (increments.scale_window, increments.short)
        terms = [(w, paths.past) for w in self.windows for paths in (self.relative, self.observed)]
        self.sums = [past[:, -w:].square().sum(1, keepdim=True) for w, past in terms]
        self._look()

    def _look(self) -> None:
        increments, rule = self.increments, self.increments.rule
        assert rule is not None
        self.level = rule.at(self.values.lagged, self.regressors[:, self.step, None])
        recent = [self.relative.lagged(j) for j in range(increments.lags, 0, -1)]
        stacked = torch.stack(torch.broadcast_tensors(*recent), -2)  # (windows, draws, lags, d)
        past = Past(self.sums, stacked, self.level, (self.position + self.step)[:, None])
        self.scale, self.context = increments.look(past, self.features[:, self.step, None])

    def codes(self, draws: int) -> Tensor | None:
        """The network's codes of the next step for all paths, window by window."""
        codes: Tensor | None = self.network.encode(self.context.flatten(0, 1))
        if codes is None or self.context.shape[1] == draws:
            return codes
        return codes.repeat_interleave(draws, 0)

    def advance(self, x: Tensor, others: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Append increments x (windows, draws, r) along the modelled axes; the new values (windows, draws, d).

        others (windows, draws, d - r): standard normals along the remaining axes, 0 if left out. known (windows, d):
        values that stand for those drawn, where they are not NaN.
        """
        increments = self.increments
        assert increments.long_run is not None
        assert increments.least is not None
        xi = x.to(self.scale)
        if increments.axes is not None and increments.deviations is not None:
            r = x.shape[-1]
            xi = xi @ increments.axes[:, :r].T
            if others is not None:
                xi = xi + (others.to(xi) * increments.deviations[r:]) @ increments.axes[:, r:].T
        values = torch.maximum(self.level + self.scale * xi.clamp(-CLIP, CLIP), increments.least)
        if known is not None:
            values = torch.where(known[:, None].isnan(), values, known[:, None])
        rho = increments.long_run[(self.position + self.step) % len(increments.long_run)][:, None]
        relative = (values - self.level) / rho
        for i, window in enumerate(self.windows):
            leaving, was_observed = self.relative.lagged(window).square(), self.observed.lagged(window)
            self.sums[2 * i] = self.sums[2 * i] + relative.square() - leaving
            self.sums[2 * i + 1] = self.sums[2 * i + 1] + 1 - was_observed
        self.values.append(values)
        self.relative.append(relative)
        self.observed.append(torch.ones_like(self.observed.past[:, :1]))
        self.step += 1
        if self.step < self.horizon:
            self._look()
        return values
