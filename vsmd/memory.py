"""Freed memory goes back to the system while long work runs."""

from __future__ import annotations

import ctypes
import sys
import time

SECONDS = 5.0  # between two times
_last = time.monotonic()


def give_back() -> None:
    """Hand freed blocks to the system, at most once every `SECONDS`; costs a look at the clock otherwise.

    glibc before 2.38 finds few of its freed aligned blocks again, so that a training whose tensors take some hundred
    megabytes grows to ten gigabytes. Does nothing where the C library has no malloc_trim.
    """
    global _last
    now = time.monotonic()
    if now - _last < SECONDS:
        return
    _last = now
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
