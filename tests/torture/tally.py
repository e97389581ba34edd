"""What a part of the torture counts: attempts, failures with what reproduces them, seconds, a line now and then."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

EVERY = 5.0  # seconds between two lines
SHOWN = 2  # failures of one signature that are printed and kept


@dataclass
class Row:
    """A line of the report: of one kind of one part how many attempts, how many failures, how long."""

    part: str
    kind: str
    what: str = ""
    count: int = 0
    failures: int = 0
    seconds: float = 0.0
    seed: int = 0
    note: str = ""


@dataclass
class Tally:
    """The rows of a part, its failures as texts in `folder`, and curves (x, y) by name for the report."""

    part: str
    seed: int
    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    signatures: Counter[tuple[str, str]] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)
    said: float = 0.0

    @contextmanager
    def kind(self, name: str, what: str = "") -> Iterator[Row]:
        """The row of a kind, made if it is not there; the time spent within is its own."""
        row = self.rows.setdefault(name, Row(self.part, name, what, seed=self.seed))
        began = time.monotonic()
        try:
            yield row
        finally:
            row.seconds += time.monotonic() - began

    def did(self, row: Row, n: int = 1) -> None:
        """Attempts more; a line every few seconds."""
        row.count += n
        if time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            total, lost = sum(r.count for r in self.rows.values()), sum(r.failures for r in self.rows.values())
            self.say(f"{total:,} done, {lost} failed · {row.kind}")

    def say(self, text: str) -> None:
        """A line with the part and the time that it has taken."""
        print(f"[{self.part} {time.monotonic() - self.begun:.0f} s] {text}", flush=True)

    def failed(self, row: Row, signature: str, how: str, what: str, paths: Sequence[Path] = ()) -> None:
        """A failure: counted, and the first ones of a signature printed and kept with the files that reproduce it."""
        row.failures += 1
        self.signatures[row.kind, signature] += 1
        if self.signatures[row.kind, signature] > SHOWN:
            return
        self.say(f"FAILED {row.kind}: {what}\n    reproduce: {how}")
        self.folder.mkdir(parents=True, exist_ok=True)
        place = (
            self.folder / f"{self.part}-{row.kind.replace('/', '-').replace(' ', '_')}-{sum(self.signatures.values())}"
        )
        place.with_suffix(".txt").write_text(f"seed {self.seed}\nreproduce: {how}\n{what}\n", encoding="utf-8")
        for path in paths:
            for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
                target = place / file.relative_to(path.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                if file.stat().st_size < 2**25:
                    shutil.copy(file, target)

    def lost(self) -> int:
        """Failures of all kinds."""
        return sum(row.failures for row in self.rows.values())

    def text(self) -> str:
        """Rows and curves as JSON, for the process that writes the report."""
        return json.dumps({"rows": [asdict(row) for row in self.rows.values()], "curves": self.curves})


def scaled(count: float, scale: float) -> int:
    """So many attempts, at least one."""
    return max(1, round(count * scale))
