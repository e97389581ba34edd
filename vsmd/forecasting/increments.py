r"""The "increments" representation: what of a panel is learned, from its past alone.

    y_t = l_t + s_t xi_t,   s_t^2 = rho_t^2 (sum of the last W squares of (y - l)/rho + p) / (n + p)

per series: l the location (`vsmd.forecasting.locations`: last value, last seasons, or a fitted linear rule), W =
`scale_window`, n the number of values there that are not missing, rho the root mean square of y - l over the training
part – by position within the season, unless the location is the last value – and p = 1 a pseudo-step that keeps a scale
positive through constant stretches. The network models xi_t (d series) given a context, a function of the same window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vsmd import checks, files, random, stored
from vsmd.forecasting.contexts import CLIP, PARTS, Past, check_context
from vsmd.forecasting.gaps import age, completed, covariance, root_mean_square
from vsmd.forecasting.locations import BACK, PROFILE, Location, check_location, regressors
from vsmd.forecasting.series import Series, checked_lags, seasons
from vsmd.forecasting.state import IncrementState
from vsmd.networks.conditional import ConditionalMLP
from vsmd.training.data import Data

LONGEST = 10**6  # steps that a file may ask to look back
FLOOR = 1e-2  # least seasonal scale, as a share of the series' own: solar power at night


@dataclass(frozen=True)
class Increments:
    """Representation of a panel of d series; `fitted` sets everything below the settings from training series.

    location, lags_seq, factors, periods: the rule for l_t; lags and factors are those of a "linear" one.
    context: its parts, of "scales", "lags" (`lags` of them), "levels" and "seasons" (`vsmd.forecasting.contexts`); real
    features of the data set come in addition.
    drift: False makes the law of the increments symmetric – each training step counts with both signs – so that no
    drift is learned from one long path. rank: None, or the number r of leading principal axes of xi that the network
    models; in the others xi is independent Gaussian of the training part's variance.
    """

    name: ClassVar[str] = "increments"
    defaults: ClassVar[dict[str, Any]] = {
        "basis": "principal", "width": 128, "depth": 3, "steps": 1_000, "batch_size": 512, "learning_rate": 2e-3,
    }  # fmt: skip
    rows: ClassVar[int] = 1

    location: str = "last"
    lags_seq: tuple[int, ...] = (1,)
    periods: tuple[int, ...] = ()
    factors: int = 0
    scale_window: int = 60
    context: tuple[str, ...] = ("scales",)
    lags: int = 2
    drift: bool = False
    rank: int | None = None
    rule: Location | None = None
    long_run: Tensor | None = None  # rho (season, d)
    centre: Tensor | None = None  # of the training values, (d,)
    spread: Tensor | None = None
    least: Tensor | None = None  # 0 for series that are never negative, else -inf
    axes: Tensor | None = None  # (d, d) principal axes of xi, the leading ones first; None without a rank
    deviations: Tensor | None = None  # of xi along them, (d,)
    bounds: Tensor | None = None  # of the contexts in training, (2, features): a path's are kept within them

    @classmethod
    def configured(
        cls,
        horizon: int,
        freq: str,
        *,
        location: str | None = None,
        lags_seq: Sequence[int] | None = None,
        factors: int = 0,
        scale_window: int = 60,
        context: Sequence[str] | str | None = None,
        lags: int = 2,
        drift: bool | None = None,
        rank: int | None = None,
    ) -> Increments:
        """From the estimator's options; ValueError for bad ones."""
        periods = seasons(freq)
        if location is None:  # a last value is hours off where days have a shape
            location = "linear" if periods else "last"
        if context is None:
            context = ("scales", "seasons") if periods and location != "last" else ("scales",)
        return cls(
            location=check_location(location, periods, freq),
            lags_seq=checked_lags(lags_seq, sorted({1, 2, 3, *periods, *(p + 1 for p in periods)})),
            periods=periods,
            factors=checks.non_negative_int("factors", factors),
            scale_window=checks.positive_int("scale_window", scale_window),
            context=check_context(context),
            lags=checks.positive_int("lags", lags),
            drift=location in ("profile", "linear") if drift is None else checks.flag("drift", drift),
            rank=None if rank is None else checks.positive_int("rank", rank),
        )

    # --- what it is -------------------------------------------------------------------------------------------------
    @property
    def rule_lags(self) -> tuple[int, ...]:
        """The lags of the location's rule."""
        if self.location in ("last", "linear"):
            return (1,) if self.location == "last" else self.lags_seq
        return tuple(self.periods[0] * (i + 1) for i in range(PROFILE if self.location == "profile" else 1))

    @property
    def reach(self) -> int:
        """Number of past values that the location needs."""
        return max(*self.rule_lags, *BACK) if self.location == "linear" and self.factors else max(self.rule_lags)

    @property
    def history(self) -> int:
        """Number of past values that a forecast needs."""
        return self.reach + max(self.scale_window, self.lags)

    @property
    def symmetric(self) -> bool:
        """Whether xi and -xi have one law, so that draws come in antithetic pairs."""
        return not self.drift

    @property
    def dim(self) -> int:
        """Number d of series that it is fitted to."""
        assert self.least is not None
        return len(self.least)

    def size(self, dim: int) -> int:
        """Number of directions of xi that the network models, of d = `dim` series."""
        return dim if self.rank is None else min(self.rank, dim)

    def features(self, dim: int, extra: int = 0) -> int:
        """Width of the context for d = `dim` series and `extra` real features."""
        r = self.size(dim)
        return sum(PARTS[part].width(self, r) for part in self.context) + extra

    def network(self, dim: int, extra: int, width: int, depth: int, bf16: bool) -> nn.Module:
        """A perceptron for the modelled directions of d = `dim` series, told the context."""
        return ConditionalMLP((self.size(dim),), self.features(dim, extra), width=width, depth=depth, bf16=bf16)

    def to(self, device: torch.device) -> Increments:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        assert self.rule is not None
        return dataclasses.replace(self, rule=self.rule.to(device), **moved)

    # --- fitting ----------------------------------------------------------------------------------------------------
    def fitted(self, series: Sequence[Series]) -> Increments:
        """The representation of training series; ValueError for constant ones and those the location predicts."""
        values = torch.cat([s.values for s in series])
        known = ~values.isnan()
        low = torch.where(known, values, torch.inf).amin(0)
        if constant := (low == torch.where(known, values, -torch.inf).amax(0)).nonzero().flatten().tolist():
            raise ValueError(f"target: series {constant} never change in the training part; leave constant series out")
        dim = values.shape[1]
        if self.location == "linear":
            rule = Location.fitted(series, self.lags_seq, self.periods, min(self.factors, dim))
        else:
            rule = Location.mean(self.rule_lags, dim)
        fitted = dataclasses.replace(
            self, rule=rule, centre=values.nanmean(0), spread=root_mean_square(values - values.nanmean(0)),
            least=torch.where(low >= 0, 0.0, -torch.inf).double(),
        )  # fmt: skip
        residuals = [fitted.residuals(s)[1] for s in series]
        positions = torch.cat([s.position + rule.reach + torch.arange(len(r)) for s, r in zip(series, residuals)])
        residual = torch.cat(residuals)
        overall = root_mean_square(residual)
        if exact := (overall <= 1e-12 * low.abs()).nonzero().flatten().tolist():
            said = f"follow location={self.location!r} without error in the training part; leave constant series out"
            raise ValueError(f"target: series {exact} {said}")
        season = 1 if self.location == "last" or not self.periods else self.periods[0]
        phases = [root_mean_square(residual[positions % season == i]) for i in range(season)]
        long_run = torch.stack([torch.where(rho > FLOOR * overall, rho, FLOOR * overall) for rho in phases])
        fitted = dataclasses.replace(fitted, long_run=overall[None] if season == 1 else long_run)
        if self.rank is not None:
            variances, axes = torch.linalg.eigh(covariance(torch.cat([fitted.standardised(s)[0] for s in series])))
            axes, variances = axes.flip(1).contiguous(), variances.flip(0).clamp(min=1e-12)
            fitted = dataclasses.replace(fitted, axes=axes, deviations=variances.sqrt())
        context = torch.cat([fitted.standardised(s)[1] for s in series])
        if fitted.symmetric:
            context = torch.cat([context, fitted._mirrored(context, fitted.size(dim))])
        return dataclasses.replace(fitted, bounds=torch.stack([context.amin(0), context.amax(0)]))

    def residuals(self, series: Series) -> tuple[Tensor, Tensor]:
        """Location and y - l, NaN where y is missing, from step `reach` on: (T - reach, d) each.

        From the last value, a difference over several steps counts as one of them: a root of their number smaller.
        """
        assert self.rule is not None
        values = self.rule.filled(series)
        location = self.rule.along(values, regressors(series, self.rule.periods))
        residual = series.values[self.rule.reach :] - location
        if self.location == "last":
            residual = residual / (1.0 + age(series.values)[:-1]).sqrt()
        return location, residual

    def standardised(self, series: Series) -> tuple[Tensor, Tensor]:
        """xi (N, d) with NaN where missing, and contexts (N, features), N = T - history, of one series."""
        assert self.long_run is not None
        level, residual = self.residuals(series)
        skip, count = self.history - self.reach, len(residual)
        position = series.position + self.reach + torch.arange(count)
        relative = residual / self.long_run[position % len(self.long_run)]
        squares, observed = relative.nan_to_num().square(), (~relative.isnan()).double()
        totals = [torch.cat([0 * e[:1], e.cumsum(0)]) for e in (squares, observed)]
        windows = (self.scale_window, self.short)
        sums = [t[skip:count] - t[skip - w : count - w] for w in windows for t in totals]
        recent = torch.stack([relative[skip - j : count - j] for j in range(self.lags, 0, -1)], 1).nan_to_num()
        past = Past(sums, recent, level[skip:], position[skip:])
        scale, context = self.look(past, series.features(count - skip, 0))
        return (residual[skip:] / scale).clamp(-CLIP, CLIP), context

    def pairs(self, series: Sequence[Series], seed: int = 0) -> tuple[Tensor, Tensor]:
        """Training pairs: xi along the modelled axes (N, r), and contexts (N, features); twice as many without drift.

        Steps at which no series has a value are left out; where some have, the missing xi are drawn once from the
        Gaussian law given the others, with the covariance of the training part.
        """
        pairs = [self.standardised(s) for s in series]
        xi, context = (torch.cat(values) for values in zip(*pairs))
        observed = ~xi.isnan().all(1)
        xi, context = completed(xi[observed], random.generator(seed, "missing increments")), context[observed]
        if self.axes is not None:
            xi = xi @ self.axes[:, : self.size(xi.shape[1])]
        if self.drift:
            return xi.float(), context
        return torch.cat([xi, -xi]).float(), torch.cat([context, self._mirrored(context, xi.shape[1])])

    def training_data(self, series: Sequence[Series], seed: int = 0) -> Data:
        """The training pairs, or xi alone where there is no context."""
        xi, context = self.pairs(series, seed)
        return (xi, context) if context.shape[1] else xi

    def _mirrored(self, context: Tensor, r: int) -> Tensor:
        """The context of the mirror image, for r modelled directions: the past increments with the other sign."""
        sign, first = torch.ones(context.shape[1]), 0
        for part in (PARTS[name] for name in self.context):
            width = part.width(self, r)
            sign[first : first + width] = part.sign
            first += width
        return context * sign

    # --- scales and contexts ----------------------------------------------------------------------------------------
    @property
    def short(self) -> int:
        """Length of the window of the fast scale."""
        return max(1, self.scale_window // 6)

    def look(self, past: Past, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scales (…, d) and contexts (…, width) of the step after `past`, whose real features are (…, F)."""
        assert self.long_run is not None
        scale = past.local * self.long_run[past.position % len(self.long_run)]
        parts = [*(PARTS[name].values(self, past) for name in self.context), features]
        shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
        context = torch.cat([p.to(features).expand(*shape, -1) for p in parts], -1)
        return scale, context if self.bounds is None else context.clamp(self.bounds[0], self.bounds[1])

    def weighted(self, values: Tensor) -> Tensor:
        """Values (…, d), or their means over the series by the weights of the leading axes (…, r)."""
        return values if self.axes is None else values @ self.axes[:, : self.size(len(self.axes))].square()

    def begin(self, pasts: Sequence[Series], network: nn.Module, horizon: int, device: torch.device) -> IncrementState:
        """The state of forecasts of `horizon` steps, one window for each of the `pasts`."""
        return IncrementState(self, pasts, network, horizon, device)

    # --- files ------------------------------------------------------------------------------------------------------
    @property
    def settings(self) -> dict[str, Any]:
        """The plain settings, as JSON values."""
        names = ("location", "lags_seq", "periods", "factors", "scale_window", "context", "lags", "drift", "rank")
        return {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in names}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What was fitted."""
        assert self.rule is not None
        fitted, rule = ({k: v for k, v in vars(p).items() if isinstance(v, Tensor)} for p in (self, self.rule))
        return {k: v.contiguous() for k, v in fitted.items()} | files.prefixed("rule", rule)

    @classmethod
    def restored(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Increments:
        """Inverse of `settings` and `tensors`; ValueError for what `fitted` does not give."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        tensors = {k: v.to(torch.float32 if k == "bounds" else torch.float64) for k, v in tensors.items()}
        unfitted, d = cls(**plain), len(tensors["least"])
        for name in ("scale_window", "lags"):
            checks.positive_int(name, getattr(unfitted, name))
        checks.in_range("history", unfitted.history, 1, LONGEST)
        check_context(unfitted.context)
        width = max(tensors["bounds"].shape[1], unfitted.features(d))  # and the data set's own features
        shapes = {"centre": (d,), "spread": (d,), "long_run": (len(tensors["long_run"]), d), "bounds": (2, width)}
        stored.check_shapes(tensors, shapes | ({} if unfitted.rank is None else {"axes": (d, d), "deviations": (d,)}))
        periods = unfitted.periods if unfitted.location == "linear" else ()
        rest: dict[str, Any] = {k: v for k, v in tensors.items() if "." not in k}
        return dataclasses.replace(unfitted, rule=Location.restored(unfitted.rule_lags, periods, tensors, d), **rest)
