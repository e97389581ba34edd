"""GluonTS items as tensors, checked: targets with gaps, calendar positions and their seasons, real-valued features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsmd import checks
from vsmd.data.calendars import as_period, split_freq

PERIODS = {  # base frequency of a pandas Period: its seasons, in base steps
    "s": (86_400,), "min": (1_440, 10_080), "h": (24, 168), "D": (7,), "W": (52,), "M": (12,), "Q": (4,),
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One item: values (T, d) float64 with NaN where missing, the calendar position of the first of them (in steps).

    dynamic: real features (T', F) from the same step on, T' = T or more where the future is known; static: (S,).
    """

    values: Tensor
    position: int
    dynamic: Tensor
    static: Tensor

    def first(self, steps: int) -> Series:
        """The first `steps` values of a series."""
        return Series(self.values[:steps], self.position, self.dynamic, self.static)

    def last(self, steps: int) -> Series:
        """The end of a series, from its last `steps` values on (with what is known of the time after it)."""
        cut = len(self.values) - steps
        return Series(self.values[cut:], self.position + cut, self.dynamic[cut:], self.static)

    def features(self, before: int, ahead: int) -> Tensor:
        """Real features beside the targets, (before + ahead, F + S): `before` steps back from the end, `ahead` on."""
        first = len(self.values) - before
        dynamic = self.dynamic[first : first + before + ahead]
        return torch.cat([dynamic, self.static.expand(len(dynamic), -1)], 1)


def seasons(freq: str) -> tuple[int, ...]:
    """Seasons of a pandas frequency, in its steps ("15min": 96 and 672); ValueError if it is unknown.

    Business days have none: panels that use them close their holidays up, so that a weekday is not a position.
    """
    multiple, base = split_freq(freq)
    return tuple(p // multiple for p in PERIODS.get(base, ()) if p % multiple == 0 and p > multiple)


def checked_lags(lags: Sequence[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """Lags as a tuple, each checked (ValueError), or the default ones for None."""
    if lags is not None and not len(lags):
        raise ValueError("lags_seq=(): must name at least one lag")
    return tuple(default) if lags is None else tuple(checks.positive_int("lags_seq", lag) for lag in lags)


def fourier(position: Tensor, periods: tuple[int, ...], harmonics: int) -> Tensor:
    """sin, cos of 2 pi j position / period for j = 1 … `harmonics` and each of the periods: (n, features) float64."""
    order = torch.arange(1, harmonics + 1, device=position.device, dtype=torch.float64)
    parts = [torch.zeros(len(position), 0, device=position.device, dtype=torch.float64)]
    for period in periods:
        angle = (position.double() % period)[:, None] * order * (2 * math.pi / period)
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, 1)


def position_of(start: Any, freq: str) -> int:
    """Number of steps of `freq` from the calendar's origin to `start`."""
    first = as_period(start, freq)
    return int(first.ordinal // first.freq.n)


def as_values(target: object, name: str, least: int, missing: bool = False, parts: str = "history") -> Tensor:
    """A target (d, T) or (T,) as a float64 tensor (T, d).

    parts: what `least` is made of. Raises ValueError in one line for what is no table of numbers, is too short, has a
    series without any value or infinite ones, and for missing values unless they are allowed (NaN then).
    """
    try:
        array = np.asarray(target, dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{name}: must be a table of numbers, every series of the same length") from None
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise ValueError(f"{name}: shape {array.shape}; must be (series, time) or (time,)")
    if array.shape[1] < least:
        raise ValueError(f"{name}: {array.shape[1]} time steps; must be at least {least} ({parts})")
    if empty := [i for i, row in enumerate(array) if not np.isfinite(row).any()]:
        raise ValueError(f"{name}: series {empty} have no value at all; leave them out")
    bad = int(np.isinf(array).sum() if missing else (~np.isfinite(array)).sum())
    if bad:
        which = "infinite; give NaN where a value is missing" if missing else "missing or infinite"
        hint = "" if missing else "; fill them or drop the series"
        raise ValueError(f"{name}: {bad} of {array.size} values are {which}{hint}")
    return torch.from_numpy(np.ascontiguousarray(array.T))


def read(
    item: dict[str, Any], freq: str, least: int, ahead: int, dynamic: int, static: int, parts: str = "history"
) -> Series:
    """A GluonTS item with `least` values or more, and so many `dynamic` and `static` features, known `ahead` steps.

    Raises ValueError for a bad target (`as_values`), a start that is no time stamp or of another frequency, and for
    features that are not there.
    """
    position = position_of(item["start"], freq)  # a wrong frequency is told first: it asks for another length
    values = as_values(item["target"], "target", least, missing=True, parts=parts)
    known = torch.zeros(len(values) + ahead, 0)
    if dynamic:
        known = _feature(item, "feat_dynamic_real", (dynamic, len(values) + ahead)).T
    fixed = _feature(item, "feat_static_real", (static,)) if static else torch.zeros(0)
    return Series(values, position, known, fixed)


def _feature(item: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    values = np.asarray(item.get(name, ()), dtype=np.float64)
    if values.ndim != len(shape) or values.shape[0] != shape[0] or values.shape[-1] < shape[-1]:
        raise ValueError(f"{name}: shape {values.shape}; must be {shape}, over the history and what is forecast")
    values = values[..., : shape[-1]]
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: must be finite, has NaN or inf")
    return torch.from_numpy(np.ascontiguousarray(values)).float()
