"""Stored runs under another name: a function that moved, a setting or a column that is called otherwise today.

    rekey(store, {entry_key: Run("repro.studies.toys:run", {"basis": "coordinates"})},
          columns={"matrix": "basis"}, values={"basis": {"diagonal": "coordinates"}})

What a run was is kept in its provenance ("was": function, config, columns, values) until `verify` has compared the code
that made it, under the old name, with the present one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repro.grid.rows import renamed
from repro.grid.runs import Run
from repro.grid.store import Store

if TYPE_CHECKING:
    import pandas as pd


def rekey(
    store: Store,
    runs: Mapping[str, Run],
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Let stored runs, by their present keys, be other runs from now on.

    columns: new names by old ones, of those columns that their rows have. values: by new name of such a column, new
    texts by old ones. Raises ValueError, and changes nothing, for a run that is stored already, or that was re-keyed
    before and has not been verified since.
    """
    columns, values = columns or {}, values or {}
    with store.editing() as edit:
        stored = {key: entry for table in edit.tables.values() for key, entry in table.runs.items()}
        has: dict[str, set[str]] = defaultdict(set)
        for table in edit.tables.values():
            for key, entry in table.runs.items():
                has[key] |= set(entry["columns"]) & set(columns)
        for key in runs.keys() & stored.keys():
            if "was" in stored[key]:
                raise ValueError(f"run={key!r}: was re-keyed before; verify it or run it again first")
            if runs[key].key != key and runs[key].key in stored:
                raise ValueError(f"run={key!r}: another is stored as {runs[key].text}")
        for name, table in edit.tables.items():
            for key in runs.keys() & table.runs.keys():
                run, entry, rows = runs[key], table.runs[key], table.owned([key])
                was: dict[str, Any] = {"function": entry["function"], "config": entry["config"]}
                if has[key]:
                    was["columns"] = {column: columns[column] for column in sorted(has[key])}
                    was["values"] = {c: dict(values[c]) for c in was["columns"].values() if c in values}
                table.drop(key)
                table.add(
                    run.key,
                    {**entry, "function": run.function, "config": dict(run.config), "was": was},
                    [columns.get(column, column) for column in entry["columns"]],
                    [renamed(row, was.get("columns", {}), was.get("values", {})) for row in rows],
                )
                edit.changed.add(name)


def before(entry: Mapping[str, Any], run: Run) -> Run:
    """`run`, that of a stored entry but for some plain settings, as the code that made the entry knows it."""
    if "was" not in entry:
        return run
    changed = {name: value for name, value in run.config.items() if entry["config"].get(name) != value}
    return Run(entry["was"]["function"], entry["was"]["config"] | changed)


def today(table: pd.DataFrame, entry: Mapping[str, Any]) -> pd.DataFrame:
    """Rows that the code of a stored entry made, in the names of today."""
    was = entry.get("was", {})
    return table.rename(columns=was.get("columns", {})).replace(was.get("values", {}))
