"""repro.studies.simulated_bridges: the reference's law, and the bridge of Gaussian data beside covariance steering."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repro.studies import simulated_bridges as sb
from vsmd.family import forward_process
from vsmd.steering import Steering

STD = 4.0


class Affine(nn.Module):
    """A policy's network that is exact for Gaussian data: for every step a matrix and a vector of its own."""

    def __init__(self, size: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.matrix = nn.Parameter(torch.zeros(steps + 1, size, size))

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        i = ((level[:, 0] / sb.LEVELS + 1) / 2 * self.steps).round().long()
        return torch.einsum("nij,nj->ni", self.matrix[i].expand(len(z), -1, -1), z)


def affine(chain: sb.Chain) -> sb.Policy:
    return sb.Policy(chain, Affine(chain.k * chain.dim, chain.steps))


def gaussian(n: int, stream: torch.Generator) -> Tensor:
    return STD * torch.randn(n, 1, generator=stream)


@pytest.mark.parametrize("k", [1, 2])
def test_the_zero_policy_is_the_reference(k: int) -> None:
    """Moments of the chain at its end are those of the process's kernel, up to the chain's own step."""
    chain = sb.Chain(k=k, dim=1, clock=1.0, steps=200)
    stream = torch.Generator().manual_seed(0)
    path = sb.forward_path(chain, affine(chain), chain.start(gaussian(20_000, stream), stream), stream)
    process = forward_process("CLD" if k == 2 else "SGM", (1,), beta=2.0).with_moments(
        torch.zeros(1), torch.full((1,), STD**2)
    )
    law = process.terminal(STD**2)[1]
    want = torch.tensor([[float(e) for e in row] for row in law])
    torch.testing.assert_close(torch.cov(path[-1, :, :, 0].T).view(k, k), want, atol=0.08, rtol=0.06)


def fitted(chain: sb.Chain, stages: int, n: int = 40_000) -> tuple[sb.Policy, sb.Policy]:
    """Iterative proportional fitting with exact regressions: least squares of the matching's targets, step by step."""
    u, w, root = affine(chain), affine(chain), chain.noise**0.5
    stream = torch.Generator().manual_seed(1)
    for _ in range(stages):
        path = sb.forward_path(chain, u, chain.start(gaussian(n, stream), stream), stream)
        for i in range(chain.steps):
            a, after = path[i], path[i + 1]
            off = sb.backward_target(chain, u, a, after, i) - after[:, -1] + chain.h * chain.drift(after)
            solve(w, i + 1, after, root * off / (chain.h * chain.noise))
        path = sb.backward_path(chain, w, chain.prior(n, stream), stream)
        for i in range(chain.steps):
            a, after = path[i], path[i + 1]
            off = sb.forward_target(chain, w, a, after, i) - a[:, -1] - chain.h * chain.drift(a)
            solve(u, i, a, root * off / (chain.h * chain.noise))
    return u, w


def solve(policy: sb.Policy, i: int, a: Tensor, value: Tensor) -> None:
    """The policy's row at step i by least squares: value = row . a."""
    row = torch.linalg.lstsq(a[:, :, 0], value).solution[:, 0]
    policy.get_parameter("network.matrix").data[i, -1] = row


@pytest.mark.parametrize(("k", "clock", "steps", "stages", "off"), [(1, 1.0, 100, 6, 0.05), (2, 2.0, 80, 8, 0.1)])
def test_the_bridge_of_gaussian_data_is_steering(k: int, clock: float, steps: int, stages: int, off: float) -> None:
    """Goes to N(0, I) and back, at the control energy of the closed form: the chain's steps and few stages show.

    Of 100,000 paths, since the regressions' noise adds up over stages, to stages steps/paths in the energy.
    """
    chain = sb.Chain(k=k, dim=1, clock=clock, steps=steps)
    bridge = sb.Bridge(chain, *fitted(chain, stages, 100_000), torch.zeros(1), torch.ones(1))
    stream = torch.Generator().manual_seed(2)
    x = gaussian(20_000, stream)
    end = sb.forward_path(chain, bridge.u, chain.start(x, stream), stream)[-1]
    torch.testing.assert_close(torch.cov(end[..., 0].T).view(k, k), torch.eye(k), atol=2 * off, rtol=0)
    assert float(bridge.sample(20_000, 0).std()) == pytest.approx(STD, rel=0.05)
    assert float(bridge.sample(20_000, 0, flow=True).std()) == pytest.approx(STD, rel=0.05)
    assert bridge.control_energy(x, 0) == pytest.approx(steered_energy(k, clock), rel=off)


def test_training_finds_the_bridge() -> None:
    """By gradient steps on networks: two points, of which most samples come out."""

    def points(n: int, stream: torch.Generator) -> Tensor:
        return torch.randint(2, (n, 1), generator=stream) * 2.0 - 1

    seen: list[int] = []
    chain = sb.Chain(k=1, dim=1, clock=1.0, steps=10)
    bridge = sb.train(
        chain, points, (torch.zeros(1), torch.ones(1)), stages=2, inner=60, batch_size=256, paths=512, refresh=20,
        learning_rate=1e-2, ema=0.9, on_stage=lambda stage, *_: seen.append(stage),
    )  # fmt: skip
    x = bridge.sample(2_000, 0)
    assert float((x.abs() - 1).abs().mean()) < 0.45  # of the prior: .53; of the chain's last step's noise: .36
    assert seen == [0, 1]
    again = sb.train(
        chain, points, (torch.zeros(1), torch.ones(1)), stages=2, inner=60, batch_size=256, paths=512, refresh=20,
        learning_rate=1e-2, ema=0.9,
    )  # fmt: skip
    assert torch.equal(again.sample(50, 0), bridge.sample(50, 0))


@pytest.mark.parametrize("k", [1, 2])
def test_training_starts_from_gaussian_data(k: int) -> None:
    """Before its first step the backward chain reverses N(0, I), on its own grid and on a finer one."""
    chain = sb.Chain(k=k, dim=2, clock=2.0, steps=40)
    moments = (torch.tensor([1.0, 0.0]), torch.tensor([2.0, 5.0]))
    bridge = sb.train(
        chain, lambda n, stream: torch.randn(n, 2, generator=stream), moments, stages=1, inner=1, batch_size=8,
        paths=16, learning_rate=1e-12,
    )  # fmt: skip
    for steps in (40, 80):
        x = bridge.on(steps).sample(20_000, 0)
        torch.testing.assert_close(x.std(0), moments[1], rtol=0.06, atol=0)
    assert len(bridge.on(7).sample(3, 0, trajectory=True)) == 8


def test_a_policy_sees_data_in_units_between_their_size_and_the_prior_s() -> None:
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, z: Tensor, level: Tensor) -> Tensor:
            seen.append(z)
            return torch.zeros_like(z)

    chain = sb.Chain(k=2, dim=2, clock=1.0, steps=4)
    policy = sb.Policy(chain, Seeing(), torch.tensor([4.0, 16.0]))
    a = torch.tensor([[[8.0, 16.0], [1.0, 2.0]]])
    for i in (0, 2, 4):
        assert torch.equal(policy(a, i), torch.zeros(1, 2))
    assert [z[0].tolist() for z in seen] == [[2, 1, 1, 2], [4, 4, 1, 2], [8, 16, 1, 2]]


def steered_energy(k: int, clock: float) -> float:
    """1/2 int g^2 E|u|^2 of the steered process, u = -(row of Pi) a, by its own moments on a fine grid."""
    process = forward_process("VSCLD" if k == 2 else "VSDM", (1,), beta=2 * clock, variational_score="steered")
    process = process.with_moments(torch.zeros(1), torch.full((1,), STD**2))
    times = torch.linspace(1e-4, 1, 2_001, dtype=torch.float64)
    assert isinstance(process.dynamics, Steering)
    law = process.covariance(process.kernel(times), torch.full((1,), STD**2, dtype=torch.float64))
    row = process.dynamics.cost_to_go(times)[-1]
    power = torch.stack([row[i] * law[i][j] * row[j] for i in range(k) for j in range(k)]).sum(0)
    noise = 2 * process.gamma if k == 2 else 2.0
    return float(torch.trapezoid(0.5 * noise * power[:, 0], process.schedule.clock(times)))


def test_bad_sizes() -> None:
    chain = sb.Chain(k=2, dim=1, clock=1.0, steps=2)
    with pytest.raises(ValueError, match="stages=0"):
        sb.train(chain, gaussian, (torch.zeros(1), torch.ones(1)), stages=0)
