from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from repro import grid, reports
from repro.grid import Result, Run, Store
from repro.reports import claims, page, summary
from vsmd.durations import duration

ROOT = Path(__file__).parents[2]
PROVENANCE = {"date": "2025-01-01T00:00:00Z", "seconds": 90.0, "commit": "c0ffee", "device": "CPU", "torch": "2"}
Rows = list[dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path))
    return tmp_path / "quick"


def fill(store: Store, table: str, rows: Rows) -> list[Run]:
    """Store each row as a run of its own."""
    runs = [Run("m:f", {"row": i, "table": table, "seed": row.get("seed", 0)}) for i, row in enumerate(rows)]
    for run, row in zip(runs, rows, strict=True):
        store.put(run, Result({table: [row]}), code={}, provenance=PROVENANCE)
    return runs


# -- figures and summaries --------------------------------------------------------------------------------------------
def test_fixed_colours_differ() -> None:
    assert len(set(reports.METHOD_COLOURS.values())) == 7
    assert reports.colour("VSULD-5") == reports.METHOD_COLOURS["VSULD"]
    assert reports.palette(["real", "ot-cfm"])["real"] == reports.METHOD_COLOURS["real"]
    assert reports.colour("ot-cfm") == reports.colour("ot-cfm") not in reports.METHOD_COLOURS.values()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0, 3.0], "2.0 ± 1.0 (3)"),
        ([2.4e-5, 2.5e-5, 2.6e-5], "(2.50 ± 0.10)e-05 (3)"),
        ([18.61, 18.69], "18.650 ± 0.057 (2)"),
        ([2.5e-5], "2.5e-05 (1)"),
        ([1.0, math.nan, 2.0], "1.50 ± 0.71 (2 of 3 finite)"),
        ([math.inf], "– (0 of 1 finite)"),
        ([], "–"),
        ([0.0, 0.0], "0 ± 0 (2)"),
        ([120000.0, 130000.0], "(1.250 ± 0.071)e+05 (2)"),
    ],
)
def test_mean_std_text(values: list[float], text: str) -> None:
    assert reports.mean_std_text(values) == text


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=5))
def test_mean_std_text_is_close_to_the_mean(values: list[float]) -> None:
    text = reports.mean_std_text(values)
    power = float(text.split(")e")[1].split(" ")[0]) if ")e" in text else 0.0
    mean, std = (float(part.strip("()").split(")")[0]) * 10**power for part in text.split(" (")[0].split(" ± "))
    scale = max(float(np.std(values, ddof=1)), abs(float(np.mean(values))) / 10, 1e-300)
    assert abs(mean - np.mean(values)) <= 0.06 * scale
    assert abs(std - np.std(values, ddof=1)) <= 0.06 * scale


def test_mean_std_by_groups() -> None:
    df = pd.DataFrame({"method": ["SGM", "SGM", "CLD"], "nfe": [10, 10, 10], "a": [1.0, 3.0, 5.0], "b": [1, 1, 2]})
    out = reports.mean_std(df, ["method", "nfe"], ["a", "b"])
    assert out.to_dict("list") == {
        "method": ["SGM", "CLD"],
        "nfe": [10, 10],
        "a": ["2.0 ± 1.4 (2)", "5 (1)"],
        "b": ["1.00 ± 0.00 (2)", "2 (1)"],
    }
    with pytest.raises(ValueError, match="column='c'"):
        reports.mean_std(df, "method", "c")


def test_markdown() -> None:
    df = pd.DataFrame({"a|b": ["x|y", None], "v": [1 / 3, math.nan]})
    assert summary.markdown(df) == "| a\\|b | v |\n|---|--:|\n| x\\|y | 0.333333 |\n|  |  |\n"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Figure 2", ["Figure 2"]),
        ("Figures 6, 8–10", ["Figure 6", "Figure 8", "Figure 9", "Figure 10"]),
        ("Table 1 and Theorems 2-3", ["Table 1", "Theorem 2", "Theorem 3"]),
        (["Figure 2", "Section A.1"], ["Figure 2", "Section A.1"]),
        (None, []),
    ],
)
def test_paper_ids(text: Any, ids: list[str]) -> None:
    assert reports.paper_ids(text) == ids


@pytest.mark.parametrize("text", ["2", "Fig. 2", "Figure", "Figures 9–8", "Figure A–2"])
def test_bad_paper_ids(text: str) -> None:
    with pytest.raises(ValueError, match="paper="):
        reports.paper_ids(text)


