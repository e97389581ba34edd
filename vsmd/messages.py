"""Texts and values as messages show them: on one short line."""

from __future__ import annotations


def line(text: object, most: int) -> str:
    """A text on one line, cut to `most` characters."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 2]} …"


def told(value: object) -> str:
    """A value as messages show it: on one line, in 80 characters at most."""
    return line(repr(value), 80)
