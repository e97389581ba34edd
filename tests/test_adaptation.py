"""vsmd.adaptation: the loss (13) minimised exactly, its fixed points, iterative proportional fitting, never NaN."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Array, kernel_np
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import Tensor, nn

from vsmd import Adaptation, forward_process
from vsmd.adaptation import PathMoments, gradient, least_stiffness, minimiser, policy_moments, update
from vsmd.processes import ForwardProcess
from vsmd.scores import Score
from vsmd.training.adapting import backward_moments

T_MIN = 1e-3
EXACT = Adaptation(max_prior_kl=None, eta=1.0, alpha=0.0)  # the bare iteration: no projection, steps of one


def double(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def step(process: ForwardProcess, m: PathMoments, how: Adaptation, k: int = 0) -> ForwardProcess:
    return update(process, m, how, k, least_stiffness(process, how))


# --- one loss ---------------------------------------------------------------------------------------------------------


class Loss:
    """J of (13) for draws (x, v, s) of one direction, computed from its definition."""

    def __init__(self, process: ForwardProcess, how: Adaptation, seed: int) -> None:
        rng = np.random.default_rng(seed)
        mix = rng.normal(size=(3, 3))
        x, v, s = mix @ rng.normal(size=(3, 40))
        self.x, self.v, self.w, self.how, self.process = x, v, float(rng.uniform(0.5, 9)), how, process
        a_x, a_v = float(process.a_x), 0.0 if process.a_v is None else float(process.a_v)
        self.z = s if how.policy == "score" else s - a_x * x - a_v * v
        left_right = {"xx": (x, x), "sx": (s, x), "xv": (x, v), "vv": (v, v), "sv": (s, v)}
        self.moments = PathMoments(
            double([[self.w]]), **{name: double([[self.w * (p * q).mean()]]) for name, (p, q) in left_right.items()}
        )

    def __call__(self, a_x: float, a_v: float | None = None) -> float:
        policy = a_x * self.x if a_v is None else a_x * self.x + a_v * self.v
        trace = a_x if a_v is None else a_v
        return self.w * float((0.5 * policy**2 + trace + self.how.interaction * policy * self.z).mean())

    def tied(self, q: float) -> float:
        """J along the damping transform, q = sqrt s."""
        assert self.process.damping is not None
        g = self.process.gamma
        return self((1 - q * q) / (2 * g), 0.5 - math.sqrt(self.process.damping) / g * q)


def start(method: str = "VSULD", stiffness: float = 1.7) -> ForwardProcess:
    process = forward_process(method, (1,), gamma=1.6).with_moments(torch.zeros(1), torch.ones(1))
    return process.with_stiffness(double([[stiffness]]))


@pytest.mark.parametrize("policy", ["duality", "score"])
@pytest.mark.parametrize("interaction", [1.0, 0.4])
@pytest.mark.parametrize("seed", range(6))
def test_tied_minimiser_by_brute_force(policy: str, interaction: float, seed: int) -> None:
    process, how = start(), dataclasses.replace(EXACT, policy=policy, interaction=interaction)
    loss = Loss(process, how, seed)
    grid = np.linspace(1e-6, 60, 60_001)
    values = np.array([loss.tied(q) for q in grid[::60]])
    near = grid[::60][values.argmin()]
    best = minimize_scalar(
        loss.tied, bounds=(max(1e-9, near - 0.07), near + 0.07), method="bounded", options={"xatol": 1e-11}
    )
    a_x, a_v = minimiser(process, loss.moments, how)
    q = math.sqrt(1 - 2 * process.gamma * float(a_x))
    assert a_v is not None
    assert loss.tied(q) == pytest.approx(loss(float(a_x), float(a_v)), rel=1e-9)  # (14) holds
    if values.argmin() == 0:
        pytest.skip("the infimum is at q = 0: there is no minimiser")
    assert q == pytest.approx(best.x, rel=1e-5)


@pytest.mark.parametrize("policy", ["duality", "score"])
@pytest.mark.parametrize("seed", range(4))
def test_untied_minimiser_by_brute_force(policy: str, seed: int) -> None:
    process, how = start(), dataclasses.replace(EXACT, policy=policy, tied=False)
    loss = Loss(process, how, seed)
    best = minimize(lambda a: loss(*a), [0.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    got = minimiser(process, loss.moments, how)
    np.testing.assert_allclose([float(a) for a in got if a is not None], best.x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["duality", "score"])
def test_overdamped_minimiser_by_brute_force(policy: str) -> None:
    process, how = start("VSDM"), dataclasses.replace(EXACT, policy=policy)
    loss = Loss(process, how, 0)
    a, none = minimiser(process, loss.moments, how)
    assert none is None
    assert float(a) == pytest.approx(minimize_scalar(loss, options={"xtol": 1e-12}).x, rel=1e-6)


@pytest.mark.parametrize("policy", ["duality", "score"])
@pytest.mark.parametrize("method", ["VSULD", "VSDM"])
def test_gradient_by_finite_differences(method: str, policy: str) -> None:
    """Per unit of weight, at the process's own A; with duality E[s_v x] and 1 + E[s_v v], E[s_v x] + 1 overdamped."""
    process, how = start(method), dataclasses.replace(EXACT, policy=policy, interaction=0.7)
    loss, h = Loss(process, how, 1), 1e-5
    here = [float(a) for a in (process.a_x, process.a_v) if a is not None]
    got = gradient(process, loss.moments, how)
    for i in range(len(here)):
        up, down = ([a + sign * h * (j == i) for j, a in enumerate(here)] for sign in (1, -1))
        assert float(got[i]) == pytest.approx((loss(*up) - loss(*down)) / (2 * h) / loss.w, rel=1e-7, abs=1e-9)
    duality = dataclasses.replace(EXACT, policy="duality")
    loss = Loss(process, duality, 1)
    m, got = loss.moments, gradient(process, loss.moments, duality)
    if process.k == 2:
        assert float(got[0]) == pytest.approx(float(m.sx) / loss.w, rel=1e-9)
        assert float(got[1]) == pytest.approx(1 + float(m.sv) / loss.w, rel=1e-9)
    else:
        assert float(got[0]) == pytest.approx(1 + float(m.sx) / loss.w, rel=1e-9)


