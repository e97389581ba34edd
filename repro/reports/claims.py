"""The paper's claims as rules fixed before the full run, and their verdicts from the stored rows.

A rule compares mean(left) with factor · mean(right) over seeds, by Welch's one-sided test (with a number: Student's).
With p the probability of a difference like the seen one or a clearer one where both are equal, the rule holds if
p <= 1 − `confidence`, does not hold if p > `confidence`, and is undecided otherwise. Rows of one seed are averaged
first, so that a seed counts once. With `confidence: null` the means themselves are compared (measures without chance).
"First or level" is a rule that is `level`: what is undecided holds too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.reports.rules import OURS, Claim, Rule, claim_of, load
from repro.reports.summary import mean_std_text

if TYPE_CHECKING:
    import pandas as pd

    from repro.grid import Store

HOLDS, PARTLY, FAILS, UNTRIED = "holds", "holds partly", "does not hold", "not tried here"
_UNDECIDED, _NO_ROWS = "undecided", "no rows"

__all__ = ["OURS", "Claim", "Rule", "Verdict", "claim_of", "compare", "judge", "load", "per_seed", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """holds / holds partly / does not hold / not tried here, a note where one is due, and the figures."""

    claim: Claim
    verdict: str
    note: str = ""
    evidence: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        return f"{self.verdict} ({self.note})" if self.note else self.verdict


def picked(df: pd.DataFrame, select: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that column values select. Raises KeyError for a column that is not there."""
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
    return df.loc[mask]


def per_seed(df: pd.DataFrame, select: Mapping[str, Any], measure: str) -> list[float]:
    """The measure in the selected rows, rows of one seed averaged. Raises KeyError for a column that is not there."""
    rows = picked(df, select)
    rows = rows[rows[measure].notna()]
    if "seed" in rows.columns and rows["seed"].notna().any():
        return [float(v) for v in rows.groupby("seed", dropna=False)[measure].mean()]
    return [float(v) for v in rows[measure]]


def _side(df: pd.DataFrame, select: Mapping[str, Any], measure: str) -> tuple[list[float], str]:
    """`per_seed`, and nothing; with `best_of` that of those columns' values with the least mean, and these values."""
    by = select.get("best_of", [])
    rows = picked(df, {column: wanted for column, wanted in select.items() if column != "best_of"})
    if not by:
        return per_seed(rows, {}, measure), ""
    groups = {" ".join(map(str, key)): per_seed(part, {}, measure) for key, part in rows.groupby(by, dropna=False)}
    tried = {name: values for name, values in groups.items() if values}
    if not tried:
        return [], ""
    best = min(tried, key=lambda name: math.fsum(tried[name]) / len(tried[name]))
    return tried[best], f" {best}"


def compare(
    left: list[float], right: list[float] | float, relation: str, factor: float, confidence: float | None
) -> str:
    """ "holds", "does not hold" or "undecided" for mean(left) `relation` factor · mean(right); see the module."""
    import numpy as np
    from scipy import stats

    target = [factor * value for value in right] if isinstance(right, list) else [factor * right]
    as_stated = bool(np.mean(left) <= np.mean(target) if relation == "<=" else np.mean(left) >= np.mean(target))
    if confidence is None:
        return HOLDS if as_stated else FAILS
    if len(left) < 2 or (isinstance(right, list) and len(right) < 2):
        return _UNDECIDED
    if np.ptp(left) == np.ptp(target) == 0:
        return HOLDS if as_stated else FAILS
    alternative = "less" if relation == "<=" else "greater"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side may be the same for all seeds
        if isinstance(right, list):
            p = float(stats.ttest_ind(left, target, equal_var=False, alternative=alternative).pvalue)
        else:
            p = float(stats.ttest_1samp(left, target[0], alternative=alternative).pvalue)
    return HOLDS if p <= 1 - confidence else FAILS if p > confidence else _UNDECIDED


def judge(claim: Claim, store: Store) -> Verdict:
    """The verdict on one claim: it holds only if every rule holds on every data set."""
    if not claim.rules:
        return Verdict(claim, UNTRIED, claim.why)
    outcomes, evidence = [], []
    for rule in claim.rules:
        outcome, line = _outcome(rule, store)
        outcomes.append(outcome)
        evidence.append(f"{rule.dataset}: {line}" if rule.dataset else line)
    return Verdict(claim, *_together(outcomes, claim.at_least), tuple(evidence))


def _together(outcomes: list[str], at_least: float) -> tuple[str, str]:
    """Verdict and note from the outcomes of all parts, of which a share must hold."""
    tried = [o for o in outcomes if o != _NO_ROWS]
    if not tried:
        return UNTRIED, "no rows"
    held, untried = tried.count(HOLDS), len(outcomes) - len(tried)
    missing = [f"{untried} of {len(outcomes)} parts without rows"] if untried else []
    outcome, notes = PARTLY, [f"{held} of {len(outcomes)} parts"]
    if held == len(tried):
        outcome, notes = (PARTLY if missing else HOLDS), []
    elif not held:
        outcome, notes = (FAILS, []) if FAILS in tried else (PARTLY, [_UNDECIDED])
    elif at_least < 1:
        notes = [f"{notes[0]}, {at_least:.0%} asked"]
        enough, possible = (n >= at_least * len(tried) for n in (held, held + tried.count(_UNDECIDED)))
        outcome = HOLDS if enough and not missing else PARTLY if possible else FAILS
    return outcome, "; ".join([*notes, *missing])


def _outcome(rule: Rule, store: Store) -> tuple[str, str]:
    try:
        table = store.table(rule.table)
        left, left_name = _side(table, rule.left, rule.left_measure)
        values: list[float] | float
        if isinstance(rule.right, Mapping):
            values, right_name = _side(table, rule.right, rule.right_measure)
        else:
            values, right_name = float(rule.right), ""
    except FileNotFoundError:
        return _NO_ROWS, f"no rows in {rule.table}"
    except KeyError as error:
        return _NO_ROWS, f"{rule.table} has no column {error.args[0]!r}"
    for name, side in (("left", left), ("right", values)):
        if side == []:
            return _NO_ROWS, f"no rows for the {name} side"
    result = compare(left, values, rule.relation, rule.factor, rule.confidence)
    if rule.level and result == _UNDECIDED and 1 not in (len(left), _len(values)):
        result = HOLDS
    shown = mean_std_text(values) if isinstance(values, list) else f"{values:g}"
    sign = {"<=": "≤", ">=": "≥"}[rule.relation]
    scale = f"{rule.factor:g} × " if rule.factor != 1 else ""
    few = " – a single seed decides nothing" if result == _UNDECIDED and 1 in (len(left), _len(values)) else ""
    measure = rule.left_measure.replace("straightness", "bend")
    if {"solver", "nfe"} <= rule.left.keys():  # what holds for one solver need not hold for another
        measure += f" ({rule.left['solver']}, {rule.left['nfe']})"
    elif "nfe" in rule.left:
        measure += f" ({', '.join(str(rule.left[c]) for c in ('prior', 'nfe') if c in rule.left)})"
    level = " or level" if rule.level else ""
    ours = f"{measure}{left_name} {mean_std_text(left)}"
    return result, f"{ours} {sign}{level} {scale}{shown}{right_name}: {result}{few}"


def _len(values: list[float] | float) -> int:
    return len(values) if isinstance(values, list) else 0


def verdicts(path: Path | str, store: Store) -> list[Verdict]:
    """Verdicts on all claims of a YAML file."""
    return [judge(claim, store) for claim in load(path)]
