"""A table of runs as text: cells, row digests, deterministic order, CSV; and compressed points."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, str]  # the non-empty cells of one line, as text
MAX_BYTES = 2_000_000
AMENDED = ("verified", "was")  # fields of a run's provenance that it may get later: they stand last
_NAME = re.compile(r"[\w][\w.+-]*")


def is_timing(column: str) -> bool:
    """Columns that differ between two equal runs: seconds, *_seconds, *_per_second and peak_rss_mb."""
    return column.endswith(("_seconds", "_per_second")) or column in ("seconds", "peak_rss_mb")


def cell(table: str, column: str, value: Any) -> str:
    """Text of one cell: integers exactly, booleans as 1/0, None as empty, NaN as nan, and floats as %.6g (six digits
    say more than any of our standard errors). Raises TypeError for anything else, ValueError for text of several lines.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str) and min(value, default=" ") < " ":
        raise ValueError(f"{table}.{column}={value!r}: text in a cell must be one line")
    if isinstance(value, (int, str)):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}" if value else "0"
    raise TypeError(f"{table}.{column}={value!r}: a cell is a number, a string, a boolean or None")


def columns_of(table: str, rows: list[dict[str, Any]]) -> list[str]:
    """Columns of a table's new rows, in order of appearance. Raises ValueError or TypeError for what is no name."""
    check_name("table", table)
    columns = dict.fromkeys(column for row in rows for column in row)
    for column in columns:
        if not isinstance(column, str) or min(column, default="") < " ":
            raise TypeError(f"{table}: column {column!r} must be a name")
    return list(columns)


def row_texts(table: str, rows: list[dict[str, Any]]) -> list[Row]:
    """Rows as text, without empty cells; a row without a cell says nothing and is left out."""
    texts = [{column: cell(table, column, value) for column, value in row.items()} for row in rows]
    filled = [{column: text for column, text in row.items() if text} for row in texts]
    return [row for row in filled if row]


def renamed(row: Row, columns: Mapping[str, str], values: Mapping[str, Mapping[str, str]]) -> Row:
    """A row with other names of columns, and other texts in some columns (by their new names)."""
    moved = {columns.get(column, column): text for column, text in row.items()}
    return {column: values.get(column, {}).get(text, text) for column, text in moved.items()}


