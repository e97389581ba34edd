"""vsmd.samplers.exponential: exact on Gaussian data, tables against ODEs of our own, order 2, divergence said."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Array
from test_solvers import METHODS, T_MIN, Counting, Exact, gaussian, order, pushed, solver_for
from torch import Tensor, nn

from vsmd.family import forward_process
from vsmd.processes import ForwardProcess
from vsmd.samplers import Solver, integrate, make_solver, time_grid
from vsmd.samplers.base import no_noise
from vsmd.samplers.exponential import NODES, Quadrature, Tables, tables
from vsmd.schedules import BetaSchedule
from vsmd.scores import Score

NAMES = ("exponential", "exponential-1")
STDS = (0.02, 1.0, 30.0)


def several(kind: str, stds: tuple[float, ...] = STDS) -> ForwardProcess:
    """A process of one direction for each standard deviation."""
    shape, beta = (len(stds),), BetaSchedule(1.0, 9.0)
    made = {
        "SGM": lambda: forward_process("SGM", shape, beta=BetaSchedule(0.1, 20.0)),
        "CLD": lambda: forward_process("CLD", shape, beta=beta),
        "pieces": lambda: forward_process("VSULD", shape, beta=beta).with_stiffness(
            torch.tensor([1.0, 6.0, 0.3, 2.0, 12.0])[:, None].expand(5, *shape)
        ),
        "pieces, overdamped": lambda: forward_process("VSDM", shape, beta=beta).with_stiffness(
            torch.tensor([1.0, 3.0, -0.5])[:, None].expand(3, *shape)
        ),
        "steered": lambda: forward_process("VSCLD", shape, beta=2.0, variational_score="steered"),
        "steered, overdamped": lambda: forward_process("VSDM", shape, beta=2.0, variational_score="steered"),
    }[kind]()
    return made.with_moments(torch.zeros(shape), torch.tensor(stds, dtype=torch.float64).square())


KINDS = ("SGM", "CLD", "pieces", "pieces, overdamped", "steered", "steered, overdamped")


def integrated(process: ForwardProcess, high: float, low: float, knee: float) -> tuple[Array, Array, Array]:
    """Psi, held and slope of one step by an ODE in log t (RK4): G from the drift and the score, not from the laws.

    knee: the time before, from which slope extrapolates.
    """
    k, d, parts = process.k, process.dim, 1000
    y = np.zeros((d, k, k + 2))  # columns: Psi, then the answers to net = 1 and to net = (t - high)/(high - knee)
    y[:, :, :k] = np.eye(k)
    knots = [j / process.pieces for j in range(process.pieces - 1, 0, -1) if low < j / process.pieces < high]
    for a, b in itertools.pairwise([high, *knots, low]):
        t = torch.linspace(math.log(a), math.log(b), 2 * parts + 1, dtype=torch.float64).exp()
        at = process.coefficients(t, torch.float64, within=torch.full_like(t, (a + b) / 2))
        g = torch.zeros(len(t), d, k, k, dtype=torch.float64)
        g[..., -1, :] = torch.stack([(r + 0.5 * at.noise * e).expand(-1, d) for r, e in zip(at.row, at.gain)], -1)
        if k == 2:
            g[..., 0, 1] = -0.5 * at.beta
        force = torch.zeros(len(t), d, k, k + 2, dtype=torch.float64)
        force[..., -1, k] = 0.5 * at.noise * at.out
        force[..., -1, k + 1] = force[..., -1, k] * ((t - high) / (high - knee))[:, None]
        step = t[:, None, None, None] * math.log(a / b) / parts  # dr over a sub-step
        m, f = ((step * v).numpy() for v in (g, force))
        for i in range(0, 2 * parts, 2):
            k1 = m[i] @ y + f[i]
            k2 = m[i + 1] @ (y + k1 / 2) + f[i + 1]
            k3 = m[i + 1] @ (y + k2 / 2) + f[i + 1]
            y = y + (k1 + 2 * k2 + 2 * k3 + m[i + 2] @ (y + k3) + f[i + 2]) / 6
    return y[:, :, :k], y[:, :, k], y[:, :, k + 1]


def entries(made: Tables, i: int) -> tuple[Array, Array, Array]:
    """Psi (d, k, k), held and slope (d, k) of step i."""
    flow = torch.stack([torch.stack([e[i] for e in row], -1) for row in made.flow], -2)
    held, slope = (torch.stack([e[i] for e in row], -1).numpy() for row in (made.held, made.slope))
    return flow.numpy(), held, slope


class Wavy(nn.Module):
    """A smooth output that is no multiple of z."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return 0.4 * torch.sin(2 * z) * torch.cos(log_snr / 2)


