r"""The "increments" representation: what of a panel is learned, from its past alone.

    y_t = y_{t-m} + s_t xi_t,   s_t^2 = (sum of the last W squared increments + p long_run^2) / (W + p)

per series: m = `difference` (1: from the last value; a season: from the value a season ago), W = `scale_window`, p = 1
a pseudo-day that keeps a scale positive through constant stretches, long_run the root mean square over the training
part. The network models xi_t (d series) given a context (features) that is a function of the same window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsmd import checks
from vsmd.data.panels import split_freq

PSEUDO = 1.0  # weight, in steps, of the long-run scale in a local one
CLIP = 8.0  # standardised increments are winsorised: a broken peg is one event, not a law
CHUNK = 256  # windows whose features are computed at once
HARMONICS = 2


@dataclass(frozen=True)
class Increments:
    """Representation of a panel of d series; `fitted` sets `long_run` (d,) from training values.

    context: the parts of the context, of "scales" (log local over long-run scale, and the scale of the last W/6 steps
    over the local one), "lags" (the last `lags` standardised increments) and "seasons" (Fourier features of the
    `periods`, in steps). drift: False makes the law of the increments symmetric – each training step counts with both
    signs – so that no drift is learned from one long path.
    """

    scale_window: int = 60
    difference: int = 1
    context: tuple[str, ...] = ("scales",)
    lags: int = 2
    periods: tuple[int, ...] = ()
    drift: bool = False
    long_run: Tensor | None = None

    @property
    def history(self) -> int:
        """Number of past values that a forecast needs."""
        return self.scale_window + self.difference

    @property
    def settings(self) -> dict[str, Any]:
        """Everything as JSON values."""
        names = ("scale_window", "difference", "context", "lags", "periods", "drift")
        plain = {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in names}
        return plain | {"long_run": None if self.long_run is None else self.long_run.tolist()}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Increments:
        """Inverse of `settings`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        if values["long_run"] is not None:
            values["long_run"] = torch.tensor(values["long_run"], dtype=torch.float64)
        return cls(**values)

    def features(self, dim: int) -> int:
        """Width of the context for d = `dim` series."""
        sizes = {"scales": 2 * dim, "lags": self.lags * dim, "seasons": 2 * HARMONICS * len(self.periods)}
        return sum(sizes[part] for part in self.context)

    def differences(self, values: Tensor) -> Tensor:
        """Increments y_t - y_{t-m} of values (T, d), (T - m, d)."""
        return values[self.difference :] - values[: -self.difference]

    def fitted(self, series: Sequence[Tensor]) -> Increments:
        """The representation knowing the long-run scale of training series, each (T, d) float64."""
        squares = torch.cat([self.differences(v).square() for v in series])
        long_run = squares.mean(0).sqrt()
        if not bool((long_run > 0).all()):
            which = (long_run == 0).nonzero().flatten().tolist()
            raise ValueError(f"target: series {which} never change in the training part; leave constant series out")
        return Increments(**{**self.__dict__, "long_run": long_run})

    def look(self, recent: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Scales (n, d) and contexts (n, features) from the last W increments (n, W, d) before positions (n,)."""
        assert self.long_run is not None
        long_run = self.long_run.to(recent)
        short = max(1, self.scale_window // 6)
        squares = recent.square()
        base = PSEUDO * long_run.square()
        scale = ((squares.sum(1) + base) / (self.scale_window + PSEUDO)).sqrt()
        parts = []
        for part in self.context:
            if part == "scales":
                fast = ((squares[:, -short:].sum(1) + PSEUDO * scale.square()) / (short + PSEUDO)).sqrt()
                parts += [(scale / long_run).log(), (fast / scale).log()]
            elif part == "lags":
                last = recent[:, -self.lags :] / scale[:, None]
                parts.append(last.clamp(-CLIP, CLIP).flatten(1))
            else:
                order = torch.arange(1, HARMONICS + 1, device=recent.device, dtype=torch.float64)
                for period in self.periods:
                    angle = (position.double() % period)[:, None] * order * (2 * math.pi / period)
                    parts += [angle.sin(), angle.cos()]
        context = torch.cat([p.to(recent) for p in parts], 1) if parts else recent.new_zeros(len(recent), 0)
        return scale, context.float()

    def pairs(self, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Training pairs of one series (T, d) whose first value has calendar position `start`.

        Returns standardised increments (N, d) and contexts (N, features), N = T - history, twice that without drift.
        """
        increments, window = self.differences(values), self.scale_window
        xs, contexts = [], []
        for first in range(window, len(increments), CHUNK):
            last = min(first + CHUNK, len(increments))
            recent = increments[first - window : last - 1].unfold(0, window, 1).transpose(1, 2)
            position = start + self.difference + torch.arange(first, last)
            for sign in (1,) if self.drift else (1, -1):
                scale, context = self.look(sign * recent, position)
                xs.append((sign * increments[first:last] / scale).clamp(-CLIP, CLIP).float())
                contexts.append(context)
        return torch.cat(xs), torch.cat(contexts)

    def begin(self, values: Tensor, position: Tensor) -> State:
        """State of forecasts that start after histories (n, history, d), at calendar positions (n,)."""
        increments = values[:, self.difference :] - values[:, : -self.difference]
        return State(self, values[:, -self.difference :], increments, position)


class State:
    """Recurrent state of n paths: the last m values and the last W increments, with their scale and context."""

    def __init__(self, how: Increments, values: Tensor, recent: Tensor, position: Tensor) -> None:
        self.how, self.values, self.recent, self.position = how, values, recent, position
        self.scale, self.context = how.look(recent, position)

    def repeat(self, times: int) -> State:
        """Each path `times` times over, side by side."""
        parts = (v.repeat_interleave(times, 0) for v in (self.values, self.recent, self.position))
        return State(self.how, *parts)

    def advance(self, xi: Tensor) -> Tensor:
        """Append the increments s xi (n, d) and return the new values (n, d)."""
        step = self.scale * xi.to(self.scale).clamp(-CLIP, CLIP)
        new = self.values[:, 0] + step
        self.values = torch.cat([self.values[:, 1:], new[:, None]], 1)
        self.recent = torch.cat([self.recent[:, 1:], step[:, None]], 1)
        self.position = self.position + 1
        self.scale, self.context = self.how.look(self.recent, self.position)
        return new


PERIODS = {  # base frequency of a pandas Period: its seasons, in base steps
    "s": (86_400,), "min": (1_440, 10_080), "h": (24, 168), "D": (7,), "W": (52,), "M": (12,), "Q": (4,),
}  # fmt: skip


def seasons(freq: str) -> tuple[int, ...]:
    """Seasons of a pandas frequency, in its steps ("15min": 96 and 672); ValueError if it is unknown.

    Business days have none: panels that use them close their holidays up, so that a weekday is not a position.
    """
    multiple, base = split_freq(freq)
    return tuple(p // multiple for p in PERIODS.get(base, ()) if p % multiple == 0 and p > multiple)


def as_values(target: object, name: str, least: int) -> Tensor:
    """A target (d, T) or (T,) as a float64 tensor (T, d); ValueError if too short, constant or not finite."""
    array = np.asarray(target, dtype=np.float64)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise ValueError(f"{name}: shape {array.shape}; must be (series, time) or (time,)")
    if array.shape[1] < least:
        raise ValueError(f"{name}: {array.shape[1]} time steps; must be at least {least} (context + horizon)")
    if not np.isfinite(array).all():
        missing = [i for i, row in enumerate(array) if not np.isfinite(row).any()]
        if missing:
            raise ValueError(f"{name}: series {missing} have no value at all; leave them out")
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name}: {bad} of {array.size} values are missing or infinite; fill them or drop the series")
    return torch.from_numpy(np.ascontiguousarray(array.T))


def check_context(context: Sequence[str] | str) -> tuple[str, ...]:
    """The context's parts as a tuple, each one known."""
    parts = (context,) if isinstance(context, str) else tuple(context)
    return tuple(checks.one_of("context", part, ("scales", "lags", "seasons")) for part in parts if part != "none")
