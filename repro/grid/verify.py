"""`python -m repro.grid.verify --profile full`: has a change of code changed any figure?

Stored runs whose code has changed are stale. Of every kind of them – one function, one method, one way to A – one run,
shortened, is executed by both codes, side by side on this machine: by the present one, and by that of the commit whose
sources the stored rows were made from. Come the same rows and points out of both, timing columns aside, then the kind
is carried over: it is keyed to the present code, and its provenance says which run, against which commit, vouches for
it. A kind whose rows differ, or whose code no commit holds, stays stale, and so do rows of a GPU where there is none.
A run that was re-keyed (`rekey`) is asked of the old code under its old name, and its rows are compared in today's.
Comparing codes rather than stored figures makes the verdict the same on every machine, though the last digits of the
figures are not. Shortened runs are kept in the cache: what one verification ran by the code of its day is the old
code's part of the next, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import importlib.metadata
import inspect
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from repro.grid.code import module_hash, source_hash
from repro.grid.files import check_writable
from repro.grid.pool import commit, execute
from repro.grid.profiles import PROFILES, profile, repository_root
from repro.grid.rekey import before, today
from repro.grid.rows import is_timing
from repro.grid.runs import Run
from repro.grid.spool import Finished
from repro.grid.store import Store
from repro.grid.worker import device

KIND = ("method", "a_mode", "basis", "name", "kind")  # settings by which runs of one function take different paths
TIMED = (  # runs that measure nothing but time
    "repro.studies.bench:run",
    "repro.studies.throughput:throughput",
    "repro.studies.scaling:run",
    "repro.studies.scaling:shares",
)
NEVER_REKEYED: Mapping[str, Any] = {}
SHORT = {"steps": 300, "samples": 4_000}  # the most that a run of either code does


def kinds(entries: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Keys of the stale ones of `entries` by kind and by the code that made them, the cheapest run of each first."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, entry in entries.items():
        if Store.is_stale(entry) and entry["function"] not in TIMED:
            settings, made_by = entry["config"], repr(sorted(entry["code"].items()))
            solvers = {line["solver"] for line in settings.get("plan") or ()}  # one code serves each, its own
            paths = (str(settings.get(c)) for c in KIND)
            groups[entry["function"], *paths, " ".join(sorted(solvers)), made_by].append(key)
    return [sorted(keys, key=lambda k: (entries[k]["seconds"], k)) for _, keys in sorted(groups.items())]


def elsewhere(store: Store) -> set[str]:
    """Keys of the runs whose rows name a device other than the CPU, where this machine has no GPU."""
    import torch  # not by those who store and schedule only

    away: set[str] = set()
    if torch.cuda.is_available():
        return away
    for name in store.names():
        for key, entry in store.entries(name).items():
            if "device" in entry["columns"]:
                rows = store.table(name, [Run(entry["function"], entry["config"])])
                if "device" in rows and bool((rows.device != "cpu").any()):
                    away.add(key)
    return away


def shortened(entry: Mapping[str, Any]) -> Run:
    """The run of a stored entry with at most `SHORT`'s steps and samples, where its function knows them."""
    module, name = entry["function"].split(":")
    known = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    config = {k: known[k].default for k in SHORT if k in known} | entry["config"]
    short = {k: min(v, SHORT[k]) for k, v in config.items() if k in SHORT and isinstance(v, int)}
    return Run(entry["function"], entry["config"] | short)


