"""What validation inside the training part chooses: settings, then the method, and the random walk's window.

All by CRPS-Sum on the 20 windows of the protocol "selection" (`forecasts.panel_of`), rows of crps_selection.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.grid.runs import Result, Run
from repro.studies.forecast_settings import with_solver
from repro.studies.forecasts import options_of, panel_of
from vsmd.forecasting import NaivePredictor, VSMDEstimator
from vsmd.forecasting.choice import lowest, scored

if TYPE_CHECKING:
    import pandas as pd

    from repro.grid.store import Store

WALKS = (30, 60, 250)


def candidate(
    dataset: str,
    variant: str,
    seed: int,
    settings: str,
    samples: int = 100,
    solver: str = "exponential",
    nfe: int = 10,
    steps: int | None = None,
    workdir: Path | None = None,
) -> Result:
    """Scores of one of `VARIANTS` with one of `SETTINGS`, trained on what precedes the windows of the selection."""
    warnings.simplefilter("ignore", FutureWarning)  # pandas and GluonTS about business-day periods
    data = panel_of(dataset, "selection")
    options = options_of(data, settings, variant, steps)
    checkpoint = None if workdir is None else workdir / "training.safetensors"
    estimator = VSMDEstimator(data.prediction_length, data.freq, seed=seed, checkpoint=checkpoint, **options)
    predictor = with_solver(estimator.train(data.train), solver, nfe, denoise=False)
    key = {"dataset": dataset, "variant": variant, "settings": settings, "solver": solver, "nfe": nfe, "seed": seed}
    return Result({"crps_selection": [{**key, **scored(predictor, data, num_samples=samples)}]})


def walks(dataset: str, seeds: list[int], samples: int = 100) -> Result:
    """Scores of random walks with covariances of the last 30, 60 and 250 steps."""
    warnings.simplefilter("ignore", FutureWarning)
    data = panel_of(dataset, "selection")
    rows: list[dict[str, Any]] = []
    for window in WALKS:
        for seed in seeds:
            predictor = NaivePredictor("random_walk", data.prediction_length, seed=seed, window=window)
            key = {"dataset": dataset, "variant": "random_walk", "settings": window, "seed": seed}
            rows.append({**key, **scored(predictor, data, num_samples=samples)})
    return Result({"crps_selection": rows})


def chosen(table: pd.DataFrame, dataset: str, column: str) -> Any:
    """The value of `column` with the lowest mean crps_sum among a table's rows of a data set.

    Raises ValueError where there are none.
    """
    rows = table[table.dataset == dataset]
    if rows.empty:
        raise ValueError(f"dataset={dataset!r}: no rows to choose from")
    return lowest(rows, column)


def superseded(store: Store, runs: Iterable[Run]) -> list[str]:
    """Keys of stored runs that are marked as selected while among `runs` another one of their data set is."""
    declared = {run.key: run.config for run in runs if run.config.get("selected")}
    groups = {(c["dataset"], c["protocol"]) for c in declared.values()}
    marked = {key: entry["config"] for key, entry in store.entries().items() if entry["config"].get("selected")}
    return [k for k, c in marked.items() if k not in declared and (c["dataset"], c["protocol"]) in groups]