def row_digest(row: Row) -> str:
    """12 hex digits of the SHA-256 of a row's non-empty cells, whatever the order of the columns."""
    text = "\x1e".join(f"{k}\x1f{v}" for k, v in sorted(row.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sort_key(columns: list[str], row: Row) -> list[tuple[int, float, str]]:
    parts: list[tuple[int, float, str]] = []
    for column in columns:
        text = row.get(column, "")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            parts.append((0, number, text))
        else:
            parts.append((1 if text else -1, 0.0, text))
    return parts


SHARED = ("code", "columns")  # of a run's provenance: many have it alike, so it is written once and named by its place


@dataclass
class Table:
    """Rows, the order of their columns, and the provenance of the runs that own them, by key."""

    rows: list[Row]
    header: list[str]
    runs: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, text: str, meta: Mapping[str, Any]) -> Table:
        """The table that a CSV file holds, and what the file beside it says of its runs (`render`)."""
        shared = meta.get("shared", [])
        runs = {
            key: {name: shared[v] if name in SHARED and isinstance(v, int) else v for name, v in entry.items()}
            for key, entry in meta["runs"].items()
        }
        lines = list(csv.reader(io.StringIO(text, newline="")))
        header = lines[0] if lines else []
        rows = [{c: v for c, v in zip(header, line, strict=False) if v} for line in lines[1:] if line]
        return cls(rows, header, runs)

    def owned(self, keys: Collection[str]) -> list[Row]:
        """Rows of the runs `keys`; of equal ones as many as these runs have made, whoever else made some."""
        counts = Counter(d for key, entry in self.runs.items() if key in keys for d in entry["rows"])
        return [row for row in self.rows if _take(counts, row)]

    def by_run(self) -> dict[str, list[Row]]:
        """`owned` of every run by key."""
        rows = {row_digest(row): row for row in self.rows}
        return {key: [rows[d] for d in entry["rows"] if d in rows] for key, entry in self.runs.items()}

    def unowned(self) -> list[Row]:
        """Rows that no run owns: edited by hand, or made elsewhere."""
        owned = Counter(d for entry in self.runs.values() for d in entry["rows"])
        return [row for row in self.rows if not _take(owned, row)]

    def add(self, key: str, entry: Mapping[str, Any], columns: list[str], rows: list[Row]) -> None:
        """Add the rows of a run, with what its provenance is in all of its tables, and this table's columns."""
        self.rows += rows
        first = {name: value for name, value in entry.items() if name not in AMENDED}
        last = {name: entry[name] for name in AMENDED if name in entry}
        self.runs[key] = {**first, "columns": columns, "rows": sorted(map(row_digest, rows)), **last}

    def drop(self, key: str) -> None:
        """Remove a run and its rows."""
        gone = Counter(self.runs.pop(key, {"rows": []})["rows"])
        self.rows = [row for row in self.rows if not _take(gone, row)]

    def render(self, name: str) -> tuple[str, str]:
        """Text of the CSV and of the provenance file, ordered by what the runs are, never by when they finished."""

        def text(entry: Mapping[str, Any]) -> str:
            return str(entry["function"]) + json.dumps(entry["config"], sort_keys=True, ensure_ascii=False)

        runs = dict(sorted(self.runs.items(), key=lambda item: text(item[1])))
        filled = {c for row in self.rows for c in row}
        declared = [c for entry in runs.values() for c in entry["columns"]]
        columns = list(dict.fromkeys(declared + [c for c in self.header if c in filled]))
        measured = [c for c in columns if not is_timing(c)]
        rows = sorted(self.rows, key=lambda row: (sort_key(measured, row), row_digest(row)))
        places: dict[str, int] = {}

        def line(entry: Mapping[str, Any]) -> str:
            parts = {k: json.dumps(v, ensure_ascii=False) for k, v in entry.items()}
            parts |= {k: str(places.setdefault(v, len(places))) for k, v in parts.items() if k in SHARED}
            return "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in parts.items()) + "}"

        lines = ",\n".join(f" {json.dumps(k)}: {line(v)}" for k, v in runs.items())
        shared = ",\n".join(f" {part}" for part in places)
        head = f'"kind": "runs", "table": {json.dumps(name)}, "shared": [\n{shared}\n]'
        return csv_text(columns, rows), f'{{{head}, "runs": {{\n{lines}\n}}}}\n'


def _take(counts: Counter[str], row: Row) -> bool:
    digest = row_digest(row)
    counts[digest] -= 1
    return counts[digest] >= 0


def check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{kind}={name!r}: a name is letters, digits and . _ + -")


def csv_text(columns: list[str], rows: list[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(c, "") for c in columns] for row in rows)
    return out.getvalue()


def points_bytes(name: str, array: Any) -> bytes:
    import numpy as np

    check_name("points", name)
    a = np.asarray(array)
    if a.ndim != 2 or not np.issubdtype(a.dtype, np.number):
        raise TypeError(f"points={name!r}: must be numbers (rows, columns), got shape {a.shape}, {a.dtype}")
    out = io.StringIO()
    names = list("xyz"[: a.shape[1]]) if a.shape[1] <= 3 else [f"x{i}" for i in range(a.shape[1])]
    np.savetxt(out, a, fmt="%.5g", delimiter=",", header=",".join(names), comments="")
    data = gzip.compress(out.getvalue().encode(), mtime=0)
    if len(data) > MAX_BYTES:
        raise ValueError(f"points={name!r}: {len(data) / 1e6:.1f} MB compressed, at most 2: give fewer rows")
    return data