class Wild(nn.Module):
    """Worse than none: it drives z away."""

    def __init__(self, strength: float = 4.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return self.strength * z


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tables_against_an_ode(kind: str) -> None:
    """Three uneven steps, directions of very unequal width; the knots of A lie inside the steps."""
    process, times = several(kind), torch.tensor([1.0, 0.7, 0.15, 0.02], dtype=torch.float64)
    made = tables(process, times)
    for i, (high, low) in enumerate(itertools.pairwise(times.tolist())):
        want = integrated(process, high, low, float(times[i - 1]) if i else math.inf)
        for got, exact in zip(entries(made, i), want):
            scale = np.abs(exact).max(tuple(range(1, exact.ndim)), keepdims=True)
            assert (np.abs(got - exact) <= 3e-8 * scale).all()


@pytest.mark.parametrize("kind", ["CLD", "steered", "steered, overdamped"])
def test_tables_do_not_depend_on_the_steps(kind: str) -> None:
    """Standard deviations from 1e-3 to 1e3: one long step is the product of forty short ones."""
    process = several(kind, (1e-3, 1e-2, 1.0, 1e2, 1e3))
    (one, held, _), k = entries(tables(process, time_grid(1)), 0), process.k
    short = tables(process, time_grid(40, power=3.0))
    flow, answer = np.broadcast_to(np.eye(k), one.shape), np.zeros_like(held)
    for i in range(40):
        psi, push, _ = entries(short, i)
        flow, answer = psi @ flow, (psi @ answer[..., None])[..., 0] + push
    for got, want in ((flow, one), (answer, held)):
        scale = np.abs(want).reshape(5, -1).max(1).reshape(5, *[1] * (want.ndim - 1))
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-7)


def test_panels_tile_the_steps() -> None:
    """They end at the grid's nodes and at the knots, and integrate powers of t over each step."""
    times = time_grid(6, 1e-3, 2.0)
    panels = Quadrature(times, 4, (1,))
    t = panels.t.view(-1, len(NODES), 1)
    assert bool((panels.t.diff() < 0).all())
    for power in (-0.5, 0.0, 1.0, 3.0):
        want = -(times ** (power + 1)).diff() / (power + 1)
        torch.testing.assert_close(panels.total(t**power)[:, 0], want, rtol=1e-9, atol=0)
        remaining, total = panels.remaining(t**power)
        torch.testing.assert_close(total[:, 0], want, rtol=1e-9, atol=0)
        end = times[1:][panels.step][:, None]
        exact = (t[..., 0] ** (power + 1) - end ** (power + 1)) / (power + 1)
        torch.testing.assert_close(remaining[..., 0], exact, rtol=1e-6, atol=1e-10)
    for knot in (0.25, 0.5, 0.75):
        above = t[..., 0] > knot
        assert bool((above.all(1) | ~above.any(1)).all())


# --- the solvers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [5.0, BetaSchedule(0.1, 20.0)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_gaussian_data_in_any_number_of_steps(name: str, method: str, beta: Any) -> None:
    process = gaussian(method, beta)
    flow = Exact(process).flow()
    for steps in (1, 2, 7):
        np.testing.assert_allclose(pushed(solver_for(name, process, steps)), flow, atol=1e-6 * np.abs(flow).max())


@pytest.mark.parametrize("kind", KINDS)
def test_order_with_a_nonlinear_network(kind: str) -> None:
    """Against the flow itself (rk45), which reads the drift where the tables read the laws; knots anywhere in steps."""
    process = several(kind, (0.5, 1.0, 3.0))
    score, stream = Score(process, Wavy()), torch.Generator().manual_seed(0)
    start = dataclasses.replace(process, prior="moments").prior_law().sample(16, stream).double()
    knots = torch.tensor([1.0, *(j / process.pieces for j in range(process.pieces - 1, 0, -1)), T_MIN])
    want = integrate(make_solver("rk45", score, knots.double(), rtol=1e-7, atol=1e-8), start)
    for name, expected in zip(NAMES, (2, 1)):
        ends = [integrate(make_solver(name, score, time_grid(n, T_MIN, 2.0)), start) for n in (40, 80, 160)]
        errors = [float((end - want).abs().max()) for end in ends]
        assert errors[-1] > 1e-5
        assert order(errors) == pytest.approx(expected, abs=0.2)


