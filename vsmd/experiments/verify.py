"""`python -m vsmd.experiments.verify --profile full`: has a change of code changed any figure?

Stored runs whose code has changed are stale. Of every kind of them – one function, one method, one way to A – the
cheapest is executed again, beside the report. Gives it the same rows and points, timing columns aside, then the others
of its kind are carried over: they are keyed to the present code, and their provenance says which run, at which commit,
vouches for them. A kind whose rows differ stays stale.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .code import module_hash
from .pool import commit, execute
from .profiles import PROFILES, profile
from .rows import is_timing
from .runs import Run
from .store import Store

KIND = ("method", "a_mode", "name", "kind")  # settings by which runs of one function take different paths


def kinds(entries: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Keys of the stale ones of `entries` by kind, the cheapest run of each first."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, entry in entries.items():
        if Store.is_stale(entry):
            groups[entry["function"], *(str(entry["config"].get(c)) for c in KIND)].append(key)
    return [sorted(keys, key=lambda k: (entries[k]["seconds"], k)) for _, keys in sorted(groups.items())]


def same(run: Run, one: Store, other: Store) -> bool:
    """Whether two stores hold the same rows and points of a run, columns that only time it aside."""
    a, b = (store.entries().get(run.key) for store in (one, other))
    if a is None or b is None or (a["tables"], a["points"]) != (b["tables"], b["points"]):
        return False
    for name in a["tables"]:
        tables = [store.table(name, [run]) for store in (one, other)]
        x, y = (t[[c for c in t.columns if not is_timing(c)]] for t in tables)
        if not x.equals(y):
            return False
    files = [[(s.points_dir / f"{p}.csv.gz").read_bytes() for p in a["points"]] for s in (one, other)]
    return files[0] == files[1]


def verify(store: Store, workers: int | None = None, progress: bool = True) -> dict[str, list[str]]:
    """Verify the stale runs of `store`; return the keys that were carried over ("same") and those that were not."""
    entries = store.entries()
    groups = kinds(entries)
    runs = [Run(entries[keys[0]]["function"], entries[keys[0]]["config"]) for keys in groups]
    beside = Store(store.cache / "verify", store.profile)
    execute(runs, beside, workers, progress, refresh=True)
    found: dict[str, list[str]] = {"same": [], "different": []}
    again, revision = beside.entries(), commit(Path.cwd())
    for keys, run in zip(groups, runs):
        if not same(run, store, beside):
            found["different"] += keys
            continue
        note = {"run": run.key, "commit": revision, "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"}
        changed = {}
        for key in keys:
            used = sorted({*again[run.key]["code"], *entries[key]["code"]})
            present = {m: digest for m in used if (digest := module_hash(m)) is not None}
            changed[key] = {"code": present, "verified": note}
        store.amend(changed)
        found["same"] += keys
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if rows of some kind differ."""
    parser = argparse.ArgumentParser(
        prog="python -m vsmd.experiments.verify", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    try:
        store = profile(parser.parse_args(arguments).profile).store
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    found = verify(store)
    print(f"{len(found['same'])} stale run(s) carried over, {len(found['different'])} differ or could not be compared")
    entries = store.entries()
    for key in found["different"]:
        print(f"  {entries[key]['function']} {dict(entries[key]['config'])}")
    return 1 if found["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
