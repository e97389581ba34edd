"""This machine's cores: a child process a run, never more than cores on the whole machine."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repro.grid import child
from repro.grid.files import try_lock
from repro.grid.launchers import Order, RunFailed


def slots_folder() -> Path:
    """Where the slots of this user's machine-wide pool are locked (VSMD_SLOTS, or in the temporary folder).

    Everybody can guess the name there, so the folder must be the user's own, closed to others and no link: else
    PermissionError.
    """
    if named := os.environ.get("VSMD_SLOTS"):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"vsmd-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(
            f"{folder}: must be a folder that this user owns and nobody else may enter; or set VSMD_SLOTS"
        )
    return folder


def _take_slot() -> int | None:
    for i in range(os.cpu_count() or 1):
        if (fd := try_lock(slots_folder() / f"{i}.lock")) is not None:
            return fd
    return None


class Child:
    """The handle of a run on this machine."""

    def __init__(self, process: child.Process, log: Path) -> None:
        self.process, self.log = process, log

    def done(self) -> bool:
        return self.process.poll() is not None

    def fetch(self) -> None:
        if self.process.returncode:
            raise RunFailed(child.reason(self.process.returncode, self.log))


class Cores:
    """At most `workers` children at once, and of all of a user's drivers together one a core."""

    idle, poll = "waiting for a free core", 0.05

    def __init__(self, cache: Path, workers: int | None, source: Path | None) -> None:
        most = os.cpu_count() or 1
        self.cache, self.most, self.source = cache, min(workers or most, most), source
        self.children: list[Child] = []
        self._slot = -1

    @contextmanager
    def vacancy(self) -> Iterator[bool]:
        self.children = [c for c in self.children if not c.done()]
        slot = _take_slot() if len(self.children) < self.most else None
        if slot is None:
            yield False
            return
        self._slot = slot
        try:
            yield True
        finally:
            os.close(slot)  # a child holds the lock through its own copy

    def submit(self, order: Order, lock: int) -> Child:
        key = Path(order["spool"]).stem
        request, log = self.cache / "running" / f"{key}.json", self.cache / "logs" / f"{key}.log"
        self.children.append(Child(child.start(order, request, log, (self._slot, lock), self.source), log))
        return self.children[-1]

    def close(self) -> None:
        child.stop([c.process for c in self.children])
