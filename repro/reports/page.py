"""The page of a report: <root>/README.md, every table and figure of the paper beside ours."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from repro.grid import Profile, Store
from repro.grid.files import read_json
from repro.reports.artefacts import paper_ids
from repro.reports.listed import Listed, Text, read, rows_of
from vsmd.durations import duration
from vsmd.files import write_atomic

if TYPE_CHECKING:
    from repro.reports.claims import Verdict

_INLINE_ROWS = 40  # longer tables are folded
_MARKS = {
    "P": "the paper's own tables",
    "C": "the authors' published code, logs or arrays",
    "L": "another paper",
    "M": "measured by us",
}


class Reference(Listed):
    """A table of the paper. source: a mark in brackets, or words."""

    columns: list[Any] = Field(min_length=1)
    rows: list[list[Any]]
    source: str | None = None

    @model_validator(mode="after")
    def _as_wide(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("reference needs columns, and rows as long as they are")
        return self


class Entry(Listed):
    """What paper.yaml says of items of the paper ("Figures 8–19"), and the notebook that answers them."""

    items: Text
    title: Text
    notebook: Text
    reference: Reference | None = None
    note: Text | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        paper_ids(self.items)
        return self


def load_paper(path: Path | str) -> list[Entry]:
    """Entries of paper.yaml. Raises ValueError naming the entry for what is not one."""
    entries = []
    for i, row in enumerate(rows_of(path, "entries")):
        name = row.get("items", i + 1) if isinstance(row, dict) else i + 1
        entries.append(read(Entry, row, f"{Path(path).name}, entry {name}", reference=Reference))
    return entries


def write(profile: Profile, notebooks: Path) -> Path:
    """Write the page of `profile` from what is stored; `notebooks` holds the notebooks, claims.yaml and paper.yaml.

    Either file may be absent (its part is then left out). Verdicts come first, what the results were made with
    last; a profile other than `full`, too small to judge, shows that one's verdicts beside its own figures. Nothing
    of the present moment goes in: the same report gives the same page. Returns its path.
    """
    root, store = profile.root, profile.store
    artefacts = _artefacts(root)
    parts = [f"# Report: profile `{profile.name}`\n"]
    ours_too: list[Verdict] = []
    committed: dict[str, Verdict] = {}
    if (notebooks / "claims.yaml").exists():
        from repro.reports import claims

        verdicts = claims.verdicts(notebooks / "claims.yaml", store)
        if profile.name != "full" and (full := Profile("full", profile.base).store).names():
            committed = {v.claim.id: v for v in claims.verdicts(notebooks / "claims.yaml", full)}
        ours_too = [v for v in verdicts if v.claim.paper == claims.OURS]
        parts.append("## The paper's claims\n")
        parts.append(_verdict_table([v for v in verdicts if v.claim.paper != claims.OURS], root, committed))
    entries = load_paper(notebooks / "paper.yaml") if (notebooks / "paper.yaml").exists() else []
    shown: set[str] = set()
    for entry in entries:
        ids = set(paper_ids(entry.items))
        ours = {name: a for name, a in artefacts.items() if ids & set(a["paper"])}
        parts.append(_entry(entry, {n: a for n, a in ours.items() if n not in shown}, set(ours) & shown, store))
        shown |= set(ours)
    rest = {name: a for name, a in artefacts.items() if name not in shown}
    if rest or ours_too:
        parts.append("## Beyond the paper\n")
    if ours_too:
        parts.append(_verdict_table(ours_too, root, committed))
    parts += [_artefact(name, a, store) for name, a in rest.items()]
    parts += [_notebooks(root, notebooks), _provenance(store, root)]
    text = "\n".join(parts)
    path = root / "README.md"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)
    return path


def _artefacts(root: Path) -> dict[str, dict[str, Any]]:
    artefacts: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("*.artefacts.json")):
        index = read_json(path)
        for name, artefact in index["artefacts"].items():
            if all((root / file).exists() for file in artefact["files"]):
                artefacts[name] = {**artefact, "notebook": index["notebook"], "runs": index["runs"]}
    return artefacts


def _provenance(store: Store, root: Path) -> str:
    sources = [store.provenance(name) for name in store.names()]
    runs, entries = [read_json(p) for p in sorted(root.glob("*.run.json"))], store.entries()

    def union(field: str) -> str:
        return ", ".join(sorted({v for s in sources for v in s[field]})) or "–"

    lines = [
        "## Provenance\n",
        "| | |",
        "|---|---|",
        f"| commit | {union('commits')} |",
        f"| device | {union('devices')} |",
        f"| torch | {union('torch')} |",
        f"| runs | {len(entries)} in {len(sources)} tables, "
        f"{duration(sum(e['seconds'] for e in entries.values()))} of one core in all |",
        f"| notebooks | {len(runs)} executed, {duration(sum(r['seconds'] for r in runs))} when last executed |",
    ]
    for s in sources:
        if s["stale"]:
            lines.append(f"| **stale** | {s['table']}: {s['stale']} of {s['runs']} runs were made by other code |")
        if s["verified"]:
            lines.append(
                f"| carried over | {s['table']}: {s['verified']} of {s['runs']} runs are older than some code that "
                f"they used; one of each kind, shortened, gave the same rows with the old code and the present |"
            )
        if s["unowned_rows"]:
            lines.append(f"| **edited** | {s['table']}: {s['unowned_rows']} row(s) belong to no stored run |")
    return "\n".join(lines) + "\n"


def _verdict_table(verdicts: Sequence[Verdict], root: Path, committed: Mapping[str, Verdict]) -> str:
    """How many hold, then a row a claim; with `committed` verdicts, by id, these are counted and stand first."""
    count = Counter((committed or {v.claim.id: v for v in verdicts})[v.claim.id].verdict for v in verdicts)
    counted = ", ".join(f"{verdict}: {n}" for verdict, n in count.most_common())
    heads = ["verdict, full profile", "in this profile"] if committed else ["verdict"]
    lines = [f"{len(verdicts)} claims – {counted}.\n"]
    if committed:
        lines.append(
            "These are the verdicts of the full profile; this one is too small to judge, its figures are beside.\n"
        )
    lines.append(f"| paper | claim | {' | '.join(heads)} | figures | in |")
    lines.append("|---" * (4 + len(heads)) + "|")
    for v in verdicts:
        shown = [f"**{v.verdict}**" + (f" ({v.note})" if v.note else "")]
        if committed:
            shown = [f"**{committed[v.claim.id].verdict}**", v.text]
        paper = "–" if v.claim.paper == "beyond" else v.claim.paper
        cells = [paper, v.claim.statement, *shown, "<br>".join(v.evidence)]
        text = " | ".join(c.replace("|", "\\|") for c in cells)
        lines.append(f"| {text} | {_link(v.claim.notebook, root, v.claim.notebook[:2])} |")
    lines.append("\nThe rules were fixed before the full run: notebooks/claims.yaml. Figures are mean ± std (seeds).\n")
    return "\n".join(lines)


def _link(notebook: str, root: Path, text: str = "") -> str:
    text = text or notebook
    return f"[{text}]({notebook}.ipynb)" if (root / f"{notebook}.ipynb").exists() else text


def _entry(entry: Entry, ours: dict[str, dict[str, Any]], above: set[str], store: Store) -> str:
    lines = [f"## {entry.items}: {entry.title}\n"]
    if reference := entry.reference:
        lines += [f"The paper's{f' ({reference.source})' if reference.source else ''}:\n"]
        lines += ["| " + " | ".join(map(str, reference.columns)) + " |", "|" + "---|" * len(reference.columns)]
        lines += ["| " + " | ".join("" if c is None else str(c) for c in row) + " |" for row in reference.rows]
        lines.append("")
        cited = {str(row[-1]) for row in reference.rows} | set((reference.source or "").split("; ")[1:])
        if marks := [f"{mark}: {meaning}" for mark, meaning in _MARKS.items() if mark in cited]:
            lines.append(f"{'; '.join(marks)}.\n")
    if entry.note:
        lines.append(f"{entry.note}\n")
    if ours:
        lines += ["Ours:\n", *(_artefact(name, a, store) for name, a in ours.items())]
    if above:
        lines.append(f"Ours, above: {', '.join(sorted(above))}.\n")
    if not ours and not above:
        lines.append(f"Not made yet (notebook {entry.notebook}).\n")
    return "\n".join(lines)


def _artefact(name: str, artefact: dict[str, Any], store: Store) -> str:
    root, files = store.root, artefact["files"]
    links = " · ".join(f"[{file.rsplit('.', 1)[1]}]({file})" for file in files)
    lines = [f"**{name}.** {artefact['caption']} ({links} · {_link(artefact['notebook'], root)})\n"]
    if artefact["kind"] == "figure":
        lines.append(f"![{name}]({files[0]})\n")
    else:
        text = (root / files[1]).read_text(encoding="utf-8").split("\n\n", 1)[-1]
        rows = text.rstrip("\n").count("\n") - 1
        folded = f"<details><summary>{rows} rows</summary>\n\n{text}\n</details>\n"
        lines.append(text if rows <= _INLINE_ROWS else folded)
    for table in sorted(set(artefact["tables"]) & set(store.names())):
        source = store.provenance(table, artefact["runs"])
        stale = f" **{source['stale']} stale**," if source["stale"] else ""
        seeds = ", ".join(map(str, source["seeds"])) or "–"
        lines.append(
            f"<sub>from {source['table']}: {source['runs']} runs,{stale} seeds {seeds}, commit "
            f"{', '.join(source['commits']) or '–'}, {', '.join(source['devices']) or '–'}, "
            f"{source['last'][:10]}</sub>\n"
        )
    return "\n".join(lines)


def _notebooks(root: Path, notebooks: Path) -> str:
    lines = ["## Notebooks\n", "| notebook | executed | time | memory |", "|---|---|--:|--:|"]
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        run = read_json(root / f"{path.stem}.run.json")
        source = os.path.relpath(path, root).replace(os.sep, "/")
        if run is None:
            lines.append(f"| [{path.stem}]({source}) | not yet | | |")
            continue
        memory = f"{run['peak_rss_mb'] / 1e3:.1f} GB"
        lines.append(f"| [{path.stem}]({source}) | {_link(path.stem, root)} | {duration(run['seconds'])} | {memory} |")
    return "\n".join(lines) + "\n"
