"""What the forecasting runs try: variants of the six methods, and settings of the estimator by name."""

from __future__ import annotations

from typing import Any

from vsmd.methods import METHODS

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "VSULD steered": {"method": "VSULD", "variational_score": "steered"},
}

_ALL = ("scales", "lags", "levels", "seasons")
_LINEAR: dict[str, Any] = {"location": "linear", "rank": 32}
_FACTORS: dict[str, Any] = {"location": "linear", "factors": 8, "lags_seq": (1, 2, 3, 24, 25), "rank": 16}
DAILY: dict[str, dict[str, Any]] = {  # rates: increments from the last value
    "scales": {},
    "no context": {"context": "none"},
    "scales, lags": {"context": ("scales", "lags")},
    "scales, 3,000 steps": {"steps": 3_000},
    "scales of 30 steps": {"scale_window": 30},
    "scales, drift": {"drift": True},
    "scales, diagonal": {"matrix": "diagonal"},
}
HOURLY: dict[str, dict[str, Any]] = {  # days and weeks: from a linear rule, or from the value a day ago
    "linear": {**_LINEAR, "context": _ALL},
    "linear, scales": {**_LINEAR, "context": ("scales",)},
    "linear with factors": {**_FACTORS, "context": _ALL},
    "linear with factors, scales": {**_FACTORS, "context": ("scales",)},
    "season": {"location": "season", "rank": 32, "context": ("scales", "lags", "seasons")},
}
SETTINGS = {"paper": {"model": "paper"}} | DAILY | HOURLY


def candidates(freq: str) -> tuple[str, ...]:
    """Names of the settings that validation chooses from for a frequency; the first is used where it has no say."""
    return tuple(HOURLY if freq == "h" else DAILY)
