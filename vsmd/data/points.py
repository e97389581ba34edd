"""Sets of points in three parts: your own, from a CSV, parquet or npy file, a DataFrame or an array.

Named ones, real data of several kinds, are in `repro.studies.sets.points`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, messages, random

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.6, 0.75)  # of the rows: where training ends, and where validation ends
LEAST = 50  # rows of a table of your own
REPEATED = 0.05  # share of repeated rows from which on it is said


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points of one law in three parts, float32 (n, d): to train on, to choose by, to report; rows in random order.

    columns: names of the d numbers. description: what a row is, source, licence, how it was split.
    Raises ValueError for parts that are not finite float32 (n, d) with n >= 2.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    columns: tuple[str, ...]
    description: str = ""

    def __post_init__(self) -> None:
        for part, x in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if x.dtype != torch.float32 or len(x) < 2 or x.shape[1:] != (len(self.columns),) or not x.isfinite().all():
                want = f"must be finite float32 (n, {len(self.columns)}) with n >= 2"
                raise ValueError(f"{self.name}: {part} is {x.dtype} {tuple(x.shape)}; {want}")

    @classmethod
    def of(
        cls, name: str, values: np.ndarray, rows: Sequence[np.ndarray], columns: Sequence[str], description: str = ""
    ) -> PointSet:
        """The set of values (n, d) whose three parts have the given rows."""
        train, validation, test = (torch.from_numpy(values[r].astype(np.float32)) for r in rows)
        return cls(name, train, validation, test, tuple(columns), description)


def dealt(groups: np.ndarray, *, in_order: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Rows of training (.6), validation (.15) and test part (.25), in random order; rows of a group share a part.

    groups: (n,), the group of each row. in_order: groups are dealt in the order of their values, as times are; else at
    random, from the seed. Raises ValueError where groups are too few or large to give every part two rows.
    """
    rng = np.random.default_rng(random.generator(seed, "point split").initial_seed())
    labels, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.arange(len(labels)) if in_order else rng.permutation(len(labels))
    part = np.empty(len(labels), dtype=int)
    part[order] = np.searchsorted(SHARES, (sizes[order].cumsum() - sizes[order] / 2) / len(groups))
    rows = [rng.permutation(np.flatnonzero(part[group] == p)) for p in range(3)]
    if min(map(len, rows)) < 2:
        raise ValueError(f"split: {len(labels)} groups give parts of {[len(r) for r in rows]} rows; must be 2 or more")
    return rows


def read(
    source: str | Path | pd.DataFrame | np.ndarray | Tensor,
    *,
    split: str | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    drop: Collection[str] = (),
    missing: str = "error",
    seed: int = 0,
    name: str = "points",
    csv: dict[str, Any] | None = None,
) -> PointSet:
    """Your own points: a table with a row a point and a column a number.

    source: path of a CSV (.gz), parquet or npy file, a DataFrame, or an array or tensor (n, d).
    split: "random", "group" (rows of a group share a part) or "time" (training before validation before test). Default:
        what the columns named say, else "random". By "time" without a column, rows are in order of time.
    time_column, group_column: what is split by, no coordinate of the points.
    drop: columns to leave out.
    missing: rows with NaN are an "error" (default), "drop" leaves them out, "impute" puts the training part's median.
    seed: of what is random (default 0).
    name: of the set.
    csv: arguments of `pandas.read_csv`; separator (, ; | or tab) and decimal comma are seen without.

    Raises ValueError, one line that names the columns, for text, dates, columns that never change, NaN or infinite
    values, fewer than 50 rows, and files that cannot be read. Warns where above 5 % of the rows are repeated.
    """
    checks.one_of("missing", missing, ("error", "drop", "impute"))
    frame = _table(source, csv)
    names = [str(c) for c in frame.columns]
    if twice := sorted({c for c in names if names.count(c) > 1}):
        raise ValueError(f"source: columns {checks.some(twice)} are there more than once; rename them")
    frame.columns = names
    groups, in_order = _groups(frame, split, time_column, group_column)
    left_out = {checks.one_of("drop", c, names) for c in drop} | {time_column, group_column}
    columns = [c for c in names if c not in left_out]
    if other := [c for c in columns if frame[c].dtype.kind not in "iuf"]:
        said = f"hold no numbers; leave them out by drop={messages.told(other[:5])}"
        raise ValueError(f"source: columns {checks.some(other)} {said}")
    values = frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    if infinite := [c for c, bad in zip(columns, np.isinf(values).any(0)) if bad]:
        raise ValueError(f"source: infinite values in columns {checks.some(infinite)}; must be finite")
    if (gaps := np.isnan(values)).any() and missing == "error":
        where = checks.some([c for c, bad in zip(columns, gaps.any(0)) if bad])
        count = f"{gaps.any(1).sum()} of {len(values)} rows have NaN, in columns {where}"
        raise ValueError(f"source: {count}; give missing='drop' or missing='impute', or leave the columns out by drop=")
    if missing == "drop":
        values, groups = values[~gaps.any(1)], groups[~gaps.any(1)]
    if len(values) < LEAST or not columns:
        raise ValueError(f"source: {len(values)} rows of {len(columns)} numbers; must be at least {LEAST} rows of 1")
    rows = dealt(groups, in_order=in_order, seed=seed)
    return PointSet.of(name, _whole(values, values[rows[0]], columns), rows, columns)


