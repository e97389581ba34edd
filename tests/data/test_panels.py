"""Panels: how one is cut, missing values, and every way a table of one's own can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vsmd.data.panels import Panel, from_wide


def table(rows: int = 40, freq: str = "D") -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=rows, freq=freq)
    noise = np.random.default_rng(0).standard_normal((rows, 2))
    return pd.DataFrame(noise.cumsum(0), index=index, columns=["a", "b"])


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


@pytest.mark.parametrize("kind", ["csv", "parquet", "parquet without an index"])
def test_files_and_frame_give_the_same(kind: str, tmp_path: Path) -> None:
    frame, path = table(), tmp_path / f"own.{kind.split()[0]}"
    frame.iloc[3, 1] = np.nan
    if kind == "csv":
        frame.to_csv(path)
    else:
        (frame if kind == "parquet" else frame.reset_index(names="day")).to_parquet(path)
    one, other = from_wide(frame, "D", 3), from_wide(path, "D", 3)
    assert np.allclose(one.values, other.values, equal_nan=True)
    assert one.start == other.start
    assert one.names == other.names == ("a", "b")


def test_missing_values_and_late_starts_are_kept() -> None:
    frame = table()
    frame.iloc[:12, 0] = np.nan
    frame.iloc[-2:, 1] = np.nan
    panel = from_wide(frame, "D", 3, windows=4)
    assert np.isnan(panel.values).sum() == 14
    assert np.isnan(panel.targets[-1]).sum() == 2
    (train,) = panel.train
    assert np.isnan(train["target"]).sum() == 12


def test_gaps_become_missing_steps() -> None:
    frame = table(freq="6h").drop(table(freq="6h").index[[7, 8]])
    panel = from_wide(frame, "6h", 3, windows=2, gaps="missing")
    assert panel.values.shape == (2, 40)
    assert np.isnan(panel.values[:, [7, 8]]).all()
    assert np.isfinite(np.delete(panel.values, [7, 8], 1)).all()
    assert str(panel.dates(7, 1)[0])[:13] == "2024-01-02T18"


def test_stamps_between_two_steps_belong_to_the_earlier() -> None:
    frame = table(freq="h")
    frame.index += pd.Timedelta(minutes=37)
    panel = from_wide(frame, "h", 3)
    assert str(panel.start) == "2024-01-01 00:00"


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
    if what == "twice an hour":
        return table(freq="30min")
    if what == "infinite":
        frame.iloc[3, 1] = np.inf
    if what == "all missing":
        frame["b"] = np.nan
    if what == "constant":
        frame.iloc[:30, 1] = np.where(np.arange(30) % 2, 5.0, np.nan)
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
        ("twice an hour", "2024-01-01 00:30:00 are one step of freq='h'; keep one row a step"),
        ("infinite", "infinite in b;"),
        ("all missing", "all missing in the training part in b;"),
        ("constant", "constant in the training part in b;"),
        ("text", "columns b hold no numbers"),
        ("index", "must hold time stamps"),
        ("empty", "no rows at all"),
        ("short", "10 time steps; must be at least 17"),
    ],
)
def test_bad_tables_are_one_clear_line(what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_wide(wrong(what), "h" if what == "twice an hour" else "D", 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"freq": "fortnight"}, "freq='fortnight': must be a pandas period frequency"),
        ({"prediction_length": 0}, "prediction_length=0: must be an integer >= 1"),
        ({"windows": -1}, "windows=-1: must be an integer >= 1"),
        ({"start": "someday"}, "start='someday': must be a time stamp"),
        ({"values": np.ones((3, 40))}, r"values: shape \(3, 40\); must be \(2 series, time\)"),
        ({"values": np.ones((0, 40)), "names": ()}, r"values: shape \(0, 40\); must be \(one or more series, time\)"),
        ({"freq": None}, "freq=None: must be a pandas period frequency"),
    ],
)
def test_bad_panels(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "name": "p", "freq": "D", "start": "2024-01-01", "values": table().to_numpy().T, "names": ("a", "b"),
        "prediction_length": 3, "windows": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Panel(**(arguments | changed))  # type: ignore[arg-type]


def test_a_file_is_named_whatever_is_wrong(tmp_path: Path) -> None:
    table().iloc[:9].to_csv(tmp_path / "short.csv")
    with pytest.raises(ValueError, match=r"short\.csv: values: 9 time steps; must be at least 17 for this test part$"):
        from_wide(tmp_path / "short.csv", "D", 3)
    with pytest.raises(ValueError, match=r"^windows=0: must be"):  # before anything is read
        from_wide(tmp_path / "nowhere.csv", "D", 3, windows=0)
    with pytest.raises(ValueError, match=r"^source: values: shape \(0, 40\); must be"):
        from_wide(table()[[]], "D", 3)
