"""Calls of measures, readers of tables in memory, panels, images and settings: milliseconds each."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

from torture import arguments as a
from torture.calls import Call, Kind
from vsmd import command, metrics
from vsmd.data import images, panels, points
from vsmd.data.calendars import as_period
from vsmd.data.image_files import ImageSet
from vsmd.forecasting import NAIVE, NaivePredictor, accuracy, coverage, outlook, pit
from vsmd.forecasting.increments import Increments
from vsmd.images import Config, config
from vsmd.images.configs import CONFIGS, FIELDS
from vsmd.metrics import distances, frechet
from vsmd.metrics import points as point_measures

SHAPE = st.sampled_from([(1,), (2,), (3, 2)])
FREQ = st.sampled_from(["h", "15min", "D", "B", "W", "MS", "ME", "QS", "YS", "2h", "s", "30D"])


@st.composite
def measured(draw: st.DrawFn) -> Call:
    """A measure of two sets of points."""
    shape = draw(SHAPE)
    name = draw(st.sampled_from(["wasserstein2", "sliced_wasserstein2", "frechet_distance_of", "memorisation", "energy",
                                 "marginal", "kernel", "tails", "reference"]))  # fmt: skip
    sets: list[Any] = [draw(a.points(shape)) for _ in range(3)]
    x, y, z = sets
    if draw(st.integers(0, 3)) == 0:
        x = draw(a.odd)
    elif draw(st.integers(0, 3)) == 0:
        y = draw(a.points(draw(SHAPE))).numpy()
    projections = draw(st.integers(1, 40) | a.odd) if draw(st.integers(0, 9)) == 0 else 16
    do = {
        "wasserstein2": lambda: metrics.wasserstein2(x, y),
        "sliced_wasserstein2": lambda: metrics.sliced_wasserstein2(x, y, projections),
        "frechet_distance_of": lambda: metrics.frechet_distance_of(x, y),
        "memorisation": lambda: metrics.memorisation(x, y, z),
        "energy": lambda: point_measures.energy_distance(x, y),
        "marginal": lambda: distances.marginal_wasserstein2(x, y),
        "kernel": lambda: frechet.kernel_distance(x, y),
        "tails": lambda: point_measures.tail_error(x, y),
        "reference": lambda: point_measures.Reference.of(x, y).whiten(z),
    }[name]
    more = (RuntimeError,) if name == "wasserstein2" else ()  # documented: the simplex does not finish
    return Call(f"{name}({a.told(x)}, {a.told(y)}, {a.told(z)}, projections={projections!r})", do, more)


@st.composite
def scored(draw: st.DrawFn) -> Call:
    """Scores of forecasts, and CRPS."""
    windows, draws, horizon, d = (draw(st.integers(1, 4)) for _ in range(4))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    samples, targets = rng.normal(size=(windows, draws, horizon, d)), rng.normal(size=(windows, horizon, d))
    samples *= 10.0 ** draw(st.integers(-3, 9))
    bad = draw(st.integers(0, 8))
    if bad == 0:
        targets[0, 0] = math.nan
    elif bad == 1:
        samples[0, 0] = math.nan
    elif bad == 2:
        targets = targets * 0
    elif bad == 3:
        samples = draw(a.odd)
    elif bad == 4:
        targets = draw(a.odd)
    name = draw(st.sampled_from(["accuracy", "coverage", "pit", "crps", "quantile_crps_sum"]))
    levels: Any = draw(st.sampled_from([None, (0.5,), (0.1, 0.9), (), (0.0,), (1.5,), "x"]))
    bins: Any = draw(st.sampled_from([1, 20, 0, -1, 2.5]))
    first = samples[0] if isinstance(samples, np.ndarray) and samples.ndim == 4 else samples
    second = targets[0] if isinstance(targets, np.ndarray) and targets.ndim == 3 else targets
    do = {
        "accuracy": lambda: accuracy(samples, targets), "coverage": lambda: coverage(samples, targets),
        "pit": lambda: pit(samples, targets, bins), "crps": lambda: metrics.crps(first, second, levels),
        "quantile_crps_sum": lambda: metrics.quantile_crps_sum(first, second, levels or (0.5,)),
    }[name]  # fmt: skip
    return Call(
        f"{name} of samples {np.shape(samples)}, targets {np.shape(targets)}, case {bad}, {levels=}, {bins=}", do
    )


CELLS = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, 0.0, 1e300, "x", None, True, 10**20]))


@st.composite
def frames(draw: st.DrawFn) -> tuple[pd.DataFrame, str]:
    """A frame, mostly of numbers, with some index, and words for it."""
    n, d = draw(st.sampled_from([0, 1, 5, 60, 80])), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    frame = pd.DataFrame(rng.normal(size=(n, d)).cumsum(0), columns=list("abc")[:d])
    said = f"{n} x {d}"
    for column in frame.columns:
        if n and draw(st.integers(0, 7)) == 0:
            cell = draw(CELLS)
            frame[column] = frame[column].astype(object)
            frame.loc[frame.index[-1], column] = cell
            frame[column] = frame[column].infer_objects()
            said += f", last {column}={cell!r}"
    if d and draw(st.integers(0, 9)) == 0:
        frame.columns = ["a"] * d
        said += ", one name"
    index = draw(
        st.sampled_from(["h", "D", "B", "ME", "none", "names", "doubled", "backwards", "far", "zone", "nat", "period"])
    )
    stamps: Any = pd.date_range("2024-01-01", periods=n, freq=index if index in ("h", "D", "B", "ME") else "h")
    if n and index == "far":
        stamps = stamps[:-1].append(pd.DatetimeIndex(["2200-01-01"]))
    frame.index = {
        "none": frame.index, "names": pd.Index([f"r{i}" for i in range(n)]),
        "doubled": stamps[: n - 1].append(stamps[:1])[:n],
        "backwards": stamps[::-1], "zone": stamps.tz_localize("Europe/Berlin", ambiguous="NaT", nonexistent="NaT"),
        "nat": pd.DatetimeIndex([pd.NaT] * n), "period": stamps.to_period("h"),
    }.get(index, stamps) if n else frame.index  # fmt: skip
    return frame, f"frame {said}, index {index}"


@st.composite
def tables(draw: st.DrawFn) -> Call:
    """`points.read` and `panels.from_wide` of frames, and what panels give."""
    frame, said = draw(frames())
    if draw(st.booleans()):
        fields = draw(a.chosen({
            "split": st.sampled_from(["random", "group", "time", None]), "time_column": st.sampled_from(["a", "z",
            None]),
            "group_column": st.sampled_from(["a", "z", None]), "drop": st.sampled_from([(), ("a",), ("z",)]),
            "missing": st.sampled_from(["error", "drop", "impute"]), "seed": st.integers(0, 9),
        }))  # fmt: skip
        return Call(f"{a.words('points.read', fields)} of {said}", lambda: points.read(frame, **fields))
    fields = draw(a.chosen({
        "freq": FREQ, "prediction_length": st.integers(1, 30), "windows": st.integers(1, 6),
        "gaps": st.sampled_from(["error", "missing", "close"]),
    }, ("freq", "prediction_length")))  # fmt: skip
    ask = draw(
        st.sampled_from(
            ["train", "future", "test", "validation", "with_weekdays", "with_holidays", "targets", "outlook"]
        )
    )

    def do() -> Any:
        panel = panels.from_wide(frame, **fields)
        if ask == "with_holidays":
            return panel.with_holidays("DE").future
        if ask == "outlook":
            return outlook(NaivePredictor("last_value", panel.prediction_length), panel)
        value = getattr(panel, ask)
        return None if ask == "targets" else value() if callable(value) else list(value)  # targets may be missing

    return Call(f"{a.words('from_wide', fields)} of {said}; {ask}", do)


@st.composite
def naive(draw: st.DrawFn) -> Call:
    """Naive forecasters of series with gaps."""
    options = draw(a.chosen({"season": st.integers(1, 9), "window": st.integers(1, 99), "seed": st.integers(0, 9)}))
    kind, horizon, steps = (
        draw(st.sampled_from(list(NAIVE))),
        draw(st.integers(1, 9) | a.odd),
        draw(st.sampled_from([1, 3, 40])),
    )
    freq, values = draw(FREQ), np.random.default_rng(0).normal(size=(2, steps))
    for i in draw(st.lists(st.integers(0, 1), max_size=2)):
        values[i, draw(st.integers(0, steps - 1)) :] = draw(st.sampled_from([math.nan, 1.0, 1e9, math.inf]))

    def do() -> Any:
        item = {"start": as_period("2024-01-01", freq), "target": values}
        predictor = NaivePredictor(kind, horizon, **options)
        return [f.samples for f in predictor.predict([item], num_samples=5)]

    return Call(f"NaivePredictor({kind!r}, {horizon!r}, **{options}) of {values.tolist()[:2]} at {freq}"[:600], do)


@st.composite
def pictures(draw: st.DrawFn) -> Call:
    """Image sets and pictures in memory."""
    shape = draw(
        st.sampled_from([(4, 1, 2, 2), (4, 3, 2, 2), (3, 2, 2), (1, 1, 2, 2), (0, 1, 2, 2), (4, 2, 2, 2), (4, 3, 0, 2)])
    )
    values = torch.rand(shape) * draw(st.sampled_from([1.0, 300.0, math.nan, math.inf]))
    raw = draw(st.sampled_from([torch.uint8, torch.float32, torch.int64]))
    labels = draw(st.sampled_from([None, torch.arange(shape[0]), torch.zeros(shape[0]), torch.full((shape[0],), -1)]))
    columns = draw(st.integers(1, 5) | a.odd)
    name = draw(st.sampled_from(["to_uint8", "tile", "set"]))
    do = {
        "to_uint8": lambda: images.to_uint8(values),
        "tile": lambda: images.tile(torch.zeros(max(1, shape[0]), 3, 2, 2, dtype=torch.uint8), columns),
        "set": lambda: ImageSet(
            "x", torch.zeros(shape, dtype=raw), torch.zeros(shape, dtype=raw), labels, labels, ("a", "b")
        ),
    }[name]
    return Call(f"{name} {shape} {raw} labels={a.told(labels)} columns={columns!r}", do)


VALUE = st.one_of(
    a.odd.filter(lambda v: not isinstance(v, torch.Tensor)), st.integers(-1, 9), st.floats(-1, 2), a.solver, a.method
)
OVERRIDES = st.dictionaries(st.sampled_from([*FIELDS, "stepz", "data.x"]), VALUE, min_size=1, max_size=3)


def overridden(changes: dict[str, Any]) -> Call:
    """A configuration of images with overrides, as text and back."""

    def do() -> Any:
        changed = config(sorted(CONFIGS)[len(repr(changes)) % len(CONFIGS)]).with_overrides(changes)
        assert Config.from_text(changed.text) == changed, "its text is another configuration"

    return Call(f"config(…).with_overrides({changes!r})"[:600], do)


WORDS = st.sampled_from([
    "points", "check", "forecast", "x.csv", "--out", "y.csv", "-n", "3", "--steps", "-1", "nan", "--method", "CLDD",
    "--beta",
    "--help", "--prior", "mixture", "--freq", "h", "--horizon", "--columns", "a", "--device", "cuda:9", "--seed",
    "--force", "",
    "images", "--", "é", "--n=2.5", "reproduced", "--picture", "p.xyz", "--paths", "0",
])  # fmt: skip


def commanded(line: list[str]) -> Call:
    """A command line of `vsmd`, whose files are not there: status 0 or 2 and one line."""

    def do() -> Any:
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
            try:
                status = command.main(line)
            except SystemExit as stop:
                status = int(stop.code or 0)
        assert status in (0, 2), f"status {status}"
        assert status == 0 or said.getvalue().strip().count("\n") == 0, f"more than a line: {said.getvalue()[:300]!r}"

    return Call(f"vsmd {' '.join(line)}", do)


COMMANDS = st.lists(WORDS, max_size=7).filter(lambda w: not w or w[0] != "images").map(commanded)
CONFIGURED = a.called(
    "Increments.configured", lambda **k: Increments.configured(3, "h", **k),
    {"location": st.sampled_from(["last", "season", "profile", "linear"]), "lags_seq": st.sampled_from([(1,), (1, 24),
    [2, 3]]),
     "factors": st.integers(0, 3), "scale_window": st.integers(1, 99), "context": st.sampled_from(["none", ("scales",
     "lags")]),
     "lags": st.integers(1, 5), "drift": st.booleans(), "rank": st.integers(1, 3)},
    wrong=2,
)  # fmt: skip
KINDS = {
    "measures": Kind(measured(), 1_500, "distances of sets of points"),
    "scores": Kind(scored(), 800, "scores of forecasts"),
    "tables": Kind(tables(), 1_200, "points and panels of frames, and what panels give"),
    "naive": Kind(naive(), 400, "naive forecasters"),
    "pictures": Kind(pictures(), 400, "image sets, sheets, values"),
    "configurations": Kind(OVERRIDES.map(overridden), 700, "settings of image runs with overrides"),
    "representations": Kind(CONFIGURED, 300, "settings of forecasters"),
    "command lines": Kind(COMMANDS, 300, "the command vsmd"),
}