def test_full_matrix() -> None:
    """Directions are columns of a basis; the solver works in them."""
    basis = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    process = forward_process("CLD", (2,), basis=basis).with_moments(torch.zeros(2), torch.tensor([9.0, 1.0]))
    start = torch.eye(4, dtype=torch.float64).view(4, 2, 2)
    score = Score(process, Counting())
    exact = make_solver("rk45", score, time_grid(1, T_MIN), rtol=1e-9, atol=1e-9)
    ends = [integrate(solver, start) for solver in (make_solver("exponential", score, time_grid(3, T_MIN)), exact)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_a_direction_that_does_not_vary() -> None:
    """It is left at its mean."""
    process = several("CLD", (0.0, 2.0))
    start = process.prior_law().sample(50, torch.Generator().manual_seed(0))
    end = integrate(make_solver("exponential", Score(process, Wavy()), time_grid(10)), start)
    assert float(end[:, 0, 0].abs().max()) < 0.02 < 0.2 < float(end[:, 0, 1].std())


@pytest.mark.parametrize("name", NAMES)
def test_a_solver_starts_afresh(name: str) -> None:
    """Nothing of one trajectory reaches the next, of another batch size."""
    process = several("CLD")
    solver = make_solver(name, Score(process, Wavy()), time_grid(5))
    start = process.prior_law().sample(8, torch.Generator().manual_seed(0))
    integrate(solver, start[:3])
    again, alone = integrate(solver, start), integrate(make_solver(name, Score(process, Wavy()), time_grid(5)), start)
    assert torch.equal(again, alone)


def test_orders_differ_from_the_second_step_on() -> None:
    process = several("CLD")
    two, one = (make_solver(name, Score(process, Wavy()), time_grid(4)) for name in NAMES)
    start = process.prior_law().sample(8, torch.Generator().manual_seed(0))
    first = [solver.step(start, 0, no_noise) for solver in (two, one)]
    assert torch.equal(*first)
    assert not torch.equal(*(solver.step(first[0], 1, no_noise) for solver in (two, one)))


# --- divergence -------------------------------------------------------------------------------------------------------


def diverging(network: nn.Module, name: str = "exponential", **options: Any) -> tuple[Solver, Tensor]:
    process = several("CLD")
    start = process.prior_law().sample(400, torch.Generator().manual_seed(0))
    return make_solver(name, Score(process, network), time_grid(20), **options), start


@pytest.mark.parametrize("name", NAMES)
def test_divergence_is_said(name: str) -> None:
    solver, start = diverging(Wild(), name)
    said = (
        r"at t = [\d.e-]+ of steps=20 the samples are [\d.]+ times as wide as the process's own law: "
        "the network is worse than none"
    )
    with pytest.raises(FloatingPointError, match=rf"^{name}: {said}; train it longer or use solver='heun'$"):
        integrate(solver, start)


@pytest.mark.parametrize("strength", [math.nan, 1e38])
def test_divergence_beyond_all_numbers(strength: float) -> None:
    solver, start = diverging(Wild(strength))
    with pytest.raises(
        FloatingPointError, match=r"^exponential: at t = 0.95 of steps=20 the samples are not finite: the network"
    ):
        integrate(solver, start)


def test_a_wide_state_is_no_divergence_in_itself() -> None:
    """A single far draw, or the law of one context, may be wider than the law of all; a large batch may not."""
    solver, start = diverging(nn.Identity())
    given, _ = diverging(nn.Identity(), context=torch.zeros(400, 1))
    for width, fine in ((4.0, (solver, given)), (9.0, (given,)), (30.0, ())):
        wide = start * (width / solver_width(solver, start))
        for each in (solver, given):
            if each in fine:
                each.check(wide, 0)  # type: ignore[attr-defined]
            else:
                with pytest.raises(FloatingPointError, match=r"times as wide"):
                    each.check(wide, 0)  # type: ignore[attr-defined]
    solver.check(start[:1] * (9 / solver_width(solver, start[:1])), 0)  # type: ignore[attr-defined]


def solver_width(solver: Solver, a: Tensor) -> float:
    """Root mean square of z at t = 1."""
    inp = solver.table.inp
    return float((inp[0][0] * a[:, 0] + inp[1][0] * a[:, 1]).square().mean().sqrt())


def test_laws_that_are_not_finite_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not the network's fault."""
    process = several("CLD")
    kernel = ForwardProcess.kernel
    monkeypatch.setattr(ForwardProcess, "kernel", lambda self, t: kernel(self, t).map(lambda e: e * math.nan))
    with pytest.raises(
        FloatingPointError, match=r"^exponential: the CLD process's own laws are not finite on this grid$"
    ):
        tables(process, time_grid(3))
