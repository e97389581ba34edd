"""Command lines read by tyro, a mistake in one line."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import tyro


def parsed(command: Any, **options: Any) -> Any:
    """`tyro.cli` of a type, or of types by the name of their command; its box for a mistake as one line, ValueError."""
    cli = tyro.extras.subcommand_cli_from_dict if isinstance(command, dict) else tyro.cli
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return cli(command, **options)
    except SystemExit as exit:
        if not exit.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", box.getvalue())
    lines = "\n".join(line.strip("│╰╯ ") for line in text.splitlines()[1:])  # without the title
    sections = [" ".join(section.split()) for section in re.split(r"(?m)^[─-]+$", lines)]  # rules part them
    message, *more = filter(None, sections)
    message = re.sub(r"^Error parsing (?!-)\S+: ", "", message)  # of a value that the settings refuse
    near = re.search(r"^Perhaps you meant: (--[\w.-]+)", more[0]) if more else None
    raise ValueError(message + (f" (did you mean {near[1]}?)" if near else ""))
