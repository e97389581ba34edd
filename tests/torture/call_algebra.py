"""Calls of processes, kernels, steering, potentials, priors and bases: closed forms, a millisecond each."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

import vsmd
from torture import arguments as a
from torture.calls import Call, Kind
from vsmd import couplings, diagnostics, kernels, random
from vsmd.kernels import Kernel
from vsmd.moments import Moments
from vsmd.potentials import Potential
from vsmd.samplers import as_solver, time_grid
from vsmd.steering import Steering
from vsmd.training import Compute

PROCESS: dict[str, Any] = {
    "beta": a.beta, "gamma": st.floats(0.1, 10), "damping": st.sampled_from([None, 0.1, 0.7, 0.99, 1.0]),
    "variational_score": a.score, "prior": a.prior, "basis": a.basis, "score_matching": st.sampled_from(["hybrid",
    "plain"]),
}  # fmt: skip
SHAPE = st.sampled_from(a.SHAPES)


@st.composite
def processes(draw: st.DrawFn, wrong: int = 2) -> Call:
    """`forward_process`, and something asked of what it returns."""
    fields = draw(a.chosen({"method": a.method, "shape": SHAPE, **PROCESS}, ("method", "shape"), wrong))
    shape = fields["shape"]
    std = draw(a.scale)
    ask = draw(
        st.sampled_from(["transition", "prior_kl", "moments_kl", "prior_law", "coefficients", "noise_left", "log_prob"])
    )
    time = draw(a.times | a.odd) if draw(st.integers(0, 9)) == 0 else draw(a.times)
    data = draw(a.points(shape)) if isinstance(shape, tuple) and shape in a.SHAPES else torch.ones(3, 2)
    text = (
        f"p = vsmd.{a.words('forward_process', fields)}; {ask} at t={a.told(time)}, std={std:.3g}, data {a.told(data)}"
    )

    def do() -> Any:
        process = vsmd.forward_process(**fields)
        if ask == "prior_kl":
            return process.prior_kl(data)
        if ask == "moments_kl":
            return process.moments_kl(0.0, std**2)
        known = process.with_moments(torch.zeros(process.shape), torch.full(process.shape, std**2))
        if known.row.variational_score == "mixture" or fields.get("variational_score") == "mixture":
            return None  # asks for a coupling, which `fit` makes
        if ask == "transition":
            law = known.transition(time)
            return symmetric(law.mean, law.cov)
        at = torch.tensor([float(time)]) if isinstance(time, float) and 0 < time <= 1 else torch.tensor([0.5])
        if ask == "coefficients":
            return known.coefficients(at, torch.float64)
        if ask == "noise_left":
            return diagnostics.noise_left(known, float(at)), diagnostics.data_left(known)
        if known.prior not in ("gaussian", "moments"):
            return known.with_prior("moments").prior_law().sample(3, random.generator(0, "x"))
        start = known.prior_law()
        drawn = start.sample(5, random.generator(0, "x"), torch.float64)
        return (drawn, start.log_prob(drawn)) if ask == "log_prob" else drawn

    return Call(text, do)


def symmetric(mean: torch.Tensor, cov: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both; AssertionError for a covariance that is none."""
    size = cov.diagonal(dim1=-2, dim2=-1).abs().amax().clamp(min=1e-300)
    assert torch.allclose(cov, cov.mT, rtol=1e-9, atol=0), "the covariance is not symmetric"
    assert float(torch.linalg.eigvalsh(cov).min() / size) > -1e-9, "the covariance has a negative direction"
    return mean, cov


@st.composite
def semigroups(draw: st.DrawFn) -> Call:
    """Kernels of two steps composed are that of both, for any rates."""
    gamma, two = draw(st.floats(0.2, 6)), st.floats(-6, 1.5).map(lambda e: 10.0**e)
    first, second = draw(two), draw(two)
    s = draw(st.one_of(st.floats(-3, 3), st.floats(-6, 3).map(lambda e: 10.0**e)))
    c = draw(st.one_of(st.floats(-2, 3), st.floats(-4, 1.5).map(lambda e: 10.0**e)))
    velocity = draw(st.booleans())
    growth = max(1.0, math.sqrt(abs(s)) + gamma * abs(c), abs(s) if not velocity else 0.0)
    first, second = min(first, 30 / growth), min(second, 30 / growth)
    text = f"kernels of s={s!r}, c={c!r}, gamma={gamma!r}, velocity={velocity} over {first!r} and {second!r}"

    def kernel(tau: float) -> Kernel:
        t = torch.tensor(tau, dtype=torch.float64)
        rates = torch.tensor(s, dtype=torch.float64), torch.tensor(c, dtype=torch.float64)
        return kernels.momentum(t, *rates, gamma) if velocity else kernels.overdamped(t, rates[0])

    def do() -> Any:
        whole, parts = kernel(first + second), kernels.compose(kernel(first), kernel(second))
        for one, two, what in zip(whole, parts, ("mean", "noise")):
            x, y = kernels.stacked(one), kernels.stacked(two)
            off = float((x - y).abs().max() / y.abs().max().clamp(min=1e-300))
            assert off < 1e-6, f"{what} is off by {off:.2g} of its largest entry"
        symmetric(*map(kernels.stacked, whole))
        return whole

    return Call(text, do)