def scatter(points: int) -> Any:
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(3, 3))
    xy = np.random.default_rng(0).standard_normal((points, 2))
    ax.scatter(xy[:, 0], xy[:, 1], s=1, color=reports.colour("CLD"), label="CLD")
    ax.legend()
    plt.close(fig)
    return fig


def test_figures_are_the_same_bytes_and_small(root: Path) -> None:
    first, second = reports.Report("01_a", "quick"), reports.Report("02_b", "quick")
    first.save_figure(scatter(20_000), "dense", "Dense.")
    second.save_figure(scatter(20_000), "dense-again", "Dense.")
    for kind in ("png", "pdf"):
        data = (root / f"figures/dense.{kind}").read_bytes()
        assert data == (root / f"figures/dense-again.{kind}").read_bytes()
        assert len(data) < 2_000_000
        assert b"CreationDate" not in data


def test_artefacts_and_their_provenance(root: Path) -> None:
    report = reports.Report("02_toys", "quick")
    runs = fill(report.store, "toys", [{"method": "CLD", "seed": s, "v": float(s)} for s in (0, 1)])
    fill(report.store, "others", [{"v": 1}])
    report.store.declared.update({runs[0].key: runs[0]})
    df = report.store.table("toys", runs[:1])
    report.save_table(df, "toys-summary", "What came out.", paper="Table 1")
    report.save_figure(scatter(5), "toys-figure", "A picture.", paper=["Figure 2", "Figure 3"], tables=["others"])
    assert (root / "tables/toys-summary.csv").read_text() == "method,seed,v\nCLD,0,0\n"
    meta = json.loads((root / "tables/toys-summary.meta.json").read_text())
    assert meta["from"][0]["runs"] == 1
    assert meta["from"][0]["commits"] == ["c0ffee"]
    assert report.store.names() == ["others", "toys"]  # a summary is no table of runs
    index = json.loads((root / "02_toys.artefacts.json").read_text())
    assert index["artefacts"]["toys-figure"]["paper"] == ["Figure 2", "Figure 3"]
    assert index["artefacts"]["toys-figure"]["tables"] == ["others"]
    with pytest.raises(ValueError, match="table='toys'"):
        report.save_table(df, "toys", "No.")
    with pytest.raises(ValueError, match="choose another"):
        reports.Report("03_other", "quick").save_table(df, "toys-summary", "No.")
    with pytest.raises(ValueError, match="name="):
        report.save_table(df, "../escape", "No.")


# -- claims -----------------------------------------------------------------------------------------------------------
def spread(mean: float, std: float) -> list[float]:
    return [mean - std, mean, mean + std]


@pytest.mark.parametrize(
    ("left", "right", "relation", "factor", "confidence", "outcome"),
    [
        (spread(1, 0.1), spread(2, 0.1), "<=", 1, 0.95, "holds"),
        (spread(2, 0.1), spread(1, 0.1), "<=", 1, 0.95, "does not hold"),
        (spread(2, 0.1), spread(1, 0.1), "<=", 2.5, 0.95, "holds"),
        (spread(1, 0.5), spread(1.1, 0.5), "<=", 1, 0.95, "undecided"),
        (spread(2, 0.1), spread(1, 0.1), ">=", 1, 0.95, "holds"),
        (spread(1, 0.1), 2.0, "<=", 1, 0.95, "holds"),
        (spread(1, 0.1), 2.0, ">=", 1, 0.95, "does not hold"),
        ([1.0], [2.0, 2.1], "<=", 1, 0.95, "undecided"),
        ([1.0], [2.0], "<=", 1, None, "holds"),
        ([1.0, 1.0], [1.0, 1.0], "<=", 1, 0.95, "holds"),
        ([1.0, 1.0], [0.9, 0.9], "<=", 1, 0.95, "does not hold"),
    ],
)
def test_compare(left: Any, right: Any, relation: str, factor: float, confidence: float | None, outcome: str) -> None:
    assert claims.compare(left, right, relation, factor, confidence) == outcome


values = st.lists(st.floats(-10, 10).map(lambda v: round(v, 3)), min_size=2, max_size=5, unique=True)


