"""The study of mixture scores: one tiny run, its rows and columns."""

from __future__ import annotations

import pytest

from repro.studies import mixture_scores, toys


def test_a_run_gives_rows_of_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "quality", lambda x, *_, **__: {"n_samples": len(x), "gen_std_y": float(x[:, 1].std())})
    monkeypatch.setattr(mixture_scores, "KL_POINTS", 2_000)
    plan = [{"prior": "gaussian", "solver": "exponential", "evaluations": [4]}]
    result = mixture_scores.run("spiral-8Y", 0, plan, components=3, fit_steps=20, steps=3, samples=200)
    (row,), (end,) = result.tables["toys"], result.tables["mixture_scores"]
    assert (row["method"], row["a_mode"], row["nfe"]) == ("VSCLD-standardised-K3", "mixture", 4)
    assert 9 < row["gen_std_y"] < 30  # in the data's units
    assert end["chosen"] == 3
    assert 0 < end["correlation"] < 1
    assert abs(end["end_kl"]) < 0.3