@st.composite
def steered(draw: st.DrawFn) -> Call:
    """A steered law ends in its target, or beta is refused."""
    friction, gamma = draw(st.sampled_from([None, 0.5, 1.0, 2.0])), draw(st.floats(0.5, 4))
    stds = draw(st.lists(a.scale, min_size=1, max_size=4))
    schedule, time = vsmd.BetaSchedule.of(draw(a.beta)), draw(a.times)
    text = f"Steering(torch.tensor({stds}), {friction}, {gamma}, {schedule}, 1.0) at t={time}"

    def do() -> Any:
        std = torch.tensor(stds, dtype=torch.float64)
        steering = Steering(std, friction, gamma, schedule, 1.0)
        kernel = steering.kernel(torch.ones(1, dtype=torch.float64))
        law = kernels.stacked(kernels.covariance(kernel, std.square()))
        off = float((law - torch.eye(law.shape[-1], dtype=torch.float64)).abs().max())
        assert off < 1e-6, f"the end law is off by {off:.2g}"
        return steering.rates(torch.tensor([time])), steering.kernel(torch.tensor([time]))

    return Call(text, do)


@st.composite
def potentials(draw: st.DrawFn) -> Call:
    """The pull of a mixture potential is the gradient of its logarithm, and earlier ones are finite."""
    m, k, d = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    blocks = draw(st.sampled_from([1, d]))
    number, width, tau = (
        draw(st.integers(0, 99)),
        draw(st.floats(-3, 2).map(lambda e: 10.0**e)),
        draw(st.floats(0.01, 5)),
    )
    text = f"Potential m={m} k={k} d={d} blocks={blocks} seed={number} width={width!r} tau={tau!r}"

    def do() -> Any:
        stream = torch.Generator().manual_seed(number)
        size = k * d // blocks
        root = torch.randn(m, blocks, size, size, generator=stream, dtype=torch.float64) * width
        linear = torch.randn(m, blocks, size, generator=stream, dtype=torch.float64) * width
        potential = Potential(torch.randn(m, generator=stream, dtype=torch.float64), linear, root @ root.mT)
        one = torch.ones((), dtype=torch.float64)
        step = kernels.momentum(one * tau, one, one, 2.0) if k == 2 else kernels.overdamped(one * tau, one)
        values = []
        for each in (potential, potential.earlier(step)):
            state = torch.randn(4, k, d, generator=stream, dtype=torch.float64).requires_grad_()
            (slope,) = torch.autograd.grad(each.log(state).sum(), state)
            pull = each.pull(state.detach())
            off = float((pull - slope[:, -1]).abs().max() / slope.abs().max().clamp(min=1.0))
            assert off < 1e-6, f"the pull is off by {off:.2g}"
            values += [pull, each.log(state.detach()), each.pull_divergence(state.detach())]
        return values

    return Call(text, do)


ADAPTATION: dict[str, Any] = {
    "rounds": a.count, "begin": st.floats(0, 1), "end": st.floats(0, 1), "eta": st.floats(0.01, 2),
    "alpha": st.floats(0, 1),
    "rule": st.sampled_from(["minimiser", "gradient"]), "policy": st.sampled_from(["duality", "score"]),
    "start": st.sampled_from(["target", "terminal"]), "max_prior_kl": st.sampled_from([None, 1e-3, 1.0]),
    "free": st.sampled_from(["A_x", "A_v"]), "tied": st.booleans(), "interaction": st.floats(-1, 2),
    "pieces": st.integers(1, 4), "paths": a.count, "nodes": a.count,
}  # fmt: skip
VALUES = st.one_of(st.floats(0, 1e6), SHAPE.map(lambda s: torch.ones(s)), a.odd)
SCHEDULE: dict[str, Any] = {"b_min": st.floats(0.01, 5), "b_max": st.floats(0.01, 20), "power": st.floats(0.1, 3)}
CONSTRUCTED = st.one_of(
    a.called("vsmd.BetaSchedule", vsmd.BetaSchedule, SCHEDULE, ("b_min", "b_max"), 2),
    a.called("vsmd.Adaptation", vsmd.Adaptation, ADAPTATION, wrong=2),
    a.called("Moments.given", Moments.given, {"mean": VALUES, "var": VALUES, "shape": SHAPE}, ("mean", "var",
    "shape"), 10**9),
    a.called("time_grid", time_grid, {"steps": a.count, "t_min": a.times, "power": st.floats(0.2, 5)}, ("steps",), 2),
    a.called("as_solver", as_solver, {"solver": a.solver, "rtol": a.rate, "atol": a.rate}, ("solver",), 2),
    a.called("Compute", Compute, {"precision": st.sampled_from(["float32", "bfloat16"]), "accumulate": a.count},
    wrong=2),
    a.called(
        "MixtureFit", couplings.MixtureFit,
        {"components": a.count, "full": st.booleans(), "steps": a.count, "batch_size": a.count,
        "learning_rate": a.rate},
        wrong=2,
    ),
    a.called(
        "networks.build", vsmd.networks.build,
        {"name": st.sampled_from(["mlp", "conditional", "unet"]), "shape": SHAPE, "width": st.integers(1, 16),
         "depth": st.integers(0, 2), "frequencies": st.integers(0, 4)},
        ("name", "shape"), 2,
    ),
)  # fmt: skip
KINDS = {
    "processes": Kind(processes(), 7_500, "forward_process, then laws, priors, KL, coefficients, diagnostics"),
    "semigroups": Kind(semigroups(), 3_000, "kernels of any rates compose"),
    "steering": Kind(steered(), 1_500, "steered laws end in their target"),
    "potentials": Kind(potentials(), 1_500, "mixture potentials: pull is the gradient"),
    "settings": Kind(CONSTRUCTED, 3_000, "schedules, adaptations, moments, grids, solvers, networks"),
}
