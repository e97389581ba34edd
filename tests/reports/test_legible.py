"""Figures and pages that read: the reader of faults, what is drawn with, and what the committed report holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from repro import reports
from repro.grid import Profile
from repro.reports import legible, page

mpl.use("agg")
ROOT = Path(__file__).parents[2]
SETTINGS = ["CLD-5", "CLD-10", "ULD-5", "ULD-10", "VSCLD-5", "VSULD-5", "VSDM-5", "VSDM-10", "SGM-10", "SGM-20"]


@pytest.fixture
def axes() -> Any:
    fig, ax = plt.subplots(figsize=(4, 3))
    yield ax
    plt.close(fig)


def faults(ax: Any) -> str:
    return "\n".join(legible.faults(ax.figure))


def test_a_plain_figure_has_no_faults(axes: Any) -> None:
    axes.plot([0, 1], [0, 1], label="up")
    axes.plot([0, 1], [0, 0.2], label="flat")
    axes.set(xlabel="clock τ", ylabel="$N_{xx}$", title="a title")
    axes.legend(loc="upper left")
    assert faults(axes) == ""


def test_a_legend_over_data_is_seen(axes: Any) -> None:
    axes.plot([0, 1], [0, 1], label="up")
    axes.legend(loc="upper right")
    assert "legend over 'up'" in faults(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    assert faults(axes) == ""


def test_ticks_that_collide_are_seen(axes: Any) -> None:
    axes.semilogx([250, 8_000], [0, 1])
    assert "ticks of x collide" in faults(axes)
    reports.plain_log(axes.xaxis)
    assert faults(axes) == ""


def test_looks_and_names_are_judged(axes: Any) -> None:
    axes.plot([0, 1], [0, 0.1], color="C0", label="end_sde")
    axes.plot([0, 1], [0, 0.2], color="C0", label="other")
    axes.legend(loc="upper left")
    said = faults(axes)
    assert "'end_sde' and 'other' alike" in said
    assert "'end_sde' is a table's name" in said
    axes.set_title("digits, exponential+denoise")
    assert "'digits, exponential+denoise' is a table's name" in faults(axes)
    axes.set_title("start: codes + noise, $x_0$")
    assert "$x_0$' is a table's name" not in faults(axes)
    axes.annotate("first", (0.5, 0.1))
    axes.annotate("second", (0.5, 0.1))
    assert "annotations collide: 'first' and 'second'" in faults(axes)


@pytest.mark.parametrize(
    "labels",
    [
        SETTINGS,
        ["LSBDM", "CLD", "VSCLD", "VSULD", "VSDM", "steered VSCLD", "steered VSULD"],
        ["exponential", "exponential, denoised", "heun", "heun, denoised", "euler-maruyama, denoised"],
        ["steered-2, mixture", "steered-2, heun", "i-cfm", "i-cfm-standardised", "ot-cfm", "ot-cfm-standardised"],
    ],
)
def test_no_two_looks_are_alike(axes: Any, labels: list[str]) -> None:
    looks = reports.looks(labels)
    for i, name in enumerate(labels):
        axes.plot([0, 1], [0, i], label=name, **looks[name])
        if name.split("-")[0] in reports.METHOD_COLOURS:
            assert looks[name]["color"] == reports.colour(name)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    assert faults(axes) == ""


@pytest.mark.parametrize(("low", "high"), [(1.32, 1.7), (0.9, 4.3), (3e-3, 5e-2), (0.3, 6), (1, 1_024), (62, 630)])
def test_plain_ticks_are_few_and_plain(axes: Any, low: float, high: float) -> None:
    axes.plot([1, 2], [low, high])
    reports.plain_log(axes.yaxis)
    shown = [t.get_text() for t in axes.get_yticklabels()]
    assert 2 <= len(shown) <= 8
    assert [float(t) for t in shown] == pytest.approx(axes.get_yticks())
    assert faults(axes) == ""


def test_names_beside_points_do_not_meet(axes: Any) -> None:
    places = [(1.45, 12.0), (1.61, 12.2), (1.6, 9.5), (1.7, 9.6), (15.0, 7.7), (17.0, 7.4)]
    axes.plot(*zip(*places, strict=True), "o")
    axes.margins(0.2)
    reports.plain_log(axes.xaxis, axes.yaxis)
    reports.label_points(axes, places, SETTINGS[: len(places)], fontsize=8)
    assert len(axes.texts) == len(places)
    assert faults(axes) == ""


def test_a_curve_is_the_mean_and_one_deviation(axes: Any) -> None:
    rows = pd.DataFrame({"nfe": [1, 1, 2, 2], "v": [1.0, 3.0, 5.0, 5.0]})
    reports.curve(axes, rows, "nfe", "v", color="C1", label="mine")
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [2, 5]]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(5)
    assert np.isclose(band[:, 1], 2 + 2**0.5).any()


def test_the_lowest_mean_is_bold_and_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path))
    report = reports.Report("05_series", "full")
    cells = ["0.0454 ± 0.0020 (3)", "(2.50 ± 0.10)e-05 (3)", "0.0062 (1)", "missing here", None]
    df = pd.DataFrame({"row": list("abcde"), "exchange": cells, "ecb": ["2 (1)", "1.5 ± 0.1 (2)", "–", "9 (1)", ""]})
    report.save_table(df, "05_table1", "Scores.", paper="Table 1", lowest=["exchange", "ecb"])
    text = (tmp_path / "tables/05_table1.md").read_text()
    assert "| b | **(2.50 ± 0.10)e-05 (3)** | **1.5 ± 0.1 (2)** |" in text
    assert text.count("**") == 4
    assert "**" not in (tmp_path / "tables/05_table1.csv").read_text()


def test_long_tables_are_on_the_page_and_marks_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path / "reports"))
    report = reports.Report("05_series", "full")
    report.save_table(pd.DataFrame({"v": range(60)}), "05_long", "Every candidate.", paper="Table 1")
    report.save_table(pd.DataFrame({"v": [1]}), "05_short", "The best.", paper="Table 1")
    (tmp_path / "paper.yaml").write_text(
        "- {items: Table 1, title: scores, notebook: 05_series, reference: {columns: [a, source], "
        "rows: [[x, P], [y, M]]}}\n- {items: Table 2, title: settings, notebook: 05_series, reference: "
        "{source: the authors' code; C, columns: [a], rows: [[x]]}}\n",
        encoding="utf-8",
    )
    text = page.write(Profile("full", tmp_path / "reports"), tmp_path).read_text()
    assert "<details><summary>60 rows</summary>\n\n| v |\n|--:|\n| 0 |" in text
    assert "| 59 |\n\n</details>" in text
    assert text.count("<details>") == 1
    assert "P: the paper's own tables; M: measured by us." in text
    assert "\nC: the authors' published code, logs or arrays." in text


def test_the_committed_figures_read() -> None:
    """What `save_figure` noted when it drew them: nothing, in any of them."""
    noted: dict[str, list[str]] = {}
    for path in ROOT.glob("reports/*.artefacts.json"):
        entries = json.loads(path.read_text(encoding="utf-8"))["artefacts"]
        figures = {name: entry for name, entry in entries.items() if entry["kind"] == "figure"}
        noted |= {name: entry.get("faults", "not drawn anew") for name, entry in figures.items()}
    assert len(noted) > 40
    assert {name: faults for name, faults in noted.items() if faults} == {}


def test_bend_is_the_name_that_readers_see() -> None:
    """Stored columns and the rules that read them keep the old one; rectified straightness is another measure."""
    seen = [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "notebooks/paper.yaml"]
    for path in seen:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "straightness" in line]
        assert not [line for line in lines if "straightness of the paths" not in line], path
    glossary = (ROOT / "docs/understand/glossary.md").read_text(encoding="utf-8")
    assert "| bend | straightness | mean size of a path's acceleration, 0 at constant velocity" in glossary
