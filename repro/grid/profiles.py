"""Profiles: how much is run, and where the report goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repro.grid.store import Store

T = TypeVar("T")
PROFILES = ("smoke", "quick", "full")


def repository_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current one) with a pyproject.toml; else ValueError.

    A folder that is itself a package, as `repro/` with a pyproject.toml of its own is, is passed over.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and not (folder / "__init__.py").exists():
            return folder
    raise ValueError(f"cwd={str(start)!r}: no pyproject.toml here or above; or set VSMD_REPORTS")


@dataclass(frozen=True)
class Profile:
    """A validated profile name and the folder of all reports, `base`."""

    name: str
    base: Path

    @property
    def root(self) -> Path:
        """The folder of this profile's report: reports/ for `full`, reports/<name>/ for the others."""
        return self.base if self.name == "full" else self.base / self.name

    @property
    def store(self) -> Store:
        """A new `Store` at the report root."""
        return Store(self.root, profile=self.name)

    def waits(self, study: str) -> bool:
        """Whether a long study shows what is stored of it, its missing runs left for later: VSMD_STORED names it."""
        return study in os.environ.get("VSMD_STORED", "").split()

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """The value for this profile: `seeds = p.pick(smoke=[0], quick=[0], full=[0, 1, 2])`."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.name]


def profile(name: str) -> Profile:
    """The profile `name`: "smoke", "quick" or "full"; anything else is a ValueError that suggests the nearest.

    The reports folder is that of the repository around the current folder, or the environment variable
    VSMD_REPORTS.
    """
    if name not in PROFILES:
        from vsmd import checks  # loads torch

        checks.one_of("profile", name, PROFILES)
    named = os.environ.get("VSMD_REPORTS")
    base = Path(named).resolve() if named else repository_root() / "reports"
    return Profile(name, base)
