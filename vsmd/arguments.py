"""Command lines read by tyro, and what a command ends with: a mistake is one line and 2, an interruption 130."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

import tyro

P = ParamSpec("P")


def reported(main: Callable[P, int]) -> Callable[P, int]:
    """A command's `main` that reports the user's errors in one line, and returns its exit status."""

    @functools.wraps(main)
    def run(*args: P.args, **options: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # figures are worth more than a sign that a terminal does not have
                stream.reconfigure(errors="replace")
        try:
            return main(*args, **options)
        except ModuleNotFoundError as error:
            said = f"{error.name} is not installed: pip install 'vsmd[metrics,forecasting,images]'"
        except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
            said = " ".join(str(error).split())
        except KeyboardInterrupt:
            return 130
        print(f"error: {said}", file=sys.stderr)
        return 2

    return run


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
