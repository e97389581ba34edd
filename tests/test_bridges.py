"""vsmd.bridges and vsmd.couplings: the fit, the process's laws against simulation, exact scores and solvers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vsmd
from repro.studies.mixture_scores import end_kl
from vsmd import kernels
from vsmd.bridges import MixtureProcess
from vsmd.couplings import Coupling, Fit, MixtureFit, fitted
from vsmd.model import Model
from vsmd.training.pairs import pairs_at

DOUBLE = torch.float64
QUICK = MixtureFit(components=6, steps=150, batch_size=256)


def bumps(n: int, seed: int = 0) -> Tensor:
    """Three narrow Gaussians in the plane, centred, of about unit variance."""
    stream = torch.Generator().manual_seed(seed)
    means = torch.tensor([[1.3, 0.4], [-1.1, 0.9], [-0.2, -1.3]])
    return means[torch.randint(3, (n,), generator=stream)] + 0.25 * torch.randn(n, 2, generator=stream)


def process_of(method: str, data: Tensor, fit: MixtureFit | None = QUICK, **options: Any) -> MixtureProcess:
    process = vsmd.forward_process(method, (2,), variational_score="mixture", **{"beta": 2.0} | options)
    process = process.with_data(data)
    assert isinstance(process, MixtureProcess)
    return process if fit is None else process.coupled(data, fit)


@pytest.fixture(scope="module", params=["CLD", "VSULD", "VSDM"])
def process(request: pytest.FixtureRequest) -> MixtureProcess:
    return process_of(request.param, bumps(4_000))


def simulated(process: MixtureProcess, x: Tensor, t: float, steps: int, seed: int = 5) -> Tensor:
    """a_t (n, k, d) by Euler–Maruyama on the controlled SDE f + g^2 grad_v log phi, from v_0 as the process has it."""
    stream = torch.Generator().manual_seed(seed)
    a = [process.to_directions(x).double()]
    if process.k == 2:
        a.append(process.velocity(a[0], stream)[0])
    state = torch.stack(a, 1)
    grid = (
        torch.linspace(0, 1, steps + 1, dtype=DOUBLE) ** 2 * t
    )  # short steps where the drift of x_0's channel is large
    g2 = 2.0 * process.per_a
    for now, later in zip(grid[:-1].tolist(), grid[1:].tolist()):
        h = later - now
        rates = [float(e.flatten()[0]) for e in process.constant]  # the clock is t itself at beta = 2
        drift = -rates[0] * state[:, 0] - (2.0 * rates[1] * state[:, 1] if process.k == 2 else 0)
        drift = drift + g2 * process.potential(now).pull(state)
        last = state[:, -1] + h * drift + (g2 * h) ** 0.5 * torch.randn(drift.shape, generator=stream, dtype=DOUBLE)
        state = last[:, None] if process.k == 1 else torch.stack([state[:, 0] + h * state[:, 1], last], 1)
    return state


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_states_against_simulation(process: MixtureProcess, t: float) -> None:
    """First and second moments, and E exp(i a), of the closed form and of simulated paths of the controlled SDE."""
    x = bumps(8_000, 1)
    paths = simulated(process, x, t, 40).flatten(1)
    times = torch.full((len(x),), t, dtype=DOUBLE)
    drawn = process.states(process.to_directions(x).double(), times, torch.Generator().manual_seed(6)).flatten(1)
    for f in (lambda a: a, lambda a: a[:, :, None] * a[:, None], lambda a: (2 * a).cos(), lambda a: (2 * a).sin()):
        left, right = f(paths), f(drawn)
        error = (left.var(0) / len(x) + right.var(0) / len(x)).sqrt()
        assert float(((left.mean(0) - right.mean(0)).abs() - 0.02).max() / error.max()) < 5  # .02: the steps' own bias


def test_moments_are_those_of_draws(process: MixtureProcess) -> None:
    """law(), the statistic's moments and the standardised pairs, from draws: 1, uncorrelated."""
    x = process.to_directions(bumps(40_000, 2)).double()
    for t in (0.02, 0.4, 0.97):
        times = torch.full((len(x),), t, dtype=DOUBLE)
        a = process.states(x, times, torch.Generator().manual_seed(3))
        one = torch.tensor([t], dtype=DOUBLE)
        want = kernels.stacked(process.law(process.bridge(one))[1])[0]
        torch.testing.assert_close(torch.einsum("nid,njd->dij", a, a) / len(x), want, rtol=0.06, atol=0.06)
        at = process.coefficients(one, DOUBLE).at(0)
        z = sum(r * a[:, i] for i, r in enumerate(at.inp))
        assert isinstance(z, Tensor)
        torch.testing.assert_close(z.square().mean(0), torch.ones(2, dtype=DOUBLE), rtol=0, atol=0.08)


