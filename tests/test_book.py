"""The book: formulas, docstrings, the report split into pages, rows of stored tables, every public name."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import zlib
from pathlib import Path

import pytest

import vsmd
from repro.book import assemble, reference
from vsmd import command

ROOT = Path(__file__).resolve().parents[1]


def names_by_import(name: str) -> set[str]:
    """Public classes and functions that a module defines, as Python sees them."""
    module = importlib.import_module(name)
    kinds = (inspect.isclass, inspect.isfunction)
    public = {n for n, value in vars(module).items() if not n.startswith("_") and any(kind(value) for kind in kinds)}
    return {n for n in public if getattr(module, n).__module__ == name}


def test_every_public_name_has_its_place() -> None:
    """What the reference lists is what Python finds in the modules, and `vsmd.__all__` is all there."""
    modules = {module.name: module.names for module in reference.modules(ROOT / "vsmd")}
    for name in ("vsmd.kernels", "vsmd.samplers.base", "vsmd.model", "vsmd.forecasting.naive", "vsmd.processes"):
        listed = {n for n, kind in modules[name].items() if kind != "data"}
        assert listed == names_by_import(name), name
    homes = {name: module for module, names in modules.items() for name in names}
    assert set(vsmd.__all__) <= set(homes)
    text = "".join(reference.pages(ROOT / "vsmd").values())
    wanted = [f":: {module}.{name}\n" for module, names in modules.items() for name in names]
    assert [line for line in wanted if line not in text] == []
    assert "vsmd.metrics._inputs" not in modules


def test_missing_names_are_told(tmp_path: Path) -> None:
    package = tmp_path / "vsmd"
    package.mkdir()
    (package / "__init__.py").write_text("__all__ = ['f']\n")
    (package / "a.py").write_text("def f():\n    pass\nclass _Hidden:\n    pass\nTABLE: dict = {}\n")
    body = zlib.compress(b"vsmd.a.f py:function 1 a.html#$ -\n")
    (tmp_path / "objects.inv").write_bytes(b"# one\n# two\n# three\n# four\n" + body)
    assert reference.missing(tmp_path / "objects.inv", package) == ["vsmd.a.TABLE"]


def test_docstrings_become_rst() -> None:
    """Equations stand as they are; parameters are a list; names may link; nothing is markup by accident."""
    lines = ["Draw n samples, x_ and |y|, of `Model.fit`, `a, b` and *this*:", "", "    dx = -2 * x dt", "",
             "n: how many,", "    at least 1.", "a_b, c: both.", "", "Raises ValueError."]  # fmt: skip
    assert reference.rst(lines) == [
        r"Draw n samples, x\_ and \|y\|, of :py:obj:`Model.fit`\ , ``a, b``\  and *this*:", "", "::", "",
        "        dx = -2 * x dt", "", "* **n**: how many, at least 1.", r"* **a\_b, c**: both.", "",
        "Raises ValueError.", "",
    ]  # fmt: skip


def test_the_command_s_examples_are_set_in() -> None:
    """In the reference as in `vsmd --help`: a line each; ruff undoes that where all is."""
    text = reference.rst((inspect.getdoc(command) or "").splitlines())
    assert "        vsmd check data.csv " in "\n".join(text[text.index("::") :])


PAGE = """# Report

## The paper's claims

2 claims.

| paper | claim | verdict | figures | in |
|---|---|---|---|---|
| Figures 2–3 | it works \\| runs | **holds** | 1 ≤ 2 | [02](02_toys.ipynb) |
| Table 1 | it wins | **undecided** | 3 | 05 |

## Figures 2–3: toys

**02_a.** A table. ([csv](tables/02_a.csv) · [md](tables/02_a.md) · [02](../notebooks/02_toys.ipynb))

## Notebooks

[03_rates](../notebooks/03_rates.ipynb): not yet

## Provenance

