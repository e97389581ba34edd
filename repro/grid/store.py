"""Stored results of runs: tables as CSV, their provenance beside them, points for scatter figures.

Layout under the root: tables/<table>.csv (rows, nothing else), tables/<table>.meta.json (which run made which rows,
from what code, when, on what), points/<name>.csv.gz, figures/, and .cache/ (locks, logs, checkpoints: never committed).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.grid.code import differing, module_path
from repro.grid.files import MEND, locked, read_json
from repro.grid.journal import Journal
from repro.grid.rows import Table, csv_text, row_digest
from repro.grid.runs import Result, Run
from repro.grid.spool import Finished
from vsmd import files

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


READ: set[str] = set()  # tables that this process has read: what its notebook depends on


@dataclass(frozen=True)
class Status:
    """How many of the declared runs are stored with the present code (fresh), with other code (stale), or missing."""

    fresh: int
    stale: int
    missing: int

    @property
    def total(self) -> int:
        return self.fresh + self.stale + self.missing


@dataclass
class Edit:
    """A change of the store: its tables, to be changed in place, names of those that are, and other files by path."""

    tables: dict[str, Table]
    changed: set[str] = field(default_factory=set)
    files: dict[Path, bytes] = field(default_factory=dict)


class Store:
    """Results under `root`; every change is atomic and made under a file lock, so several processes may share one.

    profile: a name recorded with each run. `used` and `declared` note which tables were read and which runs executed
    through this object: the provenance of what is made from them.
    """

    def __init__(self, root: Path | str, profile: str = "") -> None:
        self.root, self.profile = Path(root).resolve(), profile
        self.tables_dir, self.points_dir = self.root / "tables", self.root / "points"
        self.cache = self.root / ".cache"
        self.journal = Journal(self.root, self.cache)
        self.used: set[str] = set()
        self.declared: dict[str, Run] = {}

    def names(self) -> list[str]:
        """Names of the tables of runs that are stored."""
        metas = {path.stem: read_json(path.with_suffix(".meta.json")) for path in self.tables_dir.glob("*.csv")}
        return sorted(name for name, meta in metas.items() if meta is None or meta.get("kind") == "runs")

    def table(self, name: str, runs: Iterable[Run] | None = None) -> pd.DataFrame:
        """Rows of a table as a DataFrame, sorted; with `runs`, only the rows of those. Empty cells and nan are NaN.

        Rows that no run owns (edited by hand, or made elsewhere) are part of the whole table, and one printed line says
        how many there are. Raises FileNotFoundError, naming the tables that there are.
        """
        import pandas as pd

        with self._lock():
            table = self._read(name)
        self.used.add(name)
        READ.add(name)
        rows = table.rows
        if runs is not None:
            rows = table.owned({run.key for run in runs})
        elif table.runs and (strangers := len(table.unowned())):
            print(f"{name}.csv: {strangers} row(s) belong to no stored run (edited by hand?)")
        if not table.header:
            return pd.DataFrame()
        text = csv_text([c for c in table.header if any(c in r for r in rows)] or table.header, rows)
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=["", "nan"])

    def points(self, name: str) -> np.ndarray:
        """A stored array of points, float64 (rows, columns). Raises FileNotFoundError."""
        import numpy as np

        path = self.points_dir / f"{name}.csv.gz"
        if not path.exists():
            have = ", ".join(p.name.removesuffix(".csv.gz") for p in sorted(self.points_dir.glob("*.csv.gz")))
            raise FileNotFoundError(f"points={name!r}: not stored (there are: {have or 'none'})")
        with files.refusing(path, f"points; {MEND}"), gzip.open(files.regular(path), "rt", encoding="utf-8") as file:
            return np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)

    def states(self, runs: Iterable[Run]) -> dict[str, str]:
        """ "fresh", "stale" or "missing" for each run, by key. A run whose rows were edited or removed is missing."""
        with self._lock():
            tables = {name: self._read(name) for name in self.names()}
        return self.states_in(tables, [run.key for run in runs])

    def states_in(self, tables: Mapping[str, Table], keys: Iterable[str]) -> dict[str, str]:
        """`states` of runs by key, in tables that were read already."""
        present = {name: Counter(map(row_digest, t.rows)) for name, t in tables.items()}
        states = {}
        for key in dict.fromkeys(keys):
            entries = {name: t.runs[key] for name, t in tables.items() if key in t.runs}
            states[key] = "missing"
            if not entries or any(set(e["tables"]) - set(entries) for e in entries.values()):
                continue
            if any(Counter(e["rows"]) - present[name] for name, e in entries.items()):
                continue
            points = {p for e in entries.values() for p in e["points"]}
            if not all((self.points_dir / f"{p}.csv.gz").exists() for p in points):
                continue
            states[key] = "stale" if any(self.is_stale(e) for e in entries.values()) else "fresh"
        return states

    def status(self, runs: Iterable[Run]) -> Status:
        """Counts of fresh, stale and missing runs."""
        counts = Counter(self.states(runs).values())
        return Status(counts["fresh"], counts["stale"], counts["missing"])

    def stale(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that are stored with rows made by other code than the present."""
        entries = self.entries()
        return sorted(key for key in set(keys) & set(entries) if self.is_stale(entries[key]))

    def entries(self, name: str | None = None) -> dict[str, dict[str, Any]]:
        """Provenance of all stored runs by key, or of those that own rows of the table `name`."""
        with self._lock():
            tables = [self._read(n) for n in ([name] if name else self.names())]
        return {key: entry for table in tables for key, entry in table.runs.items()}

    @staticmethod
    def is_stale(entry: Mapping[str, Any]) -> bool:
        """Whether a module that the run used is now another, comments and docstrings aside.

        Modules of a package that cannot be found from here at all are not judged.
        """
        packages = {p for p in {m.split(".")[0] for m in entry["code"]} if module_path(p) is not None}
        judged = {m: digest for m, digest in entry["code"].items() if m.split(".")[0] in packages}
        return bool(differing(judged))

    def provenance(self, name: str, keys: Iterable[str] = ()) -> dict[str, Any]:
        """What made a table (if some of `keys` own rows in it, only those runs; else all of it).

        rows, runs, stale, verified (carried over to the present code), unowned_rows, seeds, profiles, commits, devices,
        torch, seconds (sum), last (date).
        """
        with self._lock():
            table = self._read(name)
        entries = [table.runs[k] for k in keys if k in table.runs] or list(table.runs.values())
        seeds = {s for e in entries for s in e["seeds"]}

        def distinct(field: str) -> list[str]:
            return sorted({str(e[field]) for e in entries if e.get(field)})

        return {
            "table": name,
            "rows": sum(len(e["rows"]) for e in entries),
            "runs": len(entries),
            "stale": sum(map(self.is_stale, entries)),
            "verified": sum("verified" in e and not self.is_stale(e) for e in entries),  # since then the code went on
            "unowned_rows": len(table.unowned()),
            "seeds": sorted(seeds, key=lambda s: (isinstance(s, str), s)),
            "profiles": distinct("profile"),
            "commits": distinct("commit"),
            "devices": distinct("device"),
            "torch": distinct("torch"),
            "seconds": round(sum(e["seconds"] for e in entries), 1),
            "last": max((e["date"] for e in entries), default=""),
        }

    def digest(self, runs: Iterable[Run | str]) -> dict[str, str]:
        """A digest of the stored rows of each run, by key ("" for a run that is not stored)."""
        keys = [run.key if isinstance(run, Run) else run for run in runs]
        with self._lock():
            tables = [(name, self._read(name).runs) for name in self.names()]
        parts = {key: [(name, *sorted(t[key]["rows"])) for name, t in tables if key in t] for key in keys}
        return {k: hashlib.sha256(repr(v).encode()).hexdigest()[:12] if v else "" for k, v in parts.items()}

    @contextmanager
    def editing(self) -> Iterator[Edit]:
        """All tables under the lock; those marked as changed are written, as one, unless something is raised."""
        with self._lock(write=True):
            edit = Edit({name: self._read(name) for name in self.names()})
            yield edit
            for name in sorted(edit.changed):
                text, meta = edit.tables[name].render(name)
                path = self.tables_dir / f"{name}.csv"
                edit.files |= {path: text.encode(), path.with_suffix(".meta.json"): meta.encode()}
            self.journal.commit(edit.files)

    def put(self, run: Run, result: Result, *, code: Mapping[str, str], provenance: Mapping[str, Any]) -> None:
        """Store what a run returned (see `Finished.of`) in place of what it had stored."""
        self.add(Finished.of(run, result, profile=self.profile, code=code, provenance=provenance))

    def add(self, *results: Finished) -> None:
        """Store finished runs in place of what they had stored: all their tables and points, or, killed midway, none.

        Raises ValueError for a table whose name a summary of a report has.
        """
        with self.editing() as edit:
            for result in results:
                self.replace(edit, result)

    def replace(self, edit: Edit, result: Finished) -> None:
        """Let a finished run stand in a change of the store in place of what it had stored."""
        key = result.run.key
        for name, table in edit.tables.items():
            if key in table.runs:
                table.drop(key)
                edit.changed.add(name)
        for name, rows in result.rows.items():
            if name not in edit.tables:
                edit.tables[name] = self._read(name, new_ok=True)
            edit.tables[name].add(key, result.entry, result.columns[name], rows)
            edit.changed.add(name)
        edit.files |= {self.points_dir / f"{n}.csv.gz": content for n, content in result.points.items()}

    def finished(self) -> Iterator[Finished | str]:
        """Every stored run as it was handed back; for one whose rows or points are not whole, a line that says so."""
        with self._lock():
            tables = {name: self._read(name) for name in self.names()}
        keys = dict.fromkeys(key for table in tables.values() for key in table.runs)
        states, owned = self.states_in(tables, keys), {name: table.by_run() for name, table in tables.items()}
        for key in keys:
            entries = {name: table.runs[key] for name, table in tables.items() if key in table.runs}
            entry = {k: v for k, v in next(iter(entries.values())).items() if k not in ("columns", "rows")}
            run = Run(entry["function"], entry["config"])
            if states[key] == "missing":
                yield f"{run.text}: its rows were edited, or its points are gone"
                continue
            rows = {name: owned[name][key] for name in entries}
            points = {p: (self.points_dir / f"{p}.csv.gz").read_bytes() for p in entry["points"]}
            yield Finished(run, entry, {name: e["columns"] for name, e in entries.items()}, rows, points)

    def remove(self, runs: Iterable[Run | str]) -> None:
        """Remove runs (or keys) and their rows from all tables; their points stay. Unknown ones are ignored."""
        keys = {run.key if isinstance(run, Run) else run for run in runs}
        with self.editing() as edit:
            for name, table in edit.tables.items():
                for key in keys & set(table.runs):
                    table.drop(key)
                    edit.changed.add(name)

    def amend(self, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the provenance of stored runs, by key, or remove those that are None; their rows stay.

        Unknown keys are ignored.
        """
        with self.editing() as edit:
            for name, table in edit.tables.items():
                for key in fields.keys() & table.runs.keys():
                    entry = {**table.runs[key], **fields[key]}
                    table.runs[key] = {name: value for name, value in entry.items() if value is not None}
                    edit.changed.add(name)

    def _lock(self, write: bool = False) -> AbstractContextManager[None]:
        if not write and not (self.cache.exists() and os.access(self.cache, os.W_OK)):
            return nullcontext()  # a report that nobody is writing, perhaps on a read-only disk
        return self._locked()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock, after what a killed process left half moved is finished."""
        with locked(self.cache / "store.lock"):
            self.journal.finish()
            yield

    def _read(self, name: str, new_ok: bool = False) -> Table:
        path = self.tables_dir / f"{name}.csv"
        meta = read_json(path.with_suffix(".meta.json")) or {"kind": "runs", "runs": {}}
        if meta.get("kind") != "runs":
            raise ValueError(f"table={name!r}: is a summary of a report; give the runs' table another name")
        if not path.exists() and new_ok:
            return Table([], [], {})
        if not path.exists():
            have = ", ".join(self.names())
            raise FileNotFoundError(f"table={name!r}: no rows stored yet (there are: {have or 'none'})")
        with files.refusing(path, f"CSV; {MEND}"):
            return Table.read(files.regular(path).read_text(encoding="utf-8"), meta)
