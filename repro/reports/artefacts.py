"""What a notebook makes: figures and summary tables, with their provenance beside them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.grid import Store, profiles
from repro.grid.files import read_json
from repro.grid.rows import MAX_BYTES, check_name
from repro.reports import legible, summary
from repro.reports.style import use_style
from vsmd.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_KIND = r"Figure|Table|Theorem|Lemma|Proposition|Section|Algorithm|Equation|Assumption"
_PAPER = re.compile(rf"(?:({_KIND})s?\s+)?((?:[A-Z]\.)?[A-Z]?\d+(?:\.\d+)?)(?:\s*[–-]\s*(\d+))?")
_DENSE = 3_000  # points in a collection beyond which a pdf holds it as pixels


def paper_ids(text: str | Iterable[str] | None) -> list[str]:
    """Items of the paper named by `text`: "Figures 6, 8–10" -> ["Figure 6", "Figure 8", "Figure 9", "Figure 10"].

    Raises ValueError for anything that is not Figure, Table, Theorem, Section … and a number.
    """
    if text is None:
        return []
    if not isinstance(text, str):
        return [item for words in text for item in paper_ids(words)]
    items, kind = list[str](), ""
    for words in re.split(r",|;|\band\b|&", text):
        match = _PAPER.fullmatch(words.strip())
        if match is None or not (match[1] or kind):
            raise ValueError(f"paper={text!r}: must name items such as 'Figure 2', 'Figures 8–19', 'Table 1'")
        kind = match[1] or kind
        if match[3]:
            if not match[2].isdigit() or int(match[3]) < int(match[2]):
                raise ValueError(f"paper={text!r}: {words.strip()!r} is not a range")
            items += [f"{kind} {i}" for i in range(int(match[2]), int(match[3]) + 1)]
        else:
            items.append(f"{kind} {match[2]}")
    return items


class Report:
    """The part of one notebook in the report of a profile ("smoke", "quick" or "full").

    `store` holds the runs (give it to `grid.execute`, read tables from it); what is saved here is
    noted, with the tables it was made from, in <root>/<notebook>.artefacts.json for the page. Makes the
    report's style current.
    """

    def __init__(self, notebook: str, profile: str = "quick") -> None:
        check_name("notebook", notebook)
        self.notebook, self.profile = notebook, profiles.profile(profile)
        self.store: Store = self.profile.store
        self.root: Path = self.profile.root
        self._index = self.root / f"{notebook}.artefacts.json"
        use_style()

    def save_figure(
        self,
        fig: Figure,
        name: str,
        caption: str,
        paper: str | Iterable[str] | None = None,
        tables: Iterable[str] | None = None,
    ) -> Path:
        """Save figures/<name>.png (150 dpi) and .pdf, each at most 2 MB, the same bytes for the same figure.

        paper: the items of the paper that it answers ("Figure 2"). tables: those it was made from; by
        default, all that this report's store has read. Dense collections become pixels in the pdf. What
        cannot be read in the picture (`legible.faults`) is noted beside it. Returns the png's path.
        """
        self._check(name)
        ids, fig = paper_ids(paper), getattr(fig, "figure", None) or fig
        for axes in fig.axes:
            for artist in (*axes.collections, *axes.lines):
                data = artist.get_offsets() if hasattr(artist, "get_offsets") else artist.get_xydata()
                if len(data) > _DENSE:
                    artist.set_rasterized(True)
        path, unreadable = self.root / "figures" / f"{name}.png", legible.faults(fig)
        for dpi in (150, 110, 80):
            png = _render(fig, "png", dpi, {"Software": None})
            if len(png) <= MAX_BYTES:
                break
        pdf = _render(fig, "pdf", 150, dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer")))
        if len(pdf) > MAX_BYTES:
            for axes in fig.axes:
                axes.set_rasterization_zorder(1e9)
            pdf = _render(fig, "pdf", 110, dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer")))
        for kind, data in (("png", png), ("pdf", pdf)):
            if len(data) > MAX_BYTES:
                raise ValueError(f"figure={name!r}: {kind} of {len(data) / 1e6:.1f} MB, at most 2 MB: make it smaller")
            write_atomic(path.with_suffix(f".{kind}"), data)
        files = [f"figures/{name}.png", f"figures/{name}.pdf"]
        entry = {"kind": "figure", "caption": caption, "paper": ids, "files": files, "faults": unreadable}
        self._note(name, entry, tables)
        return path

    def save_table(
        self,
        df: pd.DataFrame,
        name: str,
        caption: str,
        paper: str | Iterable[str] | None = None,
        tables: Iterable[str] | None = None,
        lowest: Iterable[str] = (),
    ) -> Path:
        """Save a summary table as tables/<name>.csv (floats %.6g) and .md, its provenance as <name>.meta.json.

        lowest: columns of "mean ± std (n)" whose smallest mean the .md has in bold.
        Raises ValueError if `name` is a table of runs. Returns the csv's path. Other arguments as in
        `save_figure`.
        """
        self._check(name)
        ids, path = paper_ids(paper), self.root / "tables" / f"{name}.csv"
        if name in self.store.names():
            raise ValueError(f"table={name!r}: is the table of the runs themselves; give the summary another name")
        if any(level is not None for level in df.index.names):
            df = df.reset_index()
        text = df.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        md = f"{caption}\n\n{summary.markdown(summary.lowest_bold(df, lowest))}"
        files = [f"tables/{name}.csv", f"tables/{name}.md"]
        entry = {"kind": "table", "caption": caption, "paper": ids, "files": files}
        meta = {
            "kind": "summary",
            "notebook": self.notebook,
            "profile": self.profile.name,
            "from": self._provenance(tables),
        }
        # The provenance first: a summary must never be taken for a table of runs.
        write_atomic(path.with_suffix(".meta.json"), json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
        write_atomic(path, text)
        write_atomic(path.with_suffix(".md"), md)
        self._note(name, entry, tables)
        return path

    def _check(self, name: str) -> None:
        check_name("name", name)
        for other in self.root.glob("*.artefacts.json"):
            if other != self._index and name in (read_json(other) or {}).get("artefacts", {}):
                raise ValueError(f"name={name!r}: {other.name.split('.')[0]} saves one of that name; choose another")

    def _provenance(self, tables: Iterable[str] | None) -> list[dict[str, Any]]:
        names = sorted(self.store.used if tables is None else set(tables))
        return [self.store.provenance(name, self.store.declared) for name in names]

    def _note(self, name: str, entry: dict[str, Any], tables: Iterable[str] | None) -> None:
        index = read_json(self._index) or {"notebook": self.notebook, "profile": self.profile.name, "artefacts": {}}
        index["runs"] = sorted({*index.get("runs", []), *self.store.declared})
        index["artefacts"].pop(name, None)
        index["artefacts"][name] = {**entry, "tables": sorted(self.store.used if tables is None else set(tables))}
        write_atomic(self._index, json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def _render(fig: Figure, kind: str, dpi: int, metadata: dict[str, None]) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format=kind, dpi=dpi, metadata=metadata, bbox_inches="tight")
    return out.getvalue()
