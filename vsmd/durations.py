"""Lengths of time as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time in words: "48 s", "12 min", "2 h 05 min", "3.2 days"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 2880 else f"{minutes / 1440:.1f} days"
