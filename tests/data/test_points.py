"""Sets of points: how rows are dealt, every source gives the same, and every way a table can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vsmd.data.points import PointSet, dealt, read


def table(rows: int = 200) -> pd.DataFrame:
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32), columns=list("abc"))
    frame["day"] = pd.date_range("2024-01-01", periods=rows, freq="D").astype(str)
    frame["who"] = [f"p{i % 20}" for i in range(rows)]
    return frame


def numbers() -> pd.DataFrame:
    return table()[["a", "b", "c"]]


def test_rows_are_dealt_once_and_in_shares() -> None:
    rows = dealt(np.arange(1_000))
    assert [len(r) for r in rows] == [600, 150, 250]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(1_000))
    assert not np.array_equal(rows[0], np.sort(rows[0]))
    assert all(np.array_equal(r, s) for r, s in zip(rows, dealt(np.arange(1_000))))
    assert not np.array_equal(rows[0], dealt(np.arange(1_000), seed=1)[0])


def test_a_group_stays_together() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 2_000)
    parts = [set(groups[r]) for r in dealt(groups)]
    assert sum(map(len, parts)) == 40
    assert set.union(*parts) == set(range(40))
    with pytest.raises(ValueError, match=r"^split: 2 groups give parts of \["):
        dealt(np.repeat([0, 1], 50))


def test_by_time_nothing_comes_from_later() -> None:
    """Whatever the rows' order, and equal times in one part."""
    frame = table()
    frame["hour"] = np.arange(200) // 2
    frame["c"] = frame["hour"]
    shuffled = frame.sample(frac=1, random_state=0)
    for column, left_out in (("day", ["who", "hour"]), ("hour", ["who", "day"])):
        data = read(shuffled, time_column=column, drop=left_out)
        assert data.train[:, 2].max() < data.validation[:, 2].min() + (column == "day")
        assert data.validation[:, 2].max() < data.test[:, 2].min() + (column == "day")
        assert data.columns == ("a", "b", "c")
    unnamed = read(frame[["a", "b", "hour"]], split="time")
    assert unnamed.train[:, 2].max() <= unnamed.test[:, 2].min()


def test_by_group() -> None:
    frame = table()
    frame["c"] = frame["who"].str[1:].astype(float)
    data = read(frame, group_column="who", drop=["day"])
    people = [set(part[:, 2].tolist()) for part in (data.train, data.validation, data.test)]
    assert [len(p) for p in people] == [12, 3, 5]
    assert len(set.union(*people)) == 20


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "array", "tensor"])
def test_every_source_gives_the_same(kind: str, tmp_path: Path) -> None:
    frame, source = numbers(), tmp_path / f"own.{kind}"
    values = frame.to_numpy()
    if kind == "csv":
        frame.to_csv(source, index=False)
    elif kind == "parquet":
        frame.to_parquet(source)
    elif kind == "npy":
        np.save(source, values)
    one = read(frame)
    arrays: dict[str, Any] = {"array": values, "tensor": torch.from_numpy(values)}
    other = read(arrays.get(kind, source))
    assert torch.equal(one.train, other.train)
    assert torch.equal(one.test, other.test)
    assert other.columns == (("a", "b", "c") if kind in ("csv", "parquet") else ("x1", "x2", "x3"))
    assert one.train.dtype == torch.float32


@pytest.mark.parametrize("written", [{"sep": ";", "decimal": ","}, {"sep": "\t"}, {"encoding": "utf-16"}])
def test_csv_as_it_is_written(written: dict[str, Any], tmp_path: Path) -> None:
    """As files of series are read: what separates and a decimal comma are seen, an encoding is said."""
    path = tmp_path / "own.csv.gz"
    numbers().to_csv(path, index=False, **written)
    if "encoding" in written:
        with pytest.raises(ValueError, match=r"^source='.*own.csv.gz': is no UTF-8 .* csv=\{'encoding': 'utf-16'\} "):
            read(path)
    assert torch.equal(read(path, csv=written).train, read(numbers()).train)
    assert "encoding" in written or torch.equal(read(path).train, read(numbers()).train)


