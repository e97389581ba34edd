"""The process that reads damaged files: a line of JSON in, a line of JSON out; whatever kills it kills nothing else.

{"reader": "npz", "path": "…"} -> {"outcome": "refused", …}
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from torture.readers import READERS, Reader

ROOM = 2**30  # bytes of resident memory over what the process had before a file
ALL = 4 * 2**30  # of address space over it: what no file gets, so that the machine goes on
STORM, LONGEST = 3, 600  # warnings of one kind; characters of a message


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1_024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def watched(reader: Reader, path: Path) -> dict[str, Any]:
    """Read a file; what became of it, the most memory that it took, seconds."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = status("VmRSS"), time.perf_counter()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        outcome = outcome_of(reader, path)
    kinds = Counter((w.category.__name__, str(w.message)[:60]) for w in seen)
    if kinds and max(kinds.values()) > STORM:
        outcome = {
            "outcome": "storm",
            "what": f"{max(kinds.values())} warnings of {max(kinds, key=lambda k: kinds[k])}",
        }
    taken = status("VmHWM") - before
    if taken > ROOM:
        outcome = {"outcome": "memory", "what": f"took {taken / 1e9:.2f} GB to end as {outcome}"}
    return {**outcome, "seconds": round(time.perf_counter() - began, 3), "taken": taken}


def outcome_of(reader: Reader, path: Path) -> dict[str, str]:
    """ "read", "refused" with a documented error of one line, or what else happened."""
    try:
        reader.read(path)
    except reader.raises as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST or not text:
            return {"outcome": "unclear", "what": f"{type(error).__name__} is no clear line: {text[:400]!r}"}
        if reader.names and isinstance(error, ValueError) and path.name not in text and path.stem not in text:
            return {"outcome": "unclear", "what": f"{type(error).__name__} does not name the file: {text[:400]!r}"}
        if ours := innermost(error):
            return {"outcome": "foreign", "what": f"{type(error).__name__} from {ours}: {text[:400]!r}"}
        return {"outcome": "refused", "what": f"{type(error).__name__}: {text[:200]}"}
    except BaseException as error:
        return {"outcome": "foreign", "what": f"{type(error).__name__} from {place(error)}: {str(error)[:400]!r}"}
    return {"outcome": "read", "what": ""}


def place(error: BaseException) -> str:
    """File and line of the innermost frame of the package."""
    found, frame = "", error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if any(f"{os.sep}{package}{os.sep}" in name for package in ("vsmd", "repro")):
            found = f"{Path(name).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found


def innermost(error: BaseException) -> str:
    """Where an error was raised, if that was not by a `raise` of the package: then it is documented by chance only."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    name = frame.tb_frame.f_code.co_filename
    ours = any(f"{os.sep}{package}{os.sep}" in name for package in ("vsmd", "repro", "torture"))
    return "" if ours else f"{Path(name).name}:{frame.tb_lineno}, called at {place(error)}"


def serve(orders: int, answers: int) -> None:
    """Answer on one descriptor what is asked on another, until there is no more."""
    limit = status("VmSize") + ALL
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with os.fdopen(orders) as asked, os.fdopen(answers, "w") as out:
        for line in asked:
            order = json.loads(line)
            print(json.dumps(watched(READERS[order["reader"]], Path(order["path"]))), file=out, flush=True)
