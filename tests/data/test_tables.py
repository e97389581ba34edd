"""Tables of series as people bring them: read to the same panel, or refused in one line that names file and option."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vsmd.data import tables
from vsmd.data.panels import from_wide


def table(rows: int = 40, freq: str = "D", start: str = "2024-01-01") -> pd.DataFrame:
    index = pd.date_range(start, periods=rows, freq=freq)
    noise = np.random.default_rng(0).standard_normal((rows, 2)).round(6)
    return pd.DataFrame(noise.cumsum(0).round(6), index=index, columns=["a", "b"])


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "QE", "QS-FEB", "YS", "YE", "BME"])
def test_stamps_at_the_start_or_end_of_a_period(freq: str) -> None:
    panel = from_wide(table(freq=freq), freq, 3, windows=2)
    assert panel.values.shape == (2, 40)
    assert panel.freq == {"BME": "M", "QS-FEB": "Q-JAN"}.get(freq, freq[0])


def test_every_shape_of_a_frame_gives_the_same() -> None:
    frame = table()
    plain = from_wide(frame, "D", 3)
    dated = frame.rename_axis("day").reset_index()
    long = dated.melt("day", var_name="unique_id", value_name="y").rename(columns={"day": "ds"})
    ints = frame.set_axis([int(f"{day:%Y%m%d}") for day in frame.index])
    shapes: dict[str, Any] = {
        "PeriodIndex": frame.to_period("D"), "dates beside": dated, "dates last": dated[["a", "b", "day"]],
        "filtered": dated.set_axis(range(5, 45)), "text beside": dated.astype({"day": str}), "long": long,
        "long by id": long.set_index("unique_id"), "20240101": ints, "text with offsets": frame.set_axis(
            [f"{day:%Y-%m-%d} 00:00:00{'+01' if day.day < 20 else '+02:00'}" for day in frame.index]
        ), "zone": frame.tz_localize("Europe/Berlin"), "nullable": frame.convert_dtypes(),
    }  # fmt: skip
    for what, shape in shapes.items():
        panel = from_wide(shape, "D", 3)
        assert np.array_equal(panel.values, plain.values), what
        assert (panel.start, panel.names) == (plain.start, ("a", "b")), what
        assert np.array_equal(panel.dates(0, 43), plain.dates(0, 43)), what
    assert from_wide(frame["a"], "D", 3).names == ("a",)
    years = table(freq="YS", start="1950").set_axis(range(1950, 1990))
    assert str(from_wide(years, "YS", 3).start) == "1950"


def test_a_long_tables_series_start_apart() -> None:
    long = table().rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y").iloc[5:]
    assert np.isnan(from_wide(long, "D", 3).values).sum(1).tolist() == [5, 0]


@pytest.mark.parametrize("month", [3, 10])
def test_hours_across_daylight_saving(month: int) -> None:
    """In March one hour of the clock is skipped, in October one is there twice; 96 hours are 96 all the same."""
    index = pd.date_range(f"2024-{month}-{ {3: 29, 10: 25}[month] }", periods=96, freq="h", tz="Europe/Berlin")
    frame = table(96, "h").set_axis(index)
    for source in (frame, frame.set_axis(index.astype(str))):
        panel = from_wide(source, "h", 3, gaps="missing")
        assert np.array_equal(panel.values, frame.to_numpy().T)
        assert np.array_equal(panel.dates(0, 96), index.tz_convert("UTC").tz_localize(None).to_numpy())
    if month == 10:
        with pytest.raises(ValueError, match=r"is there more than once; .*frame\.tz_localize tells the hours apart"):
            from_wide(frame.tz_localize(None), "h", 3)


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ({}, None), ({"sep": ";"}, None), ({"sep": ";", "decimal": ","}, None), ({"sep": "\t", "decimal": ","}, None),
        ({"sep": "|", "decimal": ","}, None), ({"encoding": "utf-8-sig"}, None),
        ({"encoding": "latin-1"}, {"encoding": "latin-1"}),
        ({"encoding": "utf-16", "sep": ";"}, {"encoding": "utf-16"}),
    ],
)  # fmt: skip
def test_csv_as_it_is_written(written: dict[str, Any], options: dict[str, Any] | None, tmp_path: Path) -> None:
    frame, path = table().rename(columns={"a": "Größe"}), tmp_path / "own.csv"
    frame.to_csv(path, **written)
    panel = from_wide(path, "D", 3, csv=options)
    assert panel.names == ("Größe", "b")
    assert np.array_equal(panel.values, frame.to_numpy().T)
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(from_wide(tmp_path / "own.csv.gz", "D", 3, csv=options).values, panel.values)


def test_a_long_csv_with_decimal_commas(tmp_path: Path) -> None:
    long = table().rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    long.to_csv(tmp_path / "long.csv", sep=";", decimal=",", index=False)
    assert np.array_equal(from_wide(tmp_path / "long.csv", "D", 3).values, table().to_numpy().T)


def spoiled(what: str, path: Path) -> None:
    text = table().to_csv(sep=";")
    if what == "nothing":
        return
    if what == "fifo":
        os.mkfifo(path)
    elif path.suffix == ".parquet":
        table().to_parquet(path)
        path.write_bytes(path.read_bytes()[:-200] if what == "cut" else b"" if what == "empty" else os.urandom(500))
    else:
        lines = {"empty": "", "mixed": text.replace("0.", "0,"), "ragged": text + "1;2;3;4;5;6\n"}.get(what, text)
        encoding = {"latin": "latin-1", "utf-16": "utf-16"}.get(what, "utf-8")
        path.write_bytes(lines.replace("a", "ä").encode(encoding))


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("own.csv", "nothing", "there is no such file"),
        ("own.csv", "fifo", "there is no such file"),
        ("own.csv", "empty", r"cannot be read \(No columns.*csv="),
        ("own.csv", "ragged", r"cannot be read \(.*Expected 3 fields.*csv="),
        ("own.csv", "latin", r"is no UTF-8 text from byte 1 on; csv=\{'encoding': 'latin-1'\} \(--encoding"),
        ("own.csv", "utf-16", r"is no UTF-8 text from byte 0 on; csv=\{'encoding': 'utf-16'\} \(--encoding"),
        ("own.csv", "mixed", r"hold no numbers; drop them, or csv=\{'decimal': ','\} "),
        ("own.parquet", "empty", "cannot be read"),
        ("own.parquet", "cut", "cannot be read"),
        ("own.parquet", "noise", "cannot be read"),
    ],
)
def test_bad_files_are_named(name: str, what: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    spoiled(what, path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        from_wide(path, "D", 3)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["own.csv.gz", "own.parquet"])
def test_what_unpacks_without_bound(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 2**21)
    monkeypatch.setattr(tables, "CELLS", 1_000)
    path = tmp_path / name
    if name == "own.parquet":
        pd.DataFrame(np.zeros((1_000, 2))).rename(columns=str).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(ValueError, match=r"own.*(more than 2 MiB unpacked|more than 1,000 values), which is the bound"):
        from_wide(path, "D", 3)


def far() -> pd.DataFrame:
    frame = table(40, "s")
    return frame.set_axis([*frame.index[:-1], pd.Timestamp("2224-01-01")])


@pytest.mark.parametrize(
    ("source", "freq", "message"),
    [
        (far(), "s", "^source: from 2024-01-01 00:00:38 to 2224-01-01 00:00:00 all is missing: 2 series of 6,3"),
        (table().set_axis(["a", "a"], axis=1), "D", "^source: columns a are there more than once"),
        (table().to_period("D"), "h", "^source: freq='h': start='2024-01-01' is a period of freq='D'; must agree"),
        (table().reset_index(drop=True), "D", r"^source: its index \(\[0\] …\) must hold time stamps such as"),
        (table().assign(ds="2024", unique_id="x", y=1.0), "D", "^source: a long table has columns .* alone; drop a, b"),
        (pd.DataFrame({"ds": ["2024"] * 2, "unique_id": "x", "y": 1.0}), "D", "series 'x' has time stamp 2024 more"),
    ],
)  # fmt: skip
def test_bad_frames(source: pd.DataFrame, freq: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_wide(source, freq, 3, gaps="missing")
    assert "\n" not in str(caught.value)