class History:
    """The commits of the repository at `root`, newest first, and the sources in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.commits = self._git("log", "--format=%h").decode().split()
        except (OSError, subprocess.CalledProcessError):
            self.commits = []  # no repository, no git: nothing to compare with

    def _git(self, *words: str) -> bytes:
        return subprocess.run(["git", "-C", str(self.root), *words], capture_output=True, check=True).stdout

    @cache  # noqa: B019 - as short-lived as the process
    def _files(self, revision: str) -> dict[str, str]:
        """Blob by path of the Python files of a commit."""
        lines = self._git("ls-tree", "-r", revision).decode().splitlines()
        return {
            path: blob for blob, path in (line.split(maxsplit=2)[2].split("\t") for line in lines) if path[-3:] == ".py"
        }

    @cache  # noqa: B019
    def _hash(self, blob: str) -> str:
        return source_hash(self._git("cat-file", "blob", blob))

    def _has(self, revision: str, code: Mapping[str, str]) -> bool:
        files = self._files(revision)
        for module, digest in code.items():
            path = module.replace(".", "/")
            blob = files.get(f"{path}.py") or files.get(f"{path}/__init__.py")
            if blob is None or self._hash(blob) != digest:
                return False
        return True

    def holding(self, code: Mapping[str, str], first: str = "") -> str | None:
        """The commit whose sources have these hashes by module: `first` if it has them, else the newest that does."""
        near = [c for c in self.commits if first.startswith(c)]
        return next((c for c in (*near, *self.commits) if self._has(c, code)), None)

    def extract(self, revision: str, folder: Path) -> Path:
        """The Python files of a commit, written under `folder`; returns it."""
        with tarfile.open(fileobj=io.BytesIO(self._git("archive", revision))) as archive:
            members = [m for m in archive.getmembers() if m.name.endswith(".py")]
            archive.extractall(folder, members, filter="data")
        return folder


def same(run: Run, past: Store, present: Store, entry: Mapping[str, Any] = NEVER_REKEYED) -> bool:
    """Whether two stores hold the same rows and points of a run, columns that only time it aside.

    entry: provenance of the run, or of one of its kind: under which name and with which columns `past` has it.
    """
    old = before(entry, run)
    a, b = past.entries().get(old.key), present.entries().get(run.key)
    if a is None or b is None or (a["tables"], a["points"]) != (b["tables"], b["points"]):
        return False
    for name in a["tables"]:
        tables = today(past.table(name, [old]), entry), present.table(name, [run])
        # Columns stand in the order in which a store's runs brought them.
        x, y = (table[sorted(c for c in table.columns if not is_timing(c))] for table in tables)
        if not x.equals(y):
            return False
    files = [[(s.points_dir / f"{p}.csv.gz").read_bytes() for p in a["points"]] for s in (past, present)]
    return files[0] == files[1]


def _compared(
    groups: list[list[str]], entries: Mapping[str, Mapping[str, Any]], store: Store, history: History, **options: Any
) -> Iterator[tuple[list[str], Run, str]]:
    """Those groups of keys of which a shortened run came out the same by both codes, with that run and the commit."""
    by_commit: dict[str, list[tuple[list[str], Run]]] = defaultdict(list)
    for keys in groups:
        entry = entries[keys[0]]
        if (revision := history.holding(entry["code"], entry["commit"])) is not None:
            by_commit[revision].append((keys, shortened(entry)))
    present = Store(shortened_in(store) / "present", store.profile)
    earlier = {result.run.key: result for result in present.finished() if isinstance(result, Finished)}
    runs = [run for pairs in by_commit.values() for _, run in pairs]
    execute(runs, present, refresh=True, scheduler="cores", **options)  # as the old code
    for revision, pairs in by_commit.items():
        past = Store(shortened_in(store) / revision, store.profile)
        old = {before(entries[keys[0]], run): entries[keys[0]]["code"] for keys, run in pairs}
        past.add(*(earlier[o.key] for o, code in old.items() if o.key in earlier and _of_code(earlier[o.key], code)))
        missing = [o for o in old if o.key not in past.entries()]
        with tempfile.TemporaryDirectory(prefix="vsmd-verify-") as folder:
            source = history.extract(revision, Path(folder)) if missing else None
            execute(missing, past, source=source, **options)
        yield from ((keys, run, revision) for keys, run in pairs if same(run, past, present, entries[keys[0]]))


def shortened_in(store: Store) -> Path:
    """The folder of shortened runs made on this kind of machine: the last digits of another's cannot be compared."""
    machine = f"{device()} {importlib.metadata.version('torch')} {platform.python_version()}"
    return store.cache / "verify" / hashlib.sha256(machine.encode()).hexdigest()[:12]


def _of_code(result: Finished, code: Mapping[str, str]) -> bool:
    """Whether a run, of an earlier verification, was made by sources with these hashes."""
    return all(code.get(module) == digest for module, digest in result.entry["code"].items())


def verify(
    store: Store, root: Path, workers: int | None = None, progress: bool = True, only: str = ""
) -> dict[str, list[str]]:
    """Verify the stale runs of `store`, or of its table `only`, against the history of the repository at `root`.

    Returns the keys that were carried over ("same"), those that were not ("different"), and those whose device is not
    here ("elsewhere").
    """
    away = elsewhere(store)
    entries = {key: entry for key, entry in store.entries(only or None).items() if key not in away}
    groups = kinds(entries)
    verdicts: dict[str, list[str]] = {"same": [], "elsewhere": store.stale(away)}
    for keys, run, against in _compared(groups, entries, store, History(root), workers=workers, progress=progress):
        note = {
            "run": dict(run.config), "against": against, "commit": commit(root),
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        fresh = Store(shortened_in(store) / "present").entries()[run.key]["code"]
        changed = {}
        for key in keys:
            used = sorted({*fresh, *entries[key]["code"]})
            present = {m: digest for m in used if (digest := module_hash(m)) is not None}
            changed[key] = {"code": present, "verified": note, "was": None}
        store.amend(changed)
        verdicts["same"] += keys
    carried = set(verdicts["same"])
    return verdicts | {"different": [key for keys in groups for key in keys if key not in carried]}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if rows of some kind differ."""
    parser = argparse.ArgumentParser(prog="python -m repro.grid.verify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    parser.add_argument("--only", default="", metavar="TABLE", help="its runs alone (default: of every table)")
    options = parser.parse_args(arguments)
    try:
        store, root = profile(options.profile).store, repository_root()
        check_writable("reports", store.root)
        if options.only and options.only not in store.names():
            raise ValueError(f"--only {options.only}: no such table; there are {', '.join(store.names())}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    verdicts = verify(store, root, only=options.only)
    print(
        f"{len(verdicts['same'])} stale run(s) carried over, "
        f"{len(verdicts['different'])} differ or could not be compared"
    )
    if verdicts["elsewhere"] and not options.only:
        print(f"{len(verdicts['elsewhere'])} stale run(s) of a GPU: there is none here to compare them on")
    entries = store.entries()
    for key in verdicts["different"]:
        print(f"  {entries[key]['function']} {dict(entries[key]['config'])}")
    return 1 if verdicts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