def _whole(values: np.ndarray, train: np.ndarray, columns: list[str]) -> np.ndarray:
    """The values, the training part's medians where they are NaN."""
    varies = np.fmax.reduce(train) > np.fmin.reduce(train)  # False where all are NaN
    if same := [c for c, changes in zip(columns, varies) if not changes]:
        said = f"never change in the training part; drop={messages.told(same[:5])} drops them"
        raise ValueError(f"source: columns {checks.some(same)} {said}")
    values = np.where(np.isnan(values), np.nanmedian(train, 0), values)
    if (repeated := 1 - len(np.unique(values, axis=0)) / len(values)) > REPEATED:
        warnings.warn(f"source: {repeated:.0%} of the rows are there more than once", stacklevel=3)
    return values


def _table(source: object, csv: dict[str, Any] | None) -> pd.DataFrame:
    """The source as a new DataFrame; arrays have columns x1, x2, …"""
    import pandas as pd

    from vsmd.data import arrays, tables

    if isinstance(source, str | Path) and Path(source).suffix == ".npy":
        source = arrays.read("source", Path(source))[""]
    elif isinstance(source, str | Path):
        source = tables.read("source", Path(source), csv)
    if isinstance(source, pd.DataFrame):
        return source.copy() if source.index.name is None else source.reset_index()
    array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    if not isinstance(array, np.ndarray):
        raise TypeError(f"source={type(source).__name__}: must be a path, a DataFrame, or an array or tensor (n, d)")
    if array.ndim != 2:
        raise ValueError(f"source: shape {array.shape}; must be (n, d), a row a point")
    return pd.DataFrame(array, columns=[f"x{i + 1}" for i in range(array.shape[1])])


def _groups(
    frame: pd.DataFrame, split: str | None, time_column: str | None, group_column: str | None
) -> tuple[np.ndarray, bool]:
    """The number of each row's group, and whether groups are dealt in order."""
    import pandas as pd

    column = time_column if group_column is None else group_column
    implied = "random" if column is None else "time" if group_column is None else "group"
    split = checks.one_of("split", split or implied, ("random", "group", "time"))
    if None not in (time_column, group_column) or (split != implied and (split, implied) != ("time", "random")):
        given = f"time_column={messages.told(time_column)}, group_column={messages.told(group_column)}"
        raise ValueError(f"split={split!r}: with {given}; must be by one of them, or by none")
    if column is None:
        return np.arange(len(frame)), split == "time"
    key = frame[checks.one_of(f"{implied}_column", column, list(frame.columns))]
    if split == "time" and key.dtype.kind not in "iufM":
        try:
            key = pd.to_datetime(key, format="ISO8601", utc=True)
        except (ValueError, TypeError):
            said = f"its values ({messages.told(key.iloc[0])} …) are no time stamps"
            raise ValueError(f"time_column={messages.told(column)}: {said}") from None
    codes, _ = pd.factorize(key, sort=split == "time")
    if (codes < 0).any():
        raise ValueError(f"{implied}_column={messages.told(column)}: {(codes < 0).sum()} rows have no value there")
    return codes, split == "time"
