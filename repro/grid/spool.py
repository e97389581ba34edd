"""What a run hands back: one file of text in a spool, from which the driver writes the store.

    write_atomic(path, Finished.of(run, result, profile=…, code=…, provenance=…).text())      # the worker
    store.add(Finished.read(path.read_text(), path.name))                                   # the driver, it alone

The file is JSON: rows as the text of their cells, points as they are stored, and the entry that the store keeps beside
them. Nothing of it can run, and whatever is not of this form is refused by name.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.grid.rows import MAX_BYTES, Row, check_name, columns_of, points_bytes, row_texts
from repro.grid.runs import Result, Run

KIND = "finished run"
TEXTS = ("function", "profile", "date")  # fields of an entry that must be text


@dataclass(frozen=True)
class Finished:
    """A finished run as text.

    run: what was run. entry: its provenance, the same in all of its tables. columns, rows: by table. points: compressed
    files by name.
    """

    run: Run
    entry: Mapping[str, Any]
    columns: Mapping[str, list[str]]
    rows: Mapping[str, list[Row]]
    points: Mapping[str, bytes]

    @classmethod
    def of(
        cls, run: Run, result: Result, *, profile: str, code: Mapping[str, str], provenance: Mapping[str, Any]
    ) -> Finished:
        """What `run` returned, as text.

        profile: a name kept with it. code: hash by module name. provenance: whatever else is to be kept; `date` and
        `seconds` are expected. Raises TypeError or ValueError for a result that is not rows and arrays, or for points
        over 2 MB.
        """
        if not isinstance(result, Result) or not result.tables:
            raise TypeError(
                f"{run.function} returned {type(result).__name__}: must return Result with at least one table"
            )
        columns = {name: columns_of(name, rows) for name, rows in result.tables.items()}
        texts = {name: row_texts(name, rows) for name, rows in result.tables.items()}
        points = {n: points_bytes(n, a) for n, a in (result.points or {}).items()}
        seed = run.config.get("seed", run.config.get("seeds", []))
        entry = {
            "function": run.function,
            "config": dict(run.config),
            "profile": profile,
            "seeds": seed if isinstance(seed, list) else [seed],
            **provenance,
            "tables": sorted(texts),
            "points": sorted(points),
            "code": dict(sorted(code.items())),
        }
        return cls(run, entry, columns, texts, points)

    def text(self) -> str:
        """One JSON object."""
        points = {name: base64.b64encode(content).decode() for name, content in self.points.items()}
        whole = {"kind": KIND, "entry": self.entry, "columns": self.columns, "rows": self.rows, "points": points}
        return json.dumps(whole)

    @classmethod
    def read(cls, text: str, name: str) -> Finished:
        """What `text` holds. Raises ValueError, one line that begins with `name`, where it is not a finished run."""
        try:
            whole = json.loads(text)
            if not isinstance(whole, dict) or whole.get("kind") != KIND:
                raise ValueError(f"its kind is not {KIND!r}")
            points = {k: base64.b64decode(v, validate=True) for k, v in whole["points"].items()}
            finished = cls(
                Run(whole["entry"]["function"], whole["entry"]["config"]),
                whole["entry"],
                whole["columns"],
                whole["rows"],
                points,
            )
            finished.check()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise ValueError(f"{name}: not the result of a run ({what})") from None
        return finished

    def check(self) -> None:
        """Raise ValueError, TypeError or KeyError unless everything has the form in which the store keeps it."""
        entry = self.entry
        for field in TEXTS:
            _must(isinstance(entry[field], str), f"{field}={entry[field]!r}")
        _must(isinstance(entry["seconds"], (int, float)), f"seconds={entry['seconds']!r}")
        _must(isinstance(entry["seeds"], list), f"seeds={entry['seeds']!r}")
        _must(_texts(entry["code"]), "code")
        _must(entry["tables"] == sorted(self.rows) != [], f"tables={entry['tables']!r}")
        _must(self.columns.keys() == self.rows.keys(), "columns")
        _must(entry["points"] == sorted(self.points), f"points={entry['points']!r}")
        for name, rows in self.rows.items():
            _must(columns_of(name, [dict.fromkeys(self.columns[name])]) == list(self.columns[name]), f"{name}: columns")
            for row in rows:
                _must(_texts(row) and row.keys() <= set(self.columns[name]), f"{name}: {row!r}")
                _must(bool(row) and all(min(value, default="") >= " " for value in row.values()), f"{name}: {row!r}")
        for name, content in self.points.items():
            check_name("points", name)
            _must(content[:2] == b"\x1f\x8b" and len(content) <= MAX_BYTES, f"points={name!r}")


def _must(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"not in its form: {what}")


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