@pytest.mark.parametrize("free", ["A_x", "A_v"])
def test_gradient_step_moves_the_free_parameter(free: str) -> None:
    """A <- A - eta dJ/dA along (14), for the parameter named; the other follows."""
    process, how = start(), Adaptation(max_prior_kl=None, rule="gradient", free=free, eta=1e-3, alpha=0.7)
    loss, k, h = Loss(process, how, 2), 3, 1e-5
    after = step(process, loss.moments, how, k)
    assert process.damping is not None
    g, r = process.gamma, math.sqrt(process.damping) / process.gamma
    assert process.a_v is not None
    assert after.a_v is not None
    if free == "A_x":
        q_of, before, now = (lambda a: math.sqrt(1 - 2 * g * a)), float(process.a_x), float(after.a_x)
    else:
        q_of, before, now = (lambda a: (0.5 - a) / r), float(process.a_v), float(after.a_v)
    slope = (loss.tied(q_of(before + h)) - loss.tied(q_of(before - h))) / (2 * h) / loss.w
    assert now - before == pytest.approx(-1e-3 / 4**0.7 * slope, rel=1e-5)
    assert float(after.friction) == pytest.approx(2 * r * math.sqrt(float(after.stiffness)), rel=1e-10)


def test_policies() -> None:
    """z = s - A a or z = s."""
    process = start()
    m = Loss(process, EXACT, 3).moments
    assert policy_moments(process, m, "score") == (m.sx, m.sv)
    assert process.a_v is not None
    zx, zv = policy_moments(process, m, "duality")
    torch.testing.assert_close(zx, m.sx - process.a_x * m.xx - process.a_v * m.xv)
    torch.testing.assert_close(zv, m.sv - process.a_x * m.xv - process.a_v * m.vv)


