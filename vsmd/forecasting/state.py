"""Recurrent state of forecasts: one history a window, shared by its paths, and what the paths have added to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vsmd.forecasting.increments import CLIP, Increments
from vsmd.forecasting.locations import regressors
from vsmd.forecasting.series import Series


class Paths:
    """`draws` paths a window that share its past (windows, H, d): looking back does not copy it."""

    def __init__(self, past: Tensor) -> None:
        self.past, self.made = past, list[Tensor]()

    def lagged(self, lag: int) -> Tensor:
        """The values `lag` steps before the next one: (windows, draws, d), or (windows, 1, d) from the past."""
        if lag <= len(self.made):
            return self.made[-lag]
        return self.past[:, None, self.past.shape[1] + len(self.made) - lag]

    def append(self, values: Tensor) -> None:
        """Add one step (windows, draws, d)."""
        self.made.append(values)


class IncrementState:
    """Of `draws` paths a window by the "increments" representation: values, standardised past, running scales.

    `context` (windows, draws or 1, features) and `scale` are those of the next step; `advance` takes its increments.
    """

    def __init__(
        self, how: Increments, pasts: Sequence[Series], network: Any, horizon: int, device: torch.device
    ) -> None:
        assert how.rule is not None
        assert how.long_run is not None
        known = [how.rule.filled(s) for s in pasts]
        reach, count = how.reach, how.history - how.reach
        residuals = torch.stack([how.residuals(s)[1] for s in pasts])
        self.how, self.network, self.step, self.horizon = how.to(device), network, 0, horizon
        start = torch.tensor([s.position + how.history for s in pasts])
        past = start[:, None] + torch.arange(-count, 0)
        relative = (residuals / how.long_run[past % len(how.long_run)]).to(device)
        self.values = Paths(torch.stack(known)[:, -reach:].to(device))
        self.relative = Paths(relative.nan_to_num())
        self.seen = Paths((~relative.isnan()).double())
        given = [regressors(s, how.rule.periods, horizon)[how.history :] for s in pasts]
        self.given = torch.stack(given).to(device)
        self.extra = torch.stack([s.features(0, horizon) for s in pasts]).to(device)
        self.position = start.to(device)
        windows = (how.scale_window, how.short)
        self.sums = [e.past[:, -w:].square().sum(1, keepdim=True) for w in windows for e in (self.relative, self.seen)]
        self._look()

    def _look(self) -> None:
        how, rule = self.how, self.how.rule
        assert rule is not None
        self.level = rule.at(self.values.lagged, self.given[:, self.step, None])
        recent = torch.stack(
            torch.broadcast_tensors(*(self.relative.lagged(j) for j in range(how.lags, 0, -1))), -2
        )  # (windows, draws, lags, d)
        position = (self.position + self.step)[:, None]
        self.scale, self.context = how.look(self.sums, recent, self.level, position, self.extra[:, self.step, None])

    def codes(self, draws: int) -> Tensor | None:
        """The network's codes of the next step for all paths, window by window."""
        found: Tensor | None = self.network.encode(self.context.flatten(0, 1))
        if found is None or self.context.shape[1] == draws:
            return found
        return found.repeat_interleave(draws, 0)

    def advance(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """Append increments given along the modelled axes (windows, draws, r); the new values (windows, draws, d).

        others (windows, draws, d - r): standard normals along the remaining axes, 0 if left out.
        """
        how = self.how
        assert how.long_run is not None
        assert how.least is not None
        xi = x.to(self.scale)
        if how.axes is not None and how.deviations is not None:
            r = x.shape[-1]
            xi = xi @ how.axes[:, :r].T
            if others is not None:
                xi = xi + (others.to(xi) * how.deviations[r:]) @ how.axes[:, r:].T
        new = torch.maximum(self.level + self.scale * xi.clamp(-CLIP, CLIP), how.least)
        rho = how.long_run[(self.position + self.step) % len(how.long_run)][:, None]
        relative = (new - self.level) / rho
        for i, window in enumerate((how.scale_window, how.short)):
            gone, was = self.relative.lagged(window).square(), self.seen.lagged(window)
            self.sums[2 * i] = self.sums[2 * i] + relative.square() - gone
            self.sums[2 * i + 1] = self.sums[2 * i + 1] + 1 - was
        self.values.append(new)
        self.relative.append(relative)
        self.seen.append(torch.ones_like(self.seen.past[:, :1]))
        self.step += 1
        if self.step < self.horizon:
            self._look()
        return new
