"""What is run (`Run`, `product`) and what a run gives back (`Result`)."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_LONG = 40  # characters of a value beyond which a label leaves it out
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _plain(name: str, value: Any) -> Any:
    """`value` as JSON scalars, lists and dicts: numpy scalars unwrapped, integral floats as integers (5.0 and 5 are one
    run)."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name}={value!r}: a configuration holds finite numbers")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, (list, tuple)):
        return [_plain(name, v) for v in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{name}.{key}", v) for key, v in value.items()}
    raise TypeError(f"{name}={value!r}: must be a number, a string, a boolean, None, or a list or dict of them")


@dataclass(frozen=True)
class Run:
    """One run: `function` ("module:name", importable in a fresh process) called with `config` as keyword arguments.

    Raises ValueError for a function that is not of that form or lives in a notebook (`__main__`), and for
    numbers that are not finite; TypeError for values that JSON does not have.
    """

    function: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.function, str) or not _FUNCTION.fullmatch(self.function):
            raise ValueError(f"function={self.function!r}: must be 'module:name'")
        if self.function.startswith("__main__:"):
            raise ValueError(f"function={self.function!r}: must be in an importable module, not a notebook")
        object.__setattr__(self, "config", {k: _plain(k, v) for k, v in self.config.items()})

    @property
    def text(self) -> str:
        """Canonical text of (function, config): equal texts are the same run."""
        config = json.dumps(self.config, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return self.function + config

    @property
    def key(self) -> str:
        """16 hex digits of the SHA-256 of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.text == self.text


def product(function: str, **axes: Any) -> list[Run]:
    """Cartesian product of `axes` as runs of `function`, the last axis fastest.

    A list (or tuple, range) is an axis, of dicts too; anything else, a dict say, is held fixed. A parameter that *is* a
    list is given as a list of one list: nfe=[[10, 20, 50]]. Grids are lists: concatenate them with +. Raises ValueError
    for an empty axis.
    """
    lists = {k: list(v) if isinstance(v, (list, tuple, range)) else [v] for k, v in axes.items()}
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{name}=[]: an axis of a grid needs at least one value")
    points = itertools.product(*lists.values())
    return [Run(function, dict(zip(lists, point, strict=True))) for point in points]


def labels(runs: Iterable[Run]) -> dict[str, str]:
    """A short name for each run by key: the settings that vary among the runs."""
    runs = list(dict.fromkeys(runs))
    seen: dict[str, set[str]] = {}
    for run in runs:
        for k, v in run.config.items():
            seen.setdefault(k, set()).add(json.dumps(v))
    varying = [k for k, values in seen.items() if len(values) > 1 or any(k not in r.config for r in runs)]
    several = len({run.function for run in runs}) > 1
    named = {}
    for run in runs:
        parts = [f"{k}={str(v) if len(str(v)) <= _LONG else '…'}" for k, v in run.config.items() if k in varying]
        name = run.function if several or not parts else ""
        named[run.key] = " ".join(filter(None, [name, *parts]))
    return named


@dataclass
class Result:
    """What a run function returns.

    tables: rows by table name ({"toys": [{"dataset": ..., "pmf_rmse": ...}], "toys_curves": [...]}); at
        least one table, which may be empty. Cells are numbers, strings, booleans or None (empty).
    points: numeric arrays (rows, columns) by name, stored as points/<name>.csv.gz (5 digits, at most 2 MB):
        name them by what varies in the grid.
    """

    tables: Mapping[str, list[dict[str, Any]]]
    points: Mapping[str, Any] | None = None
