"""What the forecasting runs try: variants of the six methods, and settings of the estimator by name."""

from __future__ import annotations

from typing import Any

from vsmd.methods import METHODS

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "VSULD steered": {"method": "VSULD", "variational_score": "steered"},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"model": "paper"},
    # daily rates: increments from the last value
    "scales": {},
    "no context": {"context": "none"},
    "scales, lags": {"context": ("scales", "lags")},
    "scales, 3,000 steps": {"steps": 3_000},
    "scales, drift": {"drift": True},
    "scales, diagonal": {"matrix": "diagonal"},
}
DAILY = ("scales", "no context", "scales, lags", "scales, 3,000 steps", "scales, drift", "scales, diagonal")
HOURLY = ("scales",)


def candidates(freq: str) -> tuple[str, ...]:
    """Names of the settings that validation chooses from for a frequency; the first is used where it has no say."""
    return HOURLY if freq == "h" else DAILY
