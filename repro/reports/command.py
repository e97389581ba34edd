"""`python -m repro --profile quick [--only 02] [--refresh] [--scheduler tcp://…]`: execute the notebooks, report.

Every notebooks/NN_*.ipynb is executed headlessly by papermill with the parameter `profile`, by the Python
that runs this driver. A notebook whose source, code and rows are what they were at its last execution is
left alone; one that fails does not stop the others. Exit status: 0, 1 if a notebook failed, 2 for bad
arguments, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repro.grid import PROFILES, Profile, launchers, profile
from repro.grid.code import module_hash
from repro.grid.files import check_writable, locked, read_json
from repro.grid.profiles import repository_root
from repro.grid.progress import Watch
from repro.reports import executed, page
from vsmd.durations import duration
from vsmd.files import write_atomic

_KERNEL = "vsmd-driver"
# Appended to the notebook while it runs, and removed from what is kept: what did it depend on?
_PROBE = """import json as _json, sys as _sys
_pool = _sys.modules.get("repro.grid.pool")
_store = _sys.modules.get("repro.grid.store")
with open({path!r}, "w") as _file:
    _json.dump({{"modules": sorted(m for m in _sys.modules if m.split(".")[0] in ("vsmd", "repro")),
                "runs": list(_pool.ASKED) if _pool else [],
                "tables": sorted(_store.READ) if _store else []}}, _file)
"""


def notebooks_in(folder: Path, only: str | None = None) -> list[Path]:
    """The notebooks NN_*.ipynb of `folder` in order, or the one whose number is `only` ("02" or "2").

    Raises ValueError, listing what there is, for a number that no notebook has.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not only:
        return paths
    name = only.strip()
    chosen = [p for p in paths if p.stem == name or (name.isdigit() and int(p.name[:2]) == int(name))]
    if not chosen:
        have = ", ".join(p.stem for p in paths) or f"none in {os.path.relpath(folder)}"
        raise ValueError(f"only={only!r}: must be the number of a notebook (there are: {have})")
    return chosen


def notebook_hash(notebook: Path, profile_name: str) -> str:
    """Hash of a notebook's cells, outputs and metadata (tags aside) left out, and of the profile."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = [(c["cell_type"], "".join(c["source"]), c.get("metadata", {}).get("tags", [])) for c in cells]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{notebook.name}: not a notebook (damaged JSON)") from None
    return hashlib.sha256(json.dumps([profile_name, text]).encode()).hexdigest()[:16]


def _depends(used: dict[str, Any], where: Profile, notebooks: Path) -> dict[str, Any]:
    """Present digests of what a notebook used: modules, the rows of its runs, tables that it only read, claims."""
    store, modules = where.store, {m: module_hash(m) or "" for m in used["modules"]}
    runs = store.digest(used["runs"])
    tables = {}
    for name in used["tables"]:
        path = store.tables_dir / f"{name}.csv"
        has_rows = path.exists() and any(key in store.entries(name) for key in runs)
        if not has_rows:  # a shared table grows by others' rows: a notebook with runs in it follows those alone
            tables[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.exists() else ""
    claims = ""
    if "repro.reports.claims" in modules and (path := notebooks / "claims.yaml").exists():
        claims = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return {"modules": modules, "runs": runs, "tables": tables, "claims": claims}


def up_to_date(notebook: Path, where: Profile, refresh: bool = False) -> bool:
    """Whether the executed notebook and its artefacts are there and nothing that it depends on has changed."""
    record = read_json(where.root / f"{notebook.stem}.run.json")
    if record is None or not (where.root / f"{notebook.stem}.ipynb").exists():
        return False
    if record["source"] != notebook_hash(notebook, where.name):
        return False
    used = record["used"]
    now = _depends({k: list(used[k]) for k in ("modules", "runs", "tables")}, where, notebook.parent)
    if now != used or "" in now["runs"].values():
        return False
    if refresh and where.store.stale(now["runs"]):
        return False
    index = read_json(where.root / f"{notebook.stem}.artefacts.json") or {"artefacts": {}}
    return all((where.root / file).exists() for a in index["artefacts"].values() for file in a["files"])


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables for what is started within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _private_kernel() -> Iterator[None]:
    """A private kernelspec for this very interpreter, first on Jupyter's path, whatever kernels are installed."""
    with tempfile.TemporaryDirectory(prefix="vsmd-kernel-") as folder:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        write_atomic(Path(folder) / "kernels" / _KERNEL / "kernel.json", json.dumps(spec))
        with _environment(JUPYTER_PATH=os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))):
            yield