@pytest.mark.parametrize("eta", [0.3, 5.0])
def test_minimiser_step(eta: float) -> None:
    """A moves the share eta_k = min(1, eta/(1 + k)^alpha) of the way to the minimiser."""
    process, how = start("VSDM"), Adaptation(max_prior_kl=None, eta=eta, alpha=0.6)
    m = Loss(process, how, 1).moments
    target = minimiser(process, m, how)[0]
    for k in (0, 7):
        share = min(1.0, eta / (1 + k) ** 0.6)
        assert how.step_size(k) == pytest.approx(share)
        after = step(process, m, how, k).a_x
        torch.testing.assert_close(after, process.a_x + share * (target - process.a_x))


def test_directions_and_pieces_are_independent() -> None:
    """A batch of losses at once is each of them alone."""
    losses = [Loss(start(stiffness=s), EXACT, seed) for seed, s in enumerate((0.5, 1.0, 2.0, 6.0))]
    process = forward_process("VSULD", (2,), gamma=1.6).with_moments(torch.zeros(2), torch.ones(2))
    process = process.with_stiffness(double([[0.5, 1.0], [2.0, 6.0]]))
    m = PathMoments(*(torch.cat([getattr(loss.moments, f) for loss in losses]).view(2, 2) for f in PathMoments._fields))
    a_x, _ = minimiser(process, m, EXACT)
    alone = [float(minimiser(loss.process, loss.moments, EXACT)[0]) for loss in losses]
    np.testing.assert_allclose(a_x.flatten().numpy(), alone, rtol=1e-9)


# --- fixed points -----------------------------------------------------------------------------------------------------


def exact_moments(process: ForwardProcess, nodes: int = 100) -> PathMoments:
    """PathMoments of the backward SDE from the fixed target with the exact score of Gaussian data: moment ODEs, RK4."""
    pieces, g = process.pieces, process.gamma
    per, v = max(2, nodes // pieces), process.reference_variance()
    y, sums = np.array([v, 0, v, 0, 0, 0, 0, 0]), np.zeros((6, pieces))
    for j in reversed(range(pieces)):
        high, low = (j + 1) / pieces, max(j / pieces, T_MIN)
        at = process.coefficients(torch.linspace(high, low, 2 * per + 1, dtype=torch.float64), dtype=torch.float64)
        g0, g1 = (e[:, 0].numpy() for e in at.gain)
        beta, h = at.beta.flatten().numpy(), (high - low) / per
        s, c = float(process.stiffness[j]), float(process.friction[j])

        def rates(
            y: Array, i: int, g0: Array = g0, g1: Array = g1, beta: Array = beta, s: float = s, c: float = c
        ) -> Array:
            xx, xv, vv, b, w = *y[:3], beta[i], beta[i] * g
            r0, r1 = b / 2 * s + w * g0[i], b / 2 * g * c + w * g1[i]
            law = [-b * xv, -b / 2 * vv + r0 * xx + r1 * xv, 2 * (r0 * xv + r1 * vv) + w]
            return np.array(
                [*law, w * xx, w * (g0[i] * xx + g1[i] * xv), w * xv, w * vv, w * (g0[i] * xv + g1[i] * vv)]
            )

        y[3:] = 0
        for i in range(0, 2 * per, 2):
            k1 = rates(y, i)
            k2 = rates(y + h / 2 * k1, i + 1)
            k3 = rates(y + h / 2 * k2, i + 1)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + rates(y + h * k3, i + 2))
        sums[1:, j] = y[3:]
        sums[0, j] = 2 * g * (process.schedule.clock(double(high)) - process.schedule.clock(double(low)))
    return PathMoments(*(double(row)[:, None] for row in sums))


def critical(std: float, stiffness: float = 1.0) -> ForwardProcess:
    process = forward_process("VSCLD", (1,), beta=5.0).with_moments(torch.zeros(1), double([std**2]))
    return process.with_stiffness(double([[stiffness]]))


FIXED = [(8.0, "duality", 2.0099), (8.0, "score", 1.2084), (1.0, "duality", 1.0)]


