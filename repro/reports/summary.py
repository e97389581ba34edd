"""Condensing seeds to "mean ± std (n)", and tables as markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def mean_std_text(values: Iterable[float]) -> str:
    """Text "mean ± std (n)" over runs: the standard deviation (n − 1) with two digits, the mean alike.

    Very small or large values share one power of ten: "(2.51 ± 0.12)e-05 (3)". One value is "2.51e-05 (1)".
    Values that are not finite are left out and counted: "1.2 ± 0.1 (2 of 3 finite)"; none at all is "–".
    """
    all_values = [float(v) for v in values]
    finite = [v for v in all_values if math.isfinite(v)]
    n = len(finite)
    if not all_values:
        return "–"
    count = f"({n})" if n == len(all_values) else f"({n} of {len(all_values)} finite)"
    if not finite:
        return f"– {count}"
    mean = math.fsum(finite) / n
    if n == 1:
        return f"{mean:.3g} {count}"
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (n - 1))
    size = max(abs(mean), std)
    power = 0 if size == 0 or 1e-3 <= size < 1e5 else math.floor(math.log10(size))
    mean, std = mean / 10.0**power, std / 10.0**power
    smallest = float(f"{std if std > 0 else abs(mean) / 10:.1e}")
    digits = 0 if smallest == 0 else min(max(0, 1 - math.floor(math.log10(smallest))), 5)
    text = f"{mean:.{digits}f} ± {std:.{digits}f}"
    return f"({text})e{power:+03d} {count}" if power else f"{text} {count}"


def mean_std(df: pd.DataFrame, by: str | Sequence[str], value: str | Sequence[str]) -> pd.DataFrame:
    """One row a group of `by` (in order of appearance), each `value` column as `mean_std_text` over the group's rows.

    Empty groups' cells are kept as groups. Raises ValueError naming a column that is not there.
    """
    keys = [by] if isinstance(by, str) else list(by)
    columns = [value] if isinstance(value, str) else list(value)
    for column in (*keys, *columns):
        if column not in df.columns:
            raise ValueError(f"column={column!r}: not in the table (it has: {', '.join(map(str, df.columns))})")
    groups = df.groupby(keys, sort=False, dropna=False)[columns]
    return groups.agg(mean_std_text).reset_index()


_MEAN = re.compile(r"\(?(-?[\d.]+(?:e[+-]\d+)?)(?: ± [\d.]+\)?(e[+-]\d+)?)? \(\d")


def lowest_bold(df: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """A copy in which, of each of the `columns`, the "mean ± std (n)" with the smallest mean is bold (markdown)."""
    out = df.copy()
    for column in columns:
        found = [_MEAN.match(str(cell)) for cell in df[column]]
        means = [float(m[1] + (m[2] or "")) if m else math.inf for m in found]
        if min(means, default=math.inf) < math.inf:
            row = means.index(min(means))
            out.iloc[row, list(df.columns).index(column)] = f"**{df[column].iloc[row]}**"
    return out


def markdown(df: pd.DataFrame) -> str:
    """A DataFrame as a markdown table: floats with six digits at most, missing cells empty."""

    def text(value: object) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, float):
            return f"{value:.6g}"
        return str(value).replace("|", "\\|").replace("\n", " ")

    header = [text(c) for c in df.columns]
    numeric = [df[c].dtype.kind in "if" if not df.columns.has_duplicates else False for c in df.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("--:" if n else "---" for n in numeric) + "|"]
    lines += ["| " + " | ".join(map(text, row)) + " |" for row in df.itertuples(index=False, name=None)]
    return "\n".join(lines) + "\n"
