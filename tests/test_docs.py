"""README and the pages of docs/: their code runs as printed, links lead somewhere, figures are the tables'."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = ROOT / "reports/tables"
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name != "extending.md")  # test_extending.py has that one
PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
BLOCKS = {  # by their text: README's example is that of a page
    block: path.stem
    for path in (*PAGES, ROOT / "README.md")
    for block in PYTHON.findall(path.read_text(encoding="utf-8"))
}
QUICK = """
import vsmd.forecasting
vsmd.forecasting.Increments.defaults["steps"] = 20  # of candidates too
"""  # before a page's block on series, which trains for minutes
GENERATED = ("paper/", "reference/")  # pages that `make book` makes


def own_panel(path: Path) -> None:
    """The reader's file: three hourly series of two months."""
    hours = np.arange(24 * 60)
    values = np.sin(2 * np.pi * (hours[:, None] + [0, 3, 6]) / 24) + 5
    values += 0.1 * np.random.default_rng(0).standard_normal(values.shape)
    pd.DataFrame(values, pd.date_range("2024-01-01", periods=len(hours), freq="h"), ["a", "b", "c"]).to_csv(path)


@pytest.mark.parametrize("block", BLOCKS, ids=list(BLOCKS.values()))
def test_examples_run_as_printed(block: str, tmp_path: Path) -> None:
    own_panel(tmp_path / "own.csv")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", QUICK + block if "VSMDEstimator" in block else block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    if "model.save(" in block:
        assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_there_are_examples() -> None:
    assert len(PYTHON.findall(README)) == 1
    assert len(BLOCKS) >= 3
    assert len(PYTHON.findall(README)[0].splitlines()) <= 15


def test_readme_is_short() -> None:
    """Words as `wc -w` counts them."""
    assert len(README.split()) <= 900


def test_readme_says_what_it_must() -> None:
    order = [
        "![",
        "## Two commands",
        "## In Python",
        "## Three findings",
        "## Use it when",
        "## Where to go",
        "## How to cite",
    ]
    places = [README.index(heading) for heading in order]
    assert places == sorted(places)


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.stem)
def test_links_lead_somewhere(path: Path) -> None:
    """Links to files of the repository; those to pages that the book generates are checked where it is built."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)\)", path.read_text(encoding="utf-8"))
    gone = [target for target in targets if not (path.parent / target).exists()]
    assert [target for target in gone if not target.removeprefix("../").startswith(GENERATED)] == []


def mean(table: str, column: str, **where: str) -> float:
    """The mean of a stored table's column over the rows that `where` picks; there must be some."""
    with (TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] == value for name, value in where.items())]
    assert rows, (table, where)
    return sum(float(row[column].split()[0]) for row in rows) / len(rows)


def test_readme_figures_are_those_of_the_tables() -> None:
    """The finding on forecasts, digit by digit; the others are in tests/reports/test_readme_numbers.py."""
    figures = {
        f"{mean('05_table1', 'simbench_load', row='VSULD increments'):.3f}",
        f"{mean('05_table1', 'simbench_load', row='seasonal_bootstrap'):.3f}",
        f"{mean('05_table1', 'exchange_rate_nips', row='VSULD increments'):.4f}",
        f"{mean('05_table1', 'exchange_rate_nips', row='random_walk'):.4f}",
    }
    findings = README[README.index("## Three findings") : README.index("## Use it when")]
    assert {figure for figure in figures if figure.lstrip("0") not in findings} == set()
