"""Exact log-likelihood by the probability flow: Gaussian laws in closed form, and any network's density sums to one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vsmd.family import forward_process
from vsmd.model import Model
from vsmd.networks.mlp import MLP
from vsmd.processes import ForwardProcess
from vsmd.samplers import rk45
from vsmd.samplers.rk45 import log_likelihood
from vsmd.scores import Score

T_MIN = 1e-3
TIGHT: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-7}
VARS = (4.0, 0.3)


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def gaussian(method: str, prior: str, full: bool = False) -> ForwardProcess:
    """Two directions of variances VARS about (1, -2); rotated if `full`."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    process = forward_process(method, (2,), beta=4.0, prior=prior, basis=turn if full else "coordinates")
    mean, var = torch.tensor([1.0, -2.0]), torch.tensor(VARS, dtype=torch.float64)
    return process.with_moments(mean, var)


def law(process: ForwardProcess, t: float, var: float, direction: int) -> Tensor:
    """S_t of one direction."""
    kernel = process.kernel(torch.tensor([t]))
    cov = process.covariance(kernel, torch.tensor(var))
    return torch.stack([torch.stack([e[0, direction] for e in row]) for row in cov])


def points(n: int = 30, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prior", ["gaussian", "moments"])
@pytest.mark.parametrize("full", [False, True])
def test_overdamped_gaussian(prior: str, full: bool) -> None:
    """x_t = x_1 sqrt(S_t/S_1), so that the model's law is the prior's variance times S_t/S_1: exactly."""
    process = gaussian("SGM", prior, full)
    x = points()
    z = process.to_directions(x.double())
    want = torch.zeros(len(x), dtype=torch.float64)
    for i, var in enumerate(VARS):
        end, one = float(law(process, T_MIN, var, i)), float(law(process, 1.0, var, i))
        start = one if prior == "moments" else float(law(process, 1.0, 0.0, i))
        variance = start * end / one
        want += -0.5 * (z[:, i] ** 2 / variance + math.log(2 * math.pi * variance))
    got = Model(process, Zero()).log_prob(x, **TIGHT)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("method", ["CLD", "VSULD"])
@pytest.mark.parametrize("full", [False, True])
def test_momentum_gaussian_in_the_augmented_space(method: str, full: bool) -> None:
    """Started from N(0, S_1) the flow's law at t_min is N(0, S_t), x and v jointly."""
    process = gaussian(method, "moments", full)
    a = torch.stack([process.to_directions(points()), points(scale=1.0).flip(0)], 1)
    want = sum(
        MultivariateNormal(torch.zeros(2).double(), law(process, T_MIN, var, i)).log_prob(a[..., i].double())
        for i, var in enumerate(VARS)
    )
    got = log_likelihood(Score(process, Zero()), a, T_MIN, **TIGHT)
    torch.testing.assert_close(got, want, rtol=2e-5, atol=5e-5)


@pytest.mark.parametrize("method", ["CLD", "VSULD"])
def test_momentum_gaussian_marginal(method: str) -> None:
    """p(x) = E_v p(x, v)/N(v): averaged over velocities it is the marginal at t_min, close already for one."""
    process = gaussian(method, "moments")
    x = points(15)
    z = process.to_directions(x.double())
    want = torch.zeros(len(x), dtype=torch.float64)
    for i, var in enumerate(VARS):
        variance = float(law(process, T_MIN, var, i)[0, 0])
        want += -0.5 * (z[:, i] ** 2 / variance + math.log(2 * math.pi * variance))
    model = Model(process, Zero())
    one, many = (model.log_prob(x, velocities=n) for n in (1, 24))
    assert float((one - want).abs().max()) < 0.1
    assert float((many - want).abs().max()) < 0.02
    assert float((many - want).abs().mean()) < 0.5 * float((one - want).abs().mean())


def perturbed(process: ForwardProcess, scale: float) -> Model:
    """A model with a random network: its law is no Gaussian."""
    torch.manual_seed(0)
    network = MLP(process.shape, width=16, depth=2, frequencies=4)
    nn.init.normal_(network.last.weight, std=scale)
    return Model(process, network)


@pytest.mark.parametrize("method", ["SGM", "VSDM"])
def test_density_sums_to_one(method: str) -> None:
    process = forward_process(method, (1,), beta=4.0).with_moments(torch.zeros(1), torch.tensor([2.0]))
    model = perturbed(process, 0.5)
    grid = torch.linspace(-15, 15, 3001)[:, None]
    p = model.log_prob(grid, rtol=1e-6, atol=1e-6).exp()
    assert float(torch.trapezoid(p, grid[:, 0].double())) == pytest.approx(1, abs=2e-4)
    plain = Model(process, Zero()).log_prob(grid).exp()
    assert float(torch.trapezoid((p - plain).abs(), grid[:, 0].double())) > 0.05  # the network shows


def test_density_sums_to_one_with_velocity() -> None:
    """Over the plane (x, v)."""
    process = forward_process("CLD", (1,), beta=4.0).with_moments(torch.zeros(1), torch.tensor([2.0]))
    x, v = torch.linspace(-9, 9, 73), torch.linspace(-9, 9, 73)
    a = torch.cartesian_prod(x, v)[:, :, None]
    joint = log_likelihood(perturbed(process, 0.3).score, a, T_MIN, rtol=1e-5, atol=1e-5).exp().view(73, 73)
    total = torch.trapezoid(torch.trapezoid(joint, v.double(), dim=1), x.double())
    assert float(total) == pytest.approx(1, abs=2e-3)


def test_averaging_over_velocities_gives_the_marginal() -> None:
    process = forward_process("CLD", (1,), beta=4.0).with_moments(torch.zeros(1), torch.tensor([2.0]))
    model = perturbed(process, 0.05)
    x, v = torch.linspace(-3, 3, 7), torch.linspace(-7, 7, 113)
    joint = log_likelihood(model.score, torch.cartesian_prod(x, v)[:, :, None], T_MIN, rtol=1e-5, atol=1e-5)
    want = torch.trapezoid(joint.exp().view(7, 113), v.double(), dim=1).log()
    gaussian_law = Model(process, Zero()).log_prob(x[:, None], velocities=1)
    assert float((want - gaussian_law).abs().max()) > 0.1
    got = model.log_prob(x.repeat(1000)[:, None]).view(1000, 7).logsumexp(0) - math.log(1000)  # each row its own v
    torch.testing.assert_close(got, want, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3), r"^x=\(3,\): must be a tensor of shape \(n, 2\)"),
        (torch.zeros(0, 2), r"^x=\(0, 2\): .*n >= 1$"),
        (torch.tensor([[0.0, math.nan]]), r"^x: must be finite"),
        ([[0.0, 0.0]], r"^x=list: must be a tensor"),
    ],
)
def test_bad_points(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model(gaussian("CLD", "gaussian"), Zero()).log_prob(x)


@pytest.mark.parametrize(("rtol", "atol", "named"), [(-1.0, 0.0, "rtol=-1.0"), (1e-4, torch.ones(2), "atol=tensor")])
def test_tolerances_are_checked(rtol: Any, atol: Any, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}.*: must be a"):
        rk45._solve(lambda t, y: y, (0.0, 1.0), np.ones(1), rtol, atol)