| | |
|---|---|
| commit | abc |
"""


def test_the_report_is_split() -> None:
    """A page an artefact with the verdicts about it, an overview without figures; links stay within the book."""
    pages = assemble.paper_pages(PAGE, ["00_tour", "02_toys"])
    assert list(pages) == ["figures-2-3.md", "notebooks.md", "provenance.md", "index.md"]
    toys = pages["figures-2-3.md"]
    assert r"it works \| runs | **holds** | 1 ≤ 2 | [02](02_toys.ipynb) |" in toys
    assert "it wins" not in toys
    assert "([csv](tables/02_a.csv) · [02](02_toys.ipynb))" in toys
    assert "\n03_rates: not yet" in pages["notebooks.md"]  # no chapter, no link
    assert "commit | abc" in pages["provenance.md"]
    assert pages["index.md"].index("**holds**") < 700  # within the first screen
    assert "\n02_toys\n" in pages["index.md"]
    assert "00_tour" not in pages["index.md"]  # it is where one starts
    assert "| [Figures 2–3](figures-2-3.md) | it works \\| runs | **holds** |\n" in pages["index.md"]
    assert "\n| Table 1 | it wins | **undecided** |\n" in pages["index.md"]  # no page, no link


def test_a_tour_that_is_not_executed_is_a_chapter_all_the_same(tmp_path: Path) -> None:
    """Where a small profile has run other notebooks alone."""
    reports = tmp_path / "reports"
    shutil.copytree(ROOT / "reports/tables", reports / "tables")
    (reports / "figures").mkdir()
    (reports / "README.md").write_text(PAGE)
    assemble.lay_out(ROOT, tmp_path / "source", reports)
    assert "\npaper/00_tour\n" in (tmp_path / "source/index.md").read_text()
    assert (tmp_path / "source/paper/00_tour.ipynb").read_bytes() == (ROOT / "notebooks/00_tour.ipynb").read_bytes()


def test_signatures_are_as_one_reads_them() -> None:
    """Of a field with words for the command line the type is shown; what Sphinx cannot read is spelt otherwise."""
    signature = (
        "(*, data: ~a.Annotated[~pathlib.Path, Positional], n: ~typing.Annotated[int | None, ~t._Arg(aliases=['-n'], "
        "help=a, b: c)] = None, rows: list[dict[str, ~typing.Any]] = <factory>, m: dict[str, int] = {})"
    )
    assert reference.plain(signature) == (
        "(*, data: ~pathlib.Path, n: int | None = None, rows: list[dict[str, ~typing.Any]] = ..., "
        "m: dict[str, int] = {})"
    )


def test_the_reference_says_what_each_room_is(tmp_path: Path) -> None:
    package = tmp_path / "vsmd"
    package.mkdir()
    (package / "__init__.py").write_text('"""Front."""\n__all__ = ["A"]\n')
    (package / "a.py").write_text('"""What `A`\nis.\n\nMore."""\nclass A:\n    pass\nclass B(A):\n    pass\n')
    pages = reference.pages(package)
    assert "* :doc:`vsmd.a` – What :py:obj:`A`\\  is.\n" in pages["index.rst"]
    parts = pages["vsmd.a.rst"].split(".. autoclass:: ")
    assert [":show-inheritance:" in part for part in parts[1:]] == [False, True]  # "Bases: object" says nothing


def test_rows_are_those_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("Words.\n\n| a | b | c |\n|---|--:|---|\n| x | 1 | u |\n| y | 2 | v |\n")
    shown = assemble.with_rows("<!-- rows t a=y | c, b -->", tmp_path)
    assert shown == "| c | b |\n| --- | --- |\n| v | 2 |\n\n<sub>table t</sub>"
    assert assemble.with_rows("<!-- rows? t a=y | b -->", tmp_path) == "| b |\n| --- |\n| 2 |\n\n<sub>table t</sub>"
    assert assemble.with_rows("<!-- rows? s a=y -->", tmp_path).startswith("*Rows to come: the study behind table s")
    for text, said in (("s", "no such table"), ("t z=1", "no column 'z'"), ("t a=z", "none with"), ("t | d", "'d'")):
        with pytest.raises(ValueError, match=re.escape(said)):
            assemble.with_rows(f"<!-- rows {text} -->", tmp_path)


def test_rows_of_the_pages_are_there() -> None:
    """Every table that a page asks for is stored, with these columns and rows."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    shown = [assemble.with_rows(text, ROOT / "reports/tables") for text in pages]
    assert "<!-- rows" not in "".join(shown)
    assert "".join(shown).count("<sub>table ") >= 8


def test_formulas_are_mathml() -> None:
    """Every formula of the pages and of the notebooks can be drawn; one that cannot is named."""
    pytest.importorskip("latex2mathml")
    from repro.book.mathml import mathml

    assert mathml(r"\tfrac{1}{2}").startswith("<math")
    assert "block" in mathml("a \\\\ b", "block")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    formulas = [f for text in texts for f in re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL)]
    assert len(formulas) >= 15
    assert [f for f in formulas if "<math" not in mathml(f, "block")] == []
    with pytest.raises(ValueError, match=r"^formula '\\\\left\(': "):
        mathml(r"\left(")


def test_a_folder_without_a_report_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert assemble.main(["--reports", str(tmp_path), "--out", str(tmp_path / "book")]) == 2
    assert "has no README.md" in capsys.readouterr().err
    assert not (tmp_path / "book").exists()
