"""What the forecasting runs try: variants of the six methods, and settings of the estimator by name."""

from __future__ import annotations

from typing import Any

from repro.studies.windows import Windows
from vsmd.forecasting import VSMDPredictor
from vsmd.methods import FAMILY
from vsmd.samplers.generation import steps_within

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in FAMILY},
    "VSULD steered": {"method": "VSULD", "variational_score": "steered"},
}

_ALL = ("scales", "lags", "levels", "seasons")
_DAY = (1, 2, 3, 24, 25)
_LINEAR: dict[str, Any] = {"location": "linear", "factors": 8, "rank": 32, "context": _ALL}
_LAST: dict[str, Any] = {"location": "last", "context": ("scales",)}
DAILY: dict[str, dict[str, Any]] = {  # rates: increments from the last value
    "scales": _LAST,
    "scales of 30 steps": _LAST | {"scale_window": 30},
    "no context": _LAST | {"context": "none"},
    "no context, scales of 30 steps": _LAST | {"context": "none", "scale_window": 30},
    "scales, lags": _LAST | {"context": ("scales", "lags")},
    "scales, 3,000 steps": _LAST | {"steps": 3_000},
    "scales, diagonal": _LAST | {"basis": "coordinates"},
}
HOURLY: dict[str, dict[str, Any]] = {  # days and weeks: from a linear rule of lags, calendar and factors of the panel
    "linear": _LINEAR,
    "linear, 300 steps": _LINEAR | {"steps": 300},
    "linear, scales, 300 steps": _LINEAR | {"context": ("scales",), "steps": 300},
    "linear, no context": _LINEAR | {"context": "none", "steps": 300},
    "linear, 16 factors": _LINEAR | {"factors": 16, "steps": 300},
    "season": _LINEAR | {"location": "season", "factors": 0, "steps": 300},
    "profile": _LINEAR | {"location": "profile", "factors": 0},
    "profile, 300 steps": _LINEAR | {"location": "profile", "factors": 0, "steps": 300},
    "linear, full rank": _LINEAR | {"rank": None},
    "linear, full rank, a day's lags": _LINEAR | {"rank": None, "lags_seq": _DAY},
    "linear, full rank, a day's lags, 300 steps": _LINEAR | {"rank": None, "lags_seq": _DAY, "steps": 300},
    "linear, full rank, a day's lags, no steps": _LINEAR
    | {"rank": None, "lags_seq": _DAY, "context": ("scales", "levels", "seasons")},
}
SETTINGS = {"paper": {"model": Windows.name}} | DAILY | HOURLY


def with_solver(predictor: VSMDPredictor, solver: str, evaluations: int, denoise: bool) -> VSMDPredictor:
    """The same predictor with another solver, within `evaluations` network evaluations a step of the horizon."""
    steps = steps_within(solver, evaluations, denoise)
    settings = predictor.settings | {"solver": solver, "sampling_steps": steps, "denoise": denoise}
    parts = predictor.model, predictor.representation, predictor.prediction_length, predictor.freq
    return VSMDPredictor(*parts, **settings)


def candidates(freq: str) -> tuple[str, ...]:
    """Names of the settings that validation chooses from for a frequency; the first is used where it has no say."""
    return tuple(HOURLY if freq == "h" else DAILY)
