"""Plans: how samples are drawn from a trained model, as the configuration of a run states it.

A plan is a list of dicts, each a solver and the numbers of network evaluations that it gets:
`{"prior": "mixture", "solver": "exponential", "evaluations": [20, 10], "denoise": True}`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vsmd import checks
from vsmd.priors import PRIORS

_FIELDS = ("prior", "solver", "evaluations", "denoise", "grid_power", "sigma_max")
OPTIONS = ("denoise", "grid_power")  # what a line may leave out, where the sampler is the family's
GRID_POWER = 2.0  # t = u^2, half of the steps in the last quarter of the time; chosen in `choices`, for every method


@dataclass(frozen=True)
class Draw:
    """One way to draw samples.

    prior: of the start, "" where a plan names none. denoise: by the last evaluation. grid_power: of the times t = u^p,
    or what a peer has in its place. sigma_max: of EDM's grid, None elsewhere.
    """

    solver: str
    evaluations: int
    prior: str = ""
    denoise: bool = False
    grid_power: float = GRID_POWER
    sigma_max: float | None = None

    @property
    def name(self) -> str:
        """The solver as rows name it: "exponential", "exponential+denoise"."""
        return self.solver + "+denoise" * self.denoise


def draws_of(
    plan: Iterable[Mapping[str, Any]],
    solvers: Collection[str],
    *,
    priors: bool = False,
    options: Collection[str] = OPTIONS,
    power: float = GRID_POWER,
) -> list[Draw]:
    """The draws of a plan in its order, all of a line's evaluations before the next line.

    solvers: names that are allowed. priors: every line names one. options: fields that a line may leave out. power: of
    the grid where a line names none.
    Raises ValueError, naming line and field, for a plan that is not of that form.
    """
    fields = [f for f in _FIELDS if f in ("solver", "evaluations", *options) or (priors and f == "prior")]
    draws: list[Draw] = []
    for number, line in enumerate(plan):
        where = f"plan[{number}]"
        if not isinstance(line, Mapping):
            raise ValueError(f"{where}={line!r}: must be a dict of {', '.join(fields)}")
        for field in line:
            checks.one_of(f"{where}: field", field, fields)
        solver = checks.one_of(f"{where}: solver", line.get("solver"), solvers)
        prior = checks.one_of(f"{where}: prior", line.get("prior"), PRIORS) if priors else ""
        if not isinstance(last := line.get("denoise", False), bool):
            raise ValueError(f"{where}: denoise={last!r}: must be true or false")
        its_power = checks.positive(f"{where}: grid_power", line.get("grid_power", power))
        if (top := line.get("sigma_max")) is not None:
            checks.positive(f"{where}: sigma_max", top)
        counts = line.get("evaluations")
        if not isinstance(counts, list) or not counts:
            raise ValueError(f"{where}: evaluations={counts!r}: must be a list of integers >= 1")
        counts = [checks.positive_int(f"{where}: evaluations", n) for n in counts]
        draws += [Draw(solver, n, prior, last, its_power, top) for n in counts]
    if not draws:
        raise ValueError("plan=[]: must draw something")
    return draws


def line_of(row: Mapping[Any, Any], evaluations: list[int], options: Collection[str] = OPTIONS) -> dict[str, Any]:
    """The line of a plan that draws as a row of a table was drawn, at these numbers of evaluations.

    options: the fields it has besides solver and evaluations, those of the family's plans if not given.
    """
    solver, _, clean = row["solver"].partition("+")
    line = {"solver": solver, "evaluations": evaluations, **{name: row[name] for name in options if name in row}}
    return line | ({"denoise": bool(clean)} if "denoise" in options else {})
