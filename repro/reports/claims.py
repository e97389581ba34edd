"""The paper's claims as rules fixed before the full run, and their verdicts from the stored rows.

A rule compares mean(left) with factor · mean(right) over seeds. With D = mean(left) − factor · mean(right),
its standard error and Welch's degrees of freedom, and t the one-sided quantile at `confidence`: for "<=" the
rule holds if D + t·se <= 0, does not hold if D − t·se > 0, and is undecided otherwise; ">=" is the mirror
image. Rows of one seed are averaged first, so that a seed counts once. With `confidence: null` the means
themselves are compared (measures without chance).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.reports.artefacts import paper_ids
from vsmd import checks

if TYPE_CHECKING:
    import pandas as pd

    from repro.grid import Store

HOLDS, PARTLY, FAILS, UNTRIED = "holds", "holds partly", "does not hold", "not tried here"
OURS = "beyond"  # in a claim's field `paper`: a target of our own, printed with what goes beyond the paper
_UNDECIDED, _NO_ROWS = "undecided", "no rows"
_CLAIM = ("id", "paper", "statement", "notebook", "rule", "why")
_RULE = ("table", "measure", "where", "left", "right", "relation", "factor", "confidence", "datasets")


@dataclass(frozen=True)
class Rule:
    """One comparison on one data set. left, right: column values that select rows; right may be a number."""

    table: str
    left_measure: str
    right_measure: str
    left: Mapping[str, Any]
    right: Mapping[str, Any] | float
    relation: str = "<="
    factor: float = 1.0
    confidence: float | None = 0.95
    dataset: str = ""


@dataclass(frozen=True)
class Claim:
    """A row of claims.yaml; `rules` is empty for what is not tried here, and `why` says why."""

    id: str
    paper: str
    statement: str
    notebook: str
    rules: tuple[Rule, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """holds / holds partly / does not hold / not tried here, with a reason in brackets where one is due, and
    the figures."""

    claim: Claim
    verdict: str
    note: str = ""
    evidence: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        return f"{self.verdict} ({self.note})" if self.note else self.verdict


def load(path: Path | str) -> list[Claim]:
    """The claims of a YAML file. Raises ValueError, naming file, claim and field, for anything that is not a
    claim.

    A row: id, paper (items, or "beyond" for a target of our own), statement, notebook, and rule (or a list of rules,
    which must all hold), or `rule: null` and why. A rule: table, measure, left, right, and optionally relation ("<=",
    ">="), factor (1), confidence (.95 or null), where (column values for both sides), datasets (a list, or a mapping
    data set -> measure). A side may hold its own `measure`. Column values may be lists (any of them).
    """
    import yaml

    path = Path(path)
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"claims={str(path)!r}: no such file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}: must be a list of claims")
    found: dict[str, Claim] = {}
    for i, row in enumerate(rows):
        where = f"{path.name}, claim {row.get('id', i + 1) if isinstance(row, dict) else i + 1}"
        claim = _claim(row, where)
        if claim.id in found:
            raise ValueError(f"{where}: the id is taken already")
        found[claim.id] = claim
    return list(found.values())


def _claim(row: Any, where: str) -> Claim:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be a mapping")
    for name in row:
        checks.one_of(f"{where}: field", name, _CLAIM)
    for name in ("id", "paper", "statement", "notebook"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise ValueError(f"{where}: {name}={row.get(name)!r}: must be text")
    if row["paper"] != OURS:
        paper_ids(row["paper"])
    if "rule" not in row:
        raise ValueError(f"{where}: needs a rule, or rule: null and why")
    listed = row["rule"] if isinstance(row["rule"], list) else [row["rule"]] if row["rule"] is not None else []
    if not listed and not row.get("why"):
        raise ValueError(f"{where}: rule: null needs why")
    rules = tuple(rule for part in listed for rule in _rules(part, where))
    words = {name: " ".join(row.get(name, "").split()) for name in ("id", "paper", "statement", "notebook", "why")}
    return Claim(**words, rules=rules)


def _rules(row: Any, where: str) -> list[Rule]:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a rule must be a mapping")
    for name in row:
        checks.one_of(f"{where}: rule field", name, _RULE)
    sets = row.get("datasets", [""])
    sets = dict(sets) if isinstance(sets, dict) else dict.fromkeys(sets, row.get("measure"))
    sides: dict[str, Any] = {}
    for name in ("left", "right"):
        side = row.get(name)
        if isinstance(side, dict):
            sides[name] = {**(row.get("where") or {}), **side}
        elif name == "right" and isinstance(side, (int, float)) and not isinstance(side, bool):
            sides[name] = float(side)
        else:
            raise ValueError(
                f"{where}: rule.{name}={side!r}: must be column values{' or a number' * (name == 'right')}"
            )
    if not isinstance(row.get("table"), str):
        raise ValueError(f"{where}: rule.table={row.get('table')!r}: must be the name of a table")
    relation = checks.one_of(f"{where}: rule.relation", row.get("relation", "<="), ("<=", ">="))
    factor = checks.positive(f"{where}: rule.factor", row.get("factor", 1.0))
    confidence = row.get("confidence", 0.95)
    if confidence is not None and not (isinstance(confidence, float) and 0.5 <= confidence < 1):
        raise ValueError(f"{where}: rule.confidence={confidence!r}: must be null or in [0.5, 1)")
    rules = []
    for dataset, measure in sets.items():
        both, measures = list[Any](), list[str]()
        for side in (sides["left"], sides["right"]):
            own = side.get("measure", measure) if isinstance(side, dict) else ""
            if not isinstance(own, str):
                raise ValueError(f"{where}: rule.measure={own!r}: must be the name of a column")
            measures.append(own)
            if isinstance(side, dict):
                side = {k: v for k, v in side.items() if k != "measure"} | ({"dataset": dataset} if dataset else {})
            both.append(side)
        rules.append(
            Rule(row["table"], measures[0], measures[1], both[0], both[1], relation, factor, confidence, dataset)
        )
    return rules


def per_seed(df: pd.DataFrame, select: Mapping[str, Any], measure: str) -> list[float]:
    """The measure in the selected rows, rows of one seed averaged. Raises KeyError for a column that is not
    there."""
    mask = [True] * len(df)
    for column, wanted in select.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        texts, numbers = {str(v) for v in values}, [float(v) for v in values if isinstance(v, (int, float))]
        hits = [
            any(math.isclose(cell, n, rel_tol=1e-5) for n in numbers)
            if isinstance(cell, (int, float)) and not isinstance(cell, bool)
            else str(cell) in texts
            for cell in df[column].tolist()
        ]
        mask = [a and b for a, b in zip(mask, hits, strict=True)]
    rows = df[mask]
    rows = rows[rows[measure].notna()]
    if "seed" in rows.columns and rows["seed"].notna().any():
        return [float(v) for v in rows.groupby("seed", dropna=False)[measure].mean()]
    return [float(v) for v in rows[measure]]


def compare(
    left: list[float], right: list[float] | float, relation: str, factor: float, confidence: float | None
) -> str:
    """ "holds", "does not hold" or "undecided" for mean(left) `relation` factor · mean(right); see the
    module."""
    from scipy import stats

    sides = [(left, 1.0)] + ([(right, factor)] if isinstance(right, list) else [])
    means = [math.fsum(x) / len(x) for x, _ in sides]
    target = factor * (means[1] if isinstance(right, list) else right)
    difference = (means[0] - target) * (1 if relation == "<=" else -1)
    if confidence is None:
        return HOLDS if difference <= 0 else FAILS
    if any(len(x) < 2 for x, _ in sides):
        return _UNDECIDED
    parts = []
    for (x, scale), mean in zip(sides, means, strict=True):
        variance = math.fsum((v - mean) ** 2 for v in x) / (len(x) - 1)
        parts.append((scale**2 * variance / len(x), len(x) - 1))
    total = math.fsum(p for p, _ in parts)
    margin = 0.0
    if total > 0:
        freedom = total**2 / math.fsum(p**2 / n for p, n in parts)
        margin = float(stats.t.ppf(confidence, freedom)) * math.sqrt(total)
    if difference + margin <= 0:
        return HOLDS
    return FAILS if difference - margin > 0 else _UNDECIDED


def judge(claim: Claim, store: Store) -> Verdict:
    """The verdict on one claim: it holds only if every rule holds on every data set."""
    if not claim.rules:
        return Verdict(claim, UNTRIED, claim.why)
    outcomes, evidence = [], []
    for rule in claim.rules:
        outcome, line = _outcome(rule, store)
        outcomes.append(outcome)
        evidence.append(f"{rule.dataset}: {line}" if rule.dataset else line)
    tried = [o for o in outcomes if o != _NO_ROWS]
    if not tried:
        return Verdict(claim, UNTRIED, "no rows", tuple(evidence))
    missing = (
        f"{len(outcomes) - len(tried)} of {len(outcomes)} parts without rows" if len(tried) < len(outcomes) else ""
    )
    if all(o == HOLDS for o in tried):
        return Verdict(claim, PARTLY if missing else HOLDS, missing, tuple(evidence))
    if HOLDS not in tried and FAILS in tried:
        return Verdict(claim, FAILS, missing, tuple(evidence))
    if HOLDS in tried:
        note = f"{tried.count(HOLDS)} of {len(outcomes)} parts" + (f"; {missing}" if missing else "")
        return Verdict(claim, PARTLY, note, tuple(evidence))
    return Verdict(claim, PARTLY, _UNDECIDED + (f"; {missing}" if missing else ""), tuple(evidence))


def _outcome(rule: Rule, store: Store) -> tuple[str, str]:
    from .summary import mean_std_text

    try:
        table = store.table(rule.table)
        left = per_seed(table, rule.left, rule.left_measure)
        right = rule.right
        values = per_seed(table, right, rule.right_measure) if isinstance(right, Mapping) else float(right)
    except FileNotFoundError:
        return _NO_ROWS, f"no rows in {rule.table}"
    except KeyError as error:
        return _NO_ROWS, f"{rule.table} has no column {error.args[0]!r}"
    for name, side in (("left", left), ("right", values)):
        if side == []:
            return _NO_ROWS, f"no rows for the {name} side"
    result = compare(left, values, rule.relation, rule.factor, rule.confidence)
    shown = mean_std_text(values) if isinstance(values, list) else f"{values:g}"
    sign = {"<=": "≤", ">=": "≥"}[rule.relation]
    scale = f"{rule.factor:g} × " if rule.factor != 1 else ""
    few = " – a single seed decides nothing" if result == _UNDECIDED and 1 in (len(left), _len(values)) else ""
    return result, f"{rule.left_measure} {mean_std_text(left)} {sign} {scale}{shown}: {result}{few}"


def _len(values: list[float] | float) -> int:
    return len(values) if isinstance(values, list) else 0


def verdicts(path: Path | str, store: Store) -> list[Verdict]:
    """Verdicts on all claims of a YAML file."""
    return [judge(claim, store) for claim in load(path)]
