"""The latent runs at tiny sizes: columns and rungs as declared, closed forms right, pictures kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro.studies import latent as runs
from vsmd import forward_process, latent
from vsmd.metrics.distances import sliced_wasserstein2
from vsmd.model import Model
from vsmd.random import generator


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "STEPS", 6)


def five(dim: int) -> tuple[runs.Codes, Model]:
    """The five Gaussians and a bridge started exactly at their smoothed law, with the exact drift."""
    codes = runs.five_gaussians(dim)
    bridge = latent.schrodinger_bridge((dim,)).with_data(codes(20_000, generator(0, "moments")))
    process = codes.start(bridge)
    return codes, Model(process, runs.Exact(process, codes.score))


def test_score_of_the_five_gaussians_is_the_gradient() -> None:
    codes = runs.five_gaussians(3)
    x = torch.randn(6, 3, generator=generator(0, "x"), dtype=torch.float64).requires_grad_()
    s = 0.7
    var = codes.std.square() + s**2
    log_density = (-0.5 * ((x[:, None] - codes.means).square() / var).sum(-1)).logsumexp(1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(codes.score(x.detach(), s), gradient)
    size = codes(50_000, generator(1, "codes")).square().mean().sqrt()
    assert float(size) == pytest.approx(1.0, abs=0.1)


def test_start_is_the_smoothed_law_exactly() -> None:
    """Its log-density against that of Σ N(mean, diag(std² + σ²))/5, through the rotation into directions."""
    codes, model = five(3)
    process = model.process
    x = 2 * torch.randn(20, 3, generator=generator(0, "x"), dtype=torch.float64)
    var = codes.std.square() + latent.SIGMA**2
    parts = -0.5 * ((x[:, None] - codes.means).square() / var + (2 * math.pi * var).log()).sum(-1)
    expected = parts.logsumexp(1) - math.log(5)
    found = process.prior_law().log_prob(process.to_directions(x)[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_exact_drift_is_the_closed_form_and_generates_the_law() -> None:
    codes, model = five(2)
    x = 2 * torch.randn(20, 2, generator=generator(0, "x"), dtype=torch.float64)
    for t in (0.0, 0.5, 0.99):
        expected = latent.SIGMA**2 * codes.score(x, latent.SIGMA * (1 - t) ** 0.5)
        torch.testing.assert_close(latent.drift(model, x, t).double(), expected, rtol=1e-3, atol=1e-3)
    drawn = model.sample(3_000, solver="euler-maruyama", steps=50)
    assert sliced_wasserstein2(drawn, codes(3_000, generator(2, "codes"))) < 0.1


def test_empirical_score_points_to_the_points() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    score = runs.empirical_score(points)(torch.tensor([[0.5, 0.0], [2.0, 1.0]], dtype=torch.float64), 0.5)
    torch.testing.assert_close(score, torch.tensor([[-2.0, 0.0], [0.0, -4.0]], dtype=torch.float64), atol=1e-4, rtol=0)


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


@pytest.mark.parametrize("name", ["LSBDM", "VSDM", "steered VSULD"])
def test_bridges_by_name(name: str) -> None:
    bridge: Any = runs.bridge_of(name, (3,))
    assert bridge == name or (bridge.method, bridge.variational_score) == ("VSULD", "steered")
    solver, steps = runs.solver_of(name)
    assert steps * (2 if solver == "heun" else 1) == 6
    assert forward_process("SGM", (3,)).shape == (3,)
