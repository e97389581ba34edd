r"""Where the next value is expected: a linear rule per series, given (last value, last seasons) or fitted by ridge.

    l_t = sum_j w_j y_{t - lag_j} + sum_i C_i f_{t-i} + c . (1, Fourier features of the calendar, dynamic features)

f (q factors) are the panel's leading principal axes, i = 1, 2: what the other series did. The last value, the last
season and the profile – the mean of the last PROFILE seasons – have equal weights and nothing else. A fitted rule
minimises, per series in units of its standard deviation, the mean squared error plus RIDGE times the sum of squared
coefficients: a closed form of the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vsmd import checks, files, stored
from vsmd.forecasting.gaps import carried
from vsmd.forecasting.series import Series, fourier

LOCATIONS = ("last", "season", "profile", "linear")
PROFILE = 7  # seasons that a profile averages: a week of days
RIDGE = 1e-3
BACK = (1, 2)  # steps back at which factors are seen
HARMONICS = (6, 4)  # of the first, the second season


@dataclass(frozen=True)
class Location:
    """The rule of d series: lags (k,), weights (k, d), calendar (1 + features, d), all float64.

    axes (d, q) makes the factors of values, cross (2, q, d) holds C; q = 0 without.
    """

    lags: tuple[int, ...]
    periods: tuple[int, ...]
    weights: Tensor
    calendar: Tensor
    axes: Tensor
    cross: Tensor

    @classmethod
    def mean(cls, lags: tuple[int, ...], dim: int) -> Location:
        """The mean of the values `lags` steps before."""
        one = torch.ones(len(lags), dim, dtype=torch.float64)
        weights, zero = one / len(lags), one.new_zeros(1, dim)
        return cls(lags, (), weights, zero, one.new_zeros(dim, 0), one.new_zeros(len(BACK), 0, dim))

    @classmethod
    def restored(
        cls, lags: tuple[int, ...], periods: tuple[int, ...], tensors: dict[str, Tensor], dim: int
    ) -> Location:
        """The rule that a file holds as "rule.…"; ValueError for tensors of other shapes than `fitted` gives."""
        rule = files.part(tensors, "rule")
        factors = rule["axes"].shape[1]
        shapes: dict[str, tuple[int, ...]] = {"weights": (len(lags), dim), "axes": (dim, factors)}
        shapes |= {"calendar": (len(rule["calendar"]), dim), "cross": (len(BACK), factors, dim)}
        stored.check_shapes(tensors, {f"rule.{name}": shape for name, shape in shapes.items()})
        return cls(lags, periods, **rule)

    @classmethod
    def fitted(
        cls, series: Sequence[Series], lags: tuple[int, ...], periods: tuple[int, ...], factors: int = 0
    ) -> Location:
        """Ridge regression of every series on its lags, `factors`, calendar and dynamic features; gaps are left out.

        Where a lagged value is missing, the last season (the last value, without seasons) stands for it.
        """
        dim, reach = series[0].values.shape[1], max(*lags, *BACK)
        rule = cls.mean((periods[0] if periods else 1,), dim)
        filled = [rule.filled(s) for s in series]
        observed = torch.cat([~s.values[reach:].isnan() for s in series]).double()
        count = observed.sum(0).clamp(min=1)
        target = torch.cat([w[reach:] for w in filled])
        centre = (target * observed).sum(0) / count
        spread = (((target - centre).square() * observed).sum(0) / count).sqrt()
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        inputs = [torch.stack([w[reach - lag : len(w) - lag] for lag in lags], 2) for w in filled]
        lagged = (torch.cat(inputs) - centre[:, None]) / spread[:, None]  # (n, d, k)
        known = torch.cat([regressors(s, periods)[reach:] for s in series])
        k, size = len(lags), known.shape[1]
        standard = (target - centre) / spread
        variances, axes = torch.linalg.eigh(standard.T @ standard / len(standard))
        axes = (axes / variances.clamp(min=1e-9).sqrt()).flip(1)[:, :factors]
        factor = [torch.cat([((w[reach - i : len(w) - i] - centre) / spread) @ axes for i in BACK], 1) for w in filled]
        known = torch.cat([known, torch.cat(factor)], 1)
        solution = torch.empty(k + known.shape[1], dim, dtype=torch.float64)
        ridge = RIDGE * torch.eye(len(solution), dtype=torch.float64)
        for i in range(dim):
            x = torch.cat([lagged[:, i], known], 1) * observed[:, i, None]
            y = (target[:, i] - centre[i]) / spread[i] * observed[:, i]
            solution[:, i] = torch.linalg.solve(x.T @ x / count[i] + ridge, x.T @ y / count[i])
        axes, cross = axes / spread[:, None], (solution[k + size :] * spread).view(len(BACK), -1, dim)
        calendar = solution[k : k + size] * spread
        calendar[0] += centre * (1 - solution[:k].sum(0)) - centre @ axes @ cross.sum(0)
        return cls(lags, periods, solution[:k], calendar, axes, cross)

    @property
    def reach(self) -> int:
        """Number of past values that the rule needs."""
        return max(*self.lags, *BACK) if self.axes.shape[1] else max(self.lags)

    def at(self, lagged: Callable[[int], Tensor], known: Tensor) -> Tensor:
        """l (n, d) from `lagged(lag)` (n, d) and the `regressors` (n, features or more)."""
        location = known[..., : len(self.calendar)] @ self.calendar
        for lag, weight in zip(self.lags, self.weights):
            location = torch.addcmul(location, lagged(lag), weight)
        if self.axes.shape[1]:
            for back, weight in zip(BACK, self.cross):
                location = location + lagged(back) @ self.axes @ weight
        return location

    def to(self, device: torch.device) -> Location:
        """The same on another device."""
        weights, calendar, axes, cross = (v.to(device) for v in (self.weights, self.calendar, self.axes, self.cross))
        return replace(self, weights=weights, calendar=calendar, axes=axes, cross=cross)

    def along(self, values: Tensor, known: Tensor) -> Tensor:
        """l_t for every t from `reach` on of values (T, d) without gaps: (T - reach, d)."""
        reach = self.reach
        return self.at(lambda lag: values[reach - lag : len(values) - lag], known[reach:])

    def filled(self, series: Series) -> Tensor:
        """The values with each gap replaced, in order of time, by the location there (T, d).

        Among the first `reach` values by the last value before the gap, or the first after it.
        """
        values = series.values
        gaps = values.isnan()
        if not bool(gaps.any()):
            return values
        values = carried(values)
        known = regressors(series, self.periods)
        for t in gaps[self.reach :].any(1).nonzero().flatten().tolist():
            t += self.reach
            location = self.at(lambda lag, t=t: values[t - lag][None], known[t, None])[0]  # type: ignore[misc]
            values[t] = torch.where(gaps[t], location, values[t])
        return values


def regressors(series: Series, periods: tuple[int, ...], ahead: int = 0) -> Tensor:
    """(1, Fourier features, dynamic features) at every step of a series and `ahead` more, (T + ahead, features)."""
    steps = len(series.values) + ahead
    dynamic = series.dynamic[:steps].double()
    position = series.position + torch.arange(steps)
    waves = [fourier(position, (p,), HARMONICS[min(i, 1)]) for i, p in enumerate(periods)]
    return torch.cat([torch.ones(steps, 1, dtype=torch.float64), *waves, dynamic], 1)


def check_location(location: str, periods: tuple[int, ...], freq: str) -> str:
    """The location's name; ValueError if it is unknown, or one of seasons where the frequency has none."""
    if checks.one_of("location", location, LOCATIONS) in ("season", "profile") and not periods:
        raise ValueError(f"location={location!r}: must be another one, freq={freq!r} has no season")
    return location
