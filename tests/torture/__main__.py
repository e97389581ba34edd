"""`python -m torture`: the parts, each in a process of its own, as many at once as there are workers; the report."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture import PARTS, report
from torture.children import environment
from torture.tally import Row, Tally
from vsmd import checks


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts (default 1)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="parts at once (default 2)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (default reports)")
    parser.add_argument("--failures", type=Path, default=None, help="folder of what failed (default: a temporary one)")
    parser.add_argument("--part", default=None, help=argparse.SUPPRESS)  # this process is that of one part
    options = parser.parse_args(arguments)
    try:
        checks.positive("scale", options.scale)
        checks.positive_int("workers", options.workers)
        for name in options.only.split(","):
            checks.one_of("only", name, PARTS)
    except ValueError as error:
        parser.error(str(error))
    return options


def part(name: str, options: argparse.Namespace) -> Tally:
    """Run one part; an error of its own is a failure too."""
    tally = Tally(name, options.seed, options.failures)
    try:
        importlib.import_module(f"torture.{name}").run(tally, options.scale)
    except Exception:
        with tally.kind("the part itself", "runs to its end") as row:
            tally.failed(row, "error", f"--only {name} --seed {options.seed}", traceback.format_exc())
    return tally


def together(names: Sequence[str], options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Rows and curves of all parts, each from its own process, `workers` of them at once."""
    rows: list[Row] = []
    curves: dict[str, Any] = {}
    waiting, running = list(names), {}  # type: ignore[var-annotated]
    while waiting or running:
        while waiting and len(running) < options.workers:
            name = waiting.pop(0)
            command = [sys.executable, "-m", "torture", "--part", name, "--seed", str(options.seed)]
            command += ["--scale", str(options.scale), "--failures", str(options.failures)]
            running[name] = subprocess.Popen(command, env=environment())
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            path = options.failures / f"{name}.json"
            if not path.exists():
                said = f"its process ended with status {process.returncode}"
                rows.append(Row(name, "the part itself", said, failures=1, seed=options.seed))
                continue
            whole = json.loads(path.read_text(encoding="utf-8"))
            rows += [Row(**row) for row in whole["rows"]]
            curves |= whole["curves"]
        time.sleep(0.2)
    order = list(PARTS)
    return sorted(rows, key=lambda row: order.index(row.part)), curves


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if anything was lost, 2 for bad arguments."""
    options = options_of(arguments)
    if options.part is not None:
        tally = part(options.part, options)
        options.failures.mkdir(parents=True, exist_ok=True)
        (options.failures / f"{options.part}.json").write_text(tally.text(), encoding="utf-8")
        return 0
    options.failures = (options.failures or Path(tempfile.mkdtemp(prefix="torture-"))).resolve()
    names, began = [name for name in PARTS if name in options.only.split(",")], time.monotonic()
    rows, curves = together(names, options)
    seconds, lost = time.monotonic() - began, sum(row.failures for row in rows)
    written = report.write(options.out, rows, curves, options.seed, options.scale, seconds)
    print(report.table(rows))
    print(f"{sum(row.count for row in rows):,} attempts in {seconds / 60:.1f} min, {lost} failed: {written}")
    if lost:
        print(f"what reproduces them: {options.failures}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
