"""`python -m repro.book`: the book's sources laid out in build/book/source, and Sphinx called on them.

    docs/*.md  +  reports/*.ipynb  +  reports/README.md, a page an artefact  +  docstrings  ->  build/book/html

Nothing is executed but the import of `vsmd`: results are those that the report has stored.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.book import reference
from repro.grid.profiles import repository_root
from repro.reports import paper_ids
from vsmd.files import write_atomic

CLAIMS = "The paper's claims"
TOUR = "00_tour"  # a chapter of "Start here"


def sections(page: str) -> dict[str, str]:
    """The sections of a report's page by title."""
    rest = re.split(r"(?m)^## (.+)$", page)[1:]
    return {title.strip(): text.strip() + "\n" for title, text in zip(rest[::2], rest[1::2])}


def slug(title: str) -> str:
    """The file name of a section: "Figures 2–3: anisotropic toys" -> "figures-2-3"."""
    return re.sub(r"[^a-z0-9]+", "-", title.split(":")[0].lower()).strip("-")


def items(title: str) -> set[str]:
    """The artefacts of the paper that a title or a claim's first column names: none, or "Figure 2" and so on."""
    try:
        return set(paper_ids(title.split(":")[0]))
    except ValueError:
        return set()


def verdicts(claims: str, title: str) -> str:
    """The rows of the table of claims that are about a section, as a table; nothing where none is."""
    head, rule, *rows = [line for line in claims.splitlines() if line.startswith("|")] or ["", ""]
    wanted = items(title)
    about = [row for row in rows if wanted & items(row.split("|")[1].strip())]
    return (
        "\n".join(["**What the paper claims of it, and what was found**\n", head, rule, *about, "", ""])
        if about
        else ""
    )


def overview(claims: str, pages: Mapping[str, str]) -> str:
    """The table of claims without its last two columns, figures and notebook: these are on the page that a row links.

    pages: titles by the name of the page.
    """
    lines = []
    for line in claims.splitlines():
        if line.startswith("|"):
            _, paper, *cells = re.split(r"(?<!\\)\|", line)[:-3]
            about = items(paper.strip())
            page = next((name for name, title in pages.items() if about & items(title)), "")
            cells.insert(0, f" [{paper.strip()}]({page}) " if page else paper)
            line = f"|{'|'.join(cells)}|"
        lines.append(line)
    return "\n".join(lines)


def paper_pages(page: str, chapters: Sequence[str]) -> dict[str, str]:
    """Pages of the part "The paper": its claims, then one an artefact with its verdicts, the notebooks, the rest."""
    page = re.sub(r" · \[md\]\([^)]+\)", "", page)  # the table stands there, or its CSV

    def chapter(link: re.Match[str]) -> str:
        return link[0].replace("../notebooks/", "") if link[2] in chapters else link[1]  # what is not executed has none

    page = re.sub(r"\[([^]]+)\]\(\.\./notebooks/(\w+)\.ipynb\)", chapter, page)
    parts = sections(page)
    claims = parts.pop(CLAIMS, "")
    titles = {f"{slug(title)}.md": title for title in parts}
    pages = {name: f"# {title}\n\n{verdicts(claims, title)}{parts[title]}" for name, title in titles.items()}
    listed = "\n".join(name.removesuffix(".md") for name in titles)
    pages["index.md"] = (
        f"# The paper, claim by claim\n\nEvery table and figure of the paper has a page with ours beside it and the "
        f"figures behind each verdict; the notebooks that made them are the chapters below.\n\n"
        f"## {CLAIMS}\n\n{overview(claims, titles)}\n"
        f"```{{toctree}}\n:maxdepth: 1\n:caption: Tables and figures\n:hidden:\n\n{listed}\n```\n\n"
        f"## The notebooks\n\n```{{toctree}}\n:maxdepth: 1\n\n"
        + "\n".join(name for name in chapters if name != TOUR)
        + "\n```\n"
    )
    return pages


