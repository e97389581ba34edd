"""`python -m repro merge FOLDER [--profile full]`: rows that another machine made, brought home into the store.

FOLDER is the reports folder of another checkout (or a profile's in it), or a spool: files of finished runs. A run goes
in unless the store has fresh rows of it, under the store's lock and all as one: killed midway nothing has changed, and
a second time nothing is left to be done. What was made by other code than the present is refused, by commit and module,
unless --stale asks for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro.grid.code import differing
from repro.grid.files import check_writable
from repro.grid.pool import commit
from repro.grid.profiles import PROFILES, profile
from repro.grid.rows import Row, is_timing, row_digest
from repro.grid.spool import Finished
from repro.grid.store import Store


@dataclass
class Merged:
    """What became of finished runs.

    brought: those that went in. there: how many the store had. unlike: how many of these with other figures. refused:
    why others did not go in, and how many.
    """

    brought: list[Finished] = field(default_factory=list)
    there: int = 0
    unlike: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def results_in(folder: Path, profile_name: str) -> Iterator[Finished | str]:
    """Finished runs of a folder, of its store and its spool; a line for each that is damaged.

    Raises ValueError for a folder that holds none of both.
    """
    below = [folder / profile_name, folder] if profile_name != "full" else [folder]
    root = next((f for f in below if (f / "tables").is_dir()), None)
    spools = [folder] if root is None else [root / ".cache" / "spool"]
    files = [path for spool in spools for path in sorted(spool.glob("[0-9a-f]*.json"))]
    if root is None and not files:
        raise ValueError(f"folder={str(folder)!r}: must hold tables/ of a report or files of finished runs, *.json")
    if root is not None:
        yield from Store(root).finished()
    for path in files:
        try:
            yield Finished.read(path.read_text(encoding="utf-8"), path.name)
        except (ValueError, OSError) as error:
            yield str(error)


def merge(store: Store, results: Iterable[Finished | str], stale: bool = False) -> Merged:
    """Bring finished runs into `store`, as one change; the last of several of one run counts.

    stale: those made by other code too, where the store has no rows of them at all.
    """
    merged, candidates = Merged(), dict[str, Finished]()
    for result in results:
        if isinstance(result, str):
            merged.refused[result] += 1
        elif result.entry["profile"] != store.profile:
            why = f"of profile {result.entry['profile']!r}, not {store.profile!r}: merge --profile names theirs"
            merged.refused[why] += 1
        else:
            candidates[result.run.key] = result
    with store.editing() as edit:
        states = store.states_in(edit.tables, candidates)
        ours = {name: table.by_run() for name, table in edit.tables.items()}
        for key, result in candidates.items():
            other = store.is_stale(result.entry)
            if states[key] == "fresh" or (other and states[key] == "stale"):
                merged.there += 1
                mine = {name: rows[key] for name, rows in ours.items() if key in rows}
                merged.unlike += _figures(mine) != _figures(result.rows)
            elif other and not stale:
                merged.refused[_other_code(result)] += 1
            else:
                store.replace(edit, result)
                merged.brought.append(result)
    return merged


def _figures(rows: Mapping[str, list[Row]]) -> dict[str, Counter[str]]:
    """Digests of rows by table, columns that only time them left out."""
    bare = {name: [{c: v for c, v in row.items() if not is_timing(c)} for row in table] for name, table in rows.items()}
    return {name: Counter(map(row_digest, table)) for name, table in bare.items()}


def _other_code(result: Finished) -> str:
    modules = differing(result.entry["code"])
    names = ", ".join(modules[:3]) + (f" and {len(modules) - 3} more" if len(modules) > 3 else "")
    made = result.entry.get("commit") or "no commit"
    return f"made at {made} by other code ({names}): check that out here, or --stale brings them in marked as stale"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if something was refused, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m repro merge", description=(__doc__ or "").split(": ")[1])
    parser.add_argument("folder", type=Path, help="reports folder of another checkout, or a spool of finished runs")
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    parser.add_argument("--stale", action="store_true", help="bring in also what other code made, marked as stale")
    options = parser.parse_args(arguments)
    try:
        store = profile(options.profile).store
        check_writable("reports", store.root)
        results = list(results_in(options.folder.resolve(), options.profile))
        merged = merge(store, results, options.stale)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(merged.brought)} run(s) merged into {os.path.relpath(store.root)}, {merged.there} already there")
    if merged.unlike:
        print(f"  {merged.unlike} of those there have other figures; the store's are kept")
    present = commit(Path.cwd())
    for made in sorted({r.entry.get("commit") or "" for r in merged.brought} - {present}):
        count = sum((r.entry.get("commit") or "") == made for r in merged.brought)
        code = "by other code, marked as stale" if options.stale else "by the same code"
        print(f"  {count} of them made at {made or 'no commit'} (here: {present or 'no commit'}), {code}")
    for why, count in merged.refused.items():
        print(f"  {count} refused: {why}")
    return 1 if merged.refused else 0


if __name__ == "__main__":
    sys.exit(main())
