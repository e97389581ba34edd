"""Locks and atomic writes (POSIX: `fcntl`)."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vsmd import files

MEND = "restore it or delete it"


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where it is not there; ValueError naming the file where it is damaged."""
    with files.refusing(path, f"JSON; {MEND}"):
        try:
            text = files.regular(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return json.loads(text)


def check_writable(name: str, folder: Path) -> None:
    """Raise ValueError, one line, unless files can be made in `folder`, which is made, and in the folders in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise ValueError(
            f"{name}={str(folder)!r}: cannot be written ({error.strerror or error}); "
            "make it writable, or name another folder in the environment variable VSMD_REPORTS"
        ) from None


def try_lock(path: Path) -> int | None:
    """Lock `path` without waiting: the descriptor that holds the lock, or None where another process has it.

    The lock belongs to the open file (flock), so a child that inherits the descriptor keeps it when its
    parent dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError:
        os.close(fd)
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
