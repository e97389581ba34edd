"""The latent runs at tiny sizes: columns and rungs as declared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro.studies import latent as runs
from vsmd import forward_process
from vsmd.model import Model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "STEPS", 6)


def test_excess() -> None:
    assert runs.excess(0.5, 0.4) == pytest.approx(0.3)
    assert runs.excess(0.3, 0.4) == 0


def test_diverged_samples_have_no_distance() -> None:
    x = torch.zeros(60, 2)
    assert math.isnan(runs.mean_w2(x / 0, x, 30))
    assert runs.mean_w2(x, x + 1, 30) == pytest.approx(math.sqrt(2))


def test_mixture_run() -> None:
    made = runs.run_mixture(2, 3, ["SGM"], steps=3, pairs=2, points=60)
    rows = made.tables["latent"]
    assert all(list(r) == runs.LATENT_COLUMNS for r in rows)
    assert [r["method"] for r in rows] == ["real", "LSBDM", "exact drift", "SGM"]
    assert [r["train_seconds"] is None for r in rows] == [True, False, True, False]
    rates = made.tables["latent_rates"]
    quantities = {r["quantity"] for r in rates}
    assert quantities == {"drift_error", "drift_error_gaussian", "girsanov_kl"}
    assert all(np.isfinite(r["y"]) and r["y"] > 0 for r in rates)


def test_manifold_run(tmp_path: Path) -> None:
    made = runs.run_manifold(
        2,
        16,
        1,
        [40, 80],
        ["CLD"],
        n_pretrain=200,
        shift=0.5,
        steps=3,
        pretrain_steps=5,
        pairs=1,
        points=60,
        references=80,
        workdir=tmp_path,
    )
    rows = made.tables["latent"]
    assert all(list(r) == runs.LATENT_COLUMNS for r in rows)
    tail = " (pre-trained at shift 0.5)"
    names = ["LSBDM", "LSBDM, moments start"]
    ladder = ["reconstruction", "early stop", "exact drift"]
    assert [r["method"] for r in rows] == ["real", *(n + tail for n in [*names, *ladder, *names, "CLD"])]
    assert [r["n_train"] for r in rows] == [None, 40, 40, *[80] * 6]
    assert all(r["w2"] > 0 for r in rows)
    assert {p.name for p in tmp_path.iterdir()} >= {"autoencoder.safetensors", "LSBDM-40.safetensors"}
    kinds = [r["quantity"] for r in made.tables["latent_rates"]]
    assert kinds.count("memorisation_empirical") == kinds.count("memorisation_moments") == 2


def test_denoised_runs_are_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named so, within the same number of evaluations, and another law; LSBDM, which leaves noise, is left out."""
    budgets: list[tuple[int, bool]] = []
    sample = Model.sample

    def watched(model: Model, n: int, solver: str, steps: int, *rest: Any, denoise: bool, **options: Any) -> Any:
        budgets.append((model.generation(solver, steps, denoise=denoise).evaluations, denoise))
        return sample(model, n, solver, steps, *rest, denoise=denoise, **options)

    monkeypatch.setattr(Model, "sample", watched)
    sizes: dict[str, Any] = {"steps": 3, "pairs": 1, "points": 60}
    plain, clean = (runs.run_mixture(2, 3, ["SGM"], denoise=d, **sizes).tables["latent"] for d in (False, True))
    assert [r["method"] for r in clean] == ["real", "SGM+denoise"]
    assert clean[1]["w2"] != plain[-1]["w2"]
    sizes |= {"n_pretrain": 200, "pretrain_steps": 5, "references": 80, "shift": 0.5}
    plain, clean = (
        runs.run_manifold(2, 16, 1, [40, 80], ["CLD"], denoise=d, **sizes).tables["latent"] for d in (False, True)
    )
    assert [r["method"] for r in clean] == ["real", "CLD+denoise (pre-trained at shift 0.5)"]
    assert clean[1]["w2"] != plain[-1]["w2"]
    assert clean[1]["n_train"] == 80
    assert {n for n, denoised in budgets if not denoised} == {6}
    assert {n for n, denoised in budgets if denoised} == {5}  # two Heun steps and one more, within six


@pytest.mark.parametrize("name", ["LSBDM", "VSDM", "steered VSULD"])
def test_bridges_by_name(name: str) -> None:
    bridge: Any = runs.bridge_of(name, (3,))
    if name != "LSBDM":
        want = {"VSDM": ("VSDM", "adaptive", "gaussian"), "steered VSULD": ("VSULD", "steered", "gaussian")}
        assert (bridge.method, bridge.variational_score, bridge.prior) == want[name]
    solver, steps = runs.solver_of(name)
    assert steps * (2 if solver == "heun" else 1) == 6
    assert forward_process("SGM", (3,)).shape == (3,)
