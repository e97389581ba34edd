"""The command `vsmd`: files in, files out; mistakes are one line, 2, and nothing is overwritten."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vsmd
from vsmd import command
from vsmd.forecasting.outlook import LEVELS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two columns of numbers of scales 1 and 100, and one of words."""
    x = np.random.default_rng(0).standard_normal((60, 2)) * [1, 100] + [5, 0]
    path = tmp_path / "data.csv"
    pd.DataFrame({"x": x[:, 0], "label": "a", "y": x[:, 1]}).to_csv(path, index=False)
    return path


@pytest.fixture
def panel(tmp_path: Path) -> Path:
    """Two hourly series of twenty days that repeat every day, noise aside."""
    hours = np.arange(480)
    days = np.sin(2 * np.pi * hours / 24)[:, None] * [1, 3] + [10, 20]
    noise = 0.05 * np.random.default_rng(0).standard_normal(days.shape)
    path = tmp_path / "panel.csv"
    index = pd.date_range("2024-03-01", periods=480, freq="h", name="time")
    pd.DataFrame(days + noise, index, ["a", "b"]).to_csv(path)
    return path


def run(*arguments: object) -> int:
    return command.main([str(a) for a in arguments])


def test_points(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many rows as the file, its columns of numbers, the same for the same seed; the model is kept."""
    out, again = tmp_path / "samples.csv", tmp_path / "again.csv"
    assert (
        run("points", data, "--out", out, "--steps", 5, "--prior", "moments", "--model", tmp_path / "model.safetensors")
        == 0
    )
    assert f"60 points like the 60 of {data}" in capsys.readouterr().out
    samples = pd.read_csv(out)
    assert list(samples.columns) == ["x", "y"]
    assert len(samples) == 60
    assert 30 < samples["y"].std() < 300  # five steps: no more than the Gaussian part
    assert run("points", data, "--out", again, "--steps", 5, "--prior", "moments") == 0
    assert again.read_bytes() == out.read_bytes()
    assert vsmd.load(tmp_path / "model.safetensors").process.shape == (2,)


def test_columns_and_number(data: Path, tmp_path: Path) -> None:
    assert run("points", data, "--out", tmp_path / "y.csv", "--columns", "y", "-n", 7, "--steps", 2) == 0
    samples = pd.read_csv(tmp_path / "y.csv")
    assert (list(samples.columns), len(samples)) == (["y"], 7)


def test_forecast(panel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a step, series and forecaster, from the hour after the last; quantiles in order and those of the paths."""
    out, paths, picture = tmp_path / "forecast.csv", tmp_path / "paths.csv", tmp_path / "fan.png"
    arguments = ("--freq", "h", "--horizon", 6, "--steps", 3, "--paths", 41, "--windows", 2)
    assert run("forecast", panel, "--out", out, "--samples", paths, "--picture", picture, *arguments) == 0
    with Image.open(picture) as drawn_picture:
        assert drawn_picture.width > 2 * drawn_picture.height  # so wide that a day's times do not touch
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["vsmd", "random_walk", "seasonal_bootstrap"]
    table = pd.read_csv(out, parse_dates=["time"])
    assert len(table) == 3 * 6 * 2
    assert list(table.columns[:4]) == ["time", "series", "forecaster", "mean"]
    assert table["time"].min() == pd.Timestamp("2024-03-21 00:00")
    levels = table[[str(level) for level in LEVELS]].to_numpy()
    assert bool((np.diff(levels) >= 0).all())
    drawn = pd.read_csv(paths)
    assert drawn.shape == (12, 43)
    ours = table[table["forecaster"] == "vsmd"].reset_index()
    pd.testing.assert_series_equal(ours["series"], drawn["series"])
    np.testing.assert_allclose(ours["0.5"], drawn.iloc[:, 2:].median(axis=1), rtol=1e-7)
    assert abs(ours["mean"] - np.where(ours["series"] == "a", 10, 20)).max() < 5


def test_check_holds_samples_against_held_out_points(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int]] = []

    def check(model: vsmd.Model, parts: tuple[torch.Tensor, torch.Tensor], **options: object) -> str:
        asked.append((len(parts[0]), len(parts[1])))
        return "all is well"

    monkeypatch.setattr(vsmd, "check", check, raising=False)
    assert run("check", data, "--steps", 2) == 0
    assert asked == [(45, 15)]
    assert "all is well" in capsys.readouterr().out


