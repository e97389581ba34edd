"""Choosing among forecasters on earlier windows of a panel, so that the test part has no say in it.

name, scores = choose(panel, {"default": {}, "profile": {"location": "profile"}, "walk": NaivePredictor(…)})
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vsmd import checks
from vsmd.data.panels import Panel
from vsmd.forecasting.estimator import VSMDEstimator
from vsmd.forecasting.evaluation import accuracy, forecast


def made(candidate: Any, panel: Panel, seed: int = 0) -> Any:
    """A predictor or estimator as it is; of options, a `VSMDEstimator` with the panel's horizon and frequency."""
    if not isinstance(candidate, Mapping):
        return candidate
    options = {"num_feat_dynamic_real": panel.num_feat_dynamic_real, "seed": seed, **candidate}
    return VSMDEstimator(panel.prediction_length, panel.freq, **options)


def scored(candidate: Any, panel: Panel, *, seed: int = 0, num_samples: int = 100) -> dict[str, float]:
    """`accuracy` of a candidate (see `choose`) on a panel's windows; estimators are trained on what precedes them."""
    forecaster = made(candidate, panel, seed)
    predictor = forecaster.train(panel.train) if hasattr(forecaster, "train") else forecaster
    return accuracy(forecast(predictor, panel, num_samples), panel.targets)


def lowest(scores: pd.DataFrame, column: str) -> Any:
    """The value of `column` whose rows have the lowest mean crps_sum."""
    return scores.groupby(column, sort=False).crps_sum.mean().idxmin()


def choose(
    panel: Panel,
    candidates: Mapping[str, Any],
    *,
    windows: int = 20,
    seeds: Sequence[int] = (0,),
    num_samples: int = 100,
) -> tuple[str, pd.DataFrame]:
    """The candidate with the lowest mean CRPS-Sum on the last windows of the training part, and all scores.

    candidates: by name, options of `VSMDEstimator`, or any GluonTS estimator or predictor, as the naive rows.
    windows: how many, of the panel's horizon; they are as far from what is tested as they are many.
    seeds: of which each candidate of options is trained with.
    Raises ValueError for candidates that are none or whose options are wrong, and where no window can be scored. One
    that cannot be trained or forecast on this panel is left out with a warning.
    """
    if not candidates or not len(seeds):
        raise ValueError(f"candidates: {len(candidates)} with {len(seeds)} seeds; must be one or more of each")
    checks.positive_int("num_samples", num_samples)
    inner, rows = panel.validation(windows), []
    if np.isnan(inner.targets).any(-1).all():
        raise ValueError(f"windows={windows}: no step in which every series has a value; the sum cannot be scored")
    for name, candidate in candidates.items():
        forecaster = made(candidate, inner)  # wrong options are told before any training
        if not (hasattr(forecaster, "train") or hasattr(forecaster, "predict")):
            raise ValueError(f"candidates: {name!r} must be options, an estimator or a predictor")
        if (length := forecaster.prediction_length) != panel.prediction_length:
            raise ValueError(f"candidates: {name!r} has prediction_length={length}; must be {panel.prediction_length}")
    for name, candidate in candidates.items():
        try:
            scores = [{"seed": s, **scored(candidate, inner, seed=s, num_samples=num_samples)} for s in seeds]
        except (ValueError, FloatingPointError) as error:
            warnings.warn(f"candidates: {name!r} is left out ({error})", stacklevel=2)
            continue
        rows += [{"candidate": name, **row} for row in scores]
    if not rows:
        raise ValueError("candidates: none could be trained and forecast on this panel; the warnings say why")
    table = pd.DataFrame(rows)
    return lowest(table, "candidate"), table