@given(values, values)
def test_compare_agrees_with_welchs_test(left: list[float], right: list[float]) -> None:
    less = float(stats.ttest_ind(left, right, equal_var=False, alternative="less").pvalue)
    if min(abs(less - 0.05), abs(less - 0.95)) < 1e-6:
        return
    expected = "holds" if less < 0.05 else "does not hold" if less > 0.95 else "undecided"
    assert claims.compare(left, right, "<=", 1.0, 0.95) == expected


def claim(**rule: Any) -> claims.Claim:
    row = {"id": "a", "paper": "Figure 2", "statement": "S.", "notebook": "02_toys", "rule": rule}
    return claims.claim_of(row, "test")


def toys(errors: dict[tuple[str, str], float]) -> Rows:
    """Three seeds a method and data set, two rows a seed that must count once."""
    return [
        {"dataset": d, "method": m, "beta": 5.0, "seed": s, "solver": solver, "error": e + 0.01 * s}
        for (d, m), e in errors.items()
        for s in range(3)
        for solver in ("heun", "euler")
    ]


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ({("A", "ours"): 1, ("A", "other"): 2, ("B", "ours"): 1, ("B", "other"): 2}, "holds"),
        ({("A", "ours"): 1, ("A", "other"): 2, ("B", "ours"): 2, ("B", "other"): 1}, "holds partly (1 of 2 parts)"),
        ({("A", "ours"): 2, ("A", "other"): 1, ("B", "ours"): 2, ("B", "other"): 1}, "does not hold"),
        ({("A", "ours"): 1, ("A", "other"): 1, ("B", "ours"): 1, ("B", "other"): 1}, "holds partly (undecided)"),
        ({("A", "ours"): 1, ("A", "other"): 2}, "holds partly (1 of 2 parts without rows)"),
        ({("A", "ours"): 1}, "not tried here (no rows)"),
    ],
)
def test_verdicts_over_data_sets(tmp_path: Path, errors: dict[tuple[str, str], float], text: str) -> None:
    store = Store(tmp_path)
    store.put(Run("m:f"), Result({"toys": toys(errors)}), code={}, provenance=PROVENANCE)
    rule = {"table": "toys", "measure": "error", "where": {"beta": 5}, "datasets": ["A", "B"]}
    verdict = claims.judge(claim(**rule, left={"method": "ours"}, right={"method": "other"}), store)
    assert verdict.text == text
    assert len(verdict.evidence) == 2
    if text == "holds":
        assert verdict.evidence[0] == "A: error 1.010 ± 0.010 (3) ≤ 2.010 ± 0.010 (3): holds"


def test_level_and_the_best_of_several(tmp_path: Path) -> None:
    """A level rule holds where the sides cannot be told apart, from two seeds on; `best_of` takes the least mean."""
    values = {("ours", 1): spread(1, 0.1), ("x", 1): spread(1.02, 0.1), ("x", 2): spread(0.5, 0.01), ("z", 9): [1.0]}
    rows = [{"m": m, "k": k, "seed": s, "e": v} for (m, k), vs in values.items() for s, v in enumerate(vs)]
    store = Store(tmp_path)
    store.put(Run("m:f"), Result({"t": rows}), code={}, provenance=PROVENANCE)
    rule: dict[str, Any] = {"table": "t", "measure": "e", "left": {"m": "ours"}, "right": {"m": "x", "k": 1}}
    assert claims.judge(claim(**rule), store).text == "holds partly (undecided)"
    assert claims.judge(claim(**rule, level=True), store).text == "holds"
    assert claims.judge(claim(**rule | {"right": {"m": "z"}}, level=True), store).text == "holds partly (undecided)"
    verdict = claims.judge(claim(**rule | {"right": {"m": ["x", "z"], "best_of": ["m", "k"]}}, level=True), store)
    assert verdict.text == "does not hold"
    assert verdict.evidence == ("e 1.00 ± 0.10 (3) ≤ or level 0.500 ± 0.010 (3) x 2: does not hold",)
    nothing = claims.judge(claim(**rule | {"right": {"m": "y", "best_of": ["k"]}}), store)
    assert nothing.text == "not tried here (no rows)"
    assert nothing.evidence == ("no rows for the right side",)