@pytest.mark.parametrize(("std", "policy", "want"), FIXED)
def test_fixed_points(std: float, policy: str, want: float) -> None:
    """gamma = 2, beta = 5, R = 1, start N(0, I), A_x free: where the gradient along (14) vanishes."""
    how = dataclasses.replace(EXACT, policy=policy)

    def along(s: float) -> float:
        process = critical(std, s)
        g_x, g_v = gradient(process, exact_moments(process), how)
        return float(g_x + g_v / math.sqrt(s))

    assert brentq(along, 0.7, 4.0, xtol=1e-6) == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("policy", "rule", "free", "eta", "rounds"),
    [
        ("duality", "minimiser", "A_x", 1.0, 45),
        ("duality", "gradient", "A_x", 1.0, 12),
        ("duality", "gradient", "A_v", 0.5, 12),
        ("score", "minimiser", "A_x", 1.0, 8),
        ("score", "gradient", "A_x", 0.2, 12),
    ],
)
def test_updates_converge(policy: str, rule: str, free: str, eta: float, rounds: int) -> None:
    """With exact moments every rule ends in the fixed point of its policy; z = s_theta pulls A to 0."""
    how = dataclasses.replace(EXACT, policy=policy, rule=rule, free=free, eta=eta)
    process = critical(8.0, 1.5 if policy == "duality" else 1.0)
    for k in range(rounds):
        process = step(process, exact_moments(process, 60), how, k)
    assert float(process.stiffness) == pytest.approx(2.0099 if policy == "duality" else 1.2084, rel=2e-3)