def test_check_measures_a_model(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package's own check, named as it is: its table, with floors."""
    assert run("check", data, "--steps", 2) == 0
    said = capsys.readouterr().out
    assert "floor" in said
    assert "sliced W2, whitened" in said


def test_forecast_takes_the_estimator_s_defaults(
    panel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Location and context are the estimator's where none is named."""
    asked: list[dict[str, object]] = []

    def estimator(*_: object, **options: object) -> object:
        asked.append(options)
        raise ValueError("enough")

    monkeypatch.setattr("vsmd.forecasting.VSMDEstimator", estimator)
    arguments = ("forecast", panel, "--freq", "h", "--horizon", 6, "--out", tmp_path / "o.csv")
    assert run(*arguments) == run(*arguments, "--location", "last") == 2
    assert not {"context", "solver", "sampling_steps"} & set(asked[0])
    assert [options["location"] for options in asked] == [None, "last"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("points", "DATA", "--out", "o.csv", "--columns", "x", "z"), "columns='z': must be one of 'x', 'label', 'y'"),
        (("points", "DATA", "--out", "o.csv", "--columns", "label"), "columns='label': holds no numbers"),
        (("points", "nothing.csv", "--out", "o.csv"), "data='nothing.csv': there is no such file"),
        (("points", "PICTURE", "--out", "o.csv"), "is no UTF-8 text from byte 0 on"),
        (("points", "PICTURE", "--out", "o.csv"), "--encoding 'latin-1' of the command) says what it is"),
        (("points", "PICTURE", "--out", "o.csv", "--encoding", "utf-16"), "cannot be read"),
        (("points", "DATA", "--out", "DATA/x.csv"), "data.csv/x.csv': could not be written ("),
        (("points", "DATA", "--out", "o.csv", "--model", "DATA/m"), "model="),
        (("points", "DATA", "--out", "o.csv", "--model", "./o.csv"), "is there for two files"),
        (("forecast", "PANEL", "--freq", "h", "--horizon", "2", "--out", "o.csv", "--samples", "DATA/s"), "samples="),
        (
            ("forecast", "PANEL", "--freq", "h", "--horizon", "2", "--out", "o.csv", "--picture", "DATA/p.png"),
            "picture=",
        ),
        (("points", "DATA", "--out", "DATA"), "exists; give another name, or --force to overwrite it"),
        (("points", "DATA", "--out", "o.csv", "--model", "DATA"), "model="),
        (("points", "DATA", "--out", "o.csv", "--method", "VSUL"), "(did you mean 'VSULD'?)"),
        (("points", "DATA", "--out", "o.csv", "--stpes", "3"), "did you mean --steps?"),
        (("points", "DATA"), "--out"),
        (("point", "DATA"), "command='point': must be one of 'points', 'forecast', 'check', 'images', 'reproduce'"),
        (("forecast", "PANEL", "--freq", "h", "--horizon", "0", "--out", "o.csv"), "horizon=0: must be an integer"),
        (("forecast", "PANEL", "--freq", "q7", "--horizon", "2", "--out", "o.csv"), "freq='q7'"),
        (("forecast", "PANEL", "--freq", "D", "--horizon", "2", "--out", "o.csv"), "freq='D'"),
        (
            ("forecast", "PANEL", "--freq", "h", "--horizon", "2", "--out", "o.csv", "--picture", "p.xyz"),
            "picture='xyz'",
        ),
        (("forecast", "DATA", "--freq", "h", "--horizon", "2", "--out", "o.csv"), "columns label hold no numbers"),
        (("forecast", "PANEL", "--freq", "h", "--horizon", "2", "--out", "PANEL"), "exists"),
        (("forecast", "PANEL", "--freq", "h", "--horizon", "400", "--out", "o.csv"), "time steps"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], said: str, data: Path, panel: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Exit code 2 before any work; no file is changed, none is new."""
    monkeypatch.chdir(tmp_path)
    (picture := tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    names = {"DATA": str(data), "PANEL": str(panel), "PICTURE": str(picture)}
    monkeypatch.setattr("vsmd.fit", lambda *_, **__: pytest.fail("training has begun"), raising=False)
    assert run(*(names.get(a.split("/")[0], a.split("/")[0]) + a[len(a.split("/")[0]) :] for a in arguments)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("last", "reason"), [(np.nan, "no step at which every series has a value"), (0.0, "sums to 0")]
)
def test_a_forecast_that_cannot_be_scored_is_written(
    last: float, reason: str, panel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A series that is missing, or nothing sold, in all of the windows: the score's line says so."""
    table = pd.read_csv(panel, index_col=0)
    table.iloc[-20:, : 1 if np.isnan(last) else 2] = last
    table.to_csv(panel)
    out, few = tmp_path / "o.csv", ("--freq", "h", "--horizon", 6, "--steps", 2, "--paths", 9)
    assert run("forecast", panel, "--out", out, *few) == 0
    said = capsys.readouterr().out
    assert said.count("cannot be scored: target") == 3
    assert reason in said
    assert len(pd.read_csv(out)) == 3 * 6 * 2


def test_encodings_separators_and_decimals(data: Path, tmp_path: Path) -> None:
    text = data.read_text().replace("label", "größe").replace(",", "|").replace(".", ",")
    data.write_bytes(text.encode("latin-1"))
    said = ("--encoding", "latin-1", "--sep", "|", "--decimal", ",")
    options = command.Command(data=data, encoding="latin-1", sep="|", decimal=",").csv
    read = command.numbers(data, (), options)
    assert list(read.columns) == ["x", "y"]
    assert run("points", data, "--out", tmp_path / "o.csv", "--steps", 1, *said) == 0
    assert run("check", data, "--steps", 1, *said) == 0


def test_columns_left_out_are_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words are left out with a line; one bad value among numbers is not."""
    few = ("--out", tmp_path / "o.csv", "--steps", 1, "--force")
    assert run("points", data, *few) == 0
    assert "columns left out, since they hold no numbers: label ('a' in row 1)\n" in capsys.readouterr().out
    table = pd.read_csv(data, dtype=str)
    table.loc[3, "y"] = "?"
    table.to_csv(data, index=False)
    assert run("points", data, *few) == 2
    assert (
        "not all are numbers in columns 'y' ('?' in row 4); mend them, or name the columns" in capsys.readouterr().err
    )
    assert run("points", data, *few, "--columns", "x") == 0
    assert run("points", data, *few, "--columns", "y") == 2
    assert "columns='y': holds no numbers, '?' in row 4" in capsys.readouterr().err


def test_missing_values_are_counted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(data)
    table.loc[[3, 4], "x"] = [np.nan, np.inf]
    table.to_csv(data, index=False)
    assert run("points", data, "--out", tmp_path / "o.csv") == 2
    assert "2 rows have missing or infinite values" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["points", "forecast", "check"])
def test_help_has_an_example(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run(part, "--help")
    assert not exit.value.code
    assert f"vsmd {part} " in " ".join(capsys.readouterr().out.split())


def test_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == run() == 0
    said = capsys.readouterr().out
    assert all(f"vsmd {name} " in said for name in (*command.COMMANDS, *command.ELSEWHERE))


def test_other_commands_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`images` and `reproduce` with their arguments and exit status."""
    asked: list[list[str]] = []

    def run_instead(argv: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(argv[1:])
        return subprocess.CompletedProcess(argv, 7)

    monkeypatch.setattr(subprocess, "run", run_instead)
    assert run("images", "train", "--config", "digits") == 7
    assert run("reproduce", "--profile", "smoke") == 7
    assert asked == [["-m", "vsmd.images", "train", "--config", "digits"], ["-m", "repro", "--profile", "smoke"]]


def test_reproduce_needs_a_checkout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("reproduce") == 2
    assert "reproduce: needs a checkout" in capsys.readouterr().err


def test_the_script_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"vsmd": "vsmd.command:main"}
