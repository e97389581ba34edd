"""Known plans: their draws against quadrature, and the measure of a fitted plan."""

from __future__ import annotations

import pytest
import torch

import vsmd
from repro.studies import entropic_plans
from repro.studies.sets.entropic import KnownPlan
from vsmd.bridges import MixtureProcess
from vsmd.random import generator


@pytest.mark.parametrize("method", ["VSDM", "VSCLD"])
def test_draws_are_of_the_plan(method: str) -> None:
    """a_T ~ prior; given x_0 it has the law p(a_T | x_0) phi_T(a_T), whose mean a sum over a grid gives."""
    process = vsmd.forward_process(method, (1,), beta=2.0, variational_score="mixture")
    assert isinstance(process, MixtureProcess)
    plan = KnownPlan.of(process, pairs=1, radius=2.0)
    x, a = plan.draw(400_000, generator(0))
    torch.testing.assert_close(torch.cov(a[:, :, 0].T).view(process.k, -1), plan.var * torch.eye(process.k).double(),
                               atol=0.01, rtol=0)  # fmt: skip
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * process.k).view(-1, process.k, 1)
    for at in (-1.0, 0.2, 1.5):
        near = (x[:, 0] - at).abs() < 0.03
        inside = torch.distributions.MultivariateNormal(plan.start * at, plan.noise).log_prob(grid[:, :, 0])
        weight = (inside + plan.log_potential(grid)).softmax(0)
        want = weight @ grid[:, :, 0]
        error = float(a[near].std() / int(near.sum()) ** 0.5)
        torch.testing.assert_close(a[near].mean(0)[:, 0], want, atol=5 * error, rtol=0)


def test_a_fitted_plan_is_near_the_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropic_plans, "POINTS", 10)
    monkeypatch.setattr(entropic_plans, "DRAWS", 1_000)
    fits = [
        entropic_plans.run(2, 0, beta=0.1, components=n, full=None, steps=150, data=5_000).tables["entropic_plans"][0]
        for n in (1, 8)
    ]
    assert tuple(fits[0]) == entropic_plans.COLUMNS
    linear, mixture = (row["cbw2_uvp"] for row in fits)
    assert mixture < 5 < linear < fits[0]["independent"]
    assert fits[0]["ess"] < fits[1]["ess"] <= 1 + 1e-9
