"""Thousands of calls over the public face: each ends finite or in a documented error, in bounded time, without a storm.

A documented error is a ValueError, TypeError or FloatingPointError in one line that a `raise` of the package has made:
one that escapes from numpy, torch or Python names no argument and is a finding.
"""

from __future__ import annotations

import math
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from torture.reading import innermost, place
from torture.tally import Row, Tally, scaled

DOCUMENTED = (ValueError, TypeError, FloatingPointError)
LIMIT, STORM, LONGEST = 20.0, 3, 700  # seconds a call; warnings of one kind; characters of a message


@dataclass(frozen=True)
class Call:
    """A call in words that reproduce it, and the call; `more` are errors that it documents beyond the usual ones."""

    text: str
    do: Callable[[], Any]
    more: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of calls: their strategy, how many at scale 1, and in words what they are."""

    calls: st.SearchStrategy[Call]
    count: int
    what: str


class TooLong(BaseException):
    """Of a call beyond its limit."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """`TooLong` once that many seconds are over."""

    def over(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def not_finite(value: Any, depth: int = 0) -> bool:
    """Whether NaN or inf is anywhere in a result."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(value.isfinite().all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and not bool(np.isfinite(value).all())
    if isinstance(value, float):
        return not math.isfinite(value)
    if depth > 5 or isinstance(value, str | torch.nn.Module):
        return False
    if isinstance(value, Mapping):
        return any(not_finite(v, depth + 1) for v in value.values())
    if isinstance(value, Sequence):
        return any(not_finite(v, depth + 1) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        return any(not_finite(getattr(value, f.name), depth + 1) for f in fields(value))
    return False


def complaint(call: Call) -> tuple[str, str]:
    """What is wrong with a call: a signature by which such findings are one, and words; empty where nothing is."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            with limited(LIMIT):
                result = call.do()
        except TooLong as error:
            return f"hangs at {place(error)}", f"took more than {LIMIT:g} s, at {place(error)}"
        except DOCUMENTED + call.more as error:
            text = str(error)
            if escaped := innermost(error):
                return (
                    f"{type(error).__name__} {place(error)}",
                    f"{type(error).__name__} from {escaped}: {text[:300]!r}",
                )
            if "\n" in text or not text or len(text) > LONGEST:
                return f"unclear {place(error)}", f"{type(error).__name__} at {place(error)} is no line: {text[:300]!r}"
            return "", ""
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return (
                f"{type(error).__name__} {place(error)}",
                f"{type(error).__name__} from {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}, called at "
                f"{place(error)}: {str(error)[:300]!r}",
            )
    kinds = Counter((w.category.__name__, str(w.message)[:60]) for w in seen)
    if kinds and max(kinds.values()) > STORM:
        worst = max(kinds, key=lambda k: kinds[k])
        return f"storm {worst}", f"{kinds[worst]} warnings {worst}"
    foreign = [w for w in seen if w.category is RuntimeWarning]
    if foreign:
        where = f"{foreign[0].filename.rsplit('/', 1)[-1]}:{foreign[0].lineno}"
        return f"RuntimeWarning {where}", f"RuntimeWarning at {where}: {foreign[0].message}"
    return ("not finite", "the result has NaN or inf") if not_finite(result) else ("", "")


def explore(tally: Tally, row: Row, kind: Kind, count: int) -> None:
    """So many calls of a kind; what is found of one signature is printed with the shortest words that show it first."""
    shortest: dict[str, tuple[Call, str]] = {}
    found: Counter[str] = Counter()

    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate], report_multiple_bugs=False,
    )  # fmt: skip
    @seed(tally.seed)
    @given(kind.calls)
    def one(call: Call) -> None:
        torch.manual_seed(0)
        signature, what = complaint(call)
        if signature:
            found[signature] += 1
            if signature not in shortest or len(call.text) < len(shortest[signature][0].text):
                shortest[signature] = call, what
        tally.did(row)

    one()
    for signature, (call, what) in shortest.items():
        tally.failed(row, signature, call.text, f"{what} ({found[signature]} such calls)")
        row.failures += found[signature] - 1


def run(tally: Tally, scale: float) -> None:
    """All kinds."""
    from torture import call_algebra, call_data, call_fits

    torch.set_num_threads(1)
    began = time.monotonic()
    for kinds in (call_algebra.KINDS, call_data.KINDS, call_fits.KINDS):
        for name, kind in kinds.items():
            with tally.kind(name, kind.what) as row:
                try:
                    explore(tally, row, kind, scaled(kind.count, scale))
                except Exception:  # of what makes the calls: the other kinds go on
                    tally.failed(row, "error", f"--only calls --seed {tally.seed}: {name}", traceback.format_exc())
    tally.say(f"all kinds in {time.monotonic() - began:.0f} s")
