"""Generated panels of the shape of the electricity and solar benchmarks: for speed, memory and protocol alone.

No real household or power plant is in them, and their names say so: `electricity_shaped`, `solar_shaped`.
"""

from __future__ import annotations

import numpy as np

from vsmd import random
from vsmd.data.panels import Panel

Array = np.ndarray

HOURS = 24
START = "2014-01-01"


def electricity_shaped(series: int = 370, steps: int = 5_833, prediction_length: int = 24, windows: int = 7) -> Panel:
    r"""Hourly loads with daily and weekly seasons that are correlated across series.

        y_it = level_i exp(daily_i(t) + weekly_i(t) + loadings_i . f_t + e_it)

    Levels are log-normal; daily_i is a sum of two harmonics of 24 h, weekly_i a drop at weekends; f_t are three common
    AR(1) factors (half-lives of 6 h, 1 and 4 days), e_it is one of each series (3 h).
    """
    rng, length = _rng("electricity_shaped"), steps + windows * prediction_length
    time = np.arange(length)
    day = 2 * np.pi * time / HOURS
    weekend = ((time // HOURS + 2) % 7 >= 5).astype(float)  # 2014-01-01 was a Wednesday
    harmonics = np.stack([np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day)])
    shape = np.array([-0.25, -0.35, -0.1, 0.1]) + 0.12 * rng.standard_normal((series, 4))
    weekly = -0.25 * rng.gamma(2.0, 0.5, series)
    common = np.stack([_ar1(rng, 1, length, half_life)[0] for half_life in (6.0, 24.0, 96.0)])
    loadings = 0.06 * (1 + rng.standard_normal((series, 3)))
    single = 0.08 * _ar1(rng, series, length, 3.0)
    level = np.exp(5.5 + rng.standard_normal(series))
    log = shape @ harmonics + weekly[:, None] * weekend + loadings @ common + single
    return _panel("electricity_shaped", level[:, None] * np.exp(log), prediction_length, windows)


def solar_shaped(series: int = 137, steps: int = 7_009, prediction_length: int = 24, windows: int = 7) -> Panel:
    r"""Hourly solar power: zero at night, a bell by day, clouds that neighbours share.

        y_it = capacity_i sun_it^1.2 / (1 + exp(-(1.2 + c_it))),   sun = cos(pi/2 (hours from noon) / (half a day))

    by day; days are between 9 and 15 hours long over the year, noon shifts by up to an hour from east to west. The
    clouds c are AR(1) (half-life 5 h) plus a level of the day, with correlation exp(-distance / .4) between places on a
    unit square.
    """
    rng, length = _rng("solar_shaped"), steps + windows * prediction_length
    time = np.arange(length)
    place = rng.random((series, 2))
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    root = np.linalg.cholesky(np.exp(-distance / 0.4) + 1e-9 * np.eye(series))
    half = 6 - 1.5 * np.cos(2 * np.pi * (time / HOURS + 10) / 365.25)  # half a day's length, h
    hour = (time % HOURS)[None] - 12 - (2 * place[:, :1] - 1)
    sun = np.cos(np.pi / 2 * np.clip(hour / half, -1, 1))
    sun[sun < 1e-9] = 0
    days = np.repeat(rng.standard_normal((series, length // HOURS + 1)), HOURS, axis=1)[:, :length]
    clouds = root @ (0.9 * _ar1(rng, series, length, 5.0) + 1.2 * days)
    capacity = np.exp(3 + 0.5 * rng.standard_normal(series))
    return _panel(
        "solar_shaped", capacity[:, None] * sun**1.2 / (1 + np.exp(-1.2 - clouds)), prediction_length, windows
    )


def _panel(name: str, values: Array, prediction_length: int, windows: int) -> Panel:
    names = tuple(f"generated {i + 1}" for i in range(len(values)))
    return Panel(name, "h", START, values, names, prediction_length, windows)


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(random.generator(0, name).initial_seed())


def _ar1(rng: np.random.Generator, series: int, steps: int, half_life: float) -> Array:
    """Stationary AR(1) of variance 1, (series, steps)."""
    memory = 0.5 ** (1 / half_life)
    noise, scale = rng.standard_normal((steps, series)), np.sqrt(1 - memory**2)
    path = np.empty_like(noise)
    path[0] = noise[0]
    for t in range(1, steps):
        path[t] = memory * path[t - 1] + scale * noise[t]
    return path.T
