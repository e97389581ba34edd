"""The rows of claims.yaml: what the paper claims, and the rules by which each claim is judged, fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from repro.reports.artefacts import paper_ids
from repro.reports.listed import Listed, Text, read, rows_of

OURS = "beyond"  # in a claim's field `paper`: a target of our own, printed with what goes beyond the paper


@dataclass(frozen=True)
class Rule:
    """One comparison on one data set. left, right: column values that select rows; right may be a number.

    level: it holds too where the test cannot tell the sides apart; more than one seed a side is needed all the same.
    """

    table: str
    left_measure: str
    right_measure: str
    left: Mapping[str, Any]
    right: Mapping[str, Any] | float
    relation: str = "<="
    factor: float = 1.0
    confidence: float | None = 0.95
    dataset: str = ""
    level: bool = False


@dataclass(frozen=True)
class Claim:
    """A row of claims.yaml; `rules` is empty for what is not tried here, and `why` says why.

    at_least: the share of the rules that must hold, of those with rows.
    """

    id: str
    paper: str
    statement: str
    notebook: str
    rules: tuple[Rule, ...] = ()
    why: str = ""
    at_least: float = 1.0


class RuleRow(Listed):
    """A rule as written. where: column values for both sides; datasets: a list, or a mapping data set -> measure.

    A side may hold its own `measure`, and `best_of`: columns, of whose values those with the least mean count. Column
    values may be lists (any of them).
    """

    table: Text
    measure: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    left: dict[str, Any]
    right: dict[str, Any] | float
    relation: Literal["<=", ">="] = "<="
    factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    confidence: float | None = Field(0.95, ge=0.5, lt=1)
    datasets: list[str] | dict[str, str] = Field(default_factory=lambda: [""])
    level: bool = False

    def _side(self, side: Mapping[str, Any] | float, dataset: str) -> tuple[Mapping[str, Any] | float, str]:
        """Column values and measure of one side on a data set ("": of all); a number has no measure."""
        if not isinstance(side, Mapping):
            return side, ""
        of_set = self.datasets[dataset] if isinstance(self.datasets, dict) else self.measure
        select = {**self.where, **side}
        measure = select.pop("measure", of_set)
        if not isinstance(measure, str):
            raise ValueError(f"rule.measure={measure!r}: must be the name of a column")
        by = select.get("best_of", [])
        if not isinstance(by, list) or not all(isinstance(name, str) for name in by):
            raise ValueError(f"rule.best_of={by!r}: must be a list of columns")
        return select | ({"dataset": dataset} if dataset else {}), measure

    def rules(self) -> list[Rule]:
        """A rule for each data set, all of which must hold."""
        rules = []
        for dataset in self.datasets:
            (left, left_measure), (right, right_measure) = (self._side(s, dataset) for s in (self.left, self.right))
            assert isinstance(left, Mapping)
            sides = (left_measure, right_measure, left, right)
            rules.append(Rule(self.table, *sides, self.relation, self.factor, self.confidence, dataset, self.level))
        return rules

    @model_validator(mode="after")
    def _measured(self) -> Self:
        self.rules()
        return self


class ClaimRow(Listed):
    """A claim as written. paper: items, or "beyond"; rule: one, or a list which must all hold, or null and why.

    at_least: a share, where not all of them must hold.
    """

    id: Text
    paper: Text
    statement: Text
    notebook: Text
    rule: list[RuleRow]
    why: str = ""
    at_least: float = Field(1.0, gt=0, le=1)

    @field_validator("rule", mode="before")
    @classmethod
    def _as_list(cls, rule: Any) -> Any:
        return rule if isinstance(rule, list) else [] if rule is None else [rule]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.paper != OURS:
            paper_ids(self.paper)
        if not self.rule and not self.why:
            raise ValueError("rule: null needs why")
        return self


def claim_of(row: Any, where: str) -> Claim:
    """The claim of a row; `where` names it in errors. Raises ValueError for anything that is none."""
    read_row = read(ClaimRow, row, where, rule=RuleRow)
    rules = tuple(rule for written in read_row.rule for rule in written.rules())
    why = " ".join(read_row.why.split())
    return Claim(read_row.id, read_row.paper, read_row.statement, read_row.notebook, rules, why, read_row.at_least)


def load(path: Path | str) -> list[Claim]:
    """The claims of a YAML file (`ClaimRow`, `RuleRow`).

    Raises ValueError, naming file, claim and field, for anything that is not a claim.
    """
    claims: dict[str, Claim] = {}
    for i, row in enumerate(rows_of(path, "claims")):
        where = f"{Path(path).name}, claim {row.get('id', i + 1) if isinstance(row, dict) else i + 1}"
        claim = claim_of(row, where)
        if claim.id in claims:
            raise ValueError(f"{where}: the id is taken already")
        claims[claim.id] = claim
    return list(claims.values())