@pytest.mark.parametrize(
    ("good", "bad", "absent", "text"),
    [
        (4, 1, 0, "holds (4 of 5 parts, 80% asked)"),
        (3, 2, 0, "does not hold (3 of 5 parts, 80% asked)"),
        (4, 1, 2, "holds partly (4 of 7 parts, 80% asked; 2 of 7 parts without rows)"),
        (5, 0, 0, "holds"),
        (0, 5, 0, "does not hold"),
    ],
)
def test_a_share_of_the_parts(tmp_path: Path, good: int, bad: int, absent: int, text: str) -> None:
    errors: dict[tuple[str, str], float] = {(f"s{i}", "ours"): 1 if i < good else 3 for i in range(good + bad)}
    errors |= {(f"s{i}", "other"): 2 for i in range(good + bad)}
    store = Store(tmp_path)
    store.put(Run("m:f"), Result({"toys": toys(errors)}), code={}, provenance=PROVENANCE)
    rule: dict[str, Any] = {"table": "toys", "measure": "error"}
    rule["datasets"] = [f"s{i}" for i in range(good + bad + absent)]
    rule |= {"left": {"method": "ours"}, "right": {"method": "other"}}
    row = {"id": "a", "paper": "beyond", "statement": "S.", "notebook": "09", "at_least": 0.8, "rule": rule}
    assert claims.judge(claims.claim_of(row, "test"), store).text == text


def test_the_rules_that_wait_for_rows(tmp_path: Path) -> None:
    """On rows as the studies write them: of units and clocks, and of real sets of points, ten of thirteen there."""
    rules = {c.id: c for c in claims.load(ROOT / "notebooks/claims.yaml")}
    units = [
        {"dataset": d, "method": m, "units": u, "a_mode": a, "prior": p, "nfe": n, "seed": s, "pmf_rmse": v + 0.01 * s}
        for d in ("spiral-8Y", "checkerboard-6X") for p in ("mixture", "moments") for n in (5, 10, 20, 60)
        for s in range(3) for m, u, a, v in (("CLD", "standardised", "zero", 1.0), ("CLD", "raw", "zero", 9.0),
                                             ("VSCLD", "raw", "steered", 2.0), ("VSULD", "raw", "adaptive", 1.01))
    ]  # fmt: skip
    sets = rules["points-first-or-level"].rules
    points = [
        {"dataset": rule.dataset, "part": "test", "method": m, "nfe": n, "seed": s, "selected": chosen,
         "sw2": v + 0.01 * s + (m == "CLD" and chosen == 1 and i >= 8)}
        for i, rule in enumerate(sets[:10]) for s in range(3) for m, n, chosen, v in (
            ("CLD", 10, 1, 1.0), ("CLD", 10, None, 0.1), ("i-cfm", 10, None, 1.2), ("edm", 9, None, 1.0))
    ]  # fmt: skip
    store = Store(tmp_path)
    store.put(Run("m:f"), Result({"units": units, "points": points}), code={}, provenance=PROVENANCE)
    verdict = claims.judge(rules["units-and-clock"], store)
    assert verdict.text == "holds"
    assert verdict.evidence[0].startswith("spiral-8Y: pmf_rmse (mixture, 5) 1.010 ± 0.010 (3) ≤ or level")
    assert verdict.evidence[0].endswith("1.020 ± 0.010 (3) VSULD adaptive raw: holds")
    verdict = claims.judge(rules["points-first-or-level"], store)
    assert verdict.text == "holds partly (8 of 13 parts, 80% asked; 3 of 13 parts without rows)"
    assert verdict.evidence[0].endswith("(10) 1.010 ± 0.010 (3) ≤ or level 1.010 ± 0.010 (3) edm: holds")


def test_verdicts_without_rows_or_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rule = {"table": "toys", "measure": "error", "left": {"method": "ours"}, "right": 1.5}
    assert claims.judge(claim(**rule), store).text == "not tried here (no rows)"
    one = {"method": "ours", "error": 1.0, "seed": 0}
    store.put(Run("m:f"), Result({"toys": [one]}), code={}, provenance=PROVENANCE)
    assert claims.judge(claim(**rule), store).text == "holds partly (undecided)"
    assert claims.judge(claim(**rule, confidence=None), store).text == "holds"
    assert "no column 'speed'" in claims.judge(claim(**{**rule, "measure": "speed"}), store).evidence[0]
    untried = claims.claim_of(
        {"id": "a", "paper": "Table 3", "statement": "S.", "notebook": "04", "rule": None, "why": "no weights"}, "test"
    )
    assert claims.judge(untried, store).text == "not tried here (no weights)"