def run_notebook(notebook: Path, where: Profile, title: str) -> str:
    """Execute one notebook into the report root; return a line about it. Raises what papermill raises."""
    import nbformat
    import papermill

    started, clock = time.time(), time.monotonic()
    source = notebook_hash(notebook, where.name)
    with tempfile.TemporaryDirectory(prefix="vsmd-notebook-") as folder, _private_kernel():
        temp = Path(folder)
        nb = nbformat.read(notebook, as_version=4)
        kernelspec = nb.metadata.get("kernelspec")
        nb.cells.append(nbformat.v4.new_code_cell(_PROBE.format(path=str(temp / "used.json"))))
        nbformat.write(nb, temp / "in.ipynb")
        # The notebook may lie outside the repository, from where the reports' folder cannot be found.
        variables = {"VSMD_PROGRESS": str(temp / "progress.json"), "VSMD_REPORTS": str(where.base)}
        watch = Watch(title, temp / "progress.json")
        watch.start()
        try:
            with _environment(**variables):
                papermill.execute_notebook(
                    str(temp / "in.ipynb"), str(temp / "out.ipynb"), parameters={"profile": where.name},
                    kernel_name=_KERNEL, language="python", cwd=str(notebook.parent), progress_bar=False,
                    log_output=False, request_save_on_cell_execute=False,
                )  # fmt: skip
        except papermill.PapermillExecutionError:
            failed = nbformat.read(temp / "out.ipynb", as_version=4)
            write_atomic(where.store.cache / "failed" / notebook.name, executed.text_of(failed, kernelspec))
            raise
        finally:
            watch.finish()
        out = nbformat.read(temp / "out.ipynb", as_version=4)
        out.cells.pop()
        used = read_json(temp / "used.json")
    seconds = time.monotonic() - clock
    write_atomic(where.root / notebook.name, executed.text_of(out, kernelspec))
    _drop_old_artefacts(where.root, notebook.stem, started)
    record = {
        "notebook": notebook.stem,
        "profile": where.name,
        "source": source,
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(watch.peak),
        "used": _depends(used, where, notebook.parent),
    }
    write_atomic(where.root / f"{notebook.stem}.run.json", json.dumps(record, indent=1) + "\n")
    memory = f", peak memory {watch.peak / 1e3:.1f} GB" if watch.peak else ""
    return f"{title}: done in {duration(seconds)}{memory}"


def _drop_old_artefacts(root: Path, stem: str, started: float) -> None:
    """Forget artefacts that this execution of the notebook has not saved again; their files go too."""
    path = root / f"{stem}.artefacts.json"
    if (index := read_json(path)) is None:
        return
    saved = {}
    for name, artefact in index["artefacts"].items():
        files = [root / file for file in artefact["files"]]
        if all(f.exists() and f.stat().st_mtime >= started - 2 for f in files):
            saved[name] = artefact
        else:
            extra = [root / "tables" / f"{name}.meta.json"] if artefact["kind"] == "table" else []
            for file in (*files, *extra):
                file.unlink(missing_ok=True)
    if saved != index["artefacts"]:
        write_atomic(path, json.dumps({**index, "artefacts": saved}, indent=1, ensure_ascii=False) + "\n")


def reproduce(where: Profile, notebooks: Path, only: str | None = None, refresh: bool = False) -> int:
    """Bring the report of a profile up to date; return the number of notebooks that failed."""
    chosen = notebooks_in(notebooks, only)
    if refresh:
        os.environ["REFRESH"] = "1"
    print(f"profile {where.name}: {len(chosen)} notebook(s) -> {os.path.relpath(where.root)}", flush=True)
    failures = 0
    for i, notebook in enumerate(chosen):
        title = f"[{i + 1}/{len(chosen)}] {notebook.stem}"
        with locked(where.store.cache / "running" / f"{notebook.stem}.lock"):  # another driver may be at it
            if up_to_date(notebook, where, refresh):
                print(f"{title}: up to date", flush=True)
                continue
            print(f"{title}: running", flush=True)
            try:
                print(run_notebook(notebook, where, title), flush=True)
            except Exception as error:  # whatever a notebook does wrong, the others go on
                failures += 1
                copy = where.store.cache / "failed" / notebook.name
                see = f" (see {os.path.relpath(copy)})" if copy.exists() else ""
                print(f"{title}: FAILED: {_why(error)}{see}", flush=True)
    print(f"report: {os.path.relpath(page.write(where, notebooks))}", flush=True)
    if failures:
        print(f"{failures} of {len(chosen)} notebook(s) failed; what they had finished is kept", flush=True)
    return failures


def _why(error: Exception) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    count = getattr(error, "exec_count", None)
    cell = f"cell {count}: " if count else ""
    return f"{cell}{name}: {re.sub(chr(27) + r'.[0-9;]*m', '', str(value)).strip()}"


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m repro", description="Execute the notebooks, write the report.")
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    parser.add_argument("--only", default=None, help="the number of one notebook, such as 02")
    parser.add_argument("--refresh", action="store_true", help="run again what was made by other code")
    parser.add_argument("--scheduler", default=os.environ.get("VSMD_SCHEDULER", ""), help=f"{launchers.FORMS}")
    parser.add_argument("--notebooks", type=Path, default=None, help="their folder, anywhere (default: notebooks/)")
    options = parser.parse_args(arguments)
    refresh = options.refresh or os.environ.get("REFRESH", "") not in ("", "0")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        where = profile(options.profile)
        notebooks = options.notebooks.resolve() if options.notebooks else repository_root() / "notebooks"
        notebooks_in(notebooks, options.only)
        check_writable("reports", where.root)
        launchers.check(options.scheduler)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with _environment(VSMD_SCHEDULER=options.scheduler):
            return 1 if reproduce(where, notebooks, options.only, refresh) else 0
    except OSError as error:  # a disk that fills up on the way, say; what notebooks raise is theirs
        print(f"report: cannot be written: {error}; finished runs are kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished runs are kept, the same command continues", file=sys.stderr)
        return 130
