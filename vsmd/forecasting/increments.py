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
from typing import Any

import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.forecasting.locations import BACK, LOCATIONS, PROFILE, Location, regressors
from vsmd.forecasting.series import Series, fourier

CONTEXTS = ("scales", "lags", "levels", "seasons")
PSEUDO = 1.0  # weight, in steps, of the long-run scale in a local one
CLIP = 8.0  # standardised increments are winsorised: a broken peg is one event, not a law
HARMONICS = 2
FLOOR = 1e-2  # least seasonal scale, as a share of the series' own: solar power at night


@dataclass(frozen=True)
class Increments:
    """Representation of a panel of d series; `fitted` sets everything below the settings from training series.

    location, lags_seq, factors, periods: the rule for l_t; lags and factors are those of a "linear" one.
    context: the parts of the context, of "scales" (log of local over long-run scale, and of the scale of the last W/6
    steps over the local one), "lags" (the last `lags` values of (y - l)/s), "levels" (l_t in the training part's units)
    and "seasons" (Fourier features of the `periods`); real features of the data set come in addition.
    drift: False makes the law of the increments symmetric – each training step counts with both signs – so that no
    drift is learned from one long path. rank: None, or the number r of leading principal axes of xi that the network
    models; in the others xi is independent Gaussian of the training part's variance, and the context's parts are those
    of the leading axes (scales and levels: means over the series with an axis's squared entries as weights).
    """

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

    # --- what it is -------------------------------------------------------------------------------------------------
    @property
    def seen(self) -> tuple[int, ...]:
        """The lags of the location's rule."""
        if self.location in ("last", "linear"):
            return (1,) if self.location == "last" else self.lags_seq
        return tuple(self.periods[0] * (i + 1) for i in range(PROFILE if self.location == "profile" else 1))

    @property
    def reach(self) -> int:
        """Number of past values that the location needs."""
        return max(*self.seen, *BACK) if self.location == "linear" and self.factors else max(self.seen)

    @property
    def history(self) -> int:
        """Number of past values that a forecast needs."""
        return self.reach + max(self.scale_window, self.lags)

    @property
    def symmetric(self) -> bool:
        """Whether xi and -xi have one law, so that draws come in antithetic pairs."""
        return not self.drift

    def size(self, dim: int) -> int:
        """Number of directions of xi that the network models, of d = `dim` series."""
        return dim if self.rank is None else min(self.rank, dim)

    def features(self, dim: int, given: int = 0) -> int:
        """Width of the context for d = `dim` series and `given` real features."""
        r = self.size(dim)
        sizes = {"scales": 2 * r, "lags": self.lags * r, "levels": r, "seasons": 2 * HARMONICS * len(self.periods)}
        return sum(sizes[part] for part in self.context) + given

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
            rule = Location.mean(self.seen, dim)
        how = dataclasses.replace(
            self, rule=rule, centre=values.nanmean(0), spread=_rms(values - values.nanmean(0)),
            least=torch.where(low >= 0, 0.0, -torch.inf).double(),
        )  # fmt: skip
        residuals = [how.residuals(s)[1] for s in series]
        positions = [s.position + rule.reach + torch.arange(len(r)) for s, r in zip(series, residuals)]
        whole, place = torch.cat(residuals), torch.cat(positions)
        overall = _rms(whole)
        if exact := (overall <= 1e-12 * low.abs()).nonzero().flatten().tolist():
            raise ValueError(
                f"target: series {exact} follow location={self.location!r} without error in the training part; "
                "leave constant series out"
            )
        season = 1 if self.location == "last" or not self.periods else self.periods[0]
        rows = [_rms(whole[place % season == i]) for i in range(season)]
        long_run = torch.stack([torch.where(r > FLOOR * overall, r, FLOOR * overall) for r in rows])
        how = dataclasses.replace(how, long_run=overall[None] if season == 1 else long_run)
        if self.rank is not None:
            variances, axes = torch.linalg.eigh(_covariance(torch.cat([how.standardised(s)[0] for s in series])))
            axes, variances = axes.flip(1).contiguous(), variances.flip(0).clamp(min=1e-12)
            how = dataclasses.replace(how, axes=axes, deviations=variances.sqrt())
        context = torch.cat([how.standardised(s)[1] for s in series])
        if how.symmetric:
            context = torch.cat([context, how._mirrored(context, how.size(dim))])
        return dataclasses.replace(how, bounds=torch.stack([context.amin(0), context.amax(0)]))

    def residuals(self, series: Series) -> tuple[Tensor, Tensor]:
        """Location and y - l, NaN where y is missing, from step `reach` on: (T - reach, d) each."""
        assert self.rule is not None
        values = self.rule.filled(series)
        found = self.rule.along(values, regressors(series, self.rule.periods))
        return found, series.values[self.rule.reach :] - found

    def standardised(self, series: Series) -> tuple[Tensor, Tensor]:
        """xi (N, d) with NaN where missing, and contexts (N, features), N = T - history, of one series."""
        assert self.long_run is not None
        level, residual = self.residuals(series)
        skip, count = self.history - self.reach, len(residual)
        position = series.position + self.reach + torch.arange(count)
        relative = residual / self.long_run[position % len(self.long_run)]
        squares, seen = relative.nan_to_num().square(), (~relative.isnan()).double()
        totals = [torch.cat([0 * e[:1], e.cumsum(0)]) for e in (squares, seen)]
        windows = (self.scale_window, self.short)
        sums = [t[skip:count] - t[skip - w : count - w] for w in windows for t in totals]
        recent = torch.stack([relative[skip - j : count - j] for j in range(self.lags, 0, -1)], 1).nan_to_num()
        given = series.features(count - skip, 0)
        scale, context = self.look(sums, recent, level[skip:], position[skip:], given)
        return (residual[skip:] / scale).clamp(-CLIP, CLIP), context

    def pairs(self, series: Sequence[Series], seed: int = 0) -> tuple[Tensor, Tensor]:
        """Training pairs: xi along the modelled axes (N, r), and contexts (N, features); twice as many without drift.

        Steps at which no series has a value are left out; where some have, the missing xi are drawn once from the
        Gaussian law given the others, with the covariance of the training part.
        """
        parts = [self.standardised(s) for s in series]
        xi, context = (torch.cat(p) for p in zip(*parts))
        kept = ~xi.isnan().all(1)
        xi = _completed(xi[kept], random.generator(seed, "missing increments"))
        context = context[kept]
        if self.axes is not None:
            xi = xi @ self.axes[:, : self.size(xi.shape[1])]
        if self.drift:
            return xi.float(), context
        return torch.cat([xi, -xi]).float(), torch.cat([context, self._mirrored(context, xi.shape[1])])

    def _mirrored(self, context: Tensor, size: int) -> Tensor:
        """The context of the mirror image: the past increments with the other sign."""
        sign, at = torch.ones(context.shape[1]), 0
        for part in self.context:
            width = dataclasses.replace(self, context=(part,)).features(size)
            if part == "lags":
                sign[at : at + width] = -1
            at += width
        return context * sign

    # --- scales and contexts ----------------------------------------------------------------------------------------
    @property
    def short(self) -> int:
        """Length of the window of the fast scale."""
        return max(1, self.scale_window // 6)

    def look(
        self, sums: Sequence[Tensor], recent: Tensor, level: Tensor, position: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scales (…, d) and contexts (…, features) of the next step.

        sums: of the squares of (y - l)/rho and of the number of values over the last W, then over the fast window;
        recent (…, lags, d): the last (y - l)/rho; level: l (…, d); position (…,); given (…, F): real features.
        """
        assert self.long_run is not None
        assert self.centre is not None
        assert self.spread is not None
        local = ((sums[0].clamp(min=0) + PSEUDO) / (sums[1] + PSEUDO)).sqrt()
        scale = local * self.long_run[position % len(self.long_run)]
        parts: list[Tensor] = []
        for part in self.context:
            if part == "scales":
                fast = ((sums[2].clamp(min=0) + PSEUDO * local.square()) / (sums[3] + PSEUDO)).sqrt()
                parts += [self._weighted(local.log()), self._weighted((fast / local).log())]
            elif part == "lags":
                last = (recent / local[..., None, :]).clamp(-CLIP, CLIP)
                if self.axes is not None and self.deviations is not None:
                    r = self.size(len(self.axes))
                    last = last @ (self.axes / self.deviations)[:, :r]
                parts.append(last.flatten(-2))
            elif part == "levels":
                assert self.spread is not None
                parts.append(self._weighted((level - self.centre) / self.spread))
            else:
                waves = fourier(position.flatten(), self.periods, HARMONICS)
                parts.append(waves.view(*position.shape, -1))
        shape = torch.broadcast_shapes(*(p.shape[:-1] for p in (*parts, given)))
        context = torch.cat([p.to(given).expand(*shape, -1) for p in (*parts, given)], -1)
        return scale, context if self.bounds is None else context.clamp(self.bounds[0], self.bounds[1])

    def _weighted(self, values: Tensor) -> Tensor:
        """Values (…, d), or their means over the series by the weights of the leading axes (…, r)."""
        return values if self.axes is None else values @ self.axes[:, : self.size(len(self.axes))].square()

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
        own = {k: v.contiguous() for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        rule = {f"rule.{k}": v.contiguous() for k, v in self.rule.__dict__.items() if isinstance(v, Tensor)}
        return own | rule

    @classmethod
    def restored(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Increments:
        """Inverse of `settings` and `tensors`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        made = cls(**plain)
        periods = made.periods if made.location == "linear" else ()
        rule = Location(made.seen, periods, **{k[5:]: v for k, v in tensors.items() if k.startswith("rule.")})
        own: dict[str, Any] = {k: v for k, v in tensors.items() if "." not in k}
        return dataclasses.replace(made, rule=rule, **own)


def _rms(values: Tensor) -> Tensor:
    """Root mean square (d,) of values (n, d), missing ones left out; 0 where there are none."""
    return values.square().nanmean(0).nan_to_num().sqrt()


def _covariance(xi: Tensor) -> Tensor:
    """Mean outer product (d, d) over the rows that have both values."""
    seen = (~xi.isnan()).double()
    whole = xi.nan_to_num().double()
    return whole.T @ whole / (seen.T @ seen).clamp(min=1)


def _completed(xi: Tensor, stream: torch.Generator) -> Tensor:
    """xi (n, d) with missing values drawn from the Gaussian law given those that are there."""
    gaps = xi.isnan()
    if not bool(gaps.any()):
        return xi
    xi, law = xi.clone(), _covariance(xi)
    law = law + 1e-6 * torch.diag(law.diagonal())
    for row in gaps.any(1).nonzero().flatten().tolist():
        gone = gaps[row]
        here = ~gone
        gain = torch.linalg.solve(law[here][:, here], law[here][:, gone])
        rest = law[gone][:, gone] - law[gone][:, here] @ gain
        values, vectors = torch.linalg.eigh(rest)
        noise = torch.randn(len(values), generator=stream, dtype=xi.dtype)
        xi[row, gone] = xi[row, here] @ gain + vectors @ (values.clamp(min=0).sqrt() * noise)
    return xi


def check_context(context: Sequence[str] | str) -> tuple[str, ...]:
    """The context's parts as a tuple, each one known."""
    parts = (context,) if isinstance(context, str) else tuple(context)
    return tuple(checks.one_of("context", part, CONTEXTS) for part in parts if part != "none")


def check_location(location: str, periods: tuple[int, ...], freq: str) -> str:
    """The location's name; ValueError if it is unknown, or one of seasons where the frequency has none."""
    if checks.one_of("location", location, LOCATIONS) in ("season", "profile") and not periods:
        raise ValueError(f"location={location!r}: must be another one, freq={freq!r} has no season")
    return location