def test_own_measure_of_a_side_and_measure_of_a_data_set(tmp_path: Path) -> None:
    rows = [{"dataset": "A", "seed": s, "mse": 1.0, "bound": 2.0 + 0.1 * s} for s in range(3)]
    store = Store(tmp_path)
    store.put(Run("m:f"), Result({"t": rows}), code={}, provenance=PROVENANCE)
    sides = {"left": {"measure": "mse"}, "right": {"measure": "bound"}}
    assert claims.judge(claim(table="t", **sides), store).text == "holds"
    by_set = claim(table="t", datasets={"A": "bound"}, left={}, right={}, factor=0.1)
    assert claims.judge(by_set, store).text == "does not hold"


GOOD = (
    "- {id: a, paper: Figure 2, statement: S., notebook: '02', rule: {table: t, measure: m, left: {x: 1}, right: 2}}\n"
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("right: 2", "right: [2]"), r"claim a: rule\.right=\[2\]"),
        (lambda t: t.replace("right: 2", "right: 2, relation: '<'"), r"rule\.relation='<'"),
        (lambda t: t.replace("measure: m", "mesure: m"), "did you mean 'measure'"),
        (lambda t: t.replace("measure: m, ", ""), r"rule\.measure=None"),
        (lambda t: t.replace("Figure 2", "picture"), "paper='picture'"),
        (lambda t: t.replace("right: 2", "right: 2, factor: 0"), r"rule\.factor=0"),
        (lambda t: t.replace("right: 2", "right: 2, confidence: 95"), r"rule\.confidence=95"),
        (lambda t: t.replace("right: 2", "right: {best_of: x}"), r"rule\.best_of='x'"),
        (lambda t: t.replace("notebook: '02'", "notebook: '02', at_least: 2"), "at_least=2"),
        (lambda t: t + t, "taken already"),
        (lambda t: t.split(", rule")[0] + "}", "rule: must be given"),
        (lambda t: t.split(", rule")[0] + ", rule: null}", "needs why"),
        (lambda t: t.replace("statement: S.", "statement: ''"), "statement=''"),
        (lambda t: t.replace("statement: S.", "statement: 3"), "statement=3: must be a valid string"),
        (lambda t: t.replace("right: 2", "right: true"), r"rule\.right=True"),
        (lambda t: t.replace("right: 2", "right: 2, datasets: A"), r"rule\.datasets='A'"),
        (lambda t: t + "]", "not YAML"),
        (lambda t: "a: 1", "list of claims"),
    ],
)
def test_damaged_claims_are_named(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(GOOD)
    assert len(claims.load(path)) == 1
    path.write_text(change(GOOD))
    with pytest.raises(ValueError, match=said) as caught:
        claims.load(path)
    assert "\n" not in str(caught.value)


PAPER = "- {items: Table 1, title: t, notebook: '05', reference: {columns: [a, b], rows: [[x, .5]]}}\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("title: t", "titel: t"), r"paper.yaml, entry Table 1: field='titel': .*'title'"),
        (lambda t: t.replace("title: t, ", ""), r"entry Table 1: title: must be given"),
        (lambda t: t.replace("Table 1", "Tabel 1"), "paper='Tabel 1'"),
        (lambda t: t.replace("rows:", "row:"), r"reference field='row': .*did you mean 'rows'"),
        (lambda t: t.replace("[a, b]", "[]"), r"reference\.columns=\[\]"),
        (lambda t: t.replace("[x, .5]", "[x]"), "rows as long as they are"),
        (lambda t: "a: 1", "list of entries"),
    ],
)
def test_damaged_entries_are_named(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text(PAPER)
    assert page.load_paper(path)[0].reference is not None
    path.write_text(change(PAPER))
    with pytest.raises(ValueError, match=said) as caught:
        page.load_paper(path)
    assert "\n" not in str(caught.value)


# -- the page and the files of the repository -------------------------------------------------------------------------
def test_committed_claims_and_paper_are_sound() -> None:
    entries = page.load_paper(ROOT / "notebooks/paper.yaml")
    items = [i for e in entries for i in reports.paper_ids(e.items)]
    wanted = reports.paper_ids("Figures 1–19, Tables 1–3, Theorems 1–3, Section 3, Section 5.1, Section A.1")
    assert sorted(items) == sorted(wanted)
    found = claims.load(ROOT / "notebooks/claims.yaml")
    papers, found = found, [c for c in found if c.paper != claims.OURS]
    assert not {c.notebook[:2] for c in papers if c.paper == claims.OURS} & {"01", "02", "03"}
    assert {i for c in found for i in reports.paper_ids(c.paper)} <= set(wanted)
    by_item = {i: e.notebook for e in entries for i in reports.paper_ids(e.items)}
    for c in found:
        assert {by_item[i] for i in reports.paper_ids(c.paper)} == {c.notebook}


def test_page(root: Path, tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    ours = GOOD.replace("id: a", "id: b").replace("Figure 2", "beyond").replace("S.", "More.")
    (notebooks / "claims.yaml").write_text(GOOD + ours)
    (notebooks / "paper.yaml").write_text(
        "- {items: Figure 2, title: toys, notebook: 02_toys}\n"
        "- {items: Table 1, title: series, notebook: 05_series,\n"
        "   reference: {source: P, columns: [a, b], rows: [[x, .5]]}}\n"
        "- {items: Figures 8–9, title: fans, notebook: 05_series, note: Fans.}\n"
    )
    (notebooks / "02_toys.ipynb").write_text("{}")
    report = reports.Report("02_toys", "quick")
    runs = fill(report.store, "t", [{"x": 1, "m": 1.0 + s / 100, "seed": s} for s in range(3)])
    stale = Run("m:f", {"seed": 9})
    code = {"repro.grid.code": "000000000000"}
    report.store.put(stale, Result({"t": [{"x": 2, "seed": 9}]}), code=code, provenance=PROVENANCE)
    report.store.declared.update({r.key: r for r in (*runs, stale)})
    report.save_figure(scatter(5), "picture", "What it looks like.", paper="Figure 2", tables=["t"])
    report.save_table(report.store.table("t"), "extra", "Something more.")
    where = grid.profile("quick")
    path = page.write(where, notebooks)
    text = path.read_text()
    assert path == root / "README.md"
    assert "| commit | c0ffee |" in text
    assert "| runs | 4 in 1 tables, 6 min of one core in all |" in text
    assert "| **stale** | t: 1 of 4 runs were made by other code |" in text
    assert "| Figure 2 | S. | **holds** | m 1.010 ± 0.010 (3) ≤ 2: holds | 02 |" in text
    assert "![picture](figures/picture.png)" in text
    assert "[pdf](figures/picture.pdf)" in text
    assert "<sub>from t: 4 runs, **1 stale**, seeds 0, 1, 2, 9, commit c0ffee, CPU, 2025-01-01</sub>" in text
    assert "| x | 0.5 |" in text
    assert "Not made yet (notebook 05_series)." in text
    assert (
        text.index("## Beyond the paper")
        < text.index("| – | More. | **holds** |")
        < text.index("**extra.** Something more.")
    )
    assert text.index("**holds**") < 500  # results first, what made them last
    assert text.index("## Notebooks") < text.index("\n## Provenance\n") < text.index("| commit | c0ffee |")
    assert "1 claims – holds: 1.\n" in text
    before = path.stat().st_mtime_ns
    assert page.write(where, notebooks).stat().st_mtime_ns == before  # nothing new, nothing written


def test_a_small_profile_shows_the_committed_verdicts(root: Path, tmp_path: Path) -> None:
    """Beside what it measured itself; alone where nothing is committed."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "claims.yaml").write_text(GOOD)
    where, full = grid.profile("quick"), grid.profile("full")
    fill(where.store, "t", [{"x": 1, "m": 3.0, "seed": 0}])
    alone = page.write(where, notebooks).read_text()
    assert "| paper | claim | verdict | figures | in |" in alone
    fill(full.store, "t", [{"x": 1, "m": 1.0 + s / 100, "seed": s} for s in range(3)])
    text = page.write(where, notebooks).read_text()
    assert "1 claims – holds: 1.\n\nThese are the verdicts of the full profile" in text
    assert (
        "| paper | claim | verdict, full profile | in this profile | figures | in |\n|---|---|---|---|---|---|\n"
        in text
    )
    assert "| Figure 2 | S. | **holds** | holds partly (undecided) | m 3" in text
    assert "verdict, full profile" not in page.write(full, notebooks).read_text()


@pytest.mark.parametrize(("seconds", "text"), [(48.2, "48 s"), (720, "12 min"), (7500, "2 h 05 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
