"""The forecasting experiments of notebook 05: what one run is, for the six methods, the naive rows and the peers."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from repro.grid.runs import Result
from repro.studies.forecast_settings import SETTINGS, VARIANTS, with_solver
from repro.studies.peers import VAR, DeepAR
from repro.studies.sets.panels import panel
from vsmd.data.panels import Panel
from vsmd.forecasting import NAIVE, NaivePredictor, VSMDEstimator, accuracy, coverage, forecast, pit
from vsmd.forecasting.evaluation import LEVELS, quantiles
from vsmd.forecasting.series import seasons

Row = dict[str, Any]
CRPS_COLUMNS = [
    "dataset", "protocol", "method", "model", "a_mode", "solver", "nfe", "seed", "selected", "crps_sum", "crps",
    "nd_sum", "coverage_90", "train_seconds", "forecast_seconds", "peak_rss_mb",
]  # fmt: skip
WINDOWS = 20  # of the protocols inside the training part
PEERS = {"deepar": DeepAR, "var": VAR}
PIT_BINS = 20
FAN = [0.05, 0.25, 0.5, 0.75, 0.95]  # quantiles of the fan charts
FAN_SERIES = 3


def panel_of(dataset: str, protocol: str) -> Panel:
    """The panel under a protocol, trained on what precedes its windows.

    "original": the data set's test windows. "rolling20": the last 20 windows of its training part. "selection": the 20
    before those, by which configurations are chosen, so that neither of the other two has a say in it.
    """
    data = panel(dataset)
    for _ in range({"original": 0, "rolling20": 1, "selection": 2}[protocol]):
        data = data.validation(WINDOWS)
    return data


def options_of(data: Panel, settings: str, variant: str, steps: int | None = None) -> dict[str, Any]:
    """The estimator's arguments for a panel by the names of `SETTINGS` and `VARIANTS`; steps: instead of theirs."""
    features = {"num_feat_dynamic_real": data.num_feat_dynamic_real}
    return SETTINGS[settings] | VARIANTS[variant] | features | ({} if steps is None else {"steps": steps})


class Tables:
    """Collects what is stored of forecasts: rows of crps.csv; of the main ones calibration and fan charts too."""

    def __init__(self, data: Panel, dataset: str, protocol: str) -> None:
        self.data, self.base = data, {"dataset": dataset, "protocol": protocol}
        self.tables: dict[str, list[Row]] = {"crps": [], "crps_coverage": [], "crps_pit": []}
        self.fans: dict[str, np.ndarray] = {}

    def add(self, predictor: Any, key: Row, samples: int, trained: float = 0.0, main: bool = True) -> None:
        """Forecast all windows, and store their accuracy under the columns `key`."""
        start = time.perf_counter()
        drawn = forecast(predictor, self.data, samples)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        timing = {"train_seconds": trained, "forecast_seconds": seconds, "peak_rss_mb": round(peak, 1)}
        key, truth = self.base | key, self.data.targets
        row = {"selected": 0, **key, **accuracy(drawn, truth), **timing}
        self.tables["crps"].append({c: row.get(c) for c in CRPS_COLUMNS})
        if not main:
            return
        for level, share in zip(LEVELS, coverage(drawn, truth)):
            self.tables["crps_coverage"].append({**key, "level": level, "coverage": share})
        for number, share in enumerate(pit(drawn, truth, PIT_BINS)):
            self.tables["crps_pit"].append({**key, "bin": number, "share": share})
        fan = np.moveaxis(quantiles(drawn[..., :FAN_SERIES], FAN), 0, -1)  # (windows, horizon, series, quantile)
        index = np.indices(fan.shape[:3]).reshape(3, -1).T
        self.fans[fan_name(**key)] = np.hstack([index, fan.reshape(-1, len(FAN))])

    @property
    def result(self) -> Result:
        return Result(self.tables, self.fans)


def fan_name(**key: Any) -> str:
    """Name of the stored points of a fan chart: rows (window, step, series, 5 quantiles). Denoised ones end in so."""
    labels = (key.get(name) for name in ("dataset", "protocol", "model", "method", "a_mode", "seed"))
    denoised = str(key.get("solver")).endswith("+denoise")
    return "_".join(["fan", *(str(label) for label in labels if label is not None)]) + "+denoise" * denoised


