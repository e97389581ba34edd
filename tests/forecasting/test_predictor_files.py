"""Folders of a predictor are not trusted: bounds and shapes come first, and whatever is wrong is one line."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vsmd import files
from vsmd.data.calendars import as_period
from vsmd.diagnostics import StartWarning
from vsmd.forecasting import VSMDEstimator, VSMDPredictor
from vsmd.forecasting.predictor import FORMAT

TINY: dict[str, Any] = {"method": "CLD", "width": 8, "depth": 1, "steps": 2, "batch_size": 16, "scale_window": 10}


def items(columns: np.ndarray) -> list[dict[str, Any]]:
    return [{"start": as_period("2024-01-01", "B"), "target": columns.cumsum(1)}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = np.random.default_rng(0).normal(size=(2, 80))
        path = tmp_path_factory.mktemp("predictor")
        VSMDEstimator(3, "B", **TINY).train(items(steps)).serialize(path)
    return path


@pytest.mark.parametrize(("changes", "message"), [
    ({"prediction_length": 10**12}, "prediction_length=1000000000000: must be a number between 1 and 100000"),
    ({"num_samples": 10**9}, "num_samples=1000000000: must be"), ({"num_samples": "many"}, "num_samples='many'"),
    ({"sampling_steps": 10**9}, "sampling_steps=1000000000"), ({"freq": 3}, "freq=3"), ({"solver": []}, "damaged"),
    ({"colour": 1}, "colour"), ({"seed": []}, "damaged"),
])  # fmt: skip
def test_settings(folder: Path, changes: dict[str, Any], message: str) -> None:
    refused(folder, message, changes, {}, {})


@pytest.mark.parametrize(("changes", "message"), [
    ({"scale_window": 10**12}, "history=1000000000001: must be a number between 1 and 1e"),
    ({"scale_window": -90}, "scale_window=-90: must be"), ({"lags": 10**12}, "history="), ({"colour": 1}, "colour"),
    ({"rank": 1}, "damaged"), ({"location": "linear"}, "rule.weights is"), ({"context": "mine"}, "context='mine'"),
    ({"context": ["scales", "lags"]}, "bounds is (2, 4); must be (2, 8)"),
])  # fmt: skip
def test_settings_of_the_representation(folder: Path, changes: dict[str, Any], message: str) -> None:
    refused(folder, message, {}, changes, {})


@pytest.mark.parametrize(("changes", "message"), [
    ({"least": torch.zeros(3)}, r"centre is (2,); must be (3,)"), ({"spread": torch.zeros(2) * math.nan}, "spread has"),
    ({"rule.weights": torch.zeros(7, 2)}, "rule.weights is (7, 2)"), ({"long_run": torch.ones(1, 5)}, "long_run is"),
    ({"rule.other": torch.zeros(1)}, "other"), ({"least": None}, "damaged"),
])  # fmt: skip
def test_tensors(folder: Path, changes: dict[str, Any], message: str) -> None:
    refused(folder, message, {}, {}, changes)


def refused(folder: Path, message: str, settings: dict[str, Any], representation: dict[str, Any], tensors: Any) -> None:
    """The folder with these changes, read back: one line that names it."""
    old = {name: (folder / name).read_bytes() for name in ("predictor.json", "representation.safetensors")}
    values, info = files.read(folder / "representation.safetensors", FORMAT)
    values = {k: v for k, v in (values | tensors).items() if v is not None}
    files.write(folder / "representation.safetensors", FORMAT, values, {"settings": info["settings"] | representation})
    (folder / "predictor.json").write_text(json.dumps(json.loads(old["predictor.json"]) | settings))
    try:
        with pytest.raises(ValueError, match=r"^path=") as error:
            VSMDPredictor.deserialize(folder)
    finally:
        for name, content in old.items():
            (folder / name).write_bytes(content)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert VSMDPredictor.deserialize(folder).prediction_length == 3


def test_warnings_name_series() -> None:
    """Two series that move together: the user knows series, no axes, and has no units to choose."""
    steps = np.random.default_rng(0).normal(size=(3, 200))
    steps[2] = steps[1] + 1e-3 * steps[2]
    with pytest.warns(StartWarning) as seen:
        VSMDEstimator(3, "B", **TINY).train(items(steps))
    (line,) = [str(w.message) for w in seen if "noise of std" in str(w.message)]
    assert "an axis mostly of series 1 and series 2" in line or "an axis mostly of series 2 and series 1" in line
    assert "units='standardised'" not in line


def test_other_dtypes_forecast_alike(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other" / "representation.safetensors"
    tensors, info = files.read(path, FORMAT)
    files.write(path, FORMAT, tensors | {"bounds": tensors["bounds"].double()}, info)
    history = items(np.random.default_rng(1).normal(size=(2, 80)))
    one, other = (next(VSMDPredictor.deserialize(p).predict(history, 4)).samples for p in (folder, tmp_path / "other"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("content", ["{", "[" * 10**5, "[1]", "{}", "\x00"])
def test_a_damaged_description(folder: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "predictor.json").write_text(content)
    with pytest.raises(ValueError, match=r"^path='.*predictor\.json': [^\n]{,250}$"):
        VSMDPredictor.deserialize(tmp_path / "other")


def test_nothing_is_written_in_place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the older folder stands as it was."""
    predictor = VSMDPredictor.deserialize(folder)
    (tmp_path / "gluonts-config.json").write_text("older")

    def full(path: Path, content: bytes | str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        predictor.serialize(tmp_path)
    assert (tmp_path / "gluonts-config.json").read_text() == "older"