@pytest.mark.parametrize("method", ["CLD", "VSDM"])
def test_score_of_points_is_exact(method: str) -> None:
    """With E[target | z] of the tilted law for a network, s + grad_v log phi_t is the score of the law of a_t.

    The data are 40 points, so that rho_t is a finite sum; its gradient is taken by autograd.
    """
    data = bumps(40).repeat(25, 1)
    process = process_of(method, data)
    points = process.to_directions(data[:40]).double()
    coupling = process.coupling_of_data()
    for t in (0.1, 0.5, 1.0):
        one = torch.tensor([t], dtype=DOUBLE)
        law = kernels.stacked(process.covariance(process.reference(0.0, one), 0.0))[0, 0]
        f = torch.stack([e[0, 0] for e in process.bridge(one).mean])
        a = torch.randn(9, process.k, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE).requires_grad_()
        normal = torch.distributions.MultivariateNormal(torch.zeros(process.k, dtype=DOUBLE), law)
        apart = a[:, None] - f[:, None] * points[None, :, None]
        weights = normal.log_prob(apart.mT).sum(-1) - coupling.log_z(points)
        log_rho = process.potential(t).log(a) + weights.logsumexp(1)
        (want,) = torch.autograd.grad(log_rho.sum(), a)

        statistic = process.statistic(one)
        snr, norm = statistic.channel.snr[0], (1 + statistic.channel.snr[0].square()).sqrt()
        xi = points / process.known().unit
        at = process.coefficients(one, DOUBLE).at(0)
        z = sum(r * a.detach()[:, i] for i, r in enumerate(at.inp)) * statistic.var[0].sqrt()
        expected = weights.detach().softmax(1) @ xi  # E[xi | a]
        target = (norm * expected - snr * z) - statistic.slope[0] * z  # T = norm xi - snr z
        net = target / statistic.rest[0]
        s = sum(g * a.detach()[:, i] for i, g in enumerate(at.gain)) + at.out * net
        torch.testing.assert_close(s + process.potential(t).pull(a.detach()), want[:, -1], rtol=1e-6, atol=1e-6)
        clean = at.clean[0] * (z / statistic.var[0].sqrt()) + at.clean[1] * net
        torch.testing.assert_close(clean, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["CLD", "VSULD", "VSDM"])
def test_gaussian_data_and_one_component(method: str) -> None:
    """One component is the exact bridge: the end law is met, a zero network samples and scores Gaussians exactly."""
    std = torch.tensor([0.3, 2.0])
    data = std * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    process = vsmd.forward_process(method, (2,), beta=2.0, variational_score="mixture").with_data(data)
    assert isinstance(process, MixtureProcess)
    process = process.coupled(data, MixtureFit(1, steps=1, learning_rate=1e-9))
    assert float(process.prior_kl().max()) < 1e-3  # of 20,000 points' own moments
    model = Model(process, Zero())
    for solver, steps in (("exponential", 3), ("heun", 20), ("euler-maruyama", 100)):
        x = model.sample(8_000, solver, steps, seed=1)
        torch.testing.assert_close(x.std(0), data.std(0), rtol=0.04, atol=0)
    inside = data[:20]
    want = torch.distributions.Normal(data.mean(0), data.std(0)).log_prob(inside).sum(1)
    torch.testing.assert_close(model.log_prob(inside, rtol=1e-5, atol=1e-5).float(), want, rtol=0, atol=0.05)