def test_missing_values_are_dropped_or_imputed_when_asked() -> None:
    frame = numbers()
    frame.iloc[3, 1] = frame.iloc[7, 1] = frame.iloc[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"^source: 2 of 200 rows have NaN, in columns b, c; give missing='drop' or"):
        read(frame)
    dropped = read(frame, missing="drop")
    assert sum(map(len, (dropped.train, dropped.validation, dropped.test))) == 198
    imputed = read(frame, missing="impute")
    assert sum(map(len, (imputed.train, imputed.validation, imputed.test))) == 200
    rows = dealt(np.arange(200))
    median = float(np.nanmedian(frame["b"].to_numpy()[rows[0]]))
    everything = torch.cat([imputed.train, imputed.validation, imputed.test])[:, 1]
    assert int((everything - median).abs().lt(1e-6).sum()) >= 2  # of the training part alone


def broken(**columns: Any) -> pd.DataFrame:
    return numbers().assign(**columns)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (broken(t="x", u=True), {}, r"^source: columns t, u hold no numbers; leave them out by drop=\['t', 'u'\]$"),
        (broken(d=pd.Timestamp("2024-01-01")), {}, r"^source: columns d hold no numbers"),
        (broken(k=3.0), {}, r"^source: columns k never change in the training part; drop=\['k'\] drops them$"),
        (broken(k=np.nan), {"missing": "impute"}, r"^source: columns k never change"),
        (broken(k=np.inf), {}, r"^source: infinite values in columns k; must be finite$"),
        (numbers()[:40], {}, r"^source: 40 rows of 3 numbers; must be at least 50 rows of 1$"),
        (numbers()[:0], {}, r"^source: 0 rows of 3 numbers"),
        (numbers().set_axis(["a", "b", "b"], axis=1), {}, r"^source: columns b are there more than once"),
        (numbers(), {"drop": ["z"]}, r"^drop='z': must be one of 'a', 'b', 'c'"),
        (numbers(), {"missing": "mean"}, r"^missing='mean': must be one of"),
        (numbers(), {"split": "group"}, r"^split='group': with time_column=None, group_column=None; must"),
        (table(), {"split": "random", "time_column": "day"}, r"^split='random': with time_column='day'"),
        (
            table(),
            {"time_column": "day", "group_column": "who"},
            r"^split='group': with time_column='day', group_column='who'",
        ),
        (table(), {"time_column": "who"}, r"^time_column='who': its values \('p0' …\) are no time stamps$"),
        (numbers().to_numpy()[0], {}, r"^source: shape \(3,\); must be \(n, d\), a row a point$"),
        ("nowhere.csv", {}, r"^source='nowhere.csv': there is no such file$"),
        ("nowhere.npy", {}, r"^source='nowhere.npy': cannot be read as npy \("),
    ],
)
def test_bad_tables(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(source, **options)


def test_other_sources_and_gaps_in_groups() -> None:
    with pytest.raises(TypeError, match=r"^source=list: must be a path, a DataFrame"):
        read([[1.0, 2.0]])  # type: ignore[arg-type]
    frame = table()
    frame.loc[5, "who"] = None
    with pytest.raises(ValueError, match=r"^group_column='who': 1 rows have no value there$"):
        read(frame, group_column="who", drop=["day"])


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.array([{"a": 1}] * 60, dtype=object))  # pickled inside
    with pytest.raises(ValueError, match=r"own\.npy': cannot be read as npy \("):
        read(tmp_path / "own.npy")


def test_an_npz_file_of_another_name(tmp_path: Path) -> None:
    with (tmp_path / "own.npy").open("wb") as file:
        np.savez(file, x=np.zeros((60, 2)))
    with pytest.raises(ValueError, match=r"own\.npy': cannot be read as npy \(an npz file is no array\)$"):
        read(tmp_path / "own.npy")


def test_long_names_are_cut(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("[" * 10**5 + "\n" + "x\n" * 60)
    with pytest.raises(ValueError, match=r"^source: columns \[+ … hold no numbers; .{,200}$"):
        read(tmp_path / "own.csv")


def test_repeated_rows_are_said() -> None:
    frame = pd.concat([numbers(), numbers()[:20]])
    with pytest.warns(UserWarning, match=r"^source: 9% of the rows are there more than once$"):
        read(frame)


def test_parts_are_checked() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"^mine: test is torch.float64 \(4, 2\); must be finite float32 \(n, 2\)"):
        PointSet("mine", x, x, x.double(), ("a", "b"))
    with pytest.raises(ValueError, match=r"^mine: validation is torch.float32 \(4, 2\); must be finite"):
        PointSet("mine", x, x / 0, x, ("a", "b"))
