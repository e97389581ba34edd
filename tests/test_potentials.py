"""vsmd.potentials against steering, quadrature, and draws of the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vsmd import kernels
from vsmd.family import forward_process
from vsmd.kernels import Kernel
from vsmd.potentials import Potential, lifted
from vsmd.processes import ForwardProcess
from vsmd.steering import Steering

CASES = [("VSCLD", None), ("VSULD", 0.5), ("VSDM", None)]
DOUBLE = torch.float64


def reference(k: int, tau: float, friction: float = 0.8) -> Kernel:
    tau_, one = torch.tensor(tau, dtype=DOUBLE), torch.ones((), dtype=DOUBLE)
    return kernels.overdamped(tau_, one) if k == 1 else kernels.momentum(tau_, one, friction * one, 2.0)


def some_potential(k: int, d: int, full: bool, components: int = 3) -> Potential:
    """Random components, one of them indefinite but integrable."""
    stream = torch.Generator().manual_seed(k + 10 * d + 100 * full)
    blocks, size = (1, k * d) if full else (d, k)
    root = torch.randn(components, blocks, size, size, generator=stream, dtype=DOUBLE) / size**0.5
    precision = root @ root.mT - 0.1 * torch.eye(size, dtype=DOUBLE)
    means = torch.randn(components, blocks, size, generator=stream, dtype=DOUBLE)
    linear, weights = times(precision, means), torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE)[:components]
    return Potential(weights.log() - 0.5 * (linear * means).flatten(1).sum(1), linear, precision)


def times(m: Tensor, y: Tensor) -> Tensor:
    return (m @ y[..., None])[..., 0]


def controlled(phi: Potential, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """Of a_s given a_t under the potential phi_s: N(mean y + offset, noise) for each component, y in blocks."""
    mean, noise = (lifted(m, phi.linear.shape[-1]) for m in kernel)
    cov = torch.linalg.solve(torch.eye(len(mean), dtype=DOUBLE) + noise @ phi.precision, noise)
    return cov @ torch.linalg.solve(noise, mean), times(cov, phi.linear), (cov + cov.mT) / 2


# --- one component is steering ---------------------------------------------------------------------------------------


def steered(method: str, damping: float | None) -> tuple[ForwardProcess, Steering, Potential]:
    process = forward_process(method, (4,), beta=2.0, damping=damping, variational_score="steered")
    std = torch.tensor([0.1, 1.0, 3.0, 18.7], dtype=DOUBLE)
    process = process.with_moments(torch.zeros(4), std.square())
    assert isinstance(process.dynamics, Steering)
    gain = kernels.stacked(process.dynamics.gain)[None]
    potential = Potential(torch.zeros(1, dtype=DOUBLE), torch.zeros(*gain.shape[:3], dtype=DOUBLE), gain)
    return process, process.dynamics, potential


@pytest.mark.parametrize(("method", "damping"), CASES)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.95])
def test_one_component_is_steering(method: str, damping: float | None, t: float) -> None:
    """P_1 = Pi_T: Pi(t), the control and the kernel from 0, each within 1e-10."""
    process, dynamics, end = steered(method, damping)
    left = float(process.schedule.clock(torch.tensor(1.0)) * (1 - t))
    friction = 1.0 if damping is None else damping**0.5
    phi = end.earlier(reference(process.k, left, friction))
    now = torch.tensor([t], dtype=DOUBLE)
    want = kernels.stacked(dynamics.cost_to_go(now))[0]
    torch.testing.assert_close(phi.precision[0], want, rtol=1e-10, atol=1e-10)
    a = torch.randn(5, process.k, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.testing.assert_close(phi.pull(a), -(want[:, -1] * a.mT).sum(-1), rtol=1e-10, atol=1e-10)
    if t:
        mean, offset, noise = controlled(phi, reference(process.k, float(process.schedule.clock(now)), friction))
        kernel = dynamics.kernel(now)
        torch.testing.assert_close(mean[0], kernels.stacked(kernel.mean)[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(noise[0], kernels.stacked(kernel.noise)[0], rtol=1e-10, atol=1e-10)
        assert float(offset.abs().max()) == 0.0


# --- phi_t -----------------------------------------------------------------------------------------------------------


def naive(potential: Potential, a: Tensor) -> Tensor:
    """phi at states a (n, k, d) term by term."""
    y = a.mT.reshape(len(a), *potential.linear.shape[1:])
    total = torch.zeros(len(a), dtype=DOUBLE)
    for c, b, p in zip(*potential):
        total += (c + (b * y).flatten(1).sum(1) - 0.5 * torch.einsum("nbi,bij,nbj->n", y, p, y)).exp()
    return total


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 2), (2, 1)])
def test_earlier_against_quadrature(k: int, d: int, full: bool) -> None:
    """phi_t(a) = E phi_T(Phi a + N^{1/2} xi) by Gauss–Hermite in every number."""
    potential, kernel = some_potential(k, d, full), reference(k, 0.6)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    grid = torch.cartesian_prod(*[torch.from_numpy(nodes)] * (k * d)).view(-1, k, d)
    weight = torch.cartesian_prod(*[torch.from_numpy(weights / weights.sum())] * (k * d)).view(-1, k * d).prod(1)
    phi, lower = kernels.stacked(kernel.mean), torch.linalg.cholesky(kernels.stacked(kernel.noise))
    a = torch.randn(6, k, d, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    earlier = potential.earlier(kernel)
    for row in a:
        want = (weight * naive(potential, phi @ row + lower @ grid)).sum()
        assert float(earlier.log(row[None])) == pytest.approx(math.log(want), abs=1e-9)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_earlier_composes_and_derivatives(k: int, full: bool) -> None:
    """Two steps are one; `pull` and its divergence are derivatives of `log`."""
    potential = some_potential(k, 3, full)
    once, twice = potential.earlier(reference(k, 0.9)), potential.earlier(reference(k, 0.5)).earlier(reference(k, 0.4))
    a = torch.randn(7, k, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE, requires_grad=True)
    torch.testing.assert_close(once.log(a), twice.log(a), rtol=1e-11, atol=1e-11)
    (gradient,) = torch.autograd.grad(once.log(a).sum(), a, create_graph=True)
    torch.testing.assert_close(once.pull(a), gradient[:, -1], rtol=1e-11, atol=1e-11)
    trace = sum(torch.autograd.grad(gradient[:, -1, i].sum(), a, retain_graph=True)[0][:, -1, i] for i in range(3))
    torch.testing.assert_close(once.pull_divergence(a), trace, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(naive(once, a).log(), once.log(a), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_controlled_law(k: int, full: bool) -> None:
    """p(a_s | a_t) phi_s(a_s)/phi_t(a_t) at points, from the components picked by their share."""
    d, middle = 2, some_potential(k, 2, full)
    kernel = reference(k, 0.7)
    start = middle.earlier(kernel)
    (mean, offset, cov), stream = controlled(middle, kernel), torch.Generator().manual_seed(3)
    a, b = (torch.randn(5, k, d, generator=stream, dtype=DOUBLE) for _ in range(2))
    phi, noise = kernels.stacked(kernel.mean), kernels.stacked(kernel.noise)
    plain = torch.distributions.MultivariateNormal((phi @ a).mT, noise).log_prob(b.mT).sum(1)
    want = plain + middle.log(b) - start.log(a)
    y, later = start.blocks(a), start.blocks(b)
    centre = torch.einsum("mbij,nbj->nmbi", mean, y) + offset
    each = torch.distributions.MultivariateNormal(centre, cov).log_prob(later[:, None]).sum(2)
    got = (start.terms(y).log_softmax(1) + each).logsumexp(1)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