class Zero(nn.Module):
    """The exact score of Gaussian data."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


@pytest.mark.parametrize(("std", "stiffness"), [(8.0, 2.0), (1.0, 2.0), (1.0, 0.5)])
def test_simulated_moments(std: float, stiffness: float) -> None:
    """20,000 backward paths measure what the moment equations say, three standard errors (1 % each) and a bit."""
    process = critical(std, stiffness)
    exact = exact_moments(process)
    got = backward_moments(Score(process, Zero()), Adaptation(paths=20_000, nodes=60), seed=0, step=0)
    assert float(got.weight) == pytest.approx(float(exact.weight), rel=1e-9)
    for one, two in zip(got[1:], exact[1:], strict=True):
        assert float(one / got.weight) == pytest.approx(float(two / exact.weight), rel=0.03, abs=0.03)


def test_starts_of_the_simulation() -> None:
    """In the piece next to t = 1: the fixed target or N(0, Sigma_{1|0}), whatever prior generation uses."""
    for prior in ("gaussian", "moments"):
        process = forward_process("VSULD", (1,), beta=1.0, prior=prior).with_moments(torch.zeros(1), double([400.0]))
        for start, want in (
            ("target", process.reference_variance()),
            ("terminal", float(process.terminal(0.0)[1][0][0])),
        ):
            how = Adaptation(start=start, paths=20_000, nodes=400, pieces=200)
            m = backward_moments(Score(process, Zero()), how, seed=0, step=0)
            assert float(m.xx[-1] / m.weight[-1]) == pytest.approx(want, rel=0.1), (prior, start)


def steered(process: ForwardProcess, std: float, t: Array) -> tuple[Array, Array]:
    """Stiffness and friction of the optimal control at times t: the Schrodinger bridge between the Gaussians.

    Covariance steering (Chen, Georgiou, Pavon 2016): A_t = A_ref - v-row of Pi(t), in the textbook form.
    """
    gamma, beta = process.gamma, process.schedule.b_min
    assert process.damping is not None
    c = 2 / gamma * math.sqrt(process.damping)
    m, q = np.array([[0, 1], [-1, -gamma * c]]), np.diag([0, 2 * gamma])
    f, n = kernel_np(m, q, beta / 2)
    w = np.linalg.inv(np.linalg.cholesky(n))
    target = w @ np.linalg.cholesky(process.reference_variance() * np.eye(2))
    b = w @ f @ np.diag([std, 1.0])
    u, sigma, _ = np.linalg.svd(target.T @ b)
    middle = u @ np.diag(1 / (0.5 + np.sqrt(0.25 + sigma**2))) @ u.T
    pi_end = w.T @ (np.linalg.inv(target @ middle @ target.T) - np.eye(2)) @ w
    rows = []
    for time in t:
        f, n = kernel_np(m, q, beta / 2 * (1 - time))
        rows.append((f.T @ np.linalg.solve(np.eye(2) + pi_end @ n, pi_end) @ f)[1])
    row = np.array(rows)
    return 1 + 2 * gamma * row[:, 0], c + 2 * row[:, 1]


@pytest.mark.parametrize(("std", "method"), [(3.0, "VSULD"), (0.3, "VSCLD")])
def test_untied_iteration_is_proportional_fitting(std: float, method: str) -> None:
    """Time-varying untied A, duality, fixed start, exact minimiser: the law at t = 1 converges to the target.

    Geometrically, and A to the optimal control between the two Gaussians, here a piecewise-constant one.
    """
    pieces, var = 20, double([std**2])
    process = forward_process(method, (1,), beta=5.0).with_moments(torch.zeros(1), var)
    assert process.a_v is not None
    process = process.with_variational_score(process.a_x.expand(pieces, 1), process.a_v.expand(pieces, 1))
    how = dataclasses.replace(EXACT, tied=False, pieces=pieces)
    errors = []
    for k in range(8):
        law = np.array([[float(e) for e in row] for row in process.terminal(var)[1]])
        errors.append(np.abs(law / process.reference_variance() - np.eye(2)).max())
        process = step(process, exact_moments(process, 60), how, k)
    assert errors[0] > 0.05
    assert all(late < max(0.4 * early, 1e-5) for early, late in itertools.pairwise(errors))
    assert errors[-1] < 1e-4
    s, c = steered(process, std, (np.arange(pieces) + 0.5) / pieces)
    np.testing.assert_allclose(process.stiffness[:, 0].numpy(), s, atol=0.03 * np.abs(s - 1).max())
    np.testing.assert_allclose(process.friction[:, 0].numpy(), c, atol=0.06 * np.abs(s - 1).max())


# --- the constraint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["VSCLD", "VSULD", "VSDM"])
@pytest.mark.parametrize("std", [0.1, 1.0, 4.0, 18.7])
def test_least_stiffness(method: str, std: float) -> None:
    """From there on, and on any finer grid, the data ends within max_prior_kl of the prior; just below it does not."""
    how = Adaptation(max_prior_kl=2e-3)
    process = forward_process(method, (1,)).with_moments(torch.zeros(1), double([std**2]))
    least = float(least_stiffness(process, how))

    def kl(s: float) -> float:
        return float(process.with_stiffness(double([[s]])).moments_kl(0.0, std**2))

    assert all(kl(s) <= 2.2e-3 for s in np.geomspace(least, 1e3, 200))
    if least > 0.011:
        assert kl(least / 1.03) > 2e-3


def test_the_constraint_can_be_left_out() -> None:
    process = forward_process("VSCLD", (2,)).with_moments(torch.zeros(2), double([1.0, 350.0]))
    free = least_stiffness(process, Adaptation(max_prior_kl=None))
    bound = least_stiffness(process, Adaptation())
    assert float(free.max()) <= 1e-2
    assert float(bound[1]) > 2
    for how, least in ((Adaptation(max_prior_kl=None), free), (Adaptation(), bound)):
        m = PathMoments(*(torch.ones(1, 2, dtype=torch.float64) * v for v in (1.0, 1e-3, -1e3, 0.0, 1.0, 0.0)))
        after = update(process, m, how, 0, least)
        assert bool((after.stiffness >= least * (1 - 1e-9)).all())


# --- never NaN --------------------------------------------------------------------------------------------------------

WILD = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1e-300, 1e300, math.inf, -math.inf, math.nan])


@pytest.fixture(scope="module")
def survivor() -> None:
    """LAPACK may take the whole interpreter with it when it meets a NaN: find out in another one."""
    code = (
        "import torch; from test_adaptation import EXACT, PathMoments, double, start, step\n"
        "for value in (0.0, float('nan'), float('inf')): step(start(), PathMoments(*[double([[value]])] * 6), EXACT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, f"moments that are not finite kill the interpreter: {done.stderr}"


@pytest.mark.usefixtures("survivor")
@pytest.mark.parametrize("method", ["VSULD", "VSDM"])
@given(
    numbers=st.tuples(*[WILD] * 6),
    stiffness=st.floats(1e-3, 1e3),
    rule=st.sampled_from(["minimiser", "gradient"]),
    policy=st.sampled_from(["duality", "score"]),
    free=st.sampled_from(["A_x", "A_v"]),
    eta=st.floats(1e-3, 1e3),
)
def test_always_positive_and_finite(
    method: str, numbers: tuple[float, ...], stiffness: float, rule: str, policy: str, free: str, eta: float
) -> None:
    """Whatever a diverged simulation measures, stiffness and friction stay finite and positive."""
    process = forward_process(method, (1,)).with_moments(torch.zeros(1), torch.ones(1))
    process = process.with_stiffness(double([[stiffness]]))
    how = Adaptation(rule=rule, policy=policy, free=free, eta=eta, max_prior_kl=None)
    after = step(process, PathMoments(*(double([[n]]) for n in numbers)), how)
    values = [after.stiffness] + ([after.friction] if after.k == 2 else [])
    assert all(bool(torch.isfinite(e).all()) and float(e) > 0 for e in values)


@pytest.mark.usefixtures("survivor")
@given(numbers=st.tuples(*[WILD] * 6), rule=st.sampled_from(["minimiser", "gradient"]))
def test_untied_stays_finite(numbers: tuple[float, ...], rule: str) -> None:
    process = forward_process("VSULD", (1,)).with_moments(torch.zeros(1), torch.ones(1))
    how = Adaptation(rule=rule, tied=False)
    after = step(process, PathMoments(*(double([[n]]) for n in numbers)), how)
    assert bool(torch.isfinite(after.stiffness).all())
    assert bool(torch.isfinite(after.friction).all())


@pytest.mark.usefixtures("survivor")
def test_one_bad_direction_leaves_the_others_alone() -> None:
    good = Loss(start(), EXACT, 0)
    process = forward_process("VSULD", (2,), gamma=1.6).with_moments(torch.zeros(2), torch.ones(2))
    process = process.with_stiffness(double([[1.7, 1.7]]))
    m = PathMoments(*(torch.cat([e, torch.full_like(e, math.nan)], 1) for e in good.moments))
    after = step(process, m, EXACT)
    want = step(good.process, good.moments, EXACT)
    torch.testing.assert_close(after.stiffness[:, 0], want.stiffness[:, 0])
    torch.testing.assert_close(after.stiffness[:, 1], process.stiffness[:, 1])


# --- settings ---------------------------------------------------------------------------------------------------------


@given(steps=st.integers(1, 20_000), rounds=st.integers(1, 200))
def test_schedule(steps: int, rounds: int) -> None:
    how = Adaptation(rounds=rounds)
    marks = how.schedule(steps)
    assert marks == sorted(set(marks))
    assert 1 <= len(marks) <= rounds
    assert marks[0] >= 1
    assert marks[-1] <= max(1, math.ceil(how.end * steps))
    if steps >= 20 * rounds:
        assert len(marks) == rounds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "minimizer"}, r"^rule='minimizer': must be one of .*did you mean 'minimiser'"),
        ({"policy": "dual"}, r"^policy='dual': must be one of"),
        ({"start": "N(0, I)"}, r"^start="),
        ({"free": "A"}, r"^free='A'"),
        ({"rounds": 0}, r"^rounds=0: must be an integer >= 1$"),
        ({"pieces": 1.5}, r"^pieces=1.5"),
        ({"paths": -1}, r"^paths=-1"),
        ({"nodes": True}, r"^nodes=True"),
        ({"eta": 0.0}, r"^eta=0.0: must be a finite number > 0$"),
        ({"alpha": 2.0}, r"^alpha=2.0: must be a number between 0 and 1$"),
        ({"begin": 0.8}, r"^begin=0.8, end=0.7: must satisfy 0 <= begin < end <= 1$"),
        ({"max_prior_kl": -1.0}, r"^max_prior_kl=-1.0"),
        ({"tied": "no"}, r"^tied='no': must be True or False$"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptation(**arguments)


@pytest.mark.parametrize("value", [torch.zeros(2), "0", math.nan])
def test_the_ends_are_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^begin=.*: must be a number between 0 and 1$"):
        Adaptation(begin=value)
