"""Panels: what the shipped data are, how a panel is cut, and every way a table of one's own can be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vsmd.data import panels
from vsmd.data.panels import Panel, from_wide

needs_data = pytest.mark.skipif(not os.environ.get("VSMD_DATA"), reason="VSMD_DATA is not set")


def table(rows: int = 40, freq: str = "D") -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=rows, freq=freq)
    noise = np.random.default_rng(0).standard_normal((rows, 2))
    return pd.DataFrame(noise.cumsum(0), index=index, columns=["a", "b"])


def test_ecb_rates_are_what_they_are_said_to_be() -> None:
    panel = panels.ecb_rates()
    assert panel.values.shape == (17, 7_126)
    assert panel.times is not None
    assert [str(t)[:10] for t in panel.times[[0, -1]]] == ["1999-01-04", "2026-10-30"]
    assert panel.names[:2] == ("USD", "JPY")
    assert panel.values[:2, 0].tolist() == [1.1789, 133.73]  # first fixing of the euro
    assert (panel.first, panel.ends[-1]) == (7_126 - 150, 7_126 - 30)


@needs_data
def test_exchange_rate_nips() -> None:
    panel = panels.exchange_rate_nips()
    assert panel.values.shape == (8, 6_071 + 150)
    assert (panel.first, str(panel.start), panel.targets.shape) == (6_071, "1990-01-01", (5, 30, 8))


@needs_data
@pytest.mark.parametrize(("kind", "count"), [("load", 95), ("renewables", 42)])
def test_simbench(kind: str, count: int) -> None:
    panel = panels.simbench(kind)
    assert panel.values.shape == (count, 8_784)
    assert panel.first == 8_784 - 168


@pytest.mark.parametrize("name", ["exchange_rate_nips", "simbench_load"])
def test_absent_data_say_what_to_provide(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSMD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="VSMD_DATA is not set"):
        panels.panel(name)
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="put the file there"):
        panels.panel(name)


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exchange_rate_nips.tar.gz").write_bytes(b"no archive")
    monkeypatch.setenv("VSMD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="damaged or another file"):
        panels.exchange_rate_nips()


def test_windows_follow_each_other() -> None:
    panel = from_wide(table(), "D", 3, windows=4)
    assert panel.ends == [28, 31, 34, 37]
    assert np.array_equal(np.concatenate(list(panel.targets)), panel.values[:, 28:].T)
    (train,) = panel.train
    assert np.allclose(train["target"], panel.values[:, :28])
    histories = list(panel.histories)
    assert [h["target"].shape[1] for h in histories] == panel.ends
    assert [h["target"].shape[1] for h in panel.test] == [31, 34, 37, 40]
    assert str(panel.dates(28, 1)[0])[:10] == "2024-01-29"


def test_validation_never_sees_the_test_part() -> None:
    panel = from_wide(table(), "D", 3, windows=4)
    inner = panel.validation(5)
    assert np.array_equal(inner.values, panel.values[:, :28])
    assert (inner.windows, inner.first) == (5, 13)


def test_csv_and_frame_give_the_same(tmp_path: Path) -> None:
    frame = table()
    frame.to_csv(tmp_path / "own.csv")
    one, other = from_wide(frame, "D", 3), from_wide(tmp_path / "own.csv", "D", 3)
    assert np.allclose(one.values, other.values)
    assert one.start == other.start
    assert one.names == other.names == ("a", "b")


def test_closed_up_holidays_keep_their_dates() -> None:
    frame = table(50, "B").drop(pd.Timestamp("2024-01-05"))
    panel = from_wide(frame, "B", 3, gaps="close")
    assert panel.values.shape == (2, 49)
    assert str(panel.dates(4, 1)[0])[:10] == "2024-01-08"


def wrong(what: str) -> pd.DataFrame:
    frame = table()
    if what == "unsorted":
        return frame.iloc[::-1]
    if what == "duplicated":
        return pd.concat([frame.iloc[:5], frame.iloc[4:]])
    if what == "gap":
        return frame.drop(frame.index[7])
    if what == "missing":
        frame.iloc[3, 1] = np.nan
    if what == "all missing":
        frame["b"] = np.nan
    if what == "constant":
        frame["b"] = 5.0
    if what == "text":
        frame["b"] = "x"
    if what == "index":
        return frame.set_axis([f"row {i}" for i in range(len(frame))])
    if what == "empty":
        return frame.iloc[:0]
    return frame.iloc[:10] if what == "short" else frame


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unsorted", "time stamps are not sorted; use frame.sort_index"),
        ("duplicated", "2024-01-05 00:00:00 is there more than once"),
        ("gap", "2024-01-09 00:00:00 does not follow 2024-01-07 00:00:00 at freq='D'"),
        ("missing", "missing or infinite in b;"),
        ("all missing", "missing or infinite in b;"),
        ("constant", "constant in the training part in b;"),
        ("text", "columns b hold no numbers"),
        ("index", "must hold time stamps"),
        ("empty", "no rows at all"),
        ("short", "10 time steps; must be at least 17"),
    ],
)
def test_bad_tables_are_one_clear_line(what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_wide(wrong(what), "D", 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"freq": "fortnight"}, "freq='fortnight': must be a pandas period frequency"),
        ({"prediction_length": 0}, "prediction_length=0: must be an integer >= 1"),
        ({"windows": -1}, "windows=-1: must be an integer >= 1"),
        ({"start": "someday"}, "start='someday': must be a time stamp"),
        ({"values": np.ones((3, 40))}, r"values: shape \(3, 40\); must be \(2 series, time\)"),
    ],
)
def test_bad_panels(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "name": "p", "freq": "D", "start": "2024-01-01", "values": table().to_numpy().T, "names": ("a", "b"),
        "prediction_length": 3, "windows": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Panel(**(arguments | changed))  # type: ignore[arg-type]


def test_unknown_panel() -> None:
    with pytest.raises(ValueError, match="did you mean 'ecb_rates'"):
        panels.panel("ecb_rate")