class Zero(nn.Module):
    """A network that says nothing."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def test_fit_reaches_the_prior() -> None:
    data = bumps(8_000)
    process = process_of("CLD", data, MixtureFit(12, steps=300, batch_size=256))
    assert end_kl(process, data, 1_000) < 0.03
    assert end_kl(process_of("CLD", data, MixtureFit(1, steps=30)), data, 1_000) > 0.03


@pytest.mark.parametrize("full", [False, True])
def test_both_layouts_and_the_choice_of_components(full: bool) -> None:
    data = bumps(3_000)
    process = process_of("CLD", data, MixtureFit(None, full, steps=40, batch_size=128))
    coupling = process.coupling_of_data()
    assert coupling.mean.shape[1:] == ((1, 4) if full else (2, 2))
    assert len(coupling.log_weight) in (1, 8, 32)
    x = process.to_directions(data).double()
    direct = process.potential(0.0)
    # Z(x_0) = E over v_0 of phi_0: Monte Carlo against the closed form
    v = torch.randn(4_000, 1, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    want = direct.log(torch.cat([x[:1, None].expand(4_000, 1, 2), v], 1)).logsumexp(0) - math.log(4_000)
    assert float(coupling.log_z(x[:1])) == pytest.approx(float(want), abs=0.1)


def test_pairs_of_held_out_data() -> None:
    """As those of training: z and target of variance 1, uncorrelated, at any time."""
    data = bumps(4_000)
    process = process_of("CLD", data)
    pairs = pairs_at(process, data, torch.linspace(0.05, 1, len(data)), torch.Generator().manual_seed(0))
    z, target = pairs.z.double(), pairs.target.double()
    torch.testing.assert_close(z.square().mean(0), torch.ones(2, dtype=DOUBLE), rtol=0.1, atol=0)
    torch.testing.assert_close(target.square().mean(0), torch.ones(2, dtype=DOUBLE), rtol=0.1, atol=0)
    assert float((z * target).mean(0).abs().max()) < 0.1


# --- through the front door ------------------------------------------------------------------------------------------


def test_trains_saves_and_loads(tmp_path: Path) -> None:
    process = vsmd.forward_process("VSCLD", (2,), beta=2.0, variational_score="mixture")
    losses: list[float] = []
    model = vsmd.fit(
        process, bumps(2_000), steps=150, batch_size=256, mixture=QUICK, on_loss=lambda _, loss: losses.append(loss)
    )
    assert losses[-1] < losses[0]
    again = vsmd.load(model.save(tmp_path / "model.safetensors"))
    x = model.sample(500, "exponential", 6)
    assert torch.equal(x, again.sample(500, "exponential", 6))
    assert float((x[:, None] - bumps(500, 9)).norm(dim=-1).amin(1).mean()) < 0.3
    fine = model.sample(200, "heun", 150)  # the flow with and without its linear part taken out is one flow
    for solver, within in (("exponential", 0.01), ("exponential-1", 0.2)):
        assert float((model.sample(200, solver, 150) - fine).abs().mean()) < within
    few = [model.sample(200, "exponential", 5, control_parts=parts, grid_power=3.0) for parts in (1, 4)]
    errors = [float((x - fine).abs().mean()) for x in few]
    assert errors[1] < 0.8 * errors[0]  # the control is known without the network: more of it costs no evaluation
    assert torch.equal(few[1], model.sample(200, "exponential", 5, grid_power=3.0))
    assert bool(torch.isfinite(model.log_prob(x[:3])).all())
    assert bool(torch.isfinite(model.sample(50, "aboba", 20)).all())


@pytest.mark.parametrize("dim", [2, 5])
def test_the_tables_that_images_interpolate_in(dim: int) -> None:
    from vsmd.training.levels import Levels

    data = torch.randn(500, dim, generator=torch.Generator().manual_seed(0))
    process = vsmd.forward_process("CLD", (dim,), beta=2.0, variational_score="mixture").with_data(data)
    assert isinstance(process, MixtureProcess)
    process = process.coupled(data, MixtureFit(2, steps=3))
    exact, tabled = Levels(0, 64, dim, torch.device("cpu")), Levels(0, 64, dim, torch.device("cpu"))
    tabled.tabled = True
    for left, right in zip(exact(process, 0, 0, slice(None)), tabled(process, 0, 0, slice(None)), strict=True):
        torch.testing.assert_close(left.expand_as(right), right, rtol=5e-3, atol=1e-4)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_in_one_line() -> None:
    data = bumps(20)
    process = process_of("CLD", data, None)
    for refused, message in (
        (lambda: process.coupled(data, MixtureFit(21)), r"^components=21: must be at most the number of points, 20$"),
        (lambda: process.transition(0.5), r"^transition: of a mixture process is no Gaussian"),
        (lambda: process.potential(0.5), r"^coupling=None: this mixture process has not seen data"),
        (lambda: process.with_prior("empirical", data), r"^prior \(with variational_score='mixture'\)='empirical'"),
        (lambda: process_of("CLD", data, None, prior="mixture"), r"^prior \(with variational_score='mixture'\)"),
        (lambda: process_of("CLD", data, None, score_matching="plain"), r"^score_matching \(with var"),
        (lambda: MixtureFit(0), r"^components=0: must be an integer >= 1$"),
        (lambda: MixtureFit(50).check(10**6, 10**7, 2), r"^components=50: with 10000000 directions takes [\d.]+ GiB"),
        (lambda: MixtureFit(5, full=True).check(10**6, 65, 2), r"^full=True: 65 directions; must be at most 64$"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_dead_components_are_restarted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x = bumps(1_000).double()
    law = torch.tensor([[0.3, 0.2], [0.2, 0.8]], dtype=DOUBLE)
    lower, start = torch.linalg.cholesky(law), torch.tensor([1.2, -0.9], dtype=DOUBLE)
    fit = Fit(x, torch.ones(2, dtype=DOUBLE), lower, start, 1.0, 0)
    first = fit.first

    def with_a_dead_one(components: int, blocks: int) -> list[Tensor]:
        values = first(components, blocks)
        with torch.no_grad():
            values[0][1] = -60.0
        return values

    monkeypatch.setattr(fit, "first", with_a_dead_one)
    with pytest.warns(UserWarning, match=r"^mixture: \d+ components died on the way and were restarted$"):
        coupling = fitted(fit, MixtureFit(4, steps=60, batch_size=128))
    assert isinstance(coupling, Coupling)
    assert float(coupling.log_weight.min()) > -10