_ROWS = re.compile(r"<!-- rows(\??) (\S+)((?: \S+=\S+)*)(?: \| (.+?))? -->")


def with_rows(text: str, tables: Path) -> str:
    """`<!-- rows TABLE column=value … | columns -->` replaced by those rows of a stored table, in its columns.

    `rows?` asks for a table that may be on its way, and says so where it is.
    Raises ValueError for a table or a column that is not there, and where no row is left.
    """

    def rows(match: re.Match[str]) -> str:
        name, where, columns = match[2], dict(part.split("=", 1) for part in match[3].split()), match[4]
        path = tables / f"{name}.md"
        if match[1] and not path.exists():
            return f"*Rows to come: the study behind table {name} has not been run yet.*"
        if not path.exists():
            raise ValueError(f"rows {name}: no such table")
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        shown = [column.strip() for column in columns.split(",")] if columns else head
        if absent := {*where, *shown} - {*head}:
            raise ValueError(f"rows {name}: no column {min(absent)!r} (it has: {', '.join(head)})")
        chosen = [row for row in body if all(row[head.index(c)] == value for c, value in where.items())]
        if not chosen:
            raise ValueError(f"rows {name}: none with {match[3].strip()}")
        text = [[row[head.index(c)] for c in shown] for row in (head, *chosen)]
        text.insert(1, ["---"] * len(shown))
        return "\n".join(f"| {' | '.join(row)} |" for row in text) + f"\n\n<sub>table {name}</sub>"

    return _ROWS.sub(rows, text)


def lay_out(root: Path, source: Path, reports: Path) -> None:
    """Write the sources of the whole book into the folder `source`, which is made anew."""
    if not (page := reports / "README.md").exists():
        raise ValueError(f"reports={str(reports)!r}: has no README.md; `make reproduce` writes one")
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs", source, ignore=shutil.ignore_patterns("__pycache__"))
    paper = source / "paper"
    paper.mkdir()
    for folder in ("figures", "tables"):
        shutil.copytree(reports / folder, paper / folder, ignore=shutil.ignore_patterns("*.meta.json", "*.md"))
    for words in source.rglob("*.md"):
        if paper not in words.parents:
            words.write_text(with_rows(words.read_text(encoding="utf-8"), reports / "tables"), encoding="utf-8")
    notebooks = sorted(reports.glob("[0-9][0-9]_*.ipynb"))
    if not (reports / f"{TOUR}.ipynb").exists():
        shutil.copy(root / "notebooks" / f"{TOUR}.ipynb", paper)  # not executed, but there
    for notebook in notebooks:
        shutil.copy(notebook, paper)
    for name, text in paper_pages(page.read_text(encoding="utf-8"), [n.stem for n in notebooks]).items():
        write_atomic(paper / name, text)
    for name, text in reference.pages(root / "vsmd").items():
        write_atomic(source / "reference" / name, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 for warnings or names that are missing, 2 for a bad argument."""
    parser = argparse.ArgumentParser(prog="python -m repro.book", description="Build the book, warnings as errors.")
    parser.add_argument("--out", type=Path, default=None, help="its folder (default: build/book)")
    parser.add_argument("--reports", type=Path, default=None, help="of which results (default: reports)")
    options = parser.parse_args(arguments)
    root = repository_root()
    out, reports = (options.out or root / "build/book").resolve(), (options.reports or root / "reports").resolve()
    try:
        lay_out(root, out / "source", reports)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    shutil.rmtree(out / "html", ignore_errors=True)  # pages that are no more
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "2", "-b", "html"]
    command += ["-d", str(out / "doctrees"), str(out / "source"), str(out / "html")]
    if subprocess.run(command, cwd=root).returncode:
        return 1
    if absent := reference.missing(out / "html" / "objects.inv", root / "vsmd"):
        print(f"not in the reference: {', '.join(absent)}", file=sys.stderr)
        return 1
    print(f"book: {(out / 'html' / 'index.html').relative_to(root) if out.is_relative_to(root) else out}")
    return 0