def baselines(
    dataset: str, seeds: list[int], protocol: str = "original", samples: int = 100, window: int = 60
) -> Result:
    """The naive rows, those with chance for each seed. window: of the random walk; season: the shortest, or 5."""
    warnings.simplefilter("ignore", FutureWarning)  # pandas and GluonTS about business-day periods
    data = panel_of(dataset, protocol)
    tables, season = Tables(data, dataset, protocol), (seasons(data.freq) or (5,))[0]
    for kind in NAIVE:
        options = {"season": season} if kind.startswith("seasonal") else {}
        options |= {"window": window} if kind == "random_walk" else {}
        chance = kind in ("random_walk", "seasonal_bootstrap")
        for seed in seeds if chance else seeds[:1]:
            predictor = NaivePredictor(kind, data.prediction_length, seed=seed, **options)
            tables.add(predictor, {"method": kind, "seed": seed}, samples, main=chance and seed == seeds[0])
    return tables.result


def peer(
    dataset: str, method: str, seed: int, protocol: str = "original", samples: int = 100, steps: int = 5_000
) -> Result:
    """Train "deepar" (for `steps`) or fit a "var", and forecast all windows."""
    warnings.simplefilter("ignore", FutureWarning)
    data = panel_of(dataset, protocol)
    features = {"num_feat_dynamic_real": data.num_feat_dynamic_real}
    options = {"steps": steps, **features} if method == "deepar" else {}
    start = time.perf_counter()
    predictor = PEERS[method](data.prediction_length, data.freq, seed=seed, **options).train(data.train)
    tables = Tables(data, dataset, protocol)
    tables.add(predictor, {"method": method, "seed": seed}, samples, time.perf_counter() - start)
    return tables.result


def run(
    dataset: str,
    variant: str,
    seed: int,
    settings: str,
    protocol: str = "original",
    selected: bool = False,
    samples: int = 100,
    solvers: list[str] = ["exponential"],  # noqa: B006 - never mutated
    nfes: list[int] = [10],  # noqa: B006
    steps: int | None = None,
    denoise: bool = False,
    workdir: Path | None = None,
) -> Result:
    """Train one of `VARIANTS` with one of `SETTINGS`, forecast all windows with each solver at each number of
    evaluations a step.

    The first solver and number are the main ones: only they are marked `selected`, where this configuration is what
    validation chose, and have fan charts and calibration. steps: of training, if not those of the settings.
    denoise: the last of a step's evaluations denoises; solvers are then named `…+denoise`.
    """
    warnings.simplefilter("ignore", FutureWarning)
    data = panel_of(dataset, protocol)
    options = options_of(data, settings, variant, steps)
    checkpoint = None if workdir is None else workdir / "training.safetensors"
    estimator = VSMDEstimator(data.prediction_length, data.freq, seed=seed, checkpoint=checkpoint, **options)
    start = time.perf_counter()
    predictor = estimator.train(data.train)
    trained, tables = time.perf_counter() - start, Tables(data, dataset, protocol)
    base: Row = {
        "method": options["method"], "model": options.get("model", "increments"),
        "a_mode": predictor.model.process.variational_score,
    }  # fmt: skip
    for solver in solvers:
        for nfe in nfes:
            main = (solver, nfe) == (solvers[0], nfes[0])
            name = solver + "+denoise" * denoise
            key = {**base, "solver": name, "nfe": nfe, "seed": seed, "selected": int(selected and main)}
            tables.add(with_solver(predictor, solver, nfe, denoise), key, samples, trained, main)
    return tables.result


def available(names: list[str]) -> tuple[dict[str, Panel], dict[str, str]]:
    """Those of the data sets that can be had here, and for the others the reason why not."""
    panels: dict[str, Panel] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            panels[name] = panel(name)
        except (FileNotFoundError, ImportError, ValueError) as error:
            missing[name] = str(error)
    return panels, missing


__all__ = ["CRPS_COLUMNS", "available", "baselines", "fan_name", "panel_of", "peer", "run"]
